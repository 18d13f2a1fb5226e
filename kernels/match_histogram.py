"""match_histogram: each plane of a map, changed monotonically until its numbers are distributed as a target's.

At least: both maps read once, one written. By bins each map is read three times and the input once more: for the least and
the largest number, for the counts, and to be mapped. Sorting is torch's radix sort; what follows reads sorted numbers and
their places once, and writes the map.

    by bins      programs take a chunk of a plane each. Extents of chunks are merged by torch; counts by atomic additions of
                 integers, which have no order. Then each number looks its level up, in a table of the target's counts
    by sorting   sums of the sorted target, in float64, up to each number. Then each number of the input looks for the first
                 and the last that are equal to it, and takes the difference of sums over the interval of its ranks: whole
                 targets from the table, the parts at both ends by themselves

Maps in channels_last are transposed by torch first, for a sort goes along planes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import _launch
from ._launch import Planes, _ceil_div, _power_of_2
from ._tile import kernel
from ._triton import tl, triton


@dataclass(frozen=True)
class Heuristics:
    """What a program takes. Reasoned, and compiled without spills; none is measured on a GPU yet."""

    numbers: int = 2048
    threads: int = 256
    # Counts that a program holds in shared memory. More are added to those in memory number by number.
    held_bins: int = 2048


HEURISTICS = Heuristics()
INFINITY = tl.constexpr(float("inf"))
# As the definition has it: a level that is a whole number, whose last places are lost.
ALMOST = tl.constexpr(1 - 2.0**-49)


@triton.jit
def _double(x):
    """By way of float32: the interpreter knows no other one from bfloat16."""
    return x if x.dtype == tl.float64 else x.to(tl.float32).to(tl.float64)


@triton.jit
def _rounded(x, dtype: tl.constexpr):
    return x if dtype == tl.float64 else x.to(tl.float32).to(dtype)


@triton.jit
def _chunk(chunks, size, BLOCK: tl.constexpr):
    """The plane and the positions of this program, and which of them exist."""
    program = tl.program_id(0).to(tl.int64)
    position = program % chunks * BLOCK + tl.arange(0, BLOCK)
    return program // chunks, position, position < size


@triton.jit
def _taken(numbers, mask, mask_stride, plane, channels, size, position, exists):
    """Numbers in float64, and which of them take part: those that are numbers, of positions that count."""
    x = _double(tl.load(numbers + plane * size + position, mask=exists, other=float("nan")))
    taken = x == x
    if mask is not None:
        taken &= tl.load(mask + plane // channels * mask_stride + position, mask=exists, other=0) != 0
    return x, taken


# By bins.


@kernel
def _extent_kernel(
    numbers, mask, low, high, mask_stride: tl.int64, channels: tl.int64, size: tl.int64, chunks: tl.int64,
    BLOCK: tl.constexpr,
):  # fmt: skip
    plane, position, exists = _chunk(chunks, size, BLOCK)
    x, taken = _taken(numbers, mask, mask_stride, plane, channels, size, position, exists)
    finite = taken & (tl.abs(x) < INFINITY)
    program = tl.program_id(0)
    tl.store(low + program, tl.min(tl.where(finite, x, INFINITY), 0))
    tl.store(high + program, tl.max(tl.where(finite, x, -INFINITY), 0))


@triton.jit
def _bin(x, low, high, bins):
    """A number, no further out than the extent; its position, counted in bins; and its bin."""
    x = tl.minimum(tl.maximum(x, low), high)
    width = tl.where(high > low, high - low, 1.0)
    position = (x - low) / width * bins.to(tl.float64)
    return x, position, tl.minimum(position.to(tl.int64), bins - 1)


@kernel
def _count_kernel(
    numbers, mask, low, high, counts, sums, mask_stride: tl.int64, channels: tl.int64, size: tl.int64, chunks: tl.int64,
    bins: tl.int64, HELD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane, position, exists = _chunk(chunks, size, BLOCK)
    x, taken = _taken(numbers, mask, mask_stride, plane, channels, size, position, exists)
    x, _, bin = _bin(tl.where(taken, x, 0.0), tl.load(low + plane), tl.load(high + plane), bins)
    counts += plane * bins
    if HELD:
        # What takes no part is counted behind the last.
        found = tl.histogram(tl.where(taken, bin, bins).to(tl.int32), HELD)
        bin = tl.arange(0, HELD).to(tl.int64)
        tl.atomic_add(counts + bin, found, mask=(bin < bins) & (found > 0))
    else:
        tl.atomic_add(counts + bin, 1, mask=taken)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(taken, x, 0.0), 0))


@kernel
def _map_kernel(
    numbers, mask, output, low, high, below, upto, target_low, target_high, target_mean, target_upto,
    mask_stride: tl.int64, channels: tl.int64, size: tl.int64, chunks: tl.int64, bins: tl.int64, target_planes: tl.int64,
    STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane, position, exists = _chunk(chunks, size, BLOCK)
    x, taken = _taken(numbers, mask, mask_stride, plane, channels, size, position, exists)
    plane_low, plane_high = tl.load(low + plane), tl.load(high + plane)
    _, at, bin = _bin(tl.where(taken, x, 0.0), plane_low, plane_high, bins)
    below += plane * bins
    upto += plane * bins
    total = tl.load(upto + bins - 1)
    target = plane % target_planes
    target_upto += target * bins
    target_total = tl.load(target_upto + bins - 1)
    first = tl.load(below + bin)
    level = (first + (tl.load(upto + bin) - first) * (at - bin)) * target_total / tl.maximum(total, 1.0)

    # The first bin that reaches the level.
    found, end = tl.zeros((BLOCK,), tl.int64), tl.zeros((BLOCK,), tl.int64) + (bins - 1)
    for _ in range(STEPS):
        middle = (found + end) // 2
        beyond = tl.load(target_upto + middle) < level * ALMOST
        found, end = tl.where(beyond & (found < end), middle + 1, found), tl.where(beyond, end, middle)
    reached = tl.load(target_upto + found)
    begun = tl.load(target_upto + (found - 1), mask=found > 0, other=0)
    inside = found + (level - begun) / tl.maximum(reached - begun, 1.0)
    start = tl.load(target_low + target)
    matched = start + inside / bins.to(tl.float64) * (tl.load(target_high + target) - start)
    matched = tl.where(plane_low < plane_high, matched, tl.load(target_mean + target))
    x = tl.where(taken, tl.where(target_total > 0, matched, x), x)
    tl.store(output + plane * size + position, _rounded(x, output.dtype.element_ty), mask=exists)


# By sorting.


@kernel
def _sums_kernel(numbers, sums, size: tl.int64, BLOCK: tl.constexpr):
    """Of the finite ones before each number of a plane."""
    plane = tl.program_id(0).to(tl.int64)
    before = tl.zeros((1,), tl.float64)
    for first in range(0, size, BLOCK):
        position = first + tl.arange(0, BLOCK)
        x = _double(tl.load(numbers + plane * size + position, mask=position < size, other=0))
        x = tl.where(tl.abs(x) < INFINITY, x, 0.0)
        tl.store(sums + plane * size + position, before + tl.cumsum(x, 0) - x, mask=position < size)
        before += tl.sum(x, 0)


@triton.jit
def _first(numbers, x, count, BEYOND: tl.constexpr, STEPS: tl.constexpr):
    """The first place of sorted numbers that is not below x; or beyond x."""
    found, end = tl.zeros(x.shape, tl.int64), tl.zeros(x.shape, tl.int64) + count
    for _ in range(STEPS):
        middle = (found + end) // 2
        other = _double(tl.load(numbers + middle, mask=middle < end, other=0))
        before = (other <= x) if BEYOND else (other < x)
        before &= middle < end
        found, end = tl.where(before, middle + 1, found), tl.where(before, end, middle)
    return found


@kernel
def _average_kernel(
    numbers, order, input, count, targets, sums, target_count, output,
    size: tl.int64, chunks: tl.int64, target_size: tl.int64, target_planes: tl.int64,
    STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane, rank, exists = _chunk(chunks, size, BLOCK)
    target = plane % target_planes
    n, m = tl.load(count + plane), tl.load(target_count + target)
    numbers += plane * size
    targets += target * target_size
    sums += target * target_size
    matched = rank < tl.where(m > 0, n, 0)
    x = _double(tl.load(numbers + rank, mask=matched, other=0))
    # In units of 1 / (n m), of which a target has n.
    begin = _first(numbers, x, n, False, STEPS) * m
    end = tl.maximum(_first(numbers, x, n, True, STEPS) * m, begin + 1)
    n = tl.maximum(n, 1)
    first, last = begin // n, (end - 1) // n
    y = _double(tl.load(targets + first, mask=matched, other=0))
    z = _double(tl.load(targets + last, mask=matched, other=0))
    units = (end - begin).to(tl.float64)
    before = tl.minimum(end, (first + 1) * n) - begin
    behind = tl.where(last > first, end - last * n, 0)
    whole = tl.load(sums + last, mask=matched, other=0) - tl.load(sums + first, mask=matched, other=0)
    # Less the first one itself; where there is none between, exactly none.
    whole = tl.where(last > first + 1, whole - tl.where(tl.abs(y) < INFINITY, y, 0.0), 0.0)
    average = y * (before.to(tl.float64) / units) + whole * (n.to(tl.float64) / units)
    average += tl.where(last > first, z, 0.0) * (behind.to(tl.float64) / units)
    place = tl.load(order + plane * size + rank, mask=exists, other=0)
    kept = tl.load(input + plane * size + place, mask=exists, other=0)
    average = tl.where(matched, _rounded(average, kept.dtype), kept)
    tl.store(output + plane * size + place, average, mask=exists)


# Launchers.


def forward(input, target, input_mask, target_mask, bins):
    maps = Planes.of(input)
    output = torch.empty_like(input, memory_format=maps.format)
    if output.numel() == 0:
        return output
    x, y = (map.contiguous().flatten(0, 1).flatten(1) for map in (input, target))
    masks = [None if mask is None else mask.contiguous().flatten(1) for mask in (input_mask, target_mask)]
    matched = x.new_empty(x.shape) if maps.channels_last else output.flatten(0, 1).flatten(1)
    with torch.cuda.device_of(input):
        (_by_bins if bins else _by_sorting)(x, y, *masks, maps.channels, bins, matched)
    return output.copy_(matched.view(input.shape)) if maps.channels_last else output


@dataclass(frozen=True)
class _Chunks:
    """How the programs of a launch share planes."""

    block: int
    each: int  # of a plane
    programs: int

    @classmethod
    def of(cls, planes: Tensor) -> "_Chunks":
        count, size = planes.shape
        block = min(HEURISTICS.numbers, max(16, _power_of_2(size)))
        each = _ceil_div(size, block)
        return cls(block, each, count * each)


def _mask_stride(mask: Tensor | None) -> int:
    """0 for a mask that all samples share."""
    return 0 if mask is None or mask.shape[0] == 1 else mask.shape[1]


def _by_bins(x, y, input_mask, target_mask, channels, bins, matched):
    low, high, upto, _ = _histogram(x, input_mask, channels, bins)
    target_low, target_high, target_upto, sums = _histogram(y, target_mask, channels, bins)
    chunks = _Chunks.of(x)
    _map_kernel[(chunks.programs,)](
        numbers=x, mask=input_mask, output=matched, low=low, high=high,
        below=torch.nn.functional.pad(upto[:, :-1], (1, 0)), upto=upto,
        target_low=target_low, target_high=target_high, target_mean=sums / target_upto[:, -1].clamp(min=1),
        target_upto=target_upto, mask_stride=_mask_stride(input_mask), channels=channels, size=x.shape[1],
        chunks=chunks.each, bins=bins, target_planes=y.shape[0],
        STEPS=(bins - 1).bit_length(), BLOCK=chunks.block, num_warps=_warps(),
    )  # fmt: skip


def _histogram(planes, mask, channels, bins):
    """Of each plane the least and the largest number that is finite, or 0; numbers up to each bin's end; and their sum."""
    chunks = _Chunks.of(planes)
    low, high, sums = planes.new_empty((3, planes.shape[0], chunks.each), dtype=torch.float64)
    counts = planes.new_zeros((planes.shape[0], bins), dtype=torch.int32)
    shape = dict(
        numbers=planes, mask=mask, mask_stride=_mask_stride(mask), channels=channels, size=planes.shape[1],
        chunks=chunks.each, BLOCK=chunks.block, num_warps=_warps(),
    )  # fmt: skip
    _extent_kernel[(chunks.programs,)](low=low, high=high, **shape)
    low, high = low.amin(1), high.amax(1)
    low, high = (torch.where(low > high, 0.0, end) for end in (low, high))
    held = _power_of_2(bins + 1) if bins < HEURISTICS.held_bins else 0
    _count_kernel[(chunks.programs,)](low=low, high=high, counts=counts, sums=sums, bins=bins, HELD=held, **shape)
    # Integers, whose sums have no order.
    return low, high, counts.cumsum(1).double(), sums.sum(1)


