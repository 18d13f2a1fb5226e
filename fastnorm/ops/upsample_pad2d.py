"""upsample_pad2d: nearest upsampling by whole factors, and padding, in one pass; of lines and volumes, too.

    output[n, c, p] = input[n, c, inside(p - before) // scale]

inside() finds the position of the upsampled map that one beyond its border is read at: reflected, replicated or circular;
or there is a zero. What decoders do before a convolution, since Odena et al. 2016 (doi:10.23915/distill.00003).

At least: one read of the input and one write of the output, and the reverse backward; no flops, an addition for each
number of the gradient. It is linear: the gradient of its gradient is the operator itself, and nothing is kept for either.
"""

from ._layout import memory_format, widen
from ._library import define, differentiable
from ._operator import Operator, Sample
from ._window import PADDING_MODES, from_last, pad, per_dimension, unpad


def upsample_pad2d(input, scale_factor=2, padding=1, padding_mode="reflect"):
    return forward(input, *_settings(input, scale_factor, padding, padding_mode))


def reference(input, scale_factor=2, padding=1, padding_mode="reflect"):
    return _definition(input, *_settings(input, scale_factor, padding, padding_mode))


def _settings(input, scale_factor, padding, padding_mode):
    """As the kernels take them: lists, with both sides of the padding."""
    dims = input.dim() - 2
    return per_dimension(scale_factor, dims), from_last(padding, dims), PADDING_MODES[padding_mode]


# The formula, forward and backward: the gradient's in the type in which it is computed.


def formula(input, scale, padding, padding_mode):
    for dim, factor in enumerate(scale, start=2):
        input = input.repeat_interleave(factor, dim)
    return pad(input, padding, padding_mode)


def backward_formula(grad, scale, padding, padding_mode):
    size = _unpadded(grad, padding)
    grad = unpad(widen(grad), size, padding, padding_mode)
    for dim, (length, factor) in enumerate(zip(size, scale), start=2):
        grad = grad.unflatten(dim, (length // factor, factor)).sum(dim + 1)
    return grad


def _unpadded(padded, padding):
    return [length - before - after for length, before, after in zip(padded.shape[2:], padding[::2], padding[1::2])]


# The operator.


def _definition(input, scale, padding, padding_mode):
    output = formula(input, scale, padding, padding_mode)
    return output.to(output.dtype, memory_format=memory_format(input), copy=True)


def _fake(input, scale, padding, padding_mode):
    sides = zip(input.shape[2:], scale, padding[::2], padding[1::2])
    return _empty(input, [length * factor + before + after for length, factor, before, after in sides])


def _empty(map, size):
    """A map of another size, in the type and layout of `map`."""
    return map.new_empty(*map.shape[:2], *size).to(memory_format=memory_format(map))


SETTINGS = "SymInt[] scale, SymInt[] padding, int padding_mode"

_forward_kernel = define("upsample_pad2d", f"(Tensor input, {SETTINGS}) -> Tensor", _definition, _fake)


# Its backward, laid out as the gradient that comes.


def _backward_definition(grad, scale, padding, padding_mode):
    found = backward_formula(grad, scale, padding, padding_mode)
    return found.to(grad.dtype, memory_format=memory_format(grad), copy=True)


def _backward_fake(grad, scale, padding, padding_mode):
    return _empty(grad, [length // factor for length, factor in zip(_unpadded(grad, padding), scale)])


_backward_kernel = define(
    "upsample_pad2d_backward", f"(Tensor grad, {SETTINGS}) -> Tensor", _backward_definition, _backward_fake
)


# Autograd.


def _save(ctx, inputs, output):
    _, *ctx.settings = inputs


def _differentiate(ctx, grad):
    return backward(grad, *ctx.settings), None, None, None


def _differentiate_backward(ctx, grad):
    return forward(grad, *ctx.settings), None, None, None


forward = differentiable(_forward_kernel, _definition, _save, _differentiate)
backward = differentiable(_backward_kernel, _backward_definition, _save, _differentiate_backward)


def _samples(make, shape):
    dims = len(shape) - 2
    yield Sample("reflect", (make(*shape),))
    yield Sample(
        "circular", (make(*shape),), dict(scale_factor=(2, 3, 2)[-dims:], padding=(2, 1) * dims, padding_mode="circular")
    )
    yield Sample("replicate", (make(*shape),), dict(scale_factor=4, padding=(0, 5) * dims, padding_mode="replicate"))
    yield Sample("zeros", (make(*shape),), dict(scale_factor=(1, 1, 3)[-dims:], padding=2, padding_mode="zeros"))


# A map read, and one written of four times its size.
OPERATOR = Operator(
    "upsample_pad2d",
    upsample_pad2d,
    reference,
    _samples,
    kernels=("upsample_pad2d", "upsample_pad2d_backward"),
    maps=5,
    backward_maps=5,
    flops=0,
)
