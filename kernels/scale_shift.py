"""scale_shift: an affine map per plane, one per pixel, a residual and an activation, in one pass.

At least, per element: one read and one write, one read more for each map; 3 flops, 2 more for each map. Backward: two
reads and one write, one read and one write more for each map.

A program reads a tile of every map, computes, and writes it. Backward, it adds up the sums of its planes on the way;
where these are split, torch adds those of the chunks.
"""

import torch

from ._launch import Planes, given, plan_map, plan_reduction, plane_arguments
from ._tile import addresses, kernel, load, number, per_plane, place
from ._triton import tl, triton
from .activation import activate, derivative


@triton.jit
def write_output(
    x, mean, scale, shift, gamma, residual, output, slope, address, exists,
    ACTIVATION: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    y = (x - mean) * scale + shift
    if gamma is not None:
        y *= 1 + load(gamma, address, exists, "evict_first", TILE)
    if residual is not None:
        y += load(residual, address, exists, "evict_first", TILE)
    tl.store(output + address, activate(y, slope, ACTIVATION), mask=exists)


@triton.jit
def pull_back(
    input, grad, mean, scale, shift, gamma, residual, grad_gamma, grad_residual, slope, address, exists,
    ACTIVATION: tl.constexpr, EVICT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The gradient of the affine map's output, 0 outside the planes, and input - mean.

    The gradients of gamma and residual are complete here, and are written.
    """
    centred = load(input, address, exists, EVICT, TILE) - mean
    affine = centred * scale + shift
    y = affine
    if gamma is not None:
        gain = 1 + load(gamma, address, exists, EVICT, TILE)
        y *= gain
    if residual is not None:
        y += load(residual, address, exists, EVICT, TILE)
    gradient = load(grad, address, exists, EVICT, TILE) * derivative(y, slope, ACTIVATION)
    if grad_residual is not None:
        tl.store(grad_residual + address, gradient, mask=exists)
    if grad_gamma is not None:
        tl.store(grad_gamma + address, gradient * affine, mask=exists)
    if gamma is not None:
        gradient *= gain
    return gradient, centred


@kernel
def _forward_kernel(
    input, mean, scale, shift, gamma, residual, output, slope: tl.float64, mean_stride, scale_stride, shift_stride,
    first, chunks, chunk: tl.int64, channels: tl.int64, size: tl.int64,
    ACTIVATION: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    sample, channel, piece = place(first, chunks, channels, False, TILE)
    mean = per_plane(mean, mean_stride, sample, channel, channels, 0.0, TILE)
    scale = per_plane(scale, scale_stride, sample, channel, channels, 1.0, TILE)
    shift = per_plane(shift, shift_stride, sample, channel, channels, 0.0, TILE)
    address, exists = addresses(sample, channel, piece * chunk, channels, size, TILE)
    x = load(input, address, exists, "evict_first", TILE)
    slope = number(slope, TILE)
    write_output(x, mean, scale, shift, gamma, residual, output, slope, address, exists, ACTIVATION, TILE)


@kernel
def _backward_kernel(
    input, grad, mean, scale, shift, gamma, residual, input_scale, input_shift,
    grad_input, scale_sums, shift_sums, grad_gamma, grad_residual, slope: tl.float64,
    mean_stride, scale_stride, shift_stride, input_scale_stride, input_shift_stride,
    first, chunks, chunk: tl.int64, channels: tl.int64, size: tl.int64,
    ACTIVATION: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The sums are those of a chunk."""
    sample, channel, piece = place(first, chunks, channels, False, TILE)
    mean = per_plane(mean, mean_stride, sample, channel, channels, 0.0, TILE)
    scale = per_plane(scale, scale_stride, sample, channel, channels, 1.0, TILE)
    shift = per_plane(shift, shift_stride, sample, channel, channels, 0.0, TILE)
    input_gain = per_plane(input_scale, input_scale_stride, sample, channel, channels, 0.0, TILE)
    input_shift = per_plane(input_shift, input_shift_stride, sample, channel, channels, 0.0, TILE)
    slope = number(slope, TILE)
    scale_sum = tl.zeros_like(mean)
    shift_sum = tl.zeros_like(mean)
    start = piece * chunk
    for tile_start in range(start, tl.minimum(start + chunk, size), TILE.block_s):
        address, exists = addresses(sample, channel, tile_start, channels, size, TILE)
        gradient, centred = pull_back(
            input, grad, mean, scale, shift, gamma, residual, grad_gamma, grad_residual, slope, address, exists,
            ACTIVATION, "evict_first", TILE,
        )  # fmt: skip
        if scale_sums is not None:
            scale_sum += tl.sum(gradient * centred, 1, keep_dims=True)
            shift_sum += tl.sum(gradient, 1, keep_dims=True)
        if grad_input is not None:
            gradient = gradient * scale + input_shift
            # 0 times an infinite input would be NaN.
            if input_scale is not None:
                gradient += centred * input_gain
            tl.store(grad_input + address, gradient, mask=exists)
    if scale_sums is not None:
        partial = (sample * chunks + piece) * channels + channel
        tl.store(scale_sums + partial, scale_sum, mask=channel < channels)
        tl.store(shift_sums + partial, shift_sum, mask=channel < channels)


def forward(input, mean, scale, shift, gamma, residual, activation, slope):
    planes = Planes.of(input)
    input, gamma, residual = planes.dense(input, gamma, residual)
    output = planes.empty_map(input)
    plan = plan_map(planes)
    plan.launch(
        _forward_kernel, plan.programs, input,
        **plane_arguments(mean=mean, scale=scale, shift=shift),
        gamma=gamma, residual=residual, output=output, slope=slope, ACTIVATION=activation,
    )  # fmt: skip
    return output


def backward(
    grad, input, mean, scale, shift, gamma, residual, input_scale, input_shift, activation, slope,
    need_input, need_sums, need_maps=True,
):  # fmt: skip
    """Who comes here twice, for sums and then for the input, needs the gradients of gamma and residual only once."""
    planes = Planes.of(input)
    grad, input, gamma, residual = planes.dense(grad, input, gamma, residual if activation else None)
    grad_input = planes.empty_map(input, need_input)
    grad_scale, grad_shift = planes.empty_statistic(input, need_sums), planes.empty_statistic(input, need_sums)
    grad_gamma = planes.empty_map(input, need_maps and gamma is not None)
    grad_residual = planes.empty_map(input, need_maps and residual is not None)
    plan = plan_reduction(planes, 2 + (gamma is not None) + (residual is not None))
    merged = plan.split and need_sums
    scale_sums, shift_sums = (plan.empty_partials(input) if merged else total for total in (grad_scale, grad_shift))
    plan.launch(
        _backward_kernel, plan.programs, input,
        **plane_arguments(mean=mean, scale=scale, shift=shift, input_scale=input_scale, input_shift=input_shift),
        grad=grad, gamma=gamma, residual=residual, grad_input=given(grad_input),
        scale_sums=given(scale_sums), shift_sums=given(shift_sums),
        grad_gamma=given(grad_gamma), grad_residual=given(grad_residual), slope=slope, ACTIVATION=activation,
    )  # fmt: skip
    if merged:
        torch.sum(scale_sums, 1, out=grad_scale)
        torch.sum(shift_sums, 1, out=grad_shift)
    return grad_input, grad_scale, grad_shift, grad_gamma, grad_residual
