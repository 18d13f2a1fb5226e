"""instance_norm: normalise each plane by its own statistics, scale, shift, add, activate; in one pass.

At least, per element: one read and one write, one read more for each map; 7 flops. Backward: two reads and one write,
one read and one write more for each map.

The forward needs a plane's statistics before it can write, the backward its two sums. Both hold a plane, walk it twice,
or split it (`_launch.py`); the second launch of a split goes through the chunks backwards, since those that the first
read last are still in L2. Statistics are taken as in `instance_stats.py`, and written is what `scale_shift.py` writes.
"""

from ._launch import Planes, given, plan_reduction, plane_arguments
from ._tile import addresses, kernel, load, merged_sums, number, per_plane, place
from ._triton import tl, triton
from .instance_stats import chunk_kernel, chunk_statistics, merged_statistics, pivot_of, rstd_of, tile_statistics
from .scale_shift import pull_back, write_output


@triton.jit
def _coefficients(
    mean, rstd, weight, bias, alpha, weight_stride, bias_stride, sample, channel, channels, TILE: tl.constexpr
):
    """The affine map of (input - mean) that the norm is, and its derivative by rstd."""
    alpha = number(alpha, TILE)
    gain = alpha * per_plane(weight, weight_stride, sample, channel, channels, 1.0, TILE)
    bias = alpha * per_plane(bias, bias_stride, sample, channel, channels, 0.0, TILE)
    return gain * rstd + (1 - alpha), bias + (1 - alpha) * mean, gain


