"""reflection_pad: lines, images or volumes, mirrored at their borders.

    output[n, c, p] = input[n, c, size - 1 - |size - 1 - |p - before||]

It is upsample_pad2d by a factor of 1: no kernel of its own. Its gradient is gathered, so that every run gives the same
bits, on a GPU too.

At least, per element: one read and one write, in either direction; no flops.
"""

from . import upsample_pad2d
from ._operator import Operator, Sample


def reflection_pad(input, padding):
    return upsample_pad2d.upsample_pad2d(input, 1, padding, "reflect")


def reference(input, padding):
    return upsample_pad2d.reference(input, 1, padding, "reflect")


def _samples(make, shape):
    last_first = reversed(shape[2:])
    sides = tuple(min(side, size - 1) for size in last_first for side in (1, 3))
    yield Sample("sides", (make(*shape), sides))
    yield Sample("one for all", (make(*shape), min(2, min(shape[2:]) - 1)))


OPERATOR = Operator(
    "reflection_pad",
    reflection_pad,
    reference,
    _samples,
    kernels=("upsample_pad2d", "upsample_pad2d_backward"),
    maps=2,
    backward_maps=2,
    flops=0,
)
