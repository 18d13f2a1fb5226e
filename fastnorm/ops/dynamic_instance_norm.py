"""dynamic_instance_norm: a convolution, with a filter per sample, of the instance-normalised input; in one pass.

    output = dynamic_conv2d((input - mean) * rstd, weight, bias)     DIN, Jing et al. 2020, arXiv:1911.06953

mean and rstd are those of `instance_stats`. A depthwise filter of one tap is an affine map per plane: AdaIN where that is
the style's; of weight 1 and bias 0, instance normalisation.

At least, per element: one read and one write; no normalised map. 4 flops more than the convolution. Backward: two reads
and one write.
"""

import torch

from . import _by_sample, dynamic_conv2d, instance_norm, instance_stats, scale_shift
from ._layout import empty_map, empty_statistic, store_like
from ._library import define, differentiable, gradient_of
from ._operator import Operator, Sample
from ._window import PADDING_MODES
from .dynamic_conv2d import SETTINGS, empty_gradients, empty_output, some_groups, some_kernel, wanted_gradients, window


def dynamic_instance_norm(
    input, weight, bias=None, stride=1, padding="same", dilation=1, groups=1, padding_mode="reflect", eps=1e-5,
    correction=0, eps_mode="var",
):  # fmt: skip
    rule = eps, correction, instance_stats.EPS_MODES[eps_mode]
    settings = *window(weight, stride, padding, dilation), groups, PADDING_MODES[padding_mode]
    return _forward(input, weight, bias, *rule, *settings)[0]


def reference(
    input, weight, bias=None, stride=1, padding="same", dilation=1, groups=1, padding_mode="reflect", eps=1e-5,
    correction=0, eps_mode="var",
):  # fmt: skip
    rule = eps, correction, instance_stats.EPS_MODES[eps_mode]
    settings = *window(weight, stride, padding, dilation), groups, PADDING_MODES[padding_mode]
    return formula(input, weight, bias, *rule, *settings)[0].to(input.dtype)


# The formula, forward and backward. As torch's own instance norm would, it hands on what it normalised in the input's type.


def formula(input, weight, bias, eps, correction, eps_on_std, *settings):
    mean, rstd = instance_stats.formula(input, eps, correction, eps_on_std)
    return dynamic_conv2d.formula(_normed(input, mean, rstd), weight, bias, *settings), mean, rstd


def _normed(input, mean, rstd):
    return scale_shift.formula(input, mean, rstd, None, None, None, 0, 0.0).to(input.dtype)


def backward_formula(grad, input, mean, rstd, weight, eps, correction, eps_on_std, *settings):
    """Gradients of input, weight and bias."""
    grad_normed, *others = dynamic_conv2d.backward_formula(grad, _normed(input, mean, rstd), weight, *settings)
    norm = None, None, None, None, eps, correction, eps_on_std, 1.0, 0, 0.0
    grad_input, *_ = instance_norm.backward_formula(grad_normed, input, mean, rstd, *norm)
    return grad_input, *others


# The operator.


def _definition(input, weight, bias, eps, correction, eps_on_std, stride, padding, dilation, groups, padding_mode):
    output, mean, rstd = formula(*locals().values())
    return store_like(empty_output(input, weight, stride, padding, dilation), output), mean.contiguous(), rstd.contiguous()


def _fake(input, weight, bias, eps, correction, eps_on_std, stride, padding, dilation, groups, padding_mode):
    return empty_output(input, weight, stride, padding, dilation), empty_statistic(input), empty_statistic(input)


_RULE = "float eps, int correction, bool eps_on_std"

_forward_kernel = define(
    "dynamic_instance_norm",
    f"(Tensor input, Tensor weight, Tensor? bias, {_RULE}, {SETTINGS}) -> (Tensor output, Tensor mean, Tensor rstd)",
    _definition,
    _fake,
)


# Its backward. What is not needed comes back empty.


def _backward_definition(grad, input, mean, rstd, weight, *settings):
    *settings, need_input, need_weight, need_bias = settings
    wanted = empty_gradients(grad, input, weight, need_input, need_weight, need_bias)
    return tuple(map(store_like, wanted, backward_formula(grad, input, mean, rstd, weight, *settings)))


