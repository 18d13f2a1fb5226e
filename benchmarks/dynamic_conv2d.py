"""dynamic_conv2d against a loop over samples, and against one convolution of N times as many groups; 3x3, reflected.

Learned on an AVX-512 Xeon:
- Depthwise, a copy of the rows with their padding costs more than the arithmetic: neighbours shifted in registers from
  aligned vectors, four rows of the result at a time, took half the time. Planes of a page each (32x32) end the
  processor's look-ahead; asking for the next plane meanwhile brought 1.3x.
- GCC turns one load that three multiply-adds use into three loads, two of them across lines: `in_register`.
- A lambda that is not inlined sends its tile through memory at every step, 2x on all: `IN_PLACE`.
- Slots a multiple of 4 KB apart share a few sets of L1: an odd number of lines between them, 1.2x on the filters'
  gradient.
- Filters of wide groups: outer products of channels, pixel by pixel, instead of dot products along rows: no sums across
  lanes, 1.2x to 2.5x, and ahead of oneDNN.
- torch.compile of the loop or of the grouped form is never ahead of them in eager (0.2x to 1.0x of their speed).
- Weights in bfloat16 gain nothing by oneDNN here: it took twice as long as float32 arithmetic on widened rows.
"""

from ._filters import KINDS, filters, groups_of, grouped, loop

__all__ = ["KINDS", "SHAPES", "arguments", "eager", "idiom"]

SHAPES = {
    "depthwise": ((4, 512, 32, 32), (4, 256, 64, 64), (8, 64, 128, 128), (1, 512, 32, 32)),
    "grouped": ((4, 512, 32, 32), (4, 256, 64, 64), (8, 64, 128, 128), (1, 512, 32, 32)),
    "dense": ((4, 512, 32, 32), (4, 64, 128, 128), (1, 32, 128, 128)),
}


def arguments(make, shape, kind="depthwise"):
    groups = groups_of(kind, shape[1])
    weight, bias = filters(make, shape, groups)
    return dict(input=make(*shape), weight=weight, bias=bias, padding="same", groups=groups, padding_mode="reflect")


def eager(padding, **arguments):
    return loop(**arguments)


def idiom(padding, **arguments):
    return grouped(**arguments)