def _by_sorting(x, y, input_mask, target_mask, channels, bins, matched):
    numbers, order, count = _sorted(x, input_mask, channels)
    targets, _, target_count = _sorted(y, target_mask, channels)
    sums = targets.new_empty(targets.shape, dtype=torch.float64)
    block = _Chunks.of(y).block
    _sums_kernel[(y.shape[0],)](numbers=targets, sums=sums, size=y.shape[1], BLOCK=block, num_warps=_warps())
    chunks = _Chunks.of(x)
    _average_kernel[(chunks.programs,)](
        numbers=numbers, order=order, input=x, count=count, targets=targets, sums=sums, target_count=target_count,
        output=matched, size=x.shape[1], chunks=chunks.each, target_size=y.shape[1], target_planes=y.shape[0],
        STEPS=x.shape[1].bit_length(), BLOCK=chunks.block, num_warps=_warps(),
    )  # fmt: skip


def _sorted(planes, mask, channels):
    """Those that take part, in order, and where they lie; how many they are. Behind them NaN."""
    if mask is not None:
        taken = mask.unsqueeze(1).expand(-1, channels, -1).flatten(0, 1)
        taken = taken if taken.shape[0] == planes.shape[0] else taken.repeat(planes.shape[0] // channels, 1)
        planes = torch.where(taken, planes, float("nan"))
    numbers, order = planes.sort(dim=1, stable=True)
    return numbers, order, (numbers == numbers).sum(1)


def _warps() -> int:
    return HEURISTICS.threads // _launch._WARP