def _backward_fake(grad, input, mean, rstd, weight, *settings):
    return empty_gradients(grad, input, weight, *settings[-3:])


_backward_kernel = define(
    "dynamic_instance_norm_backward",
    f"(Tensor grad, Tensor input, Tensor mean, Tensor rstd, Tensor weight, {_RULE}, {SETTINGS}, bool need_input,"
    " bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)",
    _backward_definition,
    _backward_fake,
)


# By the kernels, or by torch's own convolution where that is faster.


def _convolve(input, weight, bias, eps, correction, eps_on_std, *settings):
    *window, groups, _ = settings
    if not _by_sample.is_faster(input, weight, groups):
        return _forward_kernel(input, weight, bias, eps, correction, eps_on_std, *settings)
    mean, rstd = torch.ops.fastnorm.instance_stats(input, eps, correction, eps_on_std)

    def norm(sample, n):
        none = None, None, None, 0, 0.0
        return torch.ops.fastnorm.scale_shift(sample, mean[n : n + 1], rstd[n : n + 1], *none)

    output = empty_output(input, weight, *window)
    return _by_sample.convolve(output, input, weight, bias, *settings, norm), mean, rstd


def _convolve_back(grad, input, mean, rstd, weight, eps, correction, eps_on_std, *settings):
    rule = eps, correction, eps_on_std
    *settings, need_input, need_weight, need_bias = settings
    by_sample = need_input and _by_sample.is_faster(input, weight, settings[3])
    grad_input, *others = _backward_kernel(
        grad, input, mean, rstd, weight, *rule, *settings, need_input and not by_sample, need_weight, need_bias
    )
    if by_sample:
        grad_normed = _by_sample.gradient_of_input(empty_map(input), grad, weight, *settings)
        norm = None, None, None, None, *rule, 1.0, 0, 0.0
        grad_input = torch.ops.fastnorm.instance_norm_backward(grad_normed, input, mean, rstd, *norm)[0]
    return grad_input, *others


# Autograd. The statistics are what the backward needs, not something to differentiate.


def _save(ctx, inputs, output):
    input, weight, bias, *ctx.settings = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(input, mean, rstd, weight)


def _differentiate(ctx, grad, grad_mean, grad_rstd):
    if grad is None:
        return (None,) * 11
    needed = ctx.needs_input_grad[:3]
    return *wanted_gradients(_backward(grad, *ctx.saved_tensors, *ctx.settings, *needed), needed, ctx.bias_dtype), *[None] * 8


def _save_backward(ctx, inputs, output):
    grad, input, mean, rstd, weight, *ctx.settings = inputs
    ctx.save_for_backward(grad, input, weight)
    ctx.set_materialize_grads(False)


def _differentiate_backward(ctx, *gradients):
    settings = ctx.settings[:-3]

    def from_inputs(grad, input, weight):
        mean, rstd = instance_stats.formula(input, *settings[:3])
        return backward_formula(grad, input, mean, rstd, weight, *settings)

    grad_grad, grad_input, grad_weight = gradient_of(from_inputs, ctx.saved_tensors, gradients)
    return grad_grad, grad_input, None, None, grad_weight, *[None] * 11


_forward = differentiable(_convolve, _definition, _save, _differentiate)
_backward = differentiable(_convolve_back, _backward_definition, _save_backward, _differentiate_backward)


def _samples(make, shape):
    n, c = shape[:2]
    kernel, groups = some_kernel(shape), some_groups(c)
    depthwise = make(*shape), make(n, c, min(c, 1), *kernel), make(n, c)
    yield Sample("depthwise", depthwise, dict(groups=max(1, c)))
    yield Sample(
        "grouped, zeros",
        (make(*shape), make(n, 2 * groups, c // groups, *kernel), make(n, 2 * groups)),
        dict(groups=groups, padding_mode="zeros", eps=1e-3),
    )


OPERATOR = Operator(
    "dynamic_instance_norm",
    dynamic_instance_norm,
    reference,
    _samples,
    kernels=("dynamic_instance_norm", "dynamic_instance_norm_backward"),
    maps=2,
    backward_maps=3,
    flops=22,
)
