"""dynamic_conv2d: a convolution with a filter per sample; of lines and volumes, too.

    output[n, o, p] = bias[n, o] + sum over c, k of  weight[n, o, c, k] * input[n, group(o) + c, p * stride + k * dilation]

A position beyond the border is 0, or is read inside: reflected, replicated or circular. What the dynamic filter networks
of Jia et al. 2016 (arXiv:1605.09673) do, and with groups what DIN (Jing et al. 2020, arXiv:1911.06953) and AdaConv
(Chandran et al. 2021) are made of.

At least, per element: one read and one write of a map, and the filters once; 2 * K * C_in / groups flops for an output,
K the taps of the kernel. Backward: two reads and one write, twice the flops.
"""

import math

import torch

from . import _by_sample, _minimal
from ._layout import empty_map, memory_format, product, store_like, wide_dtype, widen
from ._library import define, differentiable, gradient_of
from ._operator import Operator, Sample
from ._window import (
    PADDING_MODES,
    ZEROS,
    both_sides,
    output_size,
    pad,
    per_dimension,
    put_back,
    seen_by,
    taps,
    unpad,
)


def dynamic_conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    return forward(input, weight, bias, *window(weight, stride, padding, dilation), groups, PADDING_MODES[padding_mode])


def reference(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    settings = *window(weight, stride, padding, dilation), groups, PADDING_MODES[padding_mode]
    return formula(input, weight, bias, *settings).to(input.dtype)


def window(weight, stride, padding, dilation):
    """stride, padding and dilation as the kernels take them: lists, with both sides of the padding."""
    kernel = weight.shape[3:]
    stride, dilation = per_dimension(stride, len(kernel)), per_dimension(dilation, len(kernel))
    return stride, both_sides(padding, kernel, dilation), dilation


# The formula, forward and backward, in the type in which the input is computed: a sum over the taps of the kernel.


def formula(input, weight, bias, stride, padding, dilation, groups, padding_mode):
    kernel, weight = weight.shape[3:], widen(weight)
    size = output_size(input.shape[2:], kernel, stride, padding, dilation)
    padded = pad(widen(input), padding, padding_mode)
    output = sum(
        product(_by_group(weight[(..., *tap)], groups), _planes(seen_by(tap, padded, size, stride, dilation), groups))
        for tap in taps(kernel)
    ).reshape(input.shape[0], weight.shape[1], *size)
    return output if bias is None else output + bias.to(output.dtype).reshape(*bias.shape, *[1] * len(size))


def backward_formula(grad, input, weight, stride, padding, dilation, groups, padding_mode):
    """Gradients of input, weight and bias."""
    kernel, weight, grad = weight.shape[3:], widen(weight), widen(grad)
    padded = pad(widen(input), padding, padding_mode)
    grad_planes = _planes(grad, groups)
    grad_padded, grad_taps = 0, []
    for tap in taps(kernel):
        seen = seen_by(tap, padded, grad.shape[2:], stride, dilation)
        grad_seen = product(_by_group(weight[(..., *tap)], groups).mT, grad_planes).reshape(seen.shape)
        grad_padded = grad_padded + put_back(tap, grad_seen, padded.shape[2:], stride, dilation)
        grad_taps.append(product(grad_planes, _planes(seen, groups).mT))
    grad_weight = torch.stack(grad_taps, -1).reshape(weight.shape)
    return unpad(grad_padded, input.shape[2:], padding, padding_mode), grad_weight, grad.flatten(2).sum(2)


def _by_group(tap_weight, groups):
    """(N, C_out, C_in / groups) to (N, groups, C_out / groups, C_in / groups)."""
    n, out_channels, in_channels = tap_weight.shape
    return tap_weight.reshape(n, groups, out_channels // groups, in_channels)


def _planes(map, groups):
    """(N, C, *) to (N, groups, C / groups, positions)."""
    n, channels, *size = map.shape
    return map.reshape(n, groups, channels // groups, math.prod(size))


# The operator.


def empty_output(input, weight, stride, padding, dilation):
    size = output_size(input.shape[2:], weight.shape[3:], stride, padding, dilation)
    return input.new_empty(input.shape[0], weight.shape[1], *size).to(memory_format=memory_format(input))


def _definition(input, weight, bias, stride, padding, dilation, groups, padding_mode):
    output = formula(input, weight, bias, stride, padding, dilation, groups, padding_mode)
    return output.to(input.dtype, memory_format=memory_format(input))


def _fake(input, weight, bias, stride, padding, dilation, groups, padding_mode):
    return empty_output(input, weight, stride, padding, dilation)


SETTINGS = "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, int padding_mode"

_forward_kernel = define(
    "dynamic_conv2d", f"(Tensor input, Tensor weight, Tensor? bias, {SETTINGS}) -> Tensor", _definition, _fake
)


# Its backward. What is not needed comes back empty. The bias' gradient is wide: a sum per plane.


def empty_gradients(grad, input, weight, need_input, need_weight, need_bias):
    return (
        empty_map(input, need_input),
        weight.new_empty(weight.shape if need_weight else 0),
        grad.new_empty(grad.shape[:2] if need_bias else 0, dtype=wide_dtype(grad)),
    )


def _backward_definition(
    grad, input, weight, stride, padding, dilation, groups, padding_mode, need_input, need_weight, need_bias
):
    found = backward_formula(grad, input, weight, stride, padding, dilation, groups, padding_mode)
    wanted = empty_gradients(grad, input, weight, need_input, need_weight, need_bias)
    return tuple(map(store_like, wanted, found))


def _backward_fake(
    grad, input, weight, stride, padding, dilation, groups, padding_mode, need_input, need_weight, need_bias
):
    return empty_gradients(grad, input, weight, need_input, need_weight, need_bias)


_backward_kernel = define(
    "dynamic_conv2d_backward",
    f"(Tensor grad, Tensor input, Tensor weight, {SETTINGS}, bool need_input, bool need_weight, bool need_bias)"
    " -> (Tensor, Tensor, Tensor)",
    _backward_definition,
    _backward_fake,
)


# By the kernels, or by torch's own convolution where that is faster.


def convolve(input, weight, bias, *settings):
    """`forward` without a gradient."""
    *window, groups, _ = settings
    if not is_by_torch(input, weight, *window, groups):
        return _forward_kernel(input, weight, bias, *settings)
    return _by_sample.convolve(empty_output(input, weight, *window), input, weight, bias, *settings)


def is_by_torch(input, weight, stride, padding, dilation, groups) -> bool:
    if not _by_sample.is_faster(input, weight, groups):
        return False
    columns = output_size(input.shape[2:], weight.shape[3:], stride, padding, dilation)[-1]
    return not (_minimal.takes(input, weight, stride, dilation, groups) and _minimal.fills_vectors(columns))


def _convolve_back(grad, input, weight, *settings):
    *settings, need_input, need_weight, need_bias = settings
    stride, padding, dilation, groups, padding_mode = settings
    by_sample = need_input and _by_sample.is_faster(input, weight, groups)
    minimal = need_input and _minimal.takes(grad, weight, stride, dilation, groups)
    if minimal:
        # Sums at a border, of numbers that are rounded to few digits, would be further away.
        exact = padding_mode == ZEROS or grad.dtype == torch.float32
        minimal = exact and (not by_sample or _minimal.fills_vectors(input.shape[-1]))
    by_kernel = need_input and not (minimal or by_sample)
    grad_input, *others = _backward_kernel(grad, input, weight, *settings, by_kernel, need_weight, need_bias)
    if minimal:
        grad_input = _minimal.gradient_of_input(grad, weight, padding, padding_mode)
        grad_input = grad_input.contiguous(memory_format=memory_format(input))
    elif by_sample:
        grad_input = _by_sample.gradient_of_input(empty_map(input), grad, weight, *settings)
    return grad_input, *others


# Autograd.


def _save(ctx, inputs, output):
    input, weight, bias, *ctx.settings = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(input, weight)


def _differentiate(ctx, grad):
    needed = ctx.needs_input_grad[:3]
    return *wanted_gradients(backward(grad, *ctx.saved_tensors, *ctx.settings, *needed), needed, ctx.bias_dtype), *[None] * 5


def wanted_gradients(found, needed, bias_dtype):
    """Gradients of input, weight and bias, None for those that are not needed."""
    grad_input, grad_weight, grad_bias = (gradient if need else None for gradient, need in zip(found, needed))
    return grad_input, grad_weight, None if grad_bias is None else grad_bias.to(bias_dtype)


def _save_backward(ctx, inputs, output):
    grad, input, weight, *ctx.settings = inputs
    ctx.save_for_backward(grad, input, weight)
    ctx.set_materialize_grads(False)


def _differentiate_backward(ctx, *gradients):
    def from_inputs(grad, input, weight):
        return backward_formula(grad, input, weight, *ctx.settings[:5])

    return *gradient_of(from_inputs, ctx.saved_tensors, gradients), *[None] * 8


forward = differentiable(convolve, _definition, _save, _differentiate)
backward = differentiable(_convolve_back, _backward_definition, _save_backward, _differentiate_backward)


# Filters for a map of any shape: as wide as fits, in as many groups as its channels allow.


def some_kernel(shape, width=3):
    return [width if size >= width else 1 for size in shape[2:]]


def some_groups(channels):
    """Of two channels or more, where their number is no prime; dense filters only for few channels."""
    smallest = next((part for part in range(2, channels) if channels % part == 0), channels)
    return max(1, channels // max(1, smallest) if channels <= 64 else channels)


def _samples(make, shape):
    n, c = shape[:2]
    kernel, groups = some_kernel(shape), some_groups(c)
    around = [width // 2 for width in kernel]
    yield Sample(
        "depthwise, reflect",
        (make(*shape), make(n, c, min(c, 1), *kernel), make(n, c)),
        dict(padding=around, groups=max(1, c), padding_mode="reflect"),
    )
    yield Sample(
        "grouped, stride 2",
        (make(*shape), make(n, 3 * groups, c // groups, *kernel), make(n, 3 * groups)),
        dict(stride=2, padding=1, groups=groups),
    )
    yield Sample(
        "dilated, circular",
        (make(*shape), make(n, 2 * groups, c // groups, *kernel)),
        dict(padding="same", dilation=2, groups=groups, padding_mode="circular"),
    )
    yield Sample(
        "even, replicate",
        (make(*shape), make(n, 2 * c, min(c, 1), *some_kernel(shape, 2)), make(n, 2 * c)),
        dict(padding="same", groups=max(1, c), padding_mode="replicate"),
    )


OPERATOR = Operator(
    "dynamic_conv2d",
    dynamic_conv2d,
    reference,
    _samples,
    kernels=("dynamic_conv2d", "dynamic_conv2d_backward"),
    maps=2,
    backward_maps=3,
    flops=18,
)
