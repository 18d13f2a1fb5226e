"""upsample_pad2d against nearest interpolation, then reflection padding: a decoder's way to twice the size.

Learned on an AVX-512 Xeon:
- The bytes of the output are nearly all: a source row is upsampled in L1 once, and stored to each row that it becomes.
- Short rows that go past the caches are the worst: 512 planes of 64x64 take 2.8 ms in NCHW, 1.7 in channels_last (one
  core). Each row ends amid a line. Putting rows together in L1 first, or asking for source rows ahead, gained nothing.
"""

import torch.nn.functional as F


def arguments(make, shape):
    return dict(input=make(*shape), scale_factor=2, padding=[1] * (2 * (len(shape) - 2)))


def eager(input, scale_factor, padding):
    return F.pad(F.interpolate(input, scale_factor=scale_factor, mode="nearest"), padding, mode="reflect")


# Published code has torch's operators, too.
idiom = eager
