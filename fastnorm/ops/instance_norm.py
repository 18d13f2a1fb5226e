"""instance_norm: normalise each plane by its own statistics, scale, shift, add, activate; in one pass.

    normed = (input - mean) * rstd * weight + bias                     Ulyanov et al. 2016, arXiv:1607.08022
    output = act((alpha * normed + (1 - alpha) * input) * (1 + gamma) + residual)

mean and rstd are those of `instance_stats`. weight and bias hold one number per plane, (C,) or (N, C); gamma and
residual have the input's shape. alpha below 1 is AdaIN's trade-off; gamma with residual is SPADE.

At least, per element: one read and one write, one read more for each map; 7 flops. Backward: two reads and one write.
"""

from . import instance_stats, scale_shift
from ._activation import CODES
from ._layout import empty_map, empty_statistic, fold_like, per_plane, plane_sum, store_like
from ._library import define, differentiable, gradient_of
from ._operator import Operator, Sample


def instance_norm(
    input, weight=None, bias=None, gamma=None, residual=None, eps=1e-5, correction=0, eps_mode="var", alpha=1.0,
    activation=None, negative_slope=0.01,
):  # fmt: skip
    return _forward(
        input, weight, bias, gamma, residual,
        eps, correction, instance_stats.EPS_MODES[eps_mode], alpha, CODES[activation], negative_slope,
    )[0]  # fmt: skip


def reference(
    input, weight=None, bias=None, gamma=None, residual=None, eps=1e-5, correction=0, eps_mode="var", alpha=1.0,
    activation=None, negative_slope=0.01,
):  # fmt: skip
    eps_on_std = instance_stats.EPS_MODES[eps_mode]
    settings = eps, correction, eps_on_std, alpha, CODES[activation], negative_slope
    return formula(input, weight, bias, gamma, residual, *settings)[0].to(input.dtype)


# The formula, forward and backward, in the type in which the input is computed.


def formula(input, weight, bias, gamma, residual, eps, correction, eps_on_std, alpha, activation, slope):
    mean, rstd = instance_stats.formula(input, eps, correction, eps_on_std)
    scale, shift = _coefficients(input, mean, rstd, weight, bias, alpha)
    return scale_shift.formula(input, mean, scale, shift, gamma, residual, activation, slope), mean, rstd


def _coefficients(input, mean, rstd, weight, bias, alpha):
    """The affine map of (input - mean) that the norm is: (N, C) each."""
    weight, bias = (per_plane(p, input, d).flatten(1) for p, d in ((weight, 1.0), (bias, 0.0)))
    return alpha * rstd * weight + (1 - alpha), alpha * bias + (1 - alpha) * mean


def backward_formula(
    grad, input, mean, rstd, weight, bias, gamma, residual, eps, correction, eps_on_std, alpha, activation, slope
):
    """Gradients of input, weight, bias (the last two per plane, (N, C)), gamma and residual."""
    scale, shift = _coefficients(input, mean, rstd, weight, bias, alpha)
    grad_affine, grad_gamma, grad_residual = scale_shift.backward_formula(
        grad, input, mean, scale, shift, gamma, residual, activation, slope
    )
    centred = scale_shift.centre(input, mean)
    grad_scale, grad_shift = plane_sum(grad_affine * centred), plane_sum(grad_affine)

    # How the statistics depend on the input: mean, by a constant; rstd, by a multiple of input - mean.
    size = instance_stats.plane_size(input)
    gain = alpha * per_plane(weight, input, 1.0).flatten(1)
    inverse_root = 1 / (1 / rstd - eps) if eps_on_std else rstd
    input_scale = instance_stats.through_rstd(gain * grad_scale, rstd, inverse_root, correction, size)
    input_shift = -gain * rstd * grad_shift / size
    grad_input = (
        grad_affine * per_plane(scale, input) + centred * per_plane(input_scale, input) + per_plane(input_shift, input)
    )
    return grad_input, alpha * grad_scale * rstd, alpha * grad_shift, grad_gamma, grad_residual


# The operator.


def _definition(input, *arguments):
    output, mean, rstd = formula(input, *arguments)
    return store_like(input, output), mean.contiguous(), rstd.contiguous()


def _fake(input, *arguments):
    return empty_map(input), empty_statistic(input), empty_statistic(input)


