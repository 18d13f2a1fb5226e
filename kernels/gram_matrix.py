"""gram_matrix: products of all pairs of a sample's channels, summed over positions; centred, the covariance.

At least: one read of the map, and C * C flops for each position, those of one half. Here the blocks of pairs on the diagonal
are whole, and the map is read once for each block of a row of pairs; centred once more, for the means.

A program takes a block of pairs, of channels i by channels j that are no later ones, through a chunk of the positions, and
what it finds is written on both sides. Where blocks are few, positions are split into chunks, whose sums a second kernel
adds in their order. Chunks are not long either: tensor cores may cut off digits of what they add.

What is multiplied are deviations from a centre, which is the mean where threads multiply, in float32 and float64. In 16 bits
products are tensor cores', of exact operands: the centre is zero where the mean is near to it, and else the mean rounded,
from which deviations are exact but for those larger than half of the mean. What is left of the means is taken off the sums:

    sum of (x - mean) (y - mean')
        =  sum of (x - centre) (y - centre')  -  positions * (mean - centre) (mean' - centre')

which loses four bits of float32 at most. The backward is a pointwise convolution (`fastnorm/ops/gram_matrix.py`).
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _launch, instance_stats
from ._launch import Planes, _ceil_div, _power_of_2
from ._tile import kernel
from ._triton import tl, triton


@dataclass(frozen=True)
class Heuristics:
    """What a program takes. Reasoned from an H100 and from what compiles without spills; none is measured on a GPU yet."""

    # By the bytes of a number: channels on both sides, positions at a time, and threads.
    blocks: tuple[tuple[int, tuple[int, int, int]], ...] = (
        (2, (128, 32, 256)),
        (4, (64, 16, 256)),
        (8, (32, 16, 128)),
    )
    # Fewer programs than this leave multiprocessors idle. A chunk is long enough to be worth a program, and so short that
    # what tensor cores may cut off, a last place for each sixteen positions, leaves 16 bits.
    busy: int = 256
    chunk: int = 512
    longest: int = 4096
    # Sums of a block that a program adds up.
    merged: int = 2048


HEURISTICS = Heuristics()


@dataclass(frozen=True)
class Blocks:
    """What a kernel is compiled for: what a program takes."""

    channels: int
    positions: int
    rows: int  # of a block's sums, that a program adds up
    whole: bool  # a chunk is all of the positions
    channels_last: bool
    centred: bool
    dtype: tl.dtype
    wide: tl.dtype


@triton.jit
def _block_of(block):
    """Row and column of a block of pairs, where those before it fill the rows above: its column is no later than its row."""
    row = ((tl.sqrt(8.0 * block + 1.0) - 1.0) * 0.5).to(tl.int32)
    # The root is rounded.
    row -= (row * (row + 1) // 2 > block).to(tl.int32)
    row += ((row + 1) * (row + 2) // 2 <= block).to(tl.int32)
    return row, block - row * (row + 1) // 2


@triton.jit
def _centre(mean, var, size, plane, exists, BLOCKS: tl.constexpr):
    """Of planes: where deviations are 0, what they are counted in, and how far the mean is from there."""
    average = tl.load(mean + plane, mask=exists, other=0)
    unit = tl.full(average.shape, 1.0, BLOCKS.wide)
    if BLOCKS.dtype.primitive_bitwidth > 16:
        centre, left = average, tl.zeros_like(average)
    else:
        deviation = tl.sqrt(tl.load(var + plane, mask=exists, other=0))
        # NaN is no larger either.
        centre = tl.where(tl.abs(average) > 4 * deviation, average.to(BLOCKS.dtype).to(BLOCKS.wide), 0.0)
        left = tl.where(tl.abs(average) < float("inf"), average - centre, float("nan"))
        if BLOCKS.dtype == tl.float16:
            # No value is further from the mean than the root of the sum of squares: of those that float16 has no more
            # than twice its largest.
            furthest = tl.abs(left) + deviation * tl.sqrt(size.to(tl.float32))
            unit = tl.where((centre != 0) & (furthest > 65504.0), 2.0, 1.0)
    return centre, unit, left


@triton.jit
def _load(input, mean, var, sample, c, position, channels, size, BLOCKS: tl.constexpr):
    """Deviations, in the map's type."""
    if BLOCKS.channels_last:
        address = (sample * size + position) * channels + c
    else:
        address = (sample * channels + c) * size + position
    exists = (c < channels) & (position < size)
    x = tl.load(input + address, mask=exists, other=0)
    if BLOCKS.centred:
        centre, unit, _ = _centre(mean, var, size, sample * channels + c, c < channels, BLOCKS)
        deviation = x.to(BLOCKS.wide) - centre
        if BLOCKS.dtype == tl.float16:
            deviation /= unit
        x = tl.where(exists, deviation, 0.0).to(BLOCKS.dtype)
    return x


@triton.jit
def _store(gram, mean, var, sums, sample, i, j, channels, size, BLOCKS: tl.constexpr):
    """Sums of deviations become those of the matrix, and are written on both sides: the same number."""
    if BLOCKS.centred:
        _, unit_i, left_i = _centre(mean, var, size, sample * channels + i, i < channels, BLOCKS)
        _, unit_j, left_j = _centre(mean, var, size, sample * channels + j, j < channels, BLOCKS)
        sums = sums * unit_i * unit_j - size.to(BLOCKS.wide) * left_i * left_j
    exists = (i < channels) & (j <= i)
    gram += sample * channels * channels
    tl.store(gram + (i * channels + j), sums, mask=exists)
    tl.store(gram + (j * channels + i), sums, mask=exists)


