"""norm_conv_transpose2d: `norm_conv2d` with the transposed convolution.

    entered = act((input - mean) * scale + shift + residual)
    output  = out_act(conv_transpose(entered, weight) + bias)         shared filters, or a filter per sample
    stats   = mean and rstd of each plane of output

A transposed convolution of stride s is the convolution, by the filters turned round, of the map with its elements s apart
and zeros between them: the kernel of `norm_conv2d` does that by phases, and multiplies no zero.

At least, per element: one read and one write of a map, and the filters once; 2 * K * C_out / groups flops for an input.

With gradients, or where a border is cut off, it is the operators that it is made of, one after the other.
"""

from . import dynamic_conv2d, instance_stats, norm_conv2d, scale_shift, upsample_conv2d
from ._activation import CODES
from ._layout import bias_gradient, memory_format, widen
from ._library import differentiable
from ._minimal import exchanged
from ._operator import Operator, Sample
from ._window import ZEROS, both_sides, per_dimension
from .dynamic_conv2d import some_groups, some_kernel
from .instance_stats import EPS_MODES


def norm_conv_transpose2d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *,
    mean=None, scale=None, shift=None, residual=None, activation=None, negative_slope=0.01,
    output_activation=None, output_negative_slope=0.01, return_stats=False, eps=1e-5, correction=0, eps_mode="var",
    return_entered=False,
):  # fmt: skip
    entry = mean, scale, shift, residual, CODES[activation], negative_slope
    exit = CODES[output_activation], output_negative_slope
    rule = eps, correction, EPS_MODES[eps_mode]
    window = settings(input, stride, padding, output_padding, dilation)
    found = forward(input, weight, bias, entry, window, groups, exit, rule, return_stats, return_entered)
    return norm_conv2d.wanted(found, return_stats, return_entered)


def reference(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *,
    mean=None, scale=None, shift=None, residual=None, activation=None, negative_slope=0.01,
    output_activation=None, output_negative_slope=0.01, return_stats=False, eps=1e-5, correction=0, eps_mode="var",
    return_entered=False,
):  # fmt: skip
    """As torch's own modules would, step by step, each of which hands on what it computed in the input's type."""
    entered = scale_shift.reference(input, mean, scale, shift, None, residual, activation, negative_slope)
    output = formula(entered, weight, bias, *settings(input, stride, padding, output_padding, dilation), groups)
    output = scale_shift.reference(output.to(input.dtype), activation=output_activation, negative_slope=output_negative_slope)
    stats = instance_stats.reference(output, eps, correction, eps_mode) if return_stats else (None, None)
    return norm_conv2d.wanted((output, *stats, entered), return_stats, return_entered)


def settings(input, stride, padding, output_padding, dilation):
    """stride, padding, output_padding and dilation as lists."""
    return [per_dimension(numbers, input.dim() - 2) for numbers in (stride, padding, output_padding, dilation)]


def formula(input, weight, bias, stride, padding, output_padding, dilation, groups):
    filters, around = _turned(weight, input, dilation, groups), _around(weight, stride, padding, output_padding, dilation)
    ones = [1] * len(stride)
    output = upsample_conv2d.dilated_formula(
        widen(input), widen(filters), bias, stride, ones, _beyond(around), ones, groups, ZEROS
    )
    return _cut(output, around)


# As a convolution of the map with its elements apart.


def _turned(weight, input, dilation, groups):
    """(1 or N, C_out, C_in / groups, *), the other way round, with dilated taps apart."""
    filters = upsample_conv2d.stacked(weight, input)
    for dim, step in enumerate(dilation, start=3):
        width = step * (filters.shape[dim] - 1) + 1
        filters = upsample_conv2d.apart(filters, dim, step).narrow(dim, 0, width)
    return exchanged(filters, groups).flip(tuple(range(3, filters.dim()))).contiguous()


def _around(weight, stride, padding, output_padding, dilation):
    """How much lies before and behind the map with its elements apart; of less than 0, so much is cut off."""
    around = []
    for width, jump, side, more, step in zip(weight.shape[-len(stride) :], stride, padding, output_padding, dilation):
        before = step * (width - 1) - side
        around += [before, before + more - (jump - 1)]  # Behind the last element there are zeros, too.
    return around


def _beyond(around):
    return [max(0, side) for side in around]


def _cut(output, around):
    for index, side in enumerate(around):
        if side < 0:
            dim, last = index // 2 + 2, index % 2
            output = output.narrow(dim, 0 if last else -side, output.shape[dim] + side)
    return output


# The convolution by itself, and its gradients: convolutions with that stride.


def _definition(input, weight, bias, *window):
    return formula(input, weight, bias, *window).to(input.dtype, memory_format=memory_format(input))


