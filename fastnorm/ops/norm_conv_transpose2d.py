"""norm_conv_transpose2d: `norm_conv2d` with the transposed convolution.

    entered = act((input - mean) * scale + shift + residual)
    output  = out_act(conv_transpose(entered, weight) + bias)         shared filters, or a filter per sample
    stats   = mean and rstd of each plane of output

A transposed convolution of stride s is the convolution, by the filters turned round, of the map with its elements s apart
and zeros between them: the kernel of `norm_conv2d` does that by phases, and multiplies no zero.

At least, per element: one read and one write of a map, and the filters once; 2 * K * C_out / groups flops for an input.

With gradients, or where a border is cut off, it is the operators that it is made of.
"""

from . import instance_stats, norm_conv2d, scale_shift, upsample_conv2d
from ._activation import CODES
from ._layout import memory_format, widen
from ._operator import Operator, Sample
from ._window import ZEROS, per_dimension
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
    output = formula(entered, weight, bias, settings(input, stride, padding, output_padding, dilation), groups)
    output = scale_shift.reference(output.to(input.dtype), activation=output_activation, negative_slope=output_negative_slope)
    stats = instance_stats.reference(output, eps, correction, eps_mode) if return_stats else (None, None)
    return norm_conv2d.wanted((output, *stats, entered), return_stats, return_entered)


def settings(input, stride, padding, output_padding, dilation):
    """stride, padding, output_padding and dilation as lists."""
    return [per_dimension(numbers, input.dim() - 2) for numbers in (stride, padding, output_padding, dilation)]


def formula(input, weight, bias, window, groups):
    filters, stride, around = _lattice(input, weight, window, groups)
    ones = [1] * len(stride)
    output = upsample_conv2d.dilated_formula(
        widen(input), widen(filters), bias, stride, ones, _beyond(around), ones, groups, ZEROS
    )
    return _cut(output, around)


# As a convolution of the map with its elements apart.


def _lattice(input, weight, window, groups):
    """Its filters, how far elements are apart, and how much lies before and behind them: less than 0 is cut off."""
    stride, padding, output_padding, dilation = window
    filters = upsample_conv2d.prepared(weight, ("turned", groups, *dilation), lambda weight: _turned(weight, input, groups, dilation))
    around = []
    for width, step, side, more in zip(filters.shape[3:], stride, padding, output_padding):
        before = width - 1 - side
        around += [before, before + more - (step - 1)]  # Behind the last element there are zeros, too.
    return filters, stride, around


def _turned(weight, input, groups, dilation):
    """(1 or N, C_out, C_in / groups, *), the other way round, with dilated taps apart."""
    filters = upsample_conv2d.stacked(weight, input)
    for dim, step in enumerate(dilation, start=3):
        width = step * (filters.shape[dim] - 1) + 1
        filters = upsample_conv2d.apart(filters, dim, step).narrow(dim, 0, width)
    return upsample_conv2d.exchanged(filters, groups).flip(tuple(range(3, filters.dim()))).contiguous()


def _beyond(around):
    return [max(0, side) for side in around]


def _cut(output, around):
    for index, side in enumerate(around):
        if side < 0:
            dim, last = index // 2 + 2, index % 2
            output = output.narrow(dim, 0 if last else -side, output.shape[dim] + side)
    return output


# The operator.


def forward(input, weight, bias, entry, window, groups, exit, rule, need_stats, need_entered):
    """(output, mean, rstd, entered), of which the last three are empty where they are not needed."""
    filters, stride, around = _lattice(input, weight, window, groups)
    mean, scale, shift, residual, activation, slope = entry
    differentiated = norm_conv2d.is_differentiated((input, weight, bias, mean, scale, shift, residual))
    if not differentiated and min(around) >= 0:
        ones = [1] * len(stride)
        return norm_conv2d.kernel(
            input, filters, bias, *entry, stride, ones, around, ones, groups, ZEROS, *exit, *rule, need_stats, need_entered
        )
    entered = input
    if activation or any(change is not None for change in (mean, scale, shift, residual)):
        entered = scale_shift.forward(input, mean, scale, shift, None, residual, activation, slope)
    output = upsample_conv2d.convolve_on_lattice(entered, filters, bias, stride, _beyond(around), groups, ZEROS)
    output = _cut(output, around).contiguous(memory_format=memory_format(input))
    if exit[0]:
        output = scale_shift.forward(output, None, None, None, None, None, *exit)
    stats = instance_stats.forward(output, *rule) if need_stats else (output.new_empty(0), output.new_empty(0))
    return output, *stats, entered.clone() if need_entered and entered is input else entered


def _samples(make, shape):
    n, c = shape[:2]
    kernel, groups = some_kernel(shape), some_groups(c)
    around = [width // 2 for width in kernel]
    yield Sample(
        "normalised, shared",
        (make(*shape), make(c, 3, *kernel), make(3)),
        dict(
            mean=make(n, c), scale=make(c), shift=make(n, c), activation="silu", stride=2, padding=around,
            output_padding=1, return_stats=True, eps=1.0,
        ),
    )  # fmt: skip
    yield Sample(
        "per sample, grouped, a residual",
        # Small filters: of sums as large as ten, an activation rounds what their gradient depends on.
        (make(*shape), make(n, c, 2, *some_kernel(shape, 2)) / 8, make(n, 2 * groups)),
        dict(
            scale=make(n, c), residual=make(*shape), stride=2, groups=groups, output_activation="silu", return_entered=True
        ),
    )
    yield Sample(
        "stride 3, dilated",
        (make(*shape), make(c, 2, *some_kernel(shape, 2))),
        dict(stride=3, dilation=2, padding=1, return_stats=True, correction=1, eps_mode="std", eps=0.1),
    )


OPERATOR = Operator(
    "norm_conv_transpose2d",
    norm_conv_transpose2d,
    reference,
    _samples,
    kernels=("norm_conv2d", "dynamic_conv2d", "dynamic_conv2d_backward", "instance_stats", "scale_shift", "scale_shift_backward", "upsample_pad2d", "upsample_pad2d_backward"),
    maps=5,
    backward_maps=10,
    flops=18,
)
