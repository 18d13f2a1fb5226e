"""instance_stats: mean and inverse standard deviation of each plane. At least one read; 4 flops an element.

A program takes a chunk of its planes tile by tile. Numbers are taken from a pivot, the plane's first element, so that a
mean far from 0 costs no digits. A tile is gone through twice in registers: for its mean, then for M2, the sum of the
squares about it. Tiles and chunks are merged by Chan's rule (Chan, Golub, LeVeque 1979) in the order in which they lie.
"""

from ._launch import Planes, plan_reduction
from ._tile import MERGED, addresses, kernel, load, number, partials, place, plane_sum
from ._triton import tl, triton


@triton.jit
def pivot_of(input, sample, channel, channels, size, TILE: tl.constexpr):
    exists = channel < tl.where(size > 0, channels, 0)
    if TILE.channels_last:
        address = sample * size * channels + channel
    else:
        address = (sample * channels + channel) * size
    return load(input, address, exists, "", TILE)


@triton.jit
def tile_statistics(x, exists, count):
    mean = plane_sum(tl.where(exists, x, 0.0)) / count
    centred = tl.where(exists, x - mean, 0.0)
    return mean, plane_sum(centred * centred)


@triton.jit
def _merge(count, mean, m2, new_count, new_mean, new_m2):
    """Mean and M2 of two sets together."""
    share = new_count / (count + new_count)
    delta = new_mean - mean
    return mean + delta * share, m2 + new_m2 + delta * delta * count * share


@triton.jit
def merge_chunks(count, mean, m2, counts, new_count, means, m2s):
    """Mean and M2 of a set and of chunks, of `new_count` numbers, together."""
    new_mean = plane_sum(counts * means) / new_count
    delta = means - new_mean
    return _merge(count, mean, m2, new_count, new_mean, plane_sum(m2s + counts * delta * delta))


@triton.jit
def chunk_statistics(input, pivot, sample, channel, start, end, channels, size, TILE: tl.constexpr):
    """Mean, from the pivot, and M2 of positions start to end."""
    mean = tl.zeros_like(pivot)
    m2 = tl.zeros_like(pivot)
    # An empty plane has a tile too: its mean is 0 / 0.
    for tile_start in range(start, tl.maximum(end, start + 1), TILE.block_s):
        address, exists = addresses(sample, channel, tile_start, channels, size, TILE)
        # Who normalises reads it again: L2 is asked to keep it.
        x = load(input, address, exists, "evict_last", TILE) - pivot
        count = tl.minimum(end - tile_start, TILE.block_s).to(TILE.wide)
        tile_mean, tile_m2 = tile_statistics(x, exists, count)
        mean, m2 = _merge((tile_start - start).to(TILE.wide), mean, m2, count, tile_mean, tile_m2)
    return mean, m2


@triton.jit
def merged_statistics(means, m2s, sample, channel, chunks, chunk, channels, size, TILE: tl.constexpr):
    """Mean, from the pivot, and M2 of whole planes, from those of their chunks."""
    BLOCK: tl.constexpr = MERGED // TILE.block_c
    mean = tl.zeros(channel.shape, TILE.wide)
    m2 = tl.zeros(channel.shape, TILE.wide)
    for first in range(0, chunks, BLOCK):
        piece, address, exists = partials(sample, channel, first, chunks, channels, BLOCK)
        counts = tl.where(exists, tl.minimum(size - piece * chunk, chunk), 0).to(TILE.wide)
        count = tl.minimum(size - first * chunk, BLOCK * chunk).to(TILE.wide)
        chunk_means = load(means, address, exists, "", TILE)
        chunk_m2s = load(m2s, address, exists, "", TILE)
        mean, m2 = merge_chunks((first * chunk).to(TILE.wide), mean, m2, counts, count, chunk_means, chunk_m2s)
    return mean, m2


@triton.jit
def rstd_of(m2, size, eps, correction, EPS_ON_STD: tl.constexpr, TILE: tl.constexpr):
    variance = m2 / (size - correction).to(TILE.wide)
    if EPS_ON_STD:
        rstd = 1 / (tl.sqrt(variance) + number(eps, TILE))
    else:
        rstd = tl.rsqrt(variance + number(eps, TILE))
    return rstd


@kernel
def chunk_kernel(
    input, means, m2s,
    first, chunks, chunk: tl.int64, channels: tl.int64, size: tl.int64, TILE: tl.constexpr,
):  # fmt: skip
    """Mean, from the pivot, and M2 of a chunk."""
    sample, channel, piece = place(first, chunks, channels, False, TILE)
    pivot = pivot_of(input, sample, channel, channels, size, TILE)
    start = piece * chunk
    end = tl.minimum(start + chunk, size)
    mean, m2 = chunk_statistics(input, pivot, sample, channel, start, end, channels, size, TILE)
    address = (sample * chunks + piece) * channels + channel
    tl.store(means + address, mean, mask=channel < channels)
    tl.store(m2s + address, m2, mask=channel < channels)


@kernel
def _kernel(
    input, means, m2s, mean, var, rstd, eps: tl.float64, correction,
    first, chunks, chunk: tl.int64, channels: tl.int64, size: tl.int64,
    EPS_ON_STD: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Mean, and variance or rstd, of planes: read, or merged from their chunks."""
    sample, channel, _ = place(first, 1, channels, False, TILE)
    pivot = pivot_of(input, sample, channel, channels, size, TILE)
    if means is None:
        offset, m2 = chunk_statistics(input, pivot, sample, channel, tl.zeros_like(size), size, channels, size, TILE)
    else:
        offset, m2 = merged_statistics(means, m2s, sample, channel, chunks, chunk, channels, size, TILE)
    address = sample * channels + channel
    tl.store(mean + address, pivot + offset, mask=channel < channels)
    if var is not None:
        tl.store(var + address, m2 / size.to(TILE.wide), mask=channel < channels)
    if rstd is not None:
        tl.store(rstd + address, rstd_of(m2, size, eps, correction, EPS_ON_STD, TILE), mask=channel < channels)


def forward(input, eps, correction, eps_on_std):
    planes = Planes.of(input)
    mean, rstd = planes.empty_statistic(input), planes.empty_statistic(input)
    _launch(planes, input, mean, None, rstd, eps, correction, eps_on_std)
    return mean, rstd


def mean_and_variance(input):
    """The variance is the population's: 0 for a plane of one value."""
    planes = Planes.of(input)
    mean, var = planes.empty_statistic(input), planes.empty_statistic(input)
    _launch(planes, input, mean, var, None, 0.0, 0, False)
    return mean, var


def _launch(planes, input, mean, var, rstd, eps, correction, eps_on_std):
    (input,) = planes.dense(input)
    plan = plan_reduction(planes, 1)
    means = m2s = None
    if plan.split:
        means, m2s = plan.empty_partials(input), plan.empty_partials(input)
        plan.launch(chunk_kernel, plan.programs, input, means=means, m2s=m2s)
    plan.launch(
        _kernel, plan.programs[:: plan.chunks], input, means=means, m2s=m2s,
        mean=mean, var=var, rstd=rstd, eps=eps, correction=correction, EPS_ON_STD=eps_on_std,
    )  # fmt: skip
