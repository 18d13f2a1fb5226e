"""upsample_conv2d against nearest interpolation, reflection padding and a convolution: the layers of a decoder, 3x3.

The shape is of the map that comes in; half as many channels go out, of twice its height and width.
"""

import torch.nn.functional as F

SHAPES = {"": ((1, 512, 32, 32), (1, 256, 64, 64), (1, 128, 128, 128), (1, 64, 256, 256))}


def arguments(make, shape):
    _, c, *sides = shape
    out_channels = max(1, c // 2)
    return dict(input=make(*shape), weight=make(out_channels, c, *[3] * len(sides)), bias=make(out_channels))


def eager(input, weight, bias):
    return F.conv2d(F.pad(F.interpolate(input, scale_factor=2, mode="nearest"), [1] * 4, mode="reflect"), weight, bias)


# Published code has torch's operators, too.
idiom = eager
