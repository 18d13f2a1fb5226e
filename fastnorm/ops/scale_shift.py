"""scale_shift: an affine map per plane, one per pixel, a residual and an activation, in one pass.

    output = act(((input - mean) * scale + shift) * (1 + gamma) + residual)

mean, scale and shift hold one number per plane, (C,) or (N, C); gamma and residual have the input's shape. Each may be
absent. It is what remains of every normalisation once its statistics are known.

At least, per element: one read and one write, one read more for each map; 3 flops, 2 more for each map.
"""

from ._activation import ACTIVATIONS, CODES
from ._layout import empty_map, empty_statistic, fold_like, per_plane, plane_sum, store_like, widen
from ._library import define, differentiable, gradient_of
from ._operator import Operator, Sample


def scale_shift(input, mean=None, scale=None, shift=None, gamma=None, residual=None, activation=None, negative_slope=0.01):
    return forward(input, mean, scale, shift, gamma, residual, CODES[activation], negative_slope)


def reference(input, mean=None, scale=None, shift=None, gamma=None, residual=None, activation=None, negative_slope=0.01):
    return formula(input, mean, scale, shift, gamma, residual, CODES[activation], negative_slope).to(input.dtype)


# The formula, forward and backward, in the type in which the input is computed.


def formula(input, mean, scale, shift, gamma, residual, activation, slope):
    return ACTIVATIONS[activation].function(_before_activation(input, mean, scale, shift, gamma, residual), slope)


def backward_formula(grad, input, mean, scale, shift, gamma, residual, activation, slope):
    """Gradients with respect to the affine map's output, gamma and residual."""
    before = _before_activation(input, mean, scale, shift, gamma, residual)
    grad_residual = widen(grad) * ACTIVATIONS[activation].derivative(before, slope)
    if gamma is None:
        return grad_residual, None, grad_residual
    grad_gamma = grad_residual * _affine(input, mean, scale, shift)
    return grad_residual * (1 + widen(gamma)), grad_gamma, grad_residual


def full_backward_formula(grad, input, mean, scale, shift, gamma, residual, input_scale, input_shift, activation, slope):
    """Gradients with respect to input, scale and shift (the last two per plane, (N, C)), gamma and residual."""
    grad_affine, grad_gamma, grad_residual = backward_formula(
        grad, input, mean, scale, shift, gamma, residual, activation, slope
    )
    centred = centre(input, mean)
    grad_input = (
        grad_affine * per_plane(scale, input, 1)
        + centred * per_plane(input_scale, input)
        + per_plane(input_shift, input)
    )
    return grad_input, plane_sum(grad_affine * centred), plane_sum(grad_affine), grad_gamma, grad_residual


def _affine(input, mean, scale, shift):
    return centre(input, mean) * per_plane(scale, input, 1) + per_plane(shift, input)


def centre(input, mean):
    return widen(input) - per_plane(mean, input)


def _before_activation(input, mean, scale, shift, gamma, residual):
    output = _affine(input, mean, scale, shift)
    if gamma is not None:
        output = output * (1 + widen(gamma))
    return output if residual is None else output + widen(residual)


# The operator.


def _definition(input, *arguments):
    return store_like(input, formula(input, *arguments))


def _fake(input, *arguments):
    return empty_map(input)


_forward_kernel = define(
    "scale_shift",
    "(Tensor input, Tensor? mean, Tensor? scale, Tensor? shift, Tensor? gamma, Tensor? residual,"
    " int activation, float slope) -> Tensor",
    _definition,
    _fake,
)


# Its backward. The input's gradient may carry an affine term of the input itself, (input - mean) * input_scale +
# input_shift: the way in which a statistic of the input depends on it. What is not needed comes back empty; so does the
# residual's gradient where it is `grad` itself.


def _backward_definition(
    grad, input, mean, scale, shift, gamma, residual, input_scale, input_shift, activation, slope, need_input, need_sums
):
    arguments = tuple(locals().values())
    return tuple(
        store_like(wanted, found)
        for wanted, found in zip(_backward_fake(*arguments), full_backward_formula(*arguments[:-2]))
    )


def _backward_fake(
    grad, input, mean, scale, shift, gamma, residual, input_scale, input_shift, activation, slope, need_input, need_sums
):
    return (
        empty_map(input, need_input),
        empty_statistic(input, need_sums),
        empty_statistic(input, need_sums),
        empty_map(input, gamma is not None),
        empty_map(input, residual is not None and activation != 0),
    )


_backward_kernel = define(
    "scale_shift_backward",
    "(Tensor grad, Tensor input, Tensor? mean, Tensor? scale, Tensor? shift, Tensor? gamma, Tensor? residual,"
    " Tensor? input_scale, Tensor? input_shift, int activation, float slope, bool need_input, bool need_sums)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_definition,
    _backward_fake,
)


# Autograd.


def _save(ctx, inputs, output):
    *tensors, ctx.activation, ctx.slope = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    input, mean, scale, shift, gamma, residual = ctx.saved_tensors
    need_input, *need_sums = ctx.needs_input_grad[:4]
    grad_input, grad_scale, grad_shift, grad_gamma, grad_residual = backward(
        grad, input, mean, scale, shift, gamma, residual, None, None,
        ctx.activation, ctx.slope, need_input, any(need_sums),
    )  # fmt: skip
    need_mean, need_scale, need_shift = need_sums
    return (
        grad_input if need_input else None,
        fold_like(-grad_shift if scale is None else -grad_shift * scale, mean) if need_mean else None,
        fold_like(grad_scale, scale) if need_scale else None,
        fold_like(grad_shift, shift) if need_shift else None,
        None if gamma is None else grad_gamma,
        None if residual is None else grad_residual if ctx.activation else grad,
        None,
        None,
    )


def _save_backward(ctx, inputs, output):
    *tensors, ctx.activation, ctx.slope, _, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _differentiate_backward(ctx, *gradients):
    def formula(*tensors):
        return full_backward_formula(*tensors, ctx.activation, ctx.slope)

    return *gradient_of(formula, ctx.saved_tensors, gradients), None, None, None, None


forward = differentiable(_forward_kernel, _definition, _save, _differentiate)
backward = differentiable(_backward_kernel, _backward_definition, _save_backward, _differentiate_backward)


def _samples(make, shape):
    n, c = shape[:2]
    yield Sample("affine", (make(*shape), make(c), make(c), make(c)))
    yield Sample("shift only, silu", (make(*shape), None, None, make(n, c)), dict(activation="silu"))
    yield Sample(
        "everything, gelu",
        (make(*shape), make(n, c), make(n, c), make(c), make(*shape), make(*shape)),
        dict(activation="gelu"),
    )


OPERATOR = Operator(
    "scale_shift",
    scale_shift,
    reference, _samples, kernels=("scale_shift", "scale_shift_backward"), maps=2, backward_maps=3, flops=3
)
