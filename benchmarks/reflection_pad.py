"""reflection_pad against torch's, by a pixel on each side: what stands before every 3x3 convolution of these networks."""

import torch.nn.functional as F


def arguments(make, shape):
    return dict(input=make(*shape), padding=[1] * (2 * (len(shape) - 2)))


def eager(input, padding):
    return F.pad(input, padding, mode="reflect")


# Published code has torch's operator, too.
idiom = eager
