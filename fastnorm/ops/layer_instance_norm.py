"""layer_instance_norm: a blend of instance and layer normalisation, learned per channel.

    blended = rho * (x - mean_IN) / sqrt(var_IN + eps) + (1 - rho) * (x - mean_LN) / sqrt(var_LN + eps)
    output  = act(blended * weight + bias + residual)                  U-GAT-IT, Kim et al. 2020, arXiv:1907.10830

The layer's statistics follow from those of its planes (Chan et al. 1979), and the blend of two affine maps is one. So
it is `instance_stats`, arithmetic on (N, C) numbers, and `scale_shift`.

At least, per element: two reads and one write (no plane can be written before its sample is read); 7 flops. Backward:
four reads and one write.
"""

import torch

from . import instance_stats, scale_shift
from ._activation import ACTIVATIONS, CODES
from ._layout import empty_map, empty_statistic, fold_like, per_plane, widen
from ._library import define, differentiable
from ._operator import Operator, Sample


def layer_instance_norm(
    input, rho, weight=None, bias=None, eps=1e-5, correction=0, activation=None, residual=None, negative_slope=0.01
):
    return _forward(input, rho, weight, bias, residual, eps, correction, CODES[activation], negative_slope)[0]


def reference(
    input, rho, weight=None, bias=None, eps=1e-5, correction=0, activation=None, residual=None, negative_slope=0.01
):
    x = widen(input)
    rho = per_plane(rho, input)
    blended = rho * _normed(x, 2, eps, correction) + (1 - rho) * _normed(x, 1, eps, correction)
    output = blended * per_plane(weight, input, 1.0) + per_plane(bias, input)
    if residual is not None:
        output = output + widen(residual)
    return ACTIVATIONS[CODES[activation]].function(output, negative_slope).to(input.dtype)


def _normed(x, first_dim, eps, correction):
    """x normalised over its dimensions from `first_dim` on: 2 is instance, 1 is layer normalisation."""
    var, mean = torch.var_mean(x, dim=tuple(range(first_dim, x.dim())), correction=correction, keepdim=True)
    return (x - mean) / (var + eps).sqrt()


# The blend as one affine map of (input - mean), from what is known of each plane, (N, C) numbers; and its gradient.


class _Blend:
    def __init__(self, input, mean, var, rho, weight, bias, eps, correction):
        size = instance_stats.plane_size(input)
        layer_size = size * max(input.shape[1], 1)
        self.rho, self.weight, self.bias = (
            per_plane(parameter, input, default).flatten(1)
            for parameter, default in ((rho, 0.0), (weight, 1.0), (bias, 0.0))
        )
        self.unbiased, self.layer_unbiased = size / (size - correction), layer_size / (layer_size - correction)
        # Means far from zero cancel before they are summed, not after.
        deviation = mean - mean.detach()[:, :1]
        self.deviation = deviation - deviation.mean(1, keepdim=True)
        layer_var = (var + self.deviation.square()).mean(1, keepdim=True)
        self.rstd = (var * self.unbiased + eps).rsqrt()
        self.layer_rstd = (layer_var * self.layer_unbiased + eps).rsqrt()

    def coefficients(self):
        scale = self.weight * (self.rho * self.rstd + (1 - self.rho) * self.layer_rstd)
        return scale, self.weight * (1 - self.rho) * self.deviation * self.layer_rstd + self.bias

    def gradients(self, grad_scale, grad_shift):
        """Of mean, var, rho, weight and bias, each (N, C)."""
        rho, weight, deviation, rstd, layer_rstd = self.rho, self.weight, self.deviation, self.rstd, self.layer_rstd
        shifted = grad_shift * deviation
        grad_weight = grad_scale * (rho * rstd + (1 - rho) * layer_rstd) + shifted * (1 - rho) * layer_rstd
        grad_rho = weight * (grad_scale * (rstd - layer_rstd) - shifted * layer_rstd)

        grad_layer_rstd = (weight * (1 - rho) * (grad_scale + shifted)).sum(1, keepdim=True)
        # The layer's variance is a mean over channels of var + deviation^2.
        grad_layer_var = grad_layer_rstd * (-0.5 * self.layer_unbiased) * layer_rstd**3 / deviation.shape[1]
        grad_var = grad_scale * weight * rho * (-0.5 * self.unbiased) * rstd**3 + grad_layer_var
        grad_deviation = grad_shift * weight * (1 - rho) * layer_rstd + 2 * grad_layer_var * deviation
        grad_mean = grad_deviation - grad_deviation.mean(1, keepdim=True)
        return grad_mean, grad_var, grad_rho, grad_weight, grad_shift


