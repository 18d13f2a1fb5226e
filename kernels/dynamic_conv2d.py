"""dynamic_conv2d: a convolution with a filter per sample, of lines, images and volumes.

At least, per element: one read and one write of a map, and the filters once; 2 * K * C_in / groups flops for an output,
K the taps of the kernel. Backward: two reads and one write, twice the flops.

A program writes a patch of one sample, and no program adds to what another one writes. The patch is read tap by tap;
the first tap brings it from memory, the others find it in L1. Where groups have few channels, threads multiply: a read
serves all outputs of the group (direct). Where they have many, tensor cores do (dense), on filters laid out tap by tap.
The gradient of the input is the same gather with the channels' roles exchanged (`_window.py`). That of the filters is a
product of two maps for each tap (`_filter_gradient.py`).
"""

import torch
from torch import Tensor

from ._convolution import Convolution, launch, plan
from ._filter_gradient import filter_gradient
from ._fusion import Entry, Exit, finish, load, load_rounded, norm_of, write_entered, write_statistics
from ._launch import Planes
from ._patch import count_patches, direct_block, first_of, patch_of, place, positions_in, positions_of, strides
from ._tile import kernel
from ._triton import tl, triton
from ._window import Window, count_pairs, first_tap, index_of, reads, split_of, stay_inside, tap_of

# Direct: for each of `block_o` channels of a group, a patch of (groups, rows, columns).


