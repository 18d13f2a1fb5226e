"""layer_instance_norm: the normalisations of a plane and of its sample, blended.

At least, per element: two reads and one write, one read more for a residual; 7 flops. Backward: four reads and one
write, two reads and one write more for a residual under an activation.

The map goes through `instance_stats.py` for the statistics of its planes and through `scale_shift.py` for all the rest.
Between them one program for each sample turns numbers per plane into others:

    deviation = mean - layer's mean,  layer_var = average of var + deviation^2 over the planes
    scale = weight * (rho * rstd + (1 - rho) * layer_rstd)
    shift = weight * (1 - rho) * layer_rstd * deviation + bias

It goes through its channels tile by tile: for the layer's mean, for its variance, and to write; backward also for the
gradients of these two.
"""

from . import instance_stats, scale_shift
from ._launch import Planes, launch_samples, plane_arguments
from ._tile import kernel, number, per_plane
from ._triton import tl, triton


@triton.jit
def _rstd(var, count, eps, correction, TILE: tl.constexpr):
    """Of `count` elements; and the factor by which the correction raises their variance."""
    unbiased = count.to(TILE.wide) / (count - correction).to(TILE.wide)
    return tl.rsqrt(var * unbiased + number(eps, TILE)), unbiased


@triton.jit
def _channels(start, TILE: tl.constexpr):
    return start + tl.arange(0, TILE.block_c)[:, None]


@triton.jit
def _own(numbers, sample, channel, channels, TILE: tl.constexpr):
    """A number of each plane, (N, C)."""
    return per_plane(numbers, channels, sample, channel, channels, 0.0, TILE)


@triton.jit
def _deviation(mean, first, offset, sample, channel, channels, TILE: tl.constexpr):
    """The plane's mean from the layer's, first + offset. Means far from zero cancel before anything is summed."""
    return _own(mean, sample, channel, channels, TILE) - first - offset


@triton.jit
def _layer(mean, var, sample, eps, correction, channels, size, TILE: tl.constexpr):
    """The layer's mean, as that of the first plane and an offset from it; then what `_rstd` returns of it."""
    first = _own(mean, sample, tl.zeros((1, 1), tl.int32), channels, TILE)
    sums = tl.full((TILE.block_c, 1), 0.0, TILE.wide)
    for start in range(0, channels, TILE.block_c):
        channel = _channels(start, TILE)
        plane_mean = _own(mean, sample, channel, channels, TILE)
        sums += tl.where(channel < channels, plane_mean - first, 0.0)
    offset = tl.sum(sums, 0, keep_dims=True) / channels.to(TILE.wide)

    sums = tl.full((TILE.block_c, 1), 0.0, TILE.wide)
    for start in range(0, channels, TILE.block_c):
        channel = _channels(start, TILE)
        plane_var = _own(var, sample, channel, channels, TILE)
        deviation = _deviation(mean, first, offset, sample, channel, channels, TILE)
        sums += tl.where(channel < channels, plane_var + deviation * deviation, 0.0)
    layer_var = tl.sum(sums, 0, keep_dims=True) / channels.to(TILE.wide)
    rstd, unbiased = _rstd(layer_var, channels * size, eps, correction, TILE)
    return first, offset, rstd, unbiased


@kernel
def _forward_kernel(
    mean, var, rho, weight, bias, scale, shift,
    eps: tl.float64, correction, rho_stride, weight_stride, bias_stride,
    channels: tl.int64, size: tl.int64, TILE: tl.constexpr,
):  # fmt: skip
    """The affine map of (input - mean) that the norm is."""
    sample = tl.program_id(0).to(tl.int64)
    first, offset, layer_rstd, _ = _layer(mean, var, sample, eps, correction, channels, size, TILE)
    for start in range(0, channels, TILE.block_c):
        channel = _channels(start, TILE)
        deviation = _deviation(mean, first, offset, sample, channel, channels, TILE)
        plane_var = _own(var, sample, channel, channels, TILE)
        rstd, _ = _rstd(plane_var, size, eps, correction, TILE)
        share = per_plane(rho, rho_stride, sample, channel, channels, 0.0, TILE)
        gain = per_plane(weight, weight_stride, sample, channel, channels, 1.0, TILE)
        lift = per_plane(bias, bias_stride, sample, channel, channels, 0.0, TILE)
        layer_gain = (1 - share) * layer_rstd
        plane = sample * channels + channel
        tl.store(scale + plane, gain * (share * rstd + layer_gain), mask=channel < channels)
        tl.store(shift + plane, gain * layer_gain * deviation + lift, mask=channel < channels)


@triton.jit
def _grad_var(grad_rstd, rstd, unbiased):
    # In this order a small sum cancels a large rstd before its cube overflows.
    return grad_rstd * rstd * rstd * rstd * unbiased * -0.5


