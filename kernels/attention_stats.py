"""attention_stats: attention-weighted mean and standard deviation of values, for every query, by online softmax.

At least: query and value read once, key once, mean and std written once; for each pair of a query and a key 2 * C flops
for its score and 4 * D for the two sums. Here scores are found anew for every slice of value channels, and in 16 bits
the second sum is two: 2 * (slices * C + 3 * D) flops.

A program takes a block of queries and a slice of value channels through all keys, a block at a time, with the largest
score so far (Milakov and Gimelshein 2018, arXiv:1805.02867): no score is ever written. What it multiplies is prepared
first. Queries and keys become rows of channels, values what is summed: x, which is a value less the median of a few, or in
16 bits less the mean over positions, and x^2.

In 16 bits all products are tensor cores', of operands that are exact but for the weights:
    x        is the value where the mean is near to zero. Far from it the mean is rounded first, and x is exact, but for
             a value that is further away than half of the mean
    x^2      has twice the digits: it is the sum of two numbers. One alone would lose the deviation of a query that
             attends to few keys, where the mean of x^2 and the mean's square cancel
    weights  are rounded, and then summed: those of an attention that is off by half a digit, in mean and deviation
             alike, so that nothing cancels
In float16 the x of each plane are counted in a power of two, lest squares overflow, and weights are e^10 times larger,
lest small ones vanish.
"""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import _launch, instance_stats
from ._launch import Planes, _ceil_div, _power_of_2
from ._tile import kernel, number
from ._triton import tl, triton


@dataclass(frozen=True)
class Heuristics:
    """What a program takes. Reasoned from an H100 and from what compiles without spills; none is measured on a GPU yet."""

    # By the bytes of a number: queries and keys; channels of values, for one sum, of which two have half; and channels
    # of a key at a time.
    blocks: tuple[tuple[int, tuple[int, int, int, int]], ...] = (
        (2, (64, 32, 256, 64)),
        (4, (64, 16, 128, 16)),
        (8, (32, 16, 32, 16)),
    )
    # Sums of a thread, by the bytes of a number, and of a program at least so many threads.
    sums: tuple[tuple[int, int], ...] = ((2, 64), (4, 32), (8, 16))
    threads: int = 128
    # Fewer programs than this leave multiprocessors idle: blocks of queries become smaller, down to so many.
    busy: int = 128
    queries: int = 32


HEURISTICS = Heuristics()


@dataclass(frozen=True)
class Blocks:
    """What a kernel is compiled for: what a program takes."""

    queries: int
    keys: int
    channels: int  # of values
    step: int  # channels of a key, at a time
    parts: int  # the numbers that stand for a value: x; x and x^2; x and two whose sum is x^2
    channels_last: bool  # the maps that are written
    wide: tl.dtype


# What is summed of values: (N, parts, keys, channels), rows of whole blocks, in which 0 stands for what is not there.


@triton.jit
def _width(blocks_d, BLOCKS: tl.constexpr):
    return blocks_d * BLOCKS.channels


@triton.jit
def _size(blocks_d, blocks_k, BLOCKS: tl.constexpr):
    """Of a part of one sample."""
    return blocks_k * BLOCKS.keys * _width(blocks_d, BLOCKS)


@triton.jit
def _inverse(power):
    """Of a power of two, exact: another exponent."""
    return (0x7F000000 - power.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)


