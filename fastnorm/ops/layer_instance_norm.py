"""layer_instance_norm: a blend of instance and layer normalisation, learned per channel.

    blended = rho * (x - mean_IN) / sqrt(var_IN + eps) + (1 - rho) * (x - mean_LN) / sqrt(var_LN + eps)
    output  = act(blended * weight + bias + residual)                  U-GAT-IT, Kim et al. 2020, arXiv:1907.10830

The layer's statistics follow from those of its planes (Chan et al. 1979), and a blend of two affine maps is one. So a
kernel reads the map for the statistics of its planes, blends numbers per plane, and is a `scale_shift` from there.

At least, per element: two reads and one write (no plane can be written before its sample is read); 7 flops. Backward:
four reads and one write.
"""

import math

import torch

from ._activation import ACTIVATIONS, CODES
from ._layout import empty_map, empty_statistic, fold_like, per_plane, plane_sum, store_like, widen
from ._library import define, differentiable, gradient_of
from ._operator import Operator, Sample


def layer_instance_norm(
    input, rho, weight=None, bias=None, eps=1e-5, correction=0, activation=None, residual=None, negative_slope=0.01
):
    return _forward(input, rho, weight, bias, residual, eps, correction, CODES[activation], negative_slope)[0]


def reference(
    input, rho, weight=None, bias=None, eps=1e-5, correction=0, activation=None, residual=None, negative_slope=0.01
):
    return formula(input, rho, weight, bias, residual, eps, correction, CODES[activation], negative_slope).to(input.dtype)


# The formula, forward and backward, in the type in which the input is computed.


def formula(input, rho, weight, bias, residual, eps, correction, activation, slope):
    own, layer = (_normed(input, first_dim, eps, correction)[0] for first_dim in (2, 1))
    output = _before_activation(own, layer, input, rho, weight, bias, residual)
    return ACTIVATIONS[activation].function(output, slope)


def backward_formula(grad, input, rho, weight, bias, residual, eps, correction, activation, slope):
    """Gradients of input, of rho, weight and bias, (N, C) each, and of residual."""
    (own, rstd), (layer, layer_rstd) = (_normed(input, first_dim, eps, correction) for first_dim in (2, 1))
    before = _before_activation(own, layer, input, rho, weight, bias, residual)
    grad_residual = widen(grad) * ACTIVATIONS[activation].derivative(before, slope)
    grad_blended = grad_residual * per_plane(weight, input, 1.0)
    rho = per_plane(rho, input)
    grad_input = _normed_backward(grad_blended * rho, own, rstd, 2, correction)
    grad_input = grad_input + _normed_backward(grad_blended * (1 - rho), layer, layer_rstd, 1, correction)
    grad_rho = plane_sum(grad_blended * (own - layer))
    grad_weight = plane_sum(grad_residual * (rho * own + (1 - rho) * layer))
    return grad_input, grad_rho, grad_weight, plane_sum(grad_residual), grad_residual


def _before_activation(own, layer, input, rho, weight, bias, residual):
    rho = per_plane(rho, input)
    output = (rho * own + (1 - rho) * layer) * per_plane(weight, input, 1.0) + per_plane(bias, input)
    return output if residual is None else output + widen(residual)


def _normed(input, first_dim, eps, correction):
    """input normalised over its dimensions from `first_dim` on, and 1/std: 2 is instance, 1 is layer normalisation."""
    x = widen(input)
    var, mean = torch.var_mean(x, _dims(x, first_dim), correction=correction, keepdim=True)
    rstd = (var + eps).rsqrt()
    return (x - mean) * rstd, rstd


def _normed_backward(grad, normed, rstd, first_dim, correction):
    dims = _dims(normed, first_dim)
    size = math.prod(normed.shape[first_dim:])
    through_rstd = normed * ((grad * normed).sum(dims, keepdim=True) / (size - correction))
    return rstd * (grad - grad.mean(dims, keepdim=True) - through_rstd)


def _dims(map, first_dim):
    return tuple(range(first_dim, map.dim()))


# The operator. The statistics that it returns, mean and variance of each plane, are for its backward.


def _definition(input, *arguments):
    var, mean = torch.var_mean(widen(input).flatten(2), 2, correction=0)
    return store_like(input, formula(input, *arguments)), mean, var


def _fake(input, *arguments):
    return empty_map(input), empty_statistic(input), empty_statistic(input)


_forward_kernel = define(
    "layer_instance_norm",
    "(Tensor input, Tensor rho, Tensor? weight, Tensor? bias, Tensor? residual, float eps, int correction,"
    " int activation, float slope) -> (Tensor output, Tensor mean, Tensor var)",
    _definition,
    _fake,
)


# Its backward. The residual's gradient comes back empty where it is `grad` itself.


def _backward_definition(grad, input, mean, var, *arguments):
    return tuple(
        store_like(wanted, found)
        for wanted, found in zip(
            _backward_fake(grad, input, mean, var, *arguments), backward_formula(grad, input, *arguments)
        )
    )


def _backward_fake(grad, input, mean, var, rho, weight, bias, residual, eps, correction, activation, slope):
    return (
        empty_map(input),
        *(empty_statistic(input) for _ in range(3)),
        empty_map(input, residual is not None and activation != 0),
    )


_backward_kernel = define(
    "layer_instance_norm_backward",
    "(Tensor grad, Tensor input, Tensor mean, Tensor var, Tensor rho, Tensor? weight, Tensor? bias, Tensor? residual,"
    " float eps, int correction, int activation, float slope)"
    " -> (Tensor grad_input, Tensor grad_rho, Tensor grad_weight, Tensor grad_bias, Tensor grad_residual)",
    _backward_definition,
    _backward_fake,
)


# Autograd. The statistics are what the backward needs, not something to differentiate.


def _save(ctx, inputs, output):
    input, rho, weight, bias, residual, *ctx.settings = inputs
    _, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)
    _, _, ctx.activation, _ = ctx.settings
    # The residual is needed only to find where the activation bends.
    ctx.has_residual = residual is not None
    ctx.save_for_backward(input, mean, var, rho, weight, bias, residual if ctx.activation else None)


def _differentiate(ctx, grad, grad_mean, grad_var):
    if grad is None:
        return (None,) * 9
    *tensors, rho, weight, bias, residual = ctx.saved_tensors
    grad_input, grad_rho, grad_weight, grad_bias, grad_residual = _backward(
        grad, *tensors, rho, weight, bias, residual, *ctx.settings
    )
    return (
        grad_input,
        fold_like(grad_rho, rho),
        fold_like(grad_weight, weight),
        fold_like(grad_bias, bias),
        None if not ctx.has_residual else grad_residual if ctx.activation else grad,
        *[None] * 4,
    )


def _save_backward(ctx, inputs, output):
    grad, input, mean, var, rho, weight, bias, residual, *ctx.settings = inputs
    ctx.save_for_backward(grad, input, rho, weight, bias, residual)
    ctx.set_materialize_grads(False)


def _differentiate_backward(ctx, *gradients):
    grad_grad, grad_input, *grad_parameters = gradient_of(
        lambda *tensors: backward_formula(*tensors, *ctx.settings), ctx.saved_tensors, gradients
    )
    return grad_grad, grad_input, None, None, *grad_parameters, *[None] * 4


_forward = differentiable(_forward_kernel, _definition, _save, _differentiate)
_backward = differentiable(_backward_kernel, _backward_definition, _save_backward, _differentiate_backward)


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
    kernels=("layer_instance_norm", "layer_instance_norm_backward"),
    maps=3,
    backward_maps=5,
    flops=7,
)