# The operator.


def _definition(input, rho, weight, bias, residual, eps, correction, activation, slope):
    mean, rstd = instance_stats.instance_stats(input, eps=0.0)
    var = rstd**-2
    scale, shift = _Blend(input, mean, var, rho, weight, bias, eps, correction).coefficients()
    return scale_shift.forward(input, mean, scale, shift, None, residual, activation, slope), mean, var


def _fake(input, *arguments):
    return empty_map(input), empty_statistic(input), empty_statistic(input)


_forward_kernel = define(
    "layer_instance_norm",
    "(Tensor input, Tensor rho, Tensor? weight, Tensor? bias, Tensor? residual, float eps, int correction,"
    " int activation, float slope) -> (Tensor output, Tensor mean, Tensor var)",
    _definition,
    _fake,
)


# Autograd, in two passes: sums per plane; then the input's gradient, with its dependence on the statistics folded in.
# Every step is differentiable, so the double backward is autograd's.


def _save(ctx, inputs, output):
    input, rho, weight, bias, residual, *ctx.settings = inputs
    _, mean, var = output
    ctx.save_for_backward(input, mean, var, rho, weight, bias, residual)


def _differentiate(ctx, grad, grad_mean, grad_var):
    input, mean, var, rho, weight, bias, residual = ctx.saved_tensors
    eps, correction, activation, slope = ctx.settings
    blend = _Blend(input, mean, var, rho, weight, bias, eps, correction)
    scale, shift = blend.coefficients()

    def backward(input_scale, input_shift, need_input, need_sums):
        return scale_shift.backward(
            grad, input, mean, scale, shift, None, residual, input_scale, input_shift, activation, slope,
            need_input, need_sums,
        )  # fmt: skip

    grad_scale, grad_shift = backward(None, None, False, True)[1:3]
    from_mean, from_var, *grad_parameters = blend.gradients(grad_scale, grad_shift)
    size = instance_stats.plane_size(input)
    total_mean = grad_mean + from_mean - scale * grad_shift
    total_var = grad_var + from_var
    grad_input, _, _, _, grad_residual = backward(total_var * (2 / size), total_mean / size, True, False)
    return (
        grad_input,
        *(fold_like(gradient, parameter) for gradient, parameter in zip(grad_parameters, (rho, weight, bias))),
        None if residual is None else grad_residual if activation else grad,
        *[None] * 4,
    )


_forward = differentiable(_forward_kernel, _save, _differentiate)


def _samples(make, shape):
    n, c = shape[:2]
    yield Sample("shared", (make(*shape), make(c), make(c), make(c)))
    yield Sample("plain", (make(*shape), make(c)))
    yield Sample("adaptive, unbiased, relu", (make(*shape), make(c), make(n, c), make(n, c)), dict(correction=1, activation="relu"))
    yield Sample("residual, silu", (make(*shape), make(c)), dict(residual=make(*shape), activation="silu"))


OPERATOR = Operator(
    "layer_instance_norm",
    layer_instance_norm,
    reference,
    _samples,
    kernels=("layer_instance_norm", "instance_stats", "scale_shift", "scale_shift_backward"),
    maps=3,
    backward_maps=5,
    flops=7,
)
