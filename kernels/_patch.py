"""What the kernels of a convolution do with a patch: some channels by rows and columns of one sample's map.

A direct patch is (groups, rows, columns) and takes a group's channels one by one; a dense one is (channels, positions)
of one group.
"""

from dataclasses import dataclass

from ._triton import tl, triton


@dataclass(frozen=True)
class Patch:
    """What a kernel is compiled for, beside the window: what a program takes."""

    channels_last: bool
    block_g: int  # groups
    block_o: int  # channels of a group, on the output's side
    block_i: int  # and on the input's; direct kernels take them one by one
    block_h: int
    block_w: int
    unrolled: bool
    vector: int  # the dense side of the written map is a multiple of this
    wide: tl.dtype  # computed in: float64 for float64, float32 for all else


@triton.jit
def place(blocks_g, blocks_o, written, PATCH: tl.constexpr):
    """Sample, group block, channel block, and the patch's first position. Neighbours work on neighbouring memory."""
    program = tl.program_id(0)
    rows, columns = tl.cdiv(written[1], PATCH.block_h), tl.cdiv(written[2], PATCH.block_w)
    blocks = blocks_g * blocks_o
    positions = written[0] * rows * columns
    if PATCH.channels_last:
        block, position, sample = program % blocks, program // blocks % positions, program // (blocks * positions)
    else:
        position, block, sample = program % positions, program // positions % blocks, program // (blocks * positions)
    first = position // (rows * columns), position // columns % rows * PATCH.block_h, position % columns * PATCH.block_w
    return sample.to(tl.int64), block // blocks_o, block % blocks_o, first


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
    """This program's sample, groups, first output of each and first position."""
    blocks_g = tl.cdiv(groups, PATCH.block_g).to(tl.int32)
    sample, g, o, first = place(blocks_g, tl.cdiv(writes, PATCH.block_o), written, PATCH)
    g = g.to(tl.int64) * PATCH.block_g + tl.arange(0, PATCH.block_g)[:, None, None]
    o = o * PATCH.block_o + tl.arange(0, 1)[:, None, None]
    return sample, g, o, first


@triton.jit
def patch_of(first, PATCH: tl.constexpr):
    """The patch's positions, and its last one."""
    d = first[0] + tl.arange(0, 1)[:, None, None]
    h = first[1] + tl.arange(0, PATCH.block_h)[None, :, None]
    w = first[2] + tl.arange(0, PATCH.block_w)[None, None, :]
    return (d, h, w), (first[0], first[1] + PATCH.block_h - 1, first[2] + PATCH.block_w - 1)


@triton.jit
def statistic(numbers, plane, exists, PATCH: tl.constexpr):
    return tl.load(numbers + plane, mask=exists, other=0).to(PATCH.wide)


@triton.jit
def load(map, exists, average, scale, PATCH: tl.constexpr):
    """Normalised, and 0 where there is nothing."""
    x = tl.load(map, mask=exists, other=0).to(PATCH.wide)
    if average is not None:
        x = tl.where(exists, (x - average) * scale, 0.0)
    return x


# Dense.


@triton.jit
def positions_of(first, PATCH: tl.constexpr):
    """The patch's positions as one vector, of length `block_h * block_w`, and its last one."""
    n = tl.arange(0, PATCH.block_h * PATCH.block_w)
    at = first[0] + tl.arange(0, 1), first[1] + n // PATCH.block_w, first[2] + n % PATCH.block_w
    return at, (first[0], first[1] + PATCH.block_h - 1, first[2] + PATCH.block_w - 1)


@triton.jit
def load_normed(map, address, exists, mean, rstd, plane, channel_exists, PATCH: tl.constexpr):
    """In the type of the map: what is normalised is rounded to it, as a norm that stands alone does."""
    x = tl.load(map + address, mask=exists, other=0)
    if mean is not None:
        average = statistic(mean, plane, channel_exists, PATCH)
        scale = statistic(rstd, plane, channel_exists, PATCH)
        x = tl.where(exists, (x.to(PATCH.wide) - average) * scale, 0.0).to(x.dtype)
    return x