@kernel
def _kernel(
    input, mean, var, gram, sums, channels: tl.int64, size: tl.int64, chunk: tl.int64, blocks, chunks,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """A chunk of a block of pairs. `sums` are (N, blocks, chunks, channels, channels)."""
    # Neighbours read the same positions.
    program = tl.program_id(0)
    block, piece = program % blocks, program // blocks % chunks
    sample = (program // (blocks * chunks)).to(tl.int64)
    row, column = _block_of(block)
    c = tl.arange(0, BLOCKS.channels)
    i, j = row.to(tl.int64) * BLOCKS.channels + c[:, None], column.to(tl.int64) * BLOCKS.channels + c[None, :]
    total = tl.full((BLOCKS.channels, BLOCKS.channels), 0.0, BLOCKS.wide)
    for start in range(piece * chunk, tl.minimum((piece + 1) * chunk, size), BLOCKS.positions):
        position = start + tl.arange(0, BLOCKS.positions)
        x = _load(input, mean, var, sample, i, position[None, :], channels, size, BLOCKS)
        y = _load(input, mean, var, sample, j, position[:, None], channels, size, BLOCKS)
        # Tensor cores would round float32 to 10 bits.
        total = tl.dot(x, y, total, input_precision="ieee", out_dtype=BLOCKS.wide)
    if BLOCKS.whole:
        _store(gram, mean, var, total, sample, i, j, channels, size, BLOCKS)
    else:
        place = (sample * blocks + block) * chunks + piece
        SIZE: tl.constexpr = BLOCKS.channels * BLOCKS.channels
        tl.store(sums + (place * SIZE + c[:, None] * BLOCKS.channels + c[None, :]), total)


@kernel
def _merge_kernel(
    mean, var, gram, sums, channels: tl.int64, size: tl.int64, blocks, chunks,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Some rows of a block of pairs, from all chunks."""
    PARTS: tl.constexpr = BLOCKS.channels // BLOCKS.rows
    program = tl.program_id(0)
    part, block = program % PARTS, program // PARTS % blocks
    sample = (program // (PARTS * blocks)).to(tl.int64)
    row, column = _block_of(block)
    r, c = part * BLOCKS.rows + tl.arange(0, BLOCKS.rows)[:, None], tl.arange(0, BLOCKS.channels)[None, :]
    SIZE: tl.constexpr = BLOCKS.channels * BLOCKS.channels
    place = (sample * blocks + block) * chunks * SIZE + r * BLOCKS.channels + c
    total = tl.full((BLOCKS.rows, BLOCKS.channels), 0.0, BLOCKS.wide)
    for _ in range(0, chunks):
        total += tl.load(sums + place)
        place += SIZE
    i, j = row.to(tl.int64) * BLOCKS.channels + r, column.to(tl.int64) * BLOCKS.channels + c
    _store(gram, mean, var, total, sample, i, j, channels, size, BLOCKS)


# Launchers.


def forward(input, centred):
    planes = Planes.of(input)
    gram = input.new_empty((planes.samples, planes.channels, planes.channels), dtype=planes.wide)
    (input,) = planes.dense(input)
    mean = var = planes.empty_statistic(input, False)
    if centred:
        mean, var = instance_stats.mean_and_variance(input)
    if not gram.numel():
        return gram, mean
    plan = _plan(planes, centred, input.dtype)
    with torch.cuda.device_of(input):
        _launch_blocks(plan, input, mean, var, gram)
    return gram, mean


@dataclass(frozen=True)
class Plan:
    planes: Planes
    blocks: Blocks
    chunk: int
    threads: int

    @property
    def count(self) -> int:
        """Blocks of pairs."""
        rows = _ceil_div(self.planes.channels, self.blocks.channels)
        return rows * (rows + 1) // 2

    @property
    def chunks(self) -> int:
        return max(1, _ceil_div(self.planes.size, self.chunk))


@functools.lru_cache(4096)
def _plan(planes: Planes, centred: bool, dtype: torch.dtype) -> Plan:
    limits = HEURISTICS
    most, positions, threads = dict(limits.blocks)[planes.itemsize]
    channels = max(16, min(most, _power_of_2(planes.channels)))
    rows = _ceil_div(planes.channels, channels)
    programs = planes.samples * (rows * (rows + 1) // 2)
    chunk = min(limits.longest, max(limits.chunk, _ceil_div(planes.size, _ceil_div(limits.busy, programs))))
    chunk = _ceil_div(chunk, positions) * positions
    wide = tl.float64 if planes.itemsize == 8 else tl.float32
    blocks = Blocks(
        channels, positions, min(channels, max(1, limits.merged // channels)), chunk >= planes.size,
        planes.channels_last, centred, getattr(tl, str(dtype).partition(".")[2]), wide,
    )  # fmt: skip
    return Plan(planes, blocks, chunk, max(64, threads * channels**2 // most**2))


def _launch_blocks(plan: Plan, input: Tensor, mean: Tensor, var: Tensor, gram: Tensor) -> None:
    planes, blocks = plan.planes, plan.blocks
    programs = planes.samples * plan.count
    sums = gram.new_empty(0 if blocks.whole else (programs, plan.chunks, blocks.channels, blocks.channels))
    arguments = dict(
        mean=mean, var=var, gram=gram, sums=sums, channels=planes.channels, size=planes.size, blocks=plan.count,
        chunks=plan.chunks, BLOCKS=blocks, num_warps=plan.threads // _launch._WARP,
    )  # fmt: skip
    _kernel[(programs * plan.chunks,)](input=input, chunk=plan.chunk, **arguments)
    if not blocks.whole:
        _merge_kernel[(programs * (blocks.channels // blocks.rows),)](**arguments)