@triton.jit
def _frame(mean, var, size, dtype: tl.constexpr, BLOCKS: tl.constexpr):
    """Where x is 0, and what it is counted in. In more than 16 bits `mean` is the middle of a few values."""
    unit = tl.full(mean.shape, 1.0, BLOCKS.wide)
    if dtype.primitive_bitwidth > 16:
        centre = tl.where(tl.abs(mean) < float("inf"), mean, 0.0)
    else:
        deviation = tl.sqrt(var)
        # NaN is no larger either.
        centre = tl.where(tl.abs(mean) > 4 * deviation, mean.to(dtype).to(tl.float32), 0.0)
        if dtype == tl.float16:
            # No value is further from the mean than the root of the sum of squares.
            largest = tl.abs(mean - centre) + deviation * tl.sqrt(size.to(tl.float32))
            largest = tl.where(largest < float("inf"), tl.maximum(largest, 1e-9), 128.0)
            # The power of two that is 64 to 128 times smaller.
            exponent = (largest.to(tl.int32, bitcast=True) & 0x7F800000) - (6 << 23)
            unit = exponent.to(tl.float32, bitcast=True)
    return centre, unit


@kernel
def _prepare_kernel(
    value, mean, var, parts, centre, unit, channels: tl.int64, keys: tl.int64, blocks_d: tl.int64, blocks_k: tl.int64,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    block_d, block_k = program % blocks_d, program // blocks_d % blocks_k
    sample = program // (blocks_d * blocks_k)
    d = block_d * BLOCKS.channels + tl.arange(0, BLOCKS.channels)[None, :]
    k = block_k * BLOCKS.keys + tl.arange(0, BLOCKS.keys)[:, None]
    plane, exists = sample * channels + d, d < channels
    plane_mean = tl.load(mean + plane, mask=exists, other=0)
    plane_var = tl.load(var + plane, mask=exists, other=0)
    plane_centre, plane_unit = _frame(plane_mean, plane_var, keys, value.dtype.element_ty, BLOCKS)
    if block_k == 0:
        tl.store(centre + plane, plane_centre, mask=exists)
        tl.store(unit + plane, plane_unit, mask=exists)

    if BLOCKS.channels_last:
        address = (sample * keys + k) * channels + d
    else:
        address = plane * keys + k
    exists = exists & (k < keys)
    x = tl.load(value + address, mask=exists, other=0).to(BLOCKS.wide) - plane_centre
    if value.dtype.element_ty == tl.float16:
        x *= _inverse(plane_unit)
    x = tl.where(exists, x, 0.0).to(parts.dtype.element_ty)
    size = _size(blocks_d, blocks_k, BLOCKS)
    parts += sample * BLOCKS.parts * size + k * _width(blocks_d, BLOCKS) + d
    tl.store(parts, x)
    if BLOCKS.parts > 1:
        square = x.to(BLOCKS.wide) * x.to(BLOCKS.wide)
        rounded = square.to(x.dtype)
        tl.store(parts + size, rounded)
        if BLOCKS.parts > 2:
            tl.store(parts + 2 * size, (square - rounded.to(BLOCKS.wide)).to(x.dtype))


# The sums.


@triton.jit
def _scores(query, key, row, BLOCKS: tl.constexpr):
    """Of rows of queries with columns of keys, which point to their first channels."""
    scores = tl.full((BLOCKS.queries, BLOCKS.keys), 0.0, BLOCKS.wide)
    channel = tl.arange(0, BLOCKS.step).to(tl.int64)
    query, key = query + channel[None, :], key + channel[:, None]
    for first in range(0, row, BLOCKS.step):
        # Tensor cores would round float32 to 10 bits.
        x, y = tl.load(query + first), tl.load(key + first)
        scores = tl.dot(x, y, scores, input_precision="ieee", out_dtype=BLOCKS.wide)
    return scores


@triton.jit
def _add(sums, weights, part, BLOCKS: tl.constexpr):
    return tl.dot(weights, tl.load(part), sums, input_precision="ieee", out_dtype=BLOCKS.wide)


@triton.jit
def _quotient(sums, total, BLOCKS: tl.constexpr):
    """To the last digit: what is left of the mean of x^2 less the mean's square may be of a few."""
    return sums / total if BLOCKS.wide == tl.float64 else tl.div_rn(sums, total)


@kernel
def _kernel(
    query, key, parts, centre, unit, mean, std, scale: tl.float64, min_var: tl.float64, min_std: tl.float64,
    queries: tl.int64, keys: tl.int64, channels: tl.int64, steps: tl.int64,
    blocks_q: tl.int64, blocks_d: tl.int64, blocks_k: tl.int64,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    # Neighbours read the same keys and values.
    program = tl.program_id(0)
    block_q, block_d = program % blocks_q, program // blocks_q % blocks_d
    sample = program // (blocks_q * blocks_d)
    q = block_q * BLOCKS.queries + tl.arange(0, BLOCKS.queries)[:, None]
    d = block_d * BLOCKS.channels + tl.arange(0, BLOCKS.channels)[None, :]
    row, width, size = steps * BLOCKS.step, _width(blocks_d, BLOCKS), _size(blocks_d, blocks_k, BLOCKS)
    # What is not there reads the last that is.
    query += (sample * queries + tl.minimum(q, queries - 1)) * row
    key += sample * keys * row
    parts += sample * BLOCKS.parts * size + tl.arange(0, BLOCKS.keys)[:, None] * width + d

    dtype: tl.constexpr = parts.dtype.element_ty
    MORE: tl.constexpr = 10.0 if dtype == tl.float16 else 0.0
    largest = tl.full((BLOCKS.queries, 1), float("-inf"), BLOCKS.wide)
    base, total = tl.zeros_like(largest), tl.zeros_like(largest)
    sums = tl.full((BLOCKS.queries, BLOCKS.channels), 0.0, BLOCKS.wide)
    squares = sums
    for first in range(0, keys, BLOCKS.keys):
        k = first + tl.arange(0, BLOCKS.keys)[None, :]
        scores = _scores(query, key + tl.minimum(k, keys - 1) * row, row, BLOCKS)
        scores = tl.where(k < keys, scores * number(scale, BLOCKS), float("-inf"))
        so_far = largest
        largest = tl.maximum(largest, tl.max(scores, 1, keep_dims=True))
        # Infinities have no difference.
        base = tl.where(tl.abs(largest) < float("inf"), largest, 0.0)
        kept = tl.exp(so_far - base)
        base -= MORE
        weights = tl.exp(scores - base).to(dtype)
        total = total * kept + tl.sum(weights.to(BLOCKS.wide), 1, keep_dims=True)
        part = parts + first * width
        sums = _add(sums * kept, weights, part, BLOCKS)
        if BLOCKS.parts > 1:
            squares = _add(squares * kept, weights, part + size, BLOCKS)
        if BLOCKS.parts > 2:
            squares = _add(squares, weights, part + 2 * size, BLOCKS)

    plane, exists = sample * channels + d, d < channels
    x = _quotient(sums, total, BLOCKS)
    unit = tl.load(unit + plane, mask=exists, other=1)
    centre = tl.load(centre + plane, mask=exists, other=0)
    if BLOCKS.channels_last:
        address = (sample * queries + q) * channels + d
    else:
        address = plane * queries + q
    exists = exists & (q < queries)
    tl.store(mean + address, centre + x * unit, mask=exists)
    if BLOCKS.parts > 1:
        var = (_quotient(squares, total, BLOCKS) - x * x) * unit * unit
        deviation = tl.where(var <= number(min_var, BLOCKS), number(min_std, BLOCKS), tl.sqrt(var))
        tl.store(std + address, deviation, mask=exists)


# Launchers.


def forward(query, key, value, scale, min_var, need_std):
    maps, values = Planes.of(query), Planes.of(value)
    blocks, threads = _plan(maps, values, need_std)
    mean = _empty_map(maps, query, values.channels)
    std = torch.empty_like(mean) if need_std else mean.new_empty(0)
    if not maps.samples * maps.size:
        return mean, std
    (value,) = values.dense(value)
    blocks_d, blocks_k = max(1, _ceil_div(values.channels, blocks.channels)), _ceil_div(values.size, blocks.keys)
    prepared = _prepare(values, value, blocks, blocks_d, blocks_k)
    query, key = (_rows(map, blocks.step) for map in (query, key))
    blocks_q = _ceil_div(maps.size, blocks.queries)
    with torch.cuda.device_of(query):
        _kernel[(maps.samples * blocks_q * blocks_d,)](
            query=query, key=key, **prepared, mean=mean, std=std,
            scale=scale, min_var=min_var, min_std=min_var**0.5,
            queries=maps.size, keys=values.size, channels=values.channels, steps=query.shape[2] // blocks.step,
            blocks_q=blocks_q, blocks_d=blocks_d, blocks_k=blocks_k,
            BLOCKS=blocks, num_warps=threads // _launch._WARP,
        )  # fmt: skip
    return mean, std


@functools.lru_cache(4096)
def _plan(maps: Planes, values: Planes, need_std: bool) -> tuple[Blocks, int]:
    """What a program takes, and its threads."""
    limits = HEURISTICS
    most = dict(limits.blocks)[maps.itemsize]
    sizes = maps.size, values.size, values.channels * (1 + need_std), maps.channels
    queries, keys, sums, step = (max(16, min(most, _power_of_2(size))) for most, size in zip(most, sizes))
    channels = max(16, sums // (1 + need_std))
    slices = maps.samples * _ceil_div(values.channels, channels)
    while queries > limits.queries and slices * _ceil_div(maps.size, queries) < limits.busy:
        queries //= 2
    parts = 1 if not need_std else 3 if maps.itemsize == 2 else 2
    wide = tl.float64 if maps.itemsize == 8 else tl.float32
    threads = queries * channels * (1 + need_std) // dict(limits.sums)[maps.itemsize]
    return Blocks(queries, keys, channels, step, parts, maps.channels_last, wide), max(limits.threads, threads)


def _empty_map(maps: Planes, query: Tensor, channels: int) -> Tensor:
    shape = maps.samples, channels, *query.shape[2:]
    return torch.empty(shape, dtype=maps.wide, device=query.device, memory_format=maps.format)


def _prepare(values: Planes, value: Tensor, blocks: Blocks, blocks_d: int, blocks_k: int) -> dict[str, Tensor]:
    if values.itemsize == 2:
        mean, var = instance_stats.mean_and_variance(value)
    else:
        mean = var = _middle(value)
    shape = values.samples, blocks.parts, blocks_k * blocks.keys, blocks_d * blocks.channels
    prepared = dict(parts=value.new_empty(shape), centre=torch.empty_like(mean), unit=torch.empty_like(mean))
    threads = max(_launch._WARP, min(256, blocks.keys * blocks.channels // 16))
    with torch.cuda.device_of(value):
        _prepare_kernel[(values.samples * blocks_d * blocks_k,)](
            value=value, mean=mean, var=var, **prepared, channels=values.channels, keys=values.size,
            blocks_d=blocks_d, blocks_k=blocks_k,
            BLOCKS=replace(blocks, channels_last=values.channels_last), num_warps=threads // _launch._WARP,
        )  # fmt: skip
    return prepared


def _middle(value: Tensor) -> Tensor:
    """Of each plane the median of five positions, of which 0 takes the place of what is no number: a value that no query
    attends to may be far from all others, and a mean with it.
    """
    planes = value.flatten(2)
    few = torch.stack([planes[:, :, index * (planes.shape[2] - 1) // 4] for index in range(5)], 2)
    return torch.where(few.isfinite(), few, 0.0).sort(2).values[:, :, 2].contiguous()


def _rows(map: Tensor, step: int) -> Tensor:
    """(N, positions, channels), with zeros beside them to whole steps."""
    rows = map.flatten(2).transpose(1, 2)
    missing = -rows.shape[2] % step if rows.shape[2] else step
    return (torch.nn.functional.pad(rows, (0, missing)) if missing else rows).contiguous()
