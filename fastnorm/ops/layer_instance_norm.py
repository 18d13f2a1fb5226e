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
from ._library import define, differentiable, gradient_of
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


# The operator.


def _definition(input, rho, weight, bias, residual, eps, correction, activation, slope):
    mean, rstd = instance_stats.instance_stats(input, eps=0.0)
    var = rstd**-2
    scale, shift = _coefficients(input, eps, correction)(mean, var, rho, weight, bias)
    output = scale_shift.forward(input, mean, scale, shift, None, residual, activation, slope)
    return output, mean, var


def _coefficients(input, eps, correction):
    """The blend as one affine map of (input - mean): a function of the planes' statistics and the parameters."""
    size = instance_stats.plane_size(input)
    layer_size = size * max(input.shape[1], 1)

    def coefficients(mean, var, rho, weight, bias):
        rho, weight, bias = (
            per_plane(parameter, input, default).flatten(1)
            for parameter, default in ((rho, 0.0), (weight, 1.0), (bias, 0.0))
        )
        # Means far from zero cancel before they are summed, not after.
        offset = mean - mean.detach()[:, :1]
        offset = offset - offset.mean(1, keepdim=True)
        layer_var = (var + offset.square()).mean(1, keepdim=True)
        rstd = (var * (size / (size - correction)) + eps).rsqrt()
        layer_rstd = (layer_var * (layer_size / (layer_size - correction)) + eps).rsqrt()
        scale = weight * (rho * rstd + (1 - rho) * layer_rstd)
        shift = weight * (1 - rho) * offset * layer_rstd + bias
        return scale, shift

    return coefficients


def _fake(input, rho, weight, bias, residual, eps, correction, activation, slope):
    return empty_map(input), empty_statistic(input), empty_statistic(input)


_forward_kernel = define(
    "layer_instance_norm",
    "(Tensor input, Tensor rho, Tensor? weight, Tensor? bias, Tensor? residual, float eps, int correction,"
    " int activation, float slope) -> (Tensor output, Tensor mean, Tensor var)",
    _definition,
    _fake,
)


# Autograd, in two passes: sums per plane, the chain rule on (N, C) numbers, then the input's gradient with its
# dependence on the statistics folded in. Every step is differentiable, so its double backward is autograd's.


def _save(ctx, inputs, output):
    input, rho, weight, bias, residual, *ctx.settings = inputs
    _, mean, var = output
    ctx.set_materialize_grads(False)
    ctx.has_residual = residual is not None
    ctx.save_for_backward(input, mean, var, rho, weight, bias, residual)


def _differentiate(ctx, grad, grad_mean, grad_var):
    input, mean, var, rho, weight, bias, residual = ctx.saved_tensors
    eps, correction, activation, slope = ctx.settings
    coefficients = _coefficients(input, eps, correction)
    scale, shift = coefficients(mean, var, rho, weight, bias)
    if grad is None:
        grad = torch.zeros_like(input)

    def backward(input_scale, input_shift, need_input, need_sums):
        return scale_shift.backward(
            grad, input, mean, scale, shift, None, residual, input_scale, input_shift, activation, slope,
            need_input, need_sums,
        )  # fmt: skip

    grad_scale, grad_shift = backward(None, None, False, True)[1:3]
    from_mean, from_var, *grad_parameters = gradient_of(
        coefficients, (mean, var, rho, weight, bias), (grad_scale, grad_shift)
    )
    size = instance_stats.plane_size(input)
    total_mean = from_mean - scale * grad_shift + (0 if grad_mean is None else grad_mean)
    total_var = from_var + (0 if grad_var is None else grad_var)
    grad_input, _, _, _, grad_residual = backward(total_var * (2 / size), total_mean / size, True, False)

    return (
        grad_input,
        *grad_parameters,
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