@kernel
def _backward_kernel(
    mean, var, rho, weight, scale_sums, shift_sums, scale, input_scale, input_shift, grad_rho, grad_weight,
    eps: tl.float64, correction, rho_stride, weight_stride,
    channels: tl.int64, size: tl.int64, TILE: tl.constexpr,
):  # fmt: skip
    """From the sums, the gradients of scale and shift: those of rho and weight, and how the statistics carry them on to
    the input, an affine map of (input - mean) as well."""
    sample = tl.program_id(0).to(tl.int64)
    first, offset, layer_rstd, layer_unbiased = _layer(mean, var, sample, eps, correction, channels, size, TILE)

    # For the gradients of the layer's rstd and, but for a factor of -layer_rstd, of its mean.
    rstd_sums = tl.full((TILE.block_c, 1), 0.0, TILE.wide)
    mean_sums = tl.full((TILE.block_c, 1), 0.0, TILE.wide)
    for start in range(0, channels, TILE.block_c):
        channel = _channels(start, TILE)
        deviation = _deviation(mean, first, offset, sample, channel, channels, TILE)
        share = per_plane(rho, rho_stride, sample, channel, channels, 0.0, TILE)
        gain = per_plane(weight, weight_stride, sample, channel, channels, 1.0, TILE)
        scale_sum = _own(scale_sums, sample, channel, channels, TILE)
        shift_sum = _own(shift_sums, sample, channel, channels, TILE)
        rstd_sums += gain * (1 - share) * (scale_sum + shift_sum * deviation)
        mean_sums += gain * (1 - share) * shift_sum
    planes = channels.to(TILE.wide)
    mean_average = tl.sum(mean_sums, 0, keep_dims=True) / planes
    # With respect to the variance of one plane, of which the layer's has a share.
    grad_layer_var = _grad_var(tl.sum(rstd_sums, 0, keep_dims=True), layer_rstd, layer_unbiased) / planes

    for start in range(0, channels, TILE.block_c):
        channel = _channels(start, TILE)
        deviation = _deviation(mean, first, offset, sample, channel, channels, TILE)
        plane_var = _own(var, sample, channel, channels, TILE)
        rstd, unbiased = _rstd(plane_var, size, eps, correction, TILE)
        share = per_plane(rho, rho_stride, sample, channel, channels, 0.0, TILE)
        gain = per_plane(weight, weight_stride, sample, channel, channels, 1.0, TILE)
        scale_sum = _own(scale_sums, sample, channel, channels, TILE)
        shift_sum = _own(shift_sums, sample, channel, channels, TILE)

        # The gradient's sums with either norm.
        instance_sum = scale_sum * rstd
        layer_sum = (scale_sum + shift_sum * deviation) * layer_rstd
        blended = share * rstd + (1 - share) * layer_rstd
        grad_var = _grad_var(gain * share * scale_sum, rstd, unbiased) + grad_layer_var
        grad_mean = layer_rstd * (gain * (1 - share) * shift_sum - mean_average) + 2 * deviation * grad_layer_var

        plane = sample * channels + channel
        exists = channel < channels
        count = size.to(TILE.wide)
        tl.store(grad_rho + plane, gain * (instance_sum - layer_sum), mask=exists)
        tl.store(grad_weight + plane, share * instance_sum + (1 - share) * layer_sum, mask=exists)
        tl.store(scale + plane, gain * blended, mask=exists)
        tl.store(input_scale + plane, 2 * grad_var / count, mask=exists)
        tl.store(input_shift + plane, (grad_mean - gain * blended * shift_sum) / count, mask=exists)


def forward(input, rho, weight, bias, residual, eps, correction, activation, slope):
    planes = Planes.of(input)
    input, residual = planes.dense(input, residual)
    mean, var = instance_stats.mean_and_variance(input)
    scale, shift = _affine_map(planes, mean, var, rho, weight, bias, eps, correction)
    return scale_shift.forward(input, mean, scale, shift, None, residual, activation, slope), mean, var


def _affine_map(planes, mean, var, rho, weight, bias, eps, correction):
    scale, shift = planes.empty_statistic(mean), planes.empty_statistic(mean)
    launch_samples(
        _forward_kernel, planes, mean, **plane_arguments(rho=rho, weight=weight, bias=bias),
        var=var, scale=scale, shift=shift, eps=eps, correction=correction,
    )  # fmt: skip
    return scale, shift


def backward(grad, input, mean, var, rho, weight, bias, residual, eps, correction, activation, slope):
    planes = Planes.of(input)
    grad, input, residual = planes.dense(grad, input, residual if activation else None)
    mean, var = mean.contiguous(), var.contiguous()
    scale = shift = None
    # Without an activation the sums need no output, and so no blend.
    if activation:
        scale, shift = _affine_map(planes, mean, var, rho, weight, bias, eps, correction)
    _, scale_sums, shift_sums, *_ = scale_shift.backward(
        grad, input, mean, scale, shift, None, residual, None, None, activation, slope, False, True, need_maps=False
    )
    scale, input_scale, input_shift, grad_rho, grad_weight = (planes.empty_statistic(mean) for _ in range(5))
    launch_samples(
        _backward_kernel, planes, mean, **plane_arguments(rho=rho, weight=weight),
        var=var, scale_sums=scale_sums, shift_sums=shift_sums, scale=scale,
        input_scale=input_scale, input_shift=input_shift, grad_rho=grad_rho, grad_weight=grad_weight,
        eps=eps, correction=correction,
    )  # fmt: skip
    grad_input, *_, grad_residual = scale_shift.backward(
        grad, input, mean, scale, shift, None, residual, input_scale, input_shift, activation, slope, True, False
    )
    return grad_input, grad_rho, grad_weight, shift_sums, grad_residual