_forward_kernel = define(
    "instance_norm",
    "(Tensor input, Tensor? weight, Tensor? bias, Tensor? gamma, Tensor? residual, float eps, int correction,"
    " bool eps_on_std, float alpha, int activation, float slope) -> (Tensor output, Tensor mean, Tensor rstd)",
    _definition,
    _fake,
)


# Its backward. What is not needed comes back empty; so does the residual's gradient where it is `grad` itself.


def _backward_definition(
    grad, input, mean, rstd, weight, bias, gamma, residual, eps, correction, eps_on_std, alpha, activation, slope
):
    arguments = tuple(locals().values())
    return tuple(
        store_like(wanted, found)
        for wanted, found in zip(_backward_fake(*arguments), backward_formula(*arguments))
    )


def _backward_fake(
    grad, input, mean, rstd, weight, bias, gamma, residual, eps, correction, eps_on_std, alpha, activation, slope
):
    return (
        empty_map(input),
        empty_statistic(input),
        empty_statistic(input),
        empty_map(input, gamma is not None),
        empty_map(input, residual is not None and activation != 0),
    )


_backward_kernel = define(
    "instance_norm_backward",
    "(Tensor grad, Tensor input, Tensor mean, Tensor rstd, Tensor? weight, Tensor? bias, Tensor? gamma,"
    " Tensor? residual, float eps, int correction, bool eps_on_std, float alpha, int activation, float slope)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_definition,
    _backward_fake,
)


# Autograd. The statistics are what the backward needs, not something to differentiate: `instance_stats` is.


def _save(ctx, inputs, output):
    input, weight, bias, gamma, residual, *ctx.settings = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.activated = ctx.settings[4] != 0
    # The residual is needed only to find where the activation bends.
    ctx.has_residual = residual is not None
    ctx.save_for_backward(input, mean, rstd, weight, bias, gamma, residual if ctx.activated else None)


def _differentiate(ctx, grad, grad_mean, grad_rstd):
    if grad is None:
        return (None,) * 11
    input, mean, rstd, weight, bias, gamma, residual = ctx.saved_tensors
    grad_input, grad_weight, grad_bias, grad_gamma, grad_residual = _backward(
        grad, input, mean, rstd, weight, bias, gamma, residual, *ctx.settings
    )
    return (
        grad_input,
        fold_like(grad_weight, weight),
        fold_like(grad_bias, bias),
        None if gamma is None else grad_gamma,
        grad_residual if ctx.activated and ctx.has_residual else grad if ctx.has_residual else None,
        *[None] * 6,
    )


def _save_backward(ctx, inputs, output):
    grad, input, mean, rstd, weight, bias, gamma, residual, *ctx.settings = inputs
    ctx.save_for_backward(grad, input, weight, bias, gamma, residual)
    ctx.set_materialize_grads(False)


def _differentiate_backward(ctx, *gradients):
    eps, correction, eps_on_std, *_ = ctx.settings

    def from_input(grad, input, *parameters):
        mean, rstd = instance_stats.formula(input, eps, correction, eps_on_std)
        return backward_formula(grad, input, mean, rstd, *parameters, *ctx.settings)

    grad_grad, grad_input, *grad_parameters = gradient_of(from_input, ctx.saved_tensors, gradients)
    return grad_grad, grad_input, None, None, *grad_parameters, *[None] * 6


_forward = differentiable(_forward_kernel, _definition, _save, _differentiate)
_backward = differentiable(_backward_kernel, _backward_definition, _save_backward, _differentiate_backward)


def _samples(make, shape):
    n, c = shape[:2]
    yield Sample("plain", (make(*shape),))
    yield Sample("affine, relu", (make(*shape),), dict(weight=make(c), bias=make(c), activation="relu"))
    yield Sample("residual", (make(*shape),), dict(weight=make(c), bias=make(c), residual=make(*shape)))
    yield Sample(
        "per sample, residual, leaky_relu",
        (make(*shape),),
        dict(weight=make(n, c), bias=make(n, c), residual=make(*shape), activation="leaky_relu", negative_slope=0.2),
    )
    yield Sample("weight only, silu", (make(*shape),), dict(weight=make(c), activation="silu", eps=1e-3))
    yield Sample("bias only, gelu", (make(*shape),), dict(bias=make(c), activation="gelu"))


OPERATOR = Operator(
    "instance_norm",
    instance_norm,
    reference,
    _samples,
    kernels=("instance_norm", "instance_norm_backward"),
    maps=2,
    backward_maps=3,
    flops=7,
)
