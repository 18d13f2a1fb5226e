"""The gradient of a convolution's filters: a product of two maps for each tap, summed over positions.

Positions are summed in chunks, and the chunks by torch, always in the same order.
"""

import torch
from torch import Tensor

from ._convolution import Convolution, launch, plan_dense_filter, plan_direct_filter
from ._fusion import load, load_rounded, norm_of
from ._launch import _ceil_div
from ._patch import count_patches, direct_block, first_of, patch_of, positions_of, strides
from ._tile import kernel
from ._triton import tl
from ._window import count_pairs, index_of, reads


@kernel
def _direct_filter_kernel(
    grad, map, entry, sums,
    groups: tl.int64, channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """A patch of the output's gradient is held; what each tap read for it is multiplied with it and summed.

    `sums` are (N, patches, groups, writes, channels, taps).
    """
    if PATCH.channels_last:
        groups = groups // PATCH.vector * PATCH.vector
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    TAPS: tl.constexpr = WINDOW.taps
    OUTPUTS: tl.constexpr = PATCH.block_o
    sample, g, o, patch = direct_block(groups, writes, written, PATCH)
    first = first_of(patch, written, PATCH)
    at, last = patch_of(first, PATCH)
    exists = g < groups

    grad_stride, channel_stride, position_stride = strides(groups * writes, written, PATCH)
    grad += sample * grad_stride + index_of(at, written) * position_stride
    there = exists & (at[1] < write_h) & (at[2] < write_w)
    gradients = ()
    for i in tl.static_range(OUTPUTS):
        plane = grad + (g * writes + (o + i)) * channel_stride
        gradients = gradients + (tl.load(plane, mask=there & (o + i < writes), other=0).to(PATCH.wide),)

    sums += (((sample * count_patches(written, PATCH) + patch) * groups + g) * writes + o) * channels * TAPS

    map_stride, channel_stride, position_stride = strides(groups * channels, size, PATCH)
    map += sample * map_stride + g * channels * channel_stride
    pairs = count_pairs(first, last, written, WINDOW)
    for c in range(0, channels):
        norm = norm_of(entry, sample, g * channels + c, exists, PATCH)
        for tap in range(0, TAPS):
            address, met, _ = reads(at, tap, pairs, size, written, WINDOW)
            address = c * channel_stride + address * position_stride
            x = load(map, None, address, exists & met, entry, norm, 0.0, PATCH)
            for i in tl.static_range(OUTPUTS):
                total = tl.sum(tl.sum(gradients[i] * x, 2, keep_dims=True), 1, keep_dims=True)
                place = sums + ((i * channels + c).to(tl.int64) * TAPS + tap)
                tl.store(place, total, mask=exists & (o + i < writes))


@kernel
def _dense_filter_kernel(
    grad, map, entry, sums, groups: tl.int64, chunks, chunk,
    channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """One tap of a block of a group's filters, from `chunk` patches of positions.

    `sums` are (N, chunks, groups, writes, channels, taps).
    """
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    TAPS: tl.constexpr = WINDOW.taps
    blocks_o, blocks_i = tl.cdiv(writes, PATCH.block_o), tl.cdiv(channels, PATCH.block_i)
    program = tl.program_id(0)
    tap = program % TAPS
    c = program // TAPS % blocks_i
    o = program // (TAPS * blocks_i) % blocks_o
    program = program // (TAPS * blocks_i * blocks_o)
    piece = program % chunks
    g = program // chunks % groups
    sample = program // (chunks * groups)
    c = c.to(tl.int64) * PATCH.block_i + tl.arange(0, PATCH.block_i)[None, :]
    o = o.to(tl.int64) * PATCH.block_o + tl.arange(0, PATCH.block_o)[:, None]

    grad_stride, grad_channel_stride, grad_position_stride = strides(groups * writes, written, PATCH)
    map_stride, channel_stride, position_stride = strides(groups * channels, size, PATCH)
    grad += sample * grad_stride + (g * writes + o) * grad_channel_stride
    map += sample * map_stride + (g * channels + c) * channel_stride
    norm = norm_of(entry, sample, g * channels + c, c < channels, PATCH)
    total = tl.full((PATCH.block_o, PATCH.block_i), 0.0, tl.float32)
    for patch in range(piece * chunk, tl.minimum((piece + 1) * chunk, count_patches(written, PATCH))):
        first = first_of(patch, written, PATCH)
        at, last = positions_of(first, PATCH)
        there = (at[1] < write_h) & (at[2] < write_w)
        address = (index_of(at, written) * grad_position_stride)[None, :]
        gradient = tl.load(grad + address, mask=(o < writes) & there[None, :], other=0)
        address, met, _ = reads(at, tap, count_pairs(first, last, written, WINDOW), size, written, WINDOW)
        address = (address * position_stride)[:, None]
        x = load_rounded(map, None, address, (c < channels) & met[:, None], entry, norm, 0.0, PATCH)
        total = tl.dot(gradient.to(x.dtype), x, total, input_precision="ieee")
    place = (((sample * chunks + piece) * groups + g) * writes + o) * channels + c
    tl.store(sums + (place * TAPS + tap), total, mask=(o < writes) & (c < channels))


def filter_gradient(convolution: Convolution, grad, map, weight, entry) -> Tensor:
    """Of what comes in of `map`; in the shape and type of `weight`."""
    if convolution.dense_filter:
        patch, threads, chunk = plan_dense_filter(convolution)
        chunks = _ceil_div(convolution.patches(patch), chunk)
        blocks = convolution.blocks(patch) * _ceil_div(convolution.channels, patch.block_i) * convolution.window.taps
        kernel, pieces = _dense_filter_kernel, dict(chunks=chunks, chunk=chunk)
    else:
        patch, threads = plan_direct_filter(convolution)
        chunks, blocks = convolution.patches(patch), convolution.blocks(patch)
        kernel, pieces = _direct_filter_kernel, {}
    wide = torch.float64 if convolution.itemsize == 8 else torch.float32
    sums = weight.new_empty((convolution.samples, chunks, *weight.shape[1:]), dtype=wide)
    launch(
        kernel, blocks * chunks, convolution, patch, threads,
        grad=grad, map=map, entry=entry, sums=sums, **pieces,
    )  # fmt: skip
    return (sums[:, 0] if chunks == 1 else sums.sum(1)).to(weight.dtype)