@triton.jit
def _add_pair(
    sums, pair, planes, residuals, filters, entry, norm, slope, first_read, at, pairs, size, written, exists, o, writes,
    written_stride, tap_stride, position_stride, INSIDE: tl.constexpr, WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """Each of the group's outputs takes its share of what a pair reads. Inside the map, that is a fixed step from what
    the first tap reads."""
    if INSIDE:
        split = split_of(pair, pairs)
        tap, there = tap_of(split, WINDOW), exists
        row = tl.full((), 1, tl.int64) * split[0] * WINDOW.dilation[0] * size[1] + split[1] * WINDOW.dilation[1]
        offset = (row * size[2] + split[2] * WINDOW.dilation[2]) * position_stride
        address = first_read - offset if WINDOW.transposed else first_read + offset
    else:
        address, there, tap = reads(at, pair, pairs, size, written, WINDOW)
        address *= position_stride
        there = exists & there
    x = load(planes, residuals, address, there, entry, norm, slope, PATCH)
    OUTPUTS: tl.constexpr = PATCH.block_o
    more = ()
    for i in tl.static_range(OUTPUTS):
        f = filters + (i * written_stride + tap * tap_stride)
        f = tl.load(f, mask=exists & (o + i < writes), other=0).to(PATCH.wide)
        more = more + (sums[i] + f * x,)
    return more


@triton.jit
def _add_pairs(
    sums, planes, residuals, filters, entry, norm, slope, first_read, at, pairs, size, written, exists, o, writes,
    written_stride, tap_stride, position_stride, INSIDE: tl.constexpr, WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    if PATCH.unrolled and (INSIDE or not WINDOW.copies):
        TAPS: tl.constexpr = WINDOW.met[0] * WINDOW.met[1] * WINDOW.met[2]
        for tap in tl.static_range(TAPS):
            sums = _add_pair(
                sums, tap, planes, residuals, filters, entry, norm, slope, first_read, at, pairs, size, written, exists,
                o, writes, written_stride, tap_stride, position_stride, INSIDE, WINDOW, PATCH,
            )  # fmt: skip
    else:
        for pair in range(0, pairs[0] * pairs[1] * pairs[2]):
            sums = _add_pair(
                sums, pair, planes, residuals, filters, entry, norm, slope, first_read, at, pairs, size, written,
                exists, o, writes, written_stride, tap_stride, position_stride, INSIDE, WINDOW, PATCH,
            )  # fmt: skip
    return sums


@kernel
def _direct_kernel(
    map, weight, output, entered, entry, exit, entry_slope: tl.float64, exit_slope: tl.float64,
    sample_stride: tl.int64, group_stride, written_stride: tl.int64, read_stride: tl.int64, tap_stride,
    groups: tl.int64, channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """A group reads `channels` and writes `writes`."""
    # The dense side, written as the multiple that it is, lets Triton access vectors.
    if PATCH.channels_last:
        groups = groups // PATCH.vector * PATCH.vector
    else:
        write_w = write_w // PATCH.vector * PATCH.vector
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    OUTPUTS: tl.constexpr = PATCH.block_o
    sample, g, o, patch = direct_block(groups, writes, written, PATCH)
    first = first_of(patch, written, PATCH)
    at, last = patch_of(first, PATCH)
    exists = g < groups
    if entered is not None:
        write_entered(map, entered, entry, entry_slope, sample, groups, channels, writes, size, written, PATCH)

    map_stride, channel_stride, position_stride = strides(groups * channels, size, PATCH)
    base = sample * map_stride + g * channels * channel_stride
    weight += sample * sample_stride + g * group_stride + o * written_stride + first_tap(first, WINDOW) * tap_stride
    pairs = count_pairs(first, last, written, WINDOW)
    inside = stay_inside(first, last, size, written, pairs, WINDOW)
    first_read, there, _ = reads(at, 0, pairs, size, written, WINDOW)
    first_read *= position_stride

    sums = ()
    for i in tl.static_range(OUTPUTS):
        sums = sums + (tl.full((PATCH.block_g, PATCH.block_h, PATCH.block_w), 0.0, PATCH.wide),)
    for c in range(0, channels):
        norm = norm_of(entry, sample, g * channels + c, exists, PATCH)
        planes = map + (base + tl.cast(c, tl.int64) * channel_stride)
        residuals = entry.residual
        if entry.residual is not None:
            residuals += base + tl.cast(c, tl.int64) * channel_stride
        filters = weight + c * read_stride
        if inside:
            sums = _add_pairs(
                sums, planes, residuals, filters, entry, norm, entry_slope, first_read, at, pairs, size, written,
                exists, o, writes, written_stride, tap_stride, position_stride, True, WINDOW, PATCH,
            )  # fmt: skip
        else:
            sums = _add_pairs(
                sums, planes, residuals, filters, entry, norm, entry_slope, first_read, at, pairs, size, written,
                exists, o, writes, written_stride, tap_stride, position_stride, False, WINDOW, PATCH,
            )  # fmt: skip

    output_stride, channel_stride, position_stride = strides(groups * writes, written, PATCH)
    output += sample * output_stride + index_of(at, written) * position_stride
    there = exists & (at[1] < write_h) & (at[2] < write_w)
    for i in tl.static_range(OUTPUTS):
        channel, is_one = g * writes + (o + i), exists & (o + i < writes)
        y = finish(sums[i], exit, exit_slope, sample, channel, is_one, PATCH)
        tl.store(output + channel * channel_stride, y, mask=there & is_one)
        if exit.counts is not None:
            partial = (sample * count_patches(written, PATCH) + patch) * groups * writes + channel
            write_statistics(y, there, positions_in(first, written, PATCH), exit, partial, is_one, PATCH)


# Dense: outputs of a group by positions, in steps of channels that are read with one tap; where there are few, folded
# with taps into one long row.


@triton.jit
def _count_steps(pairs, channels, PATCH: tl.constexpr):
    count = pairs[0] * pairs[1] * pairs[2]
    return tl.cdiv(count * channels, PATCH.block_i) if PATCH.folded else count * tl.cdiv(channels, PATCH.block_i)


@triton.jit
def _reduced(step, i, pairs, channels, PATCH: tl.constexpr):
    """Pair and channel that are i-th in a step, and whether they exist."""
    if PATCH.folded:
        number = step * PATCH.block_i + i
        pair, c = number // channels, number % channels
        exists = pair < pairs[0] * pairs[1] * pairs[2]
    else:
        blocks = tl.cdiv(channels, PATCH.block_i)
        pair, c = step // blocks, (step % blocks).to(tl.int64) * PATCH.block_i + i
        exists = c < channels
    return pair, c.to(tl.int64), exists


@kernel
def _dense_kernel(
    map, weight, output, entered, entry, exit, entry_slope: tl.float64, exit_slope: tl.float64,
    sample_stride: tl.int64, group_stride: tl.int64, written_stride, read_stride, tap_stride: tl.int64,
    groups: tl.int64, channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    sample, g, o, patch = place(groups.to(tl.int32), tl.cdiv(writes, PATCH.block_o), written, PATCH)
    o = o.to(tl.int64) * PATCH.block_o + tl.arange(0, PATCH.block_o)[:, None]
    first = first_of(patch, written, PATCH)
    at, last = positions_of(first, PATCH)
    if entered is not None:
        write_entered(map, entered, entry, entry_slope, sample, groups, channels, writes, size, written, PATCH)

    map_stride, channel_stride, position_stride = strides(groups * channels, size, PATCH)
    first_plane = sample * map_stride + g * channels * channel_stride
    map += first_plane
    residual = entry.residual
    if entry.residual is not None:
        residual += first_plane
    weight += sample * sample_stride + g * group_stride + o * written_stride + first_tap(first, WINDOW) * tap_stride
    pairs = count_pairs(first, last, written, WINDOW)
    i = tl.arange(0, PATCH.block_i)
    columns = at[0][None, :], at[1][None, :], at[2][None, :]
    sums = tl.full((PATCH.block_o, PATCH.block_h * PATCH.block_w), 0.0, tl.float32)
    for step in range(0, _count_steps(pairs, channels, PATCH)):
        pair, c, exists = _reduced(step, i[:, None], pairs, channels, PATCH)
        address, there, tap = reads(columns, pair, pairs, size, written, WINDOW)
        norm = norm_of(entry, sample, g * channels + c, exists, PATCH)
        address = c * channel_stride + address * position_stride
        x = load_rounded(map, residual, address, exists & there, entry, norm, entry_slope, PATCH)
        pair, c, exists = _reduced(step, i[None, :], pairs, channels, PATCH)
        if PATCH.folded:
            tap = tap_of(split_of(pair, pairs), WINDOW)
        f = tl.load(weight + (tap * tap_stride + c * read_stride), mask=(o < writes) & exists, other=0)
        # Tensor cores would round float32 to 10 bits.
        sums = tl.dot(f.to(x.dtype), x, sums, input_precision="ieee")

    channel, is_one = g * writes + o, o < writes
    y = finish(sums, exit, exit_slope, sample, channel, is_one, PATCH)
    output_stride, channel_stride, position_stride = strides(groups * writes, written, PATCH)
    address = sample * output_stride + channel * channel_stride + (index_of(at, written) * position_stride)[None, :]
    there = is_one & ((at[1] < write_h) & (at[2] < write_w))[None, :]
    tl.store(output + address, y, mask=there)
    if exit.counts is not None:
        partial = (sample * count_patches(written, PATCH) + patch) * groups * writes + channel
        write_statistics(y, there, positions_in(first, written, PATCH), exit, partial, is_one, PATCH)


# Launchers.


def _filters(weight: Tensor, convolution: Convolution, dtype: torch.dtype) -> Tensor:
    """(N, groups, writes, channels, taps), as its kernel reads it; of all samples once, where they share it."""
    if len(weight) > 1 and weight.stride(0) == 0:
        weight = weight[:1]
    out_channels, in_channels = weight.shape[1] // max(1, convolution.groups), weight.shape[2]
    shape = len(weight), convolution.groups, out_channels, in_channels, convolution.window.taps
    filters = weight.reshape(shape).contiguous()
    if convolution.dense:
        # A step takes neighbouring channels of one tap, in the map's type.
        by_tap = filters.permute(0, 4, 1, 2, 3)
        filters = by_tap.to(dtype, memory_format=torch.contiguous_format).permute(0, 2, 3, 4, 1)
    elif convolution.channels_last:
        # A thread takes neighbouring groups of one tap.
        filters = filters.permute(0, 4, 2, 3, 1).contiguous().permute(0, 4, 2, 3, 1)
    return filters.transpose(2, 3) if convolution.window.transposed else filters


def convolve(
    convolution: Convolution, map, weight, output, entry=Entry.of(), exit=Exit.of(), entered=None,
    entry_slope=0.0, exit_slope=0.0,
) -> None:  # fmt: skip
    """Fills `output`; and `entered`, and the statistics that `exit` has room for."""
    filters = _filters(weight, convolution, map.dtype)
    sample_stride, *others = filters.stride()
    others = dict(zip(("group_stride", "written_stride", "read_stride", "tap_stride"), others))
    patch, threads = plan(convolution)
    launch(
        _dense_kernel if convolution.dense else _direct_kernel,
        convolution.blocks(patch) * convolution.patches(patch), convolution, patch, threads,
        map=map, weight=filters, output=output, entered=entered, entry=entry, exit=exit,
        entry_slope=entry_slope, exit_slope=exit_slope,
        sample_stride=sample_stride if len(filters) > 1 else 0, **others,
    )  # fmt: skip


def forward(input, weight, bias, stride, padding, dilation, groups, padding_mode, mean=None, rstd=None):
    """Of the input, or of (input - mean) * rstd."""
    planes = Planes.of(input)
    (input,) = planes.dense(input)
    window = Window.of(weight.shape[3:], stride, padding, dilation, padding_mode)
    output = empty_output(planes, input, weight, stride, padding, dilation)
    convolution = Convolution.of(planes, input, output, weight, window, groups)
    convolve(convolution, input, weight, output, Entry.of(mean, rstd), Exit.of(bias))
    return output


def backward(
    grad, input, weight, stride, padding, dilation, groups, padding_mode, need_input, need_weight, need_bias,
    mean=None, rstd=None,
):  # fmt: skip
    """The first gradient is that of what is convolved: the input, or the normalised one."""
    planes = Planes.of(input)
    grad, input = planes.dense(grad, input)
    window = Window.of(weight.shape[3:], stride, padding, dilation, padding_mode)
    convolution = Convolution.of(planes, input, grad, weight, window, groups)
    grad_input = planes.empty_map(input, need_input)
    if need_input:
        convolve(convolution.reversed, grad, weight, grad_input)
    grad_weight, grad_bias = weight.new_empty(0), grad.new_empty(0, dtype=planes.wide)
    if need_weight:
        grad_weight = filter_gradient(convolution, grad, input, weight, Entry.of(mean, rstd))
    if need_bias:
        grad_bias = grad.sum(tuple(range(2, grad.dim())), dtype=planes.wide)
    return grad_input, grad_weight, grad_bias


def empty_output(planes, input, weight, stride, padding, dilation, input_dilation=(1, 1, 1)):
    size = [
        (length * apart + before + after - step * (width - 1) - 1) // jump + 1
        for length, apart, width, jump, before, after, step in zip(
            input.shape[2:], input_dilation, weight.shape[3:], stride, padding[::2], padding[1::2], dilation
        )
    ]
    shape = len(input), weight.shape[1], *size
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=planes.format)
