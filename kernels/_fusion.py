"""What a convolution does to numbers on their way in, and on their way out.

In: what is left of a norm, an affine map per plane; a residual; an activation. A border is one of what comes in, so
zeros stay zeros. Out: a bias, an activation, and the statistics of what a program writes, merged in `norm_conv2d.py`.
"""

from typing import NamedTuple

from torch import Tensor

from ._launch import plane_arguments
from ._patch import count_patches
from ._tile import number, plane_sum
from ._triton import tl, triton
from .activation import NONE, activate
from .instance_stats import tile_statistics


class Entry(NamedTuple):
    """activation((map - mean) * scale + shift + residual), of which a kernel computes what is there."""

    mean: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    residual: Tensor | None
    mean_stride: int
    scale_stride: int
    shift_stride: int
    activation: tl.constexpr
    changes: tl.constexpr  # whether any is there

    @classmethod
    def of(cls, mean=None, scale=None, shift=None, residual=None, activation=NONE.value) -> "Entry":
        """mean, scale and shift are (C,), (1, C) or (N, C); the residual is as dense as the map."""
        parameters = plane_arguments(mean=mean, scale=scale, shift=shift)
        changes = activation != NONE.value or any(value is not None for value in (mean, scale, shift, residual))
        return cls(**parameters, residual=residual, activation=tl.constexpr(activation), changes=tl.constexpr(changes))


class Exit(NamedTuple):
    """activation(output + bias); where there is room, of each patch its count, a pivot, the mean from there, and M2."""

    bias: Tensor | None
    counts: Tensor | None
    pivots: Tensor | None
    means: Tensor | None
    m2s: Tensor | None
    bias_stride: int
    activation: tl.constexpr

    @classmethod
    def of(cls, bias=None, partials=(None, None, None, None), activation=NONE.value) -> "Exit":
        """The bias is (C,), (1, C) or (N, C); partials are (N, patches, C)."""
        bias, bias_stride = plane_arguments(bias=bias).values()
        return cls(bias, *partials, bias_stride, tl.constexpr(activation))


# In.


@triton.jit
def _parameter(numbers, stride, sample, channel, exists, default: tl.constexpr, PATCH: tl.constexpr):
    if numbers is None:
        value = tl.full((), default, PATCH.wide)
    else:
        value = tl.load(numbers + (sample * stride + channel), mask=exists, other=0).to(PATCH.wide)
    return value


@triton.jit
def norm_of(entry, sample, channel, exists, PATCH: tl.constexpr):
    """Mean, scale and shift of these planes."""
    mean = _parameter(entry.mean, entry.mean_stride, sample, channel, exists, 0.0, PATCH)
    scale = _parameter(entry.scale, entry.scale_stride, sample, channel, exists, 1.0, PATCH)
    return mean, scale, _parameter(entry.shift, entry.shift_stride, sample, channel, exists, 0.0, PATCH)


@triton.jit
def load(map, residual, address, exists, entry, norm, slope, PATCH: tl.constexpr):
    """What comes in, and 0 where there is nothing."""
    x = tl.load(map + address, mask=exists, other=0).to(PATCH.wide)
    if entry.mean is not None:
        x -= norm[0]
    if entry.scale is not None:
        x *= norm[1]
    if entry.shift is not None:
        x += norm[2]
    if entry.residual is not None:
        x += tl.load(residual + address, mask=exists, other=0).to(PATCH.wide)
    if entry.changes:
        x = tl.where(exists, activate(x, number(slope, PATCH), entry.activation), 0.0)
    return x


@triton.jit
def load_rounded(map, residual, address, exists, entry, norm, slope, PATCH: tl.constexpr):
    """In the type of the map: what changes is rounded to it, as by a layer that stands alone."""
    if entry.changes:
        x = load(map, residual, address, exists, entry, norm, slope, PATCH).to(map.dtype.element_ty)
    else:
        x = tl.load(map + address, mask=exists, other=0)
    return x


# Numbers that a program writes of what came in at a time: eight for each of 128 threads.
_ENTERED = tl.constexpr(1024)


@triton.jit
def write_entered(
    map, entered, entry, slope, sample, groups, channels, writes, size, written, PATCH: tl.constexpr
):
    """This program's share of all that comes in of its sample: a stretch of memory, which the others bring to L2."""
    blocks = tl.cdiv(groups, PATCH.block_g) * tl.cdiv(writes, PATCH.block_o)
    programs = blocks * count_patches(written, PATCH)
    positions = tl.full((), 1, tl.int64) * size[0] * size[1] * size[2]
    channels = groups * channels
    numbers = channels * positions
    share = tl.cdiv(numbers, programs * _ENTERED) * _ENTERED
    start = tl.program_id(0) % programs * share
    for first in range(start, tl.minimum(start + share, numbers), _ENTERED):
        n = first + tl.arange(0, _ENTERED)[None, :]
        exists = n < numbers
        channel = n % channels if PATCH.channels_last else n // positions
        norm = norm_of(entry, sample, channel, exists, PATCH)
        x = load(map, entry.residual, sample * numbers + n, exists, entry, norm, slope, PATCH)
        tl.store(entered + (sample * numbers + n), x, mask=exists)


# Out.


@triton.jit
def finish(sums, exit, slope, sample, channel, exists, PATCH: tl.constexpr):
    """Biased and activated."""
    if exit.bias is not None:
        sums += tl.load(exit.bias + (sample * exit.bias_stride + channel), mask=exists, other=0).to(PATCH.wide)
    return activate(sums, number(slope, PATCH), exit.activation)


@triton.jit
def write_statistics(y, there, count, exit, partial, exists, PATCH: tl.constexpr):
    """Of the `count` numbers of each plane that are `there`. The pivot is near to their mean, so that one far from 0
    costs no digits."""
    count = count.to(PATCH.wide)
    # A phase of a small map may have no position.
    divisor = tl.maximum(count, 1.0)
    pivot = plane_sum(tl.where(there, y, 0.0)) / divisor
    mean, m2 = tile_statistics(y - pivot, there, divisor)
    tl.store(exit.counts + partial, tl.zeros_like(pivot) + count, mask=exists)
    tl.store(exit.pivots + partial, pivot, mask=exists)
    tl.store(exit.means + partial, mean, mask=exists)
    tl.store(exit.m2s + partial, m2, mask=exists)
