"""upsample_pad2d against nearest interpolation, then reflection padding: a decoder's way to twice the size.

Learned on an AVX-512 Xeon:
- The bytes of the output are nearly all: a source row is upsampled in L1 once, and stored to each row that it becomes.
- Rows of an odd length begin anywhere. Stores on the boundaries of lines, whose ends overlap, took two thirds of the time
  of stores from where the row begins.
"""

import torch.nn.functional as F


def arguments(make, shape):
    return dict(input=make(*shape), scale_factor=2, padding=[1] * (2 * (len(shape) - 2)))


def eager(input, scale_factor, padding):
    return F.pad(F.interpolate(input, scale_factor=scale_factor, mode="nearest"), padding, mode="reflect")


# Published code has torch's operators, too.
idiom = eager
