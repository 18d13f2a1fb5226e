"""What the kernels of a convolution do with a patch: some channels by rows and columns of one sample's map.

A direct patch is (groups, rows, columns) and takes a group's channels one by one; a dense one is (channels, positions)
of one group.
"""

from dataclasses import dataclass

from ._triton import tl, triton
from ._window import Sizes


@dataclass(frozen=True)
class Patch:
    """What a kernel is compiled for, beside the window: what a program takes."""

    channels_last: bool
    block_g: int  # groups
    block_o: int  # channels of a group, on the output's side
    block_i: int  # and on the input's; direct kernels take them one by one
    block_h: int
    block_w: int
    folded: bool  # dense kernels take channels and taps in one row
    unrolled: bool
    vector: int  # the dense side of the written map is a multiple of this
    apart: Sizes  # its positions: those between them are other patches', of other phases
    wide: tl.dtype  # computed in: float64 for float64, float32 for all else


@triton.jit
def _grid(written, PATCH: tl.constexpr):
    """Rows and columns of patches. Those of the phases of one place are neighbours: they read the same."""
    rows = tl.cdiv(written[1], PATCH.block_h * PATCH.apart[1]) * PATCH.apart[1]
    return rows, tl.cdiv(written[2], PATCH.block_w * PATCH.apart[2]) * PATCH.apart[2]


@triton.jit
def first_of(patch, written, PATCH: tl.constexpr):
    """A patch's first position."""
    rows, columns = _grid(written, PATCH)
    row, column = patch // columns % rows, patch % columns
    h = row // PATCH.apart[1] * PATCH.apart[1] * PATCH.block_h + row % PATCH.apart[1]
    w = column // PATCH.apart[2] * PATCH.apart[2] * PATCH.block_w + column % PATCH.apart[2]
    return patch // (rows * columns), h, w


@triton.jit
def _last_of(first, PATCH: tl.constexpr):
    h, w = first[1] + (PATCH.block_h - 1) * PATCH.apart[1], first[2] + (PATCH.block_w - 1) * PATCH.apart[2]
    return first[0], h, w


@triton.jit
def positions_in(first, written, PATCH: tl.constexpr):
    """How many positions of a patch exist."""
    rows = tl.minimum(tl.cdiv(written[1] - first[1], PATCH.apart[1]), PATCH.block_h)
    columns = tl.minimum(tl.cdiv(written[2] - first[2], PATCH.apart[2]), PATCH.block_w)
    return tl.maximum(rows, 0) * tl.maximum(columns, 0)


@triton.jit
def place(blocks_g, blocks_o, written, PATCH: tl.constexpr):
    """This program's sample, group block, channel block and patch. Neighbours work on neighbouring memory."""
    program = tl.program_id(0)
    rows, columns = _grid(written, PATCH)
    blocks = blocks_g * blocks_o
    patches = written[0] * rows * columns
    if PATCH.channels_last:
        block, patch = program % blocks, program // blocks % patches
    else:
        patch, block = program % patches, program // patches % blocks
    sample = (program // (blocks * patches)).to(tl.int64)
    return sample, block // blocks_o, block % blocks_o, patch


@triton.jit
def count_patches(written, PATCH: tl.constexpr):
    rows, columns = _grid(written, PATCH)
    return written[0] * rows * columns


@triton.jit
def strides(channels, size, PATCH: tl.constexpr):
    """Between samples, channels and positions of a map."""
    positions = tl.full((), 1, tl.int64) * size[0] * size[1] * size[2]
    if PATCH.channels_last:
        steps = positions * channels, 1, channels
    else:
        steps = positions * channels, positions, 1
    return steps


# Direct.


@triton.jit
def direct_block(groups, writes, written, PATCH: tl.constexpr):
    """This program's sample, groups, first output of each and patch."""
    blocks_g = tl.cdiv(groups, PATCH.block_g).to(tl.int32)
    sample, g, o, patch = place(blocks_g, tl.cdiv(writes, PATCH.block_o), written, PATCH)
    g = g.to(tl.int64) * PATCH.block_g + tl.arange(0, PATCH.block_g)[:, None, None]
    o = o * PATCH.block_o + tl.arange(0, 1)[:, None, None]
    return sample, g, o, patch


@triton.jit
def patch_of(first, PATCH: tl.constexpr):
    """The patch's positions, and its last one."""
    d = first[0] + tl.arange(0, 1)[:, None, None]
    h = first[1] + PATCH.apart[1] * tl.arange(0, PATCH.block_h)[None, :, None]
    w = first[2] + PATCH.apart[2] * tl.arange(0, PATCH.block_w)[None, None, :]
    return (d, h, w), _last_of(first, PATCH)


# Dense.


@triton.jit
def positions_of(first, PATCH: tl.constexpr):
    """The patch's positions as one vector, of length `block_h * block_w`, and its last one."""
    n = tl.arange(0, PATCH.block_h * PATCH.block_w)
    h, w = first[1] + PATCH.apart[1] * (n // PATCH.block_w), first[2] + PATCH.apart[2] * (n % PATCH.block_w)
    return (first[0] + tl.arange(0, 1), h, w), _last_of(first, PATCH)
