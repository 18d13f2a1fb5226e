"""A convolution whose filters are frozen, and a ReLU behind it: the input alone has a gradient, and no map is kept for it.

    output = relu(conv(pad(input), weight) + bias)      or without relu

So it is in the eye of every loss of style transfer. The gradient of the input needs the filters, and where ReLU let
something through: a byte for each output, where autograd keeps the input, and the output of the ReLU, 4 bytes each.
"""

import torch
from torch.autograd import forward_ad

from . import backends, dynamic_conv2d
from ._activation import CODES
from ._layout import memory_format
from ._library import differentiable

NONE, RELU = CODES[None], CODES["relu"]


def is_asked_for(input, weight, bias, activation) -> bool:
    """Whether the input alone has a gradient, and that of autograd's backward mode; elsewhere the steps take care of it."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or activation not in (NONE, RELU):
        return False
    if not input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad):
        return False
    if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return False
    return input.device.type == "cpu" and backends.which("norm_conv2d", "cpu") == "cpu"


# Filters are (N, C_out, C_in / groups, *), the bias (N, C_out).


def _convolve(input, weight, bias, activation, stride, padding, dilation, groups, padding_mode):
    """The output; and where it is not 0, if it is activated."""
    settings = stride, padding, dilation, groups, padding_mode
    if dynamic_conv2d.is_by_torch(input, weight, stride, padding, dilation, groups):
        output = dynamic_conv2d.convolve(input, weight, bias, *settings)
        output = output.relu_() if activation else output
    else:
        entry, ones, exit, rule = (None, None, None, None, NONE, 0.0), [1] * len(stride), (activation, 0.0), (0.0, 0, False)
        output = torch.ops.fastnorm.norm_conv2d(input, weight, bias, *entry, ones, *settings, *exit, *rule, False, False)[0]
    return output, output.to(torch.bool) if activation else output.new_empty(0, dtype=torch.bool)


def _definition(input, weight, bias, activation, stride, padding, dilation, groups, padding_mode):
    settings = stride, padding, dilation, groups, padding_mode
    output = dynamic_conv2d.formula(input, weight, bias, *settings).to(input.dtype, memory_format=memory_format(input))
    output = output.relu() if activation else output
    return output, output.detach().to(torch.bool)


def _save(ctx, inputs, output):
    input, weight, _, ctx.activation, *ctx.settings = inputs
    ctx.like_input = dict(size=input.shape, memory_format=memory_format(input), dtype=input.dtype)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(weight, output[1])


def _differentiate(ctx, grad, _):
    weight, passed = ctx.saved_tensors
    if ctx.activation:
        # Bytes become numbers three times as fast as truth values do.
        grad = _masked(grad, passed.view(torch.int8).to(grad.dtype))
    # No number of the input is read.
    like_input, needed = torch.empty(**ctx.like_input), (True, False, False)
    return dynamic_conv2d.backward(grad, like_input, weight, *ctx.settings, *needed)[0], *[None] * 8


def _masked(grad, passed):
    """The gradient where `passed` is 1; written over that, a map less, where nobody will ask how it came about."""
    functorch = torch._C._functorch
    if torch.is_grad_enabled() or functorch.is_legacy_batchedtensor(grad) or functorch.is_batchedtensor(grad):
        return torch.ops.aten.threshold_backward(grad, passed, 0)
    return torch.ops.aten.threshold_backward.grad_input(grad, passed, 0, grad_input=passed)


forward = differentiable(_convolve, _definition, _save, _differentiate)