def _convolve(input, weight, bias, stride, padding, output_padding, dilation, groups):
    filters, around = _turned(weight, input, dilation, groups), _around(weight, stride, padding, output_padding, dilation)
    nothing, ones = (None, None, None, None, 0, 0.0), [1] * len(stride)
    output = norm_conv2d.kernel(
        input, filters, bias, *nothing, stride, ones, _beyond(around), ones, groups, ZEROS, 0, 0.0, 0.0, 0, False, False, False
    )[0]
    return _cut(output, around).contiguous(memory_format=memory_format(input))


def _save(ctx, inputs, output):
    input, weight, bias, *ctx.window = inputs
    ctx.bias = None if bias is None else (bias.dim(), bias.dtype)
    ctx.save_for_backward(input, weight)


def _differentiate(ctx, grad):
    input, weight = ctx.saved_tensors
    stride, padding, _, dilation, groups = ctx.window
    need_input, need_weight, need_bias = ctx.needs_input_grad[:3]
    n, shared = input.shape[0], weight.dim() == input.dim()
    window = stride, both_sides(padding, weight.shape[-len(stride) :], dilation), dilation, groups, ZEROS
    met = _met(grad, input, weight, *ctx.window).contiguous(memory_format=memory_format(input))
    filters = weight.expand(n, *weight.shape[-input.dim() :]).to(grad.dtype)
    grad_input = grad_weight = grad_bias = None
    if need_input:
        grad_input = dynamic_conv2d.forward(met, filters, None, *window)
    if need_weight:
        grad_weight = dynamic_conv2d.backward(input, met, filters, *window, False, True, False)[1]
        grad_weight = (grad_weight.sum(0) if shared else grad_weight).to(weight.dtype)
    if need_bias:
        grad_bias = bias_gradient(grad, *ctx.bias)
    return grad_input, grad_weight, grad_bias, *[None] * 5


def _met(grad, input, weight, stride, padding, output_padding, dilation, groups):
    """Without the last outputs that no input meets, where the output padding is as wide as the stride."""
    widths = weight.shape[-len(stride) :]
    for dim, (jump, side, step, width) in enumerate(zip(stride, padding, dilation, widths), start=2):
        reach = input.shape[dim] * jump - 2 * side + step * (width - 1)
        if grad.shape[dim] > reach:
            grad = grad.narrow(dim, 0, reach)
    return grad


convolve = differentiable(_convolve, _definition, _save, _differentiate)


# The operator.


def forward(input, weight, bias, entry, window, groups, exit, rule, need_stats, need_entered):
    """(output, mean, rstd, entered), of which the last three are empty where they are not needed."""
    stride, *_, dilation = window
    around = _around(weight, *window)
    if norm_conv2d.is_differentiated((input, weight, bias, *entry[:4])) or min(around) < 0:
        def convolved(entered):
            return convolve(entered, weight, bias, *window, groups)

        return norm_conv2d.step_by_step(convolved, input, entry, exit, rule, need_stats, need_entered)
    ones, how = [1] * len(stride), ("turned", groups, *dilation)
    filters = upsample_conv2d.prepared(weight, how, lambda weight: _turned(weight, input, dilation, groups))
    return norm_conv2d.kernel(
        input, filters, bias, *entry, stride, ones, around, ones, groups, ZEROS, *exit, *rule, need_stats, need_entered
    )


def _samples(make, shape):
    n, c = shape[:2]
    kernel, groups = some_kernel(shape), some_groups(c)
    around = [width // 2 for width in kernel]
    yield Sample(
        "normalised, shared",
        (make(*shape), make(c, 3, *kernel) / 4, make(3)),
        dict(
            mean=make(n, c), scale=make(c), shift=make(n, c), activation="silu", stride=2, padding=around,
            output_padding=1, return_stats=True, eps=1.0,
        ),
    )  # fmt: skip
    yield Sample(
        "per sample, grouped, dilated, a residual",
        # Small filters: of sums as large as ten, an activation rounds what their gradient depends on.
        (make(*shape), make(n, c, 2, *some_kernel(shape, 2)) / 8, make(n, 2 * groups)),
        dict(
            scale=make(n, c), residual=make(*shape), stride=3, dilation=2, groups=groups, output_activation="silu",
            return_entered=True,
        ),
    )  # fmt: skip


OPERATOR = Operator(
    "norm_conv_transpose2d",
    norm_conv_transpose2d,
    reference,
    _samples,
    kernels=(
        "norm_conv2d",
        "dynamic_conv2d",
        "dynamic_conv2d_backward",
        "instance_stats",
        "scale_shift",
        "scale_shift_backward",
    ),
    maps=5,
    backward_maps=10,
    flops=18,
)
