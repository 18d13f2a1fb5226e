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

from ._convolution import Convolution, launch, plan_dense, plan_direct
from ._filter_gradient import filter_gradient
from ._launch import Planes
from ._patch import direct_block, load, load_normed, patch_of, place, positions_of, statistic, strides
from ._tile import kernel
from ._triton import tl, triton
from ._window import Window, count_pairs, index_of, reads, stay_inside

# Direct: for each of `block_o` channels of a group, a patch of (groups, rows, columns).


@triton.jit
def _add_pair(
    sums, pair, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
    written_stride, tap_stride, position_stride, INSIDE: tl.constexpr, WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """Each of the group's outputs takes its share of what a pair reads. Inside the map, that is a fixed step from what
    the first tap reads."""
    if INSIDE:
        tap, there = pair, exists
        d = pair // (WINDOW.kernel[1] * WINDOW.kernel[2]) * WINDOW.dilation[0]
        h = pair // WINDOW.kernel[2] % WINDOW.kernel[1] * WINDOW.dilation[1]
        w = pair % WINDOW.kernel[2] * WINDOW.dilation[2]
        offset = ((tl.full((), 1, tl.int64) * d * size[1] + h) * size[2] + w) * position_stride
        address = first_tap - offset if WINDOW.transposed else first_tap + offset
    else:
        address, there, tap = reads(at, pair, pairs, size, written, WINDOW)
        address *= position_stride
        there = exists & there
    x = load(planes + address, there, average, scale, PATCH)
    OUTPUTS: tl.constexpr = PATCH.block_o
    more = ()
    for i in tl.static_range(OUTPUTS):
        f = filters + (i * written_stride + tap * tap_stride)
        f = tl.load(f, mask=exists & (o + i < writes), other=0).to(PATCH.wide)
        more = more + (sums[i] + f * x,)
    return more


@triton.jit
def _add_pairs(
    sums, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
    written_stride, tap_stride, position_stride, INSIDE: tl.constexpr, WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    TAPS: tl.constexpr = WINDOW.taps
    if PATCH.unrolled and (INSIDE or not WINDOW.copies):
        for tap in tl.static_range(TAPS):
            sums = _add_pair(
                sums, tap, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
                written_stride, tap_stride, position_stride, INSIDE, WINDOW, PATCH,
            )  # fmt: skip
    else:
        count = TAPS if INSIDE else pairs[0] * pairs[1] * pairs[2]
        for pair in range(0, count):
            sums = _add_pair(
                sums, pair, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
                written_stride, tap_stride, position_stride, INSIDE, WINDOW, PATCH,
            )  # fmt: skip
    return sums


@kernel
def _direct_kernel(
    map, weight, bias, mean, rstd, output,
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
    sample, g, o, first = direct_block(groups, writes, written, PATCH)
    at, last = patch_of(first, PATCH)
    exists = g < groups

    map_stride, channel_stride, position_stride = strides(groups * channels, size, PATCH)
    map += sample * map_stride + g * channels * channel_stride
    weight += sample * sample_stride + g * group_stride + o * written_stride
    pairs = count_pairs(first, last, written, WINDOW)
    inside = stay_inside(first, last, size, written, pairs, WINDOW)
    first_tap, there, _ = reads(at, 0, pairs, size, written, WINDOW)
    first_tap *= position_stride

    sums = ()
    for i in tl.static_range(OUTPUTS):
        sums = sums + (tl.full((PATCH.block_g, PATCH.block_h, PATCH.block_w), 0.0, PATCH.wide),)
    for c in range(0, channels):
        average, scale = mean, rstd
        if mean is not None:
            average = statistic(mean, (sample * groups + g) * channels + c, exists, PATCH)
            scale = statistic(rstd, (sample * groups + g) * channels + c, exists, PATCH)
        planes = map + tl.cast(c, tl.int64) * channel_stride
        filters = weight + c * read_stride
        if inside:
            sums = _add_pairs(
                sums, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
                written_stride, tap_stride, position_stride, True, WINDOW, PATCH,
            )  # fmt: skip
        else:
            sums = _add_pairs(
                sums, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
                written_stride, tap_stride, position_stride, False, WINDOW, PATCH,
            )  # fmt: skip

    output_stride, channel_stride, position_stride = strides(groups * writes, written, PATCH)
    output += sample * output_stride + index_of(at, written) * position_stride
    there = exists & (at[1] < write_h) & (at[2] < write_w)
    for i in tl.static_range(OUTPUTS):
        channel = g * writes + (o + i)
        y = sums[i]
        if bias is not None:
            y += tl.load(bias + (sample * groups * writes + channel), mask=exists & (o + i < writes), other=0)
        tl.store(output + channel * channel_stride, y, mask=there & (o + i < writes))


# Dense: outputs of a group by positions, in steps of channels that are read.


@kernel
def _dense_kernel(
    map, weight, bias, mean, rstd, output,
    sample_stride: tl.int64, group_stride: tl.int64, written_stride, read_stride, tap_stride: tl.int64,
    groups: tl.int64, channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    sample, g, o, first = place(groups.to(tl.int32), tl.cdiv(writes, PATCH.block_o), written, PATCH)
    o = o.to(tl.int64) * PATCH.block_o + tl.arange(0, PATCH.block_o)[:, None]
    at, last = positions_of(first, PATCH)
    map_stride, channel_stride, position_stride = strides(groups * channels, size, PATCH)
    map += sample * map_stride + g * channels * channel_stride
    weight += sample * sample_stride + g * group_stride + o * written_stride

    pairs = count_pairs(first, last, written, WINDOW)
    blocks = tl.cdiv(channels, PATCH.block_i)
    sums = tl.full((PATCH.block_o, PATCH.block_h * PATCH.block_w), 0.0, tl.float32)
    for step in range(0, pairs[0] * pairs[1] * pairs[2] * blocks):
        address, there, tap = reads(at, step // blocks, pairs, size, written, WINDOW)
        c = (step % blocks).to(tl.int64) * PATCH.block_i + tl.arange(0, PATCH.block_i)
        exists = (c < channels)[:, None]
        x = load_normed(
            map, c[:, None] * channel_stride + (address * position_stride)[None, :], exists & there[None, :],
            mean, rstd, (sample * groups + g) * channels + c[:, None], exists, PATCH,
        )  # fmt: skip
        f_exists = (o < writes) & (c < channels)[None, :]
        f = tl.load(weight + (tap * tap_stride + c[None, :] * read_stride), mask=f_exists, other=0)
        # Tensor cores would round float32 to 10 bits.
        sums = tl.dot(f.to(x.dtype), x, sums, input_precision="ieee")

    channel = g * writes + o
    if bias is not None:
        sums += tl.load(bias + (sample * groups * writes + channel), mask=o < writes, other=0).to(tl.float32)
    output_stride, channel_stride, position_stride = strides(groups * writes, written, PATCH)
    address = sample * output_stride + channel * channel_stride + (index_of(at, written) * position_stride)[None, :]
    there = (o < writes) & ((at[1] < write_h) & (at[2] < write_w))[None, :]
    tl.store(output + address, sums, mask=there)


# Launchers.


def _filters(weight: Tensor, convolution: Convolution) -> Tensor:
    """(N, groups, writes, channels, taps), as its kernel reads it; of all samples once, where they share it."""
    if len(weight) > 1 and weight.stride(0) == 0:
        weight = weight[:1]
    out_channels, in_channels = weight.shape[1] // max(1, convolution.groups), weight.shape[2]
    shape = len(weight), convolution.groups, out_channels, in_channels, convolution.window.taps
    filters = weight.reshape(shape).contiguous()
    if convolution.dense:
        # A step takes neighbouring channels of one tap.
        filters = filters.permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1)
    elif convolution.channels_last:
        # A thread takes neighbouring groups of one tap.
        filters = filters.permute(0, 4, 2, 3, 1).contiguous().permute(0, 4, 2, 3, 1)
    return filters.transpose(2, 3) if convolution.window.transposed else filters


def _convolve(convolution: Convolution, map, weight, bias, mean, rstd, output) -> None:
    filters = _filters(weight, convolution)
    sample_stride, *others = filters.stride()
    others = dict(zip(("group_stride", "written_stride", "read_stride", "tap_stride"), others))
    kernel, plan = (_dense_kernel, plan_dense) if convolution.dense else (_direct_kernel, plan_direct)
    patch, threads = plan(convolution)
    launch(
        kernel, convolution.blocks(patch) * convolution.patches(patch), convolution, patch, threads,
        map=map, weight=filters, bias=bias, mean=mean, rstd=rstd, output=output,
        sample_stride=sample_stride if len(filters) > 1 else 0, **others,
    )  # fmt: skip


def forward(input, weight, bias, stride, padding, dilation, groups, padding_mode, mean=None, rstd=None):
    """Of the input, or of (input - mean) * rstd."""
    planes = Planes.of(input)
    (input,) = planes.dense(input)
    window = Window.of(weight.shape[3:], stride, padding, dilation, padding_mode)
    output = _empty_output(planes, input, weight, stride, padding, dilation)
    convolution = Convolution.of(planes, input, output, weight, window, groups)
    bias = None if bias is None else bias.contiguous()
    _convolve(convolution, input, weight, bias, mean, rstd, output)
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
        _convolve(convolution.reversed, grad, weight, None, None, None, grad_input)
    grad_weight, grad_bias = weight.new_empty(0), grad.new_empty(0, dtype=planes.wide)
    if need_weight:
        grad_weight = filter_gradient(convolution, grad, input, weight, mean, rstd)
    if need_bias:
        grad_bias = grad.sum(tuple(range(2, grad.dim())), dtype=planes.wide)
    return grad_input, grad_weight, grad_bias


def _empty_output(planes, input, weight, stride, padding, dilation):
    size = [
        (length + before + after - step * (width - 1) - 1) // jump + 1
        for length, width, jump, before, after, step in zip(
            input.shape[2:], weight.shape[3:], stride, padding[::2], padding[1::2], dilation
        )
    ]
    shape = len(input), weight.shape[1], *size
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=planes.format)