@kernel
def _forward_kernel(
    input, weight, bias, gamma, residual, means, m2s, output, mean_out, rstd_out,
    eps: tl.float64, correction, alpha: tl.float64, slope: tl.float64, weight_stride, bias_stride,
    first, chunks, chunk: tl.int64, channels: tl.int64, size: tl.int64,
    EPS_ON_STD: tl.constexpr, ACTIVATION: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Normalises a chunk. Where planes are split, `means` and `m2s` are those of all chunks."""
    sample, channel, piece = place(first, chunks, channels, means is not None, TILE)
    start = piece * chunk
    end = tl.minimum(start + chunk, size)

    pivot = pivot_of(input, sample, channel, channels, size, TILE)
    if means is not None:
        offset, m2 = merged_statistics(means, m2s, sample, channel, chunks, chunk, channels, size, TILE)
    elif TILE.whole:
        address, exists = addresses(sample, channel, start, channels, size, TILE)
        x = load(input, address, exists, "evict_first", TILE)
        offset, m2 = tile_statistics(x - pivot, exists, size.to(TILE.wide))
    else:
        offset, m2 = chunk_statistics(input, pivot, sample, channel, start, end, channels, size, TILE)
    mean = pivot + offset
    rstd = rstd_of(m2, size, eps, correction, EPS_ON_STD, TILE)
    if piece == 0:
        plane = sample * channels + channel
        tl.store(mean_out + plane, mean, mask=channel < channels)
        tl.store(rstd_out + plane, rstd, mask=channel < channels)

    scale, shift, _ = _coefficients(
        mean, rstd, weight, bias, alpha, weight_stride, bias_stride, sample, channel, channels, TILE
    )
    slope = number(slope, TILE)
    if TILE.whole:
        write_output(x, mean, scale, shift, gamma, residual, output, slope, address, exists, ACTIVATION, TILE)
    else:
        for tile_start in range(start, end, TILE.block_s):
            address, exists = addresses(sample, channel, tile_start, channels, size, TILE)
            x = load(input, address, exists, "evict_first", TILE)
            write_output(x, mean, scale, shift, gamma, residual, output, slope, address, exists, ACTIVATION, TILE)


@triton.jit
def _rstd_slope(rstd, eps, correction, size, EPS_ON_STD: tl.constexpr, TILE: tl.constexpr):
    """d rstd / d x is (x - mean) times this; 0 for a plane without variance, where the root has no derivative."""
    inverse_root = rstd
    if EPS_ON_STD:
        inverse_root = 1 / (1 / rstd - number(eps, TILE))
    slope = -rstd * rstd * inverse_root / (size - correction).to(TILE.wide)
    return tl.where(tl.abs(inverse_root) < float("inf"), slope, 0.0)


@kernel
def _backward_kernel(
    input, grad, mean, rstd, weight, bias, gamma, residual, scale_sums, shift_sums,
    grad_input, grad_weight, grad_bias, grad_gamma, grad_residual,
    eps: tl.float64, correction, alpha: tl.float64, slope: tl.float64, weight_stride, bias_stride,
    first, chunks, chunk: tl.int64, channels: tl.int64, size: tl.int64,
    EPS_ON_STD: tl.constexpr, ACTIVATION: tl.constexpr, PASS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Both passes over a plane; or the first over a chunk, which leaves its sums, or the second, which merges them."""
    sample, channel, piece = place(first, chunks, channels, PASS == "second", TILE)
    start = piece * chunk
    end = tl.minimum(start + chunk, size)
    mean = per_plane(mean, channels, sample, channel, channels, 0.0, TILE)
    rstd = per_plane(rstd, channels, sample, channel, channels, 0.0, TILE)
    scale, shift, gain = _coefficients(
        mean, rstd, weight, bias, alpha, weight_stride, bias_stride, sample, channel, channels, TILE
    )
    slope = number(slope, TILE)

    # The gradients of scale and shift.
    scale_sum = tl.zeros_like(mean)
    shift_sum = tl.zeros_like(mean)
    if PASS == "second":
        scale_sum = merged_sums(scale_sums, sample, channel, chunks, channels, TILE)
        shift_sum = merged_sums(shift_sums, sample, channel, chunks, channels, TILE)
    elif TILE.whole:
        address, exists = addresses(sample, channel, start, channels, size, TILE)
        gradient, centred = pull_back(
            input, grad, mean, scale, shift, gamma, residual, grad_gamma, grad_residual, slope, address, exists,
            ACTIVATION, "evict_first", TILE,
        )  # fmt: skip
        scale_sum = tl.sum(gradient * centred, 1, keep_dims=True)
        shift_sum = tl.sum(gradient, 1, keep_dims=True)
    else:
        for tile_start in range(start, end, TILE.block_s):
            address, exists = addresses(sample, channel, tile_start, channels, size, TILE)
            gradient, centred = pull_back(
                input, grad, mean, scale, shift, gamma, residual, grad_gamma, grad_residual, slope, address, exists,
                ACTIVATION, "evict_last", TILE,
            )  # fmt: skip
            scale_sum += tl.sum(gradient * centred, 1, keep_dims=True)
            shift_sum += tl.sum(gradient, 1, keep_dims=True)

    if PASS == "first":
        partial = (sample * chunks + piece) * channels + channel
        tl.store(scale_sums + partial, scale_sum, mask=channel < channels)
        tl.store(shift_sums + partial, shift_sum, mask=channel < channels)
    else:
        if piece == 0:
            plane = sample * channels + channel
            tl.store(grad_weight + plane, number(alpha, TILE) * rstd * scale_sum, mask=channel < channels)
            tl.store(grad_bias + plane, number(alpha, TILE) * shift_sum, mask=channel < channels)
        # How the statistics depend on the input: mean, by a constant; rstd, by a multiple of input - mean.
        input_scale = gain * scale_sum * _rstd_slope(rstd, eps, correction, size, EPS_ON_STD, TILE)
        input_shift = -gain * rstd * shift_sum / size.to(TILE.wide)
        if TILE.whole:
            tl.store(grad_input + address, gradient * scale + centred * input_scale + input_shift, mask=exists)
        else:
            for tile_start in range(start, end, TILE.block_s):
                address, exists = addresses(sample, channel, tile_start, channels, size, TILE)
                gradient, centred = pull_back(
                    input, grad, mean, scale, shift, gamma, residual, None, None, slope, address, exists,
                    ACTIVATION, "evict_first", TILE,
                )  # fmt: skip
                tl.store(grad_input + address, gradient * scale + centred * input_scale + input_shift, mask=exists)


def forward(input, weight, bias, gamma, residual, eps, correction, eps_on_std, alpha, activation, slope):
    planes = Planes.of(input)
    input, gamma, residual = planes.dense(input, gamma, residual)
    output = planes.empty_map(input)
    mean, rstd = planes.empty_statistic(input), planes.empty_statistic(input)
    plan = plan_reduction(planes, 1 + (gamma is not None) + (residual is not None))
    means = m2s = None
    if plan.split:
        means, m2s = plan.empty_partials(input), plan.empty_partials(input)
    for programs in plan.waves(input):
        if plan.split:
            plan.launch(chunk_kernel, programs, input, means=means, m2s=m2s)
        plan.launch(
            _forward_kernel, programs, input,
            **plane_arguments(weight=weight, bias=bias), gamma=gamma, residual=residual, means=means, m2s=m2s,
            output=output, mean_out=mean, rstd_out=rstd, eps=eps, correction=correction, alpha=alpha, slope=slope,
            EPS_ON_STD=eps_on_std, ACTIVATION=activation,
        )  # fmt: skip
    return output, mean, rstd


def backward(
    grad, input, mean, rstd, weight, bias, gamma, residual, eps, correction, eps_on_std, alpha, activation, slope
):
    planes = Planes.of(input)
    grad, input, gamma, residual = planes.dense(grad, input, gamma, residual if activation else None)
    plan = plan_reduction(planes, 2 + (gamma is not None) + (residual is not None))
    grad_input = planes.empty_map(input)
    grad_weight, grad_bias = planes.empty_statistic(input), planes.empty_statistic(input)
    grad_gamma = planes.empty_map(input, gamma is not None)
    grad_residual = planes.empty_map(input, residual is not None)
    scale_sums = shift_sums = None
    if plan.split:
        scale_sums, shift_sums = plan.empty_partials(input), plan.empty_partials(input)
    for programs in plan.waves(grad, input, gamma, residual):
        for which in ("first", "second") if plan.split else ("both",):
            plan.launch(
                _backward_kernel, programs, input,
                **plane_arguments(weight=weight, bias=bias),
                grad=grad, mean=mean.contiguous(), rstd=rstd.contiguous(), gamma=gamma, residual=residual,
                scale_sums=scale_sums, shift_sums=shift_sums,
                grad_input=grad_input, grad_weight=grad_weight, grad_bias=grad_bias,
                grad_gamma=given(grad_gamma), grad_residual=given(grad_residual),
                eps=eps, correction=correction, alpha=alpha, slope=slope,
                EPS_ON_STD=eps_on_std, ACTIVATION=activation, PASS=which,
            )  # fmt: skip
    return grad_input, grad_weight, grad_bias, grad_gamma, grad_residual
