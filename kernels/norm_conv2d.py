"""norm_conv2d: a convolution that changes and upsamples what it reads, and takes the statistics of what it writes.

At least, per element: one read and one write of a map, and the filters once; 2 * K * C_in / groups flops for an output,
K the taps that meet an element: ((K_h + f - 1) / f)^2 of a kernel upsampled by f.

The convolution is that of `dynamic_conv2d.py`, with what `_fusion.py` does on the way in and out. A program writes a
patch of outputs of one phase, and leaves its mean and M2; a second launch merges them, patch by patch, always in the
same order. What came in is written by all programs of a sample, each a share of its own.
"""

import torch

from . import _launch, scale_shift
from ._convolution import Convolution, plan
from ._fusion import Entry, Exit
from ._launch import HEURISTICS, Planes, _ceil_div, _power_of_2, given
from ._tile import MERGED, kernel, load, partials, place, plane_sum
from ._triton import tl
from ._window import Window
from .dynamic_conv2d import convolve, empty_output
from .instance_stats import merge_chunks, rstd_of


@kernel
def _merge_kernel(
    counts, pivots, means, m2s, mean, rstd, eps: tl.float64, correction, chunks, channels: tl.int64, size: tl.int64,
    EPS_ON_STD: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Mean and rstd of planes, from those of their patches."""
    sample, channel, _ = place(0, 1, channels, False, TILE)
    BLOCK: tl.constexpr = MERGED // TILE.block_c
    pivot = load(pivots, sample * chunks * channels + channel, channel < channels, "", TILE)
    count = tl.zeros_like(pivot)
    offset = tl.zeros_like(pivot)
    m2 = tl.zeros_like(pivot)
    for first in range(0, chunks, BLOCK):
        piece, address, exists = partials(sample, channel, first, chunks, channels, BLOCK)
        new_counts = load(counts, address, exists, "", TILE)
        # Of patches without a position, and beyond the last, anything finite will do.
        patch_means = load(means, address, exists, "", TILE) + (load(pivots, address, exists, "", TILE) - pivot)
        patch_m2s = load(m2s, address, exists, "", TILE)
        new_count = plane_sum(new_counts)
        offset, m2 = merge_chunks(count, offset, m2, new_counts, tl.maximum(new_count, 1.0), patch_means, patch_m2s)
        count += new_count
    plane = sample * channels + channel
    tl.store(mean + plane, pivot + offset, mask=channel < channels)
    tl.store(rstd + plane, rstd_of(m2, size, eps, correction, EPS_ON_STD, TILE), mask=channel < channels)


# Launchers.


def forward(
    input, weight, bias, mean, scale, shift, residual, activation, slope, input_dilation, stride, padding, dilation,
    groups, padding_mode, output_activation, output_slope, eps, correction, eps_on_std, need_stats, need_entered,
):  # fmt: skip
    planes = Planes.of(input)
    input, residual = planes.dense(input, residual)
    window = Window.of(weight.shape[3:], stride, padding, dilation, padding_mode, input_dilation)
    output = empty_output(planes, input, weight, stride, padding, dilation, input_dilation)
    entered = planes.empty_map(input, need_entered)
    entry = Entry.of(mean, scale, shift, residual, activation)
    maps = 1 + entry.changes.value + (residual is not None)
    convolution = Convolution.of(planes, input, output, weight, window, groups, maps)
    patch, _ = plan(convolution)
    shape = len(output), convolution.patches(patch), output.shape[1]
    parts = [output.new_empty(shape, dtype=planes.wide) if need_stats else None for _ in range(4)]
    convolve(
        convolution, input, weight, output, entry, Exit.of(bias, parts, output_activation), given(entered),
        slope, output_slope,
    )  # fmt: skip
    if need_entered and not output.numel():
        # Nobody was there to write it.
        entered = scale_shift.forward(input, mean, scale, shift, None, residual, activation, slope)
    statistics = [output.new_empty(output.shape[:2] if need_stats else 0, dtype=planes.wide) for _ in range(2)]
    if need_stats:
        _merge(Planes.of(output), parts, *statistics, eps, correction, eps_on_std)
    return output, *statistics, entered


def _merge(planes: Planes, parts, mean, rstd, eps, correction, eps_on_std) -> None:
    if not planes.size:
        # The mean of no numbers is not a number.
        mean.fill_(float("nan")), rstd.fill_(float("nan"))
    if not parts[0].numel():
        return
    # Neighbouring channels, a line of L2.
    block_c = min(128 // mean.element_size(), _power_of_2(planes.channels))
    with torch.cuda.device_of(mean):
        _merge_kernel[(planes.samples * _ceil_div(planes.channels, block_c),)](
            *parts, mean, rstd, eps, correction, parts[0].shape[1], planes.channels, planes.size,
            EPS_ON_STD=eps_on_std, TILE=planes.tile(block_c, 1), num_warps=HEURISTICS.most_threads // _launch._WARP,
        )  # fmt: skip
