"""norm_conv2d: one layer of a chain in one pass; of lines and volumes, too.

    entered = act((input - mean) * scale + shift + residual)          per plane: what is left of the norm before it
    output  = out_act(conv(pad(upsample(entered)), weight) + bias)    shared filters, or a filter per sample
    stats   = mean and rstd of each plane of output                   for the norm behind it

Nothing normalised, upsampled or padded is written: an element is changed on its way to cache, a border is read by index,
and the statistics are taken while an output is still there. `entered` itself is an output where a later layer adds it.

At least, per element: one read and one write of a map, and the filters once; 2 * K * C_in / groups flops for an output.
Upsampling by f costs ((K_h + f - 1) / (f * K_h))^2 of that: see `upsample_conv2d`.

With gradients, or where a library's convolution is ahead, it is the operators that it is made of, one after the other; but
one kernel where the input alone has a gradient and nothing becomes of it on its way in: `_frozen`.
"""

import torch
from torch.autograd import forward_ad

from . import _by_sample, _frozen, _minimal, backends, instance_stats, scale_shift, upsample_conv2d
from ._activation import ACTIVATIONS, CODES
from ._layout import empty_map, empty_statistic, memory_format
from ._library import define
from ._operator import Operator, Sample
from ._window import PADDING_MODES, both_sides, output_size, per_dimension
from .dynamic_conv2d import some_groups, some_kernel
from .instance_stats import EPS_MODES


def norm_conv2d(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", *,
    mean=None, scale=None, shift=None, residual=None, activation=None, negative_slope=0.01, scale_factor=1,
    output_activation=None, output_negative_slope=0.01, return_stats=False, eps=1e-5, correction=0, eps_mode="var",
    return_entered=False,
):  # fmt: skip
    entry = mean, scale, shift, residual, CODES[activation], negative_slope
    exit = CODES[output_activation], output_negative_slope
    rule = eps, correction, EPS_MODES[eps_mode]
    window = settings(weight, input, stride, padding, dilation, scale_factor)
    found = forward(
        input, weight, bias, *entry, *window, groups, PADDING_MODES[padding_mode], *exit, *rule, return_stats, return_entered
    )
    return wanted(found, return_stats, return_entered)


def reference(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", *,
    mean=None, scale=None, shift=None, residual=None, activation=None, negative_slope=0.01, scale_factor=1,
    output_activation=None, output_negative_slope=0.01, return_stats=False, eps=1e-5, correction=0, eps_mode="var",
    return_entered=False,
):  # fmt: skip
    """As torch's own modules would, step by step, each of which hands on what it computed in the input's type."""
    entered = scale_shift.reference(input, mean, scale, shift, None, residual, activation, negative_slope)
    window = settings(weight, input, stride, padding, dilation, scale_factor)
    output = upsample_conv2d.formula(entered, weight, bias, *window, groups, PADDING_MODES[padding_mode]).to(input.dtype)
    output = scale_shift.reference(output, activation=output_activation, negative_slope=output_negative_slope)
    stats = instance_stats.reference(output, eps, correction, eps_mode) if return_stats else (None, None)
    return wanted((output, *stats, entered), return_stats, return_entered)


def wanted(found, return_stats, return_entered):
    output, mean, rstd, entered = found
    if not (return_stats or return_entered):
        return output
    return output, *((mean, rstd) if return_stats else ()), *((entered,) if return_entered else ())


def settings(weight, input, stride, padding, dilation, scale_factor):
    """scale_factor, stride, padding and dilation as lists, with both sides of the padding."""
    dims = input.dim() - 2
    stride, dilation = per_dimension(stride, dims), per_dimension(dilation, dims)
    return per_dimension(scale_factor, dims), stride, both_sides(padding, weight.shape[-dims:], dilation), dilation


# The kernel. Its filters are (1 or N, C_out, C_in / groups, *), in the input's type or the one that it is computed in.
# The input's elements lie `input_dilation` apart, zeros between them: what a border is read at is counted in elements.


ENTRY = "Tensor? mean, Tensor? scale, Tensor? shift, Tensor? residual, int activation, float slope"
SETTINGS = "SymInt[] input_dilation, SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, int padding_mode"
EXIT = "int output_activation, float output_slope, float eps, int correction, bool eps_on_std, bool need_stats, bool need_entered"


def _definition(
    input, weight, bias, mean, scale, shift, residual, activation, slope, input_dilation, stride, padding, dilation,
    groups, padding_mode, output_activation, output_slope, eps, correction, eps_on_std, need_stats, need_entered,
):  # fmt: skip
    arguments = tuple(locals().values())
    entered = scale_shift.formula(input, mean, scale, shift, None, residual, activation, slope)
    output = upsample_conv2d.dilated_formula(
        entered, weight, bias, input_dilation, stride, padding, dilation, groups, padding_mode
    )
    output = ACTIVATIONS[output_activation].function(output, output_slope)
    stats = instance_stats.formula(output, eps, correction, eps_on_std) if need_stats else (None, None)
    found = output, *stats, entered if need_entered else None
    return tuple(
        wanted if value is None else value.to(wanted.dtype, memory_format=memory_format(wanted), copy=True)
        for wanted, value in zip(_fake(*arguments), found)
    )


def _fake(
    input, weight, bias, mean, scale, shift, residual, activation, slope, input_dilation, stride, padding, dilation,
    groups, padding_mode, output_activation, output_slope, eps, correction, eps_on_std, need_stats, need_entered,
):  # fmt: skip
    spread = [size * step for size, step in zip(input.shape[2:], input_dilation)]
    size = output_size(spread, weight.shape[3:], stride, padding, dilation)
    output = input.new_empty(input.shape[0], weight.shape[1], *size).to(memory_format=memory_format(input))
    mean, rstd = empty_statistic(output, need_stats), empty_statistic(output, need_stats)
    return output, mean, rstd, empty_map(input, need_entered)


kernel = define(
    "norm_conv2d",
    f"(Tensor input, Tensor weight, Tensor? bias, {ENTRY}, {SETTINGS}, {EXIT}) -> (Tensor, Tensor, Tensor, Tensor)",
    _definition,
    _fake,
)


# The operator: in one kernel, or step by step.


def forward(
    input, weight, bias, mean, scale, shift, residual, activation, slope, scale_factor, stride, padding, dilation,
    groups, padding_mode, output_activation, output_slope, eps, correction, eps_on_std, need_stats, need_entered,
):  # fmt: skip
    """(output, mean, rstd, entered), of which the last three are empty where they are not needed."""
    entry = mean, scale, shift, residual, activation, slope
    exit = output_activation, output_slope
    rule = eps, correction, eps_on_std
    window = scale_factor, stride, padding, dilation, groups, padding_mode
    lattice = None
    if not is_differentiated((input, weight, bias, mean, scale, shift, residual)):
        lattice = _as_one_kernel(input, weight, _is_bare(*entry, output_activation, need_stats), *window)
    elif _is_bare(*entry, None, need_stats or need_entered) and all(factor == 1 for factor in scale_factor):
        if _frozen.is_asked_for(input, weight, bias, output_activation):
            return _with_frozen_filters(input, weight, bias, output_activation, window[1:])
    if lattice is None:
        def convolve(entered):
            return upsample_conv2d.forward(entered, weight, bias, *window)

        return step_by_step(convolve, input, entry, exit, rule, need_stats, need_entered)
    (filters, *lattice, border), rims = lattice
    if any(rims):
        found = _with_rims(input, weight, bias, entry, filters, lattice, border, window, exit, need_entered, rims)
        stats = instance_stats.forward(found[0], *rule) if need_stats else (input.new_empty(0), input.new_empty(0))
        return found[0], *stats, found[1]
    window = lattice
    if need_entered and not _meets_all(filters, stride, dilation):
        entered = scale_shift.forward(input, mean, scale, shift, None, residual, activation, slope)
        none = None, None, None, None, 0, 0.0
        return *kernel(entered, filters, bias, *none, *window, groups, border, *exit, *rule, need_stats, False)[:3], entered
    return kernel(input, filters, bias, *entry, *window, groups, border, *exit, *rule, need_stats, need_entered)


def _with_frozen_filters(input, weight, bias, activation, window):
    filters = upsample_conv2d.per_sample(weight, input)
    bias = bias if bias is None else bias.expand(input.shape[0], bias.shape[-1])
    output, _ = _frozen.forward(input, filters, bias, activation, *window)
    return output, *[input.new_empty(0)] * 3


def repeated(
    input, weight, stride, padding, dilation, groups, padding_mode, scale_factor, bare, activation=None, negative_slope=0.01,
    output_activation=None, output_negative_slope=0.01, return_stats=False, eps=1e-5, correction=0, eps_mode="var",
    return_entered=False,
):  # fmt: skip
    """norm_conv2d for tensors like these, which it took already: its kernel, of which all but the tensors is settled.

    call(input, weight, bias, mean, scale, shift, residual) checks nothing, and has no gradients. None where it would be more
    than that kernel. `bare` says that nothing becomes of the input on its way in.
    """
    scale_factor, stride, padding, dilation = settings(weight, input, stride, padding, dilation, scale_factor)
    bare = bare and output_activation is None and not return_stats
    lattice = _as_one_kernel(
        input, weight, bare, scale_factor, stride, padding, dilation, groups, PADDING_MODES[padding_mode]
    )
    if backends.reference() or lattice is None or any(lattice[1]):
        return None
    filters, *window, border = lattice[0]
    if return_entered and not _meets_all(filters, stride, dilation):
        return None
    activated = CODES[activation], negative_slope
    settled = (
        *window, groups, border, CODES[output_activation], output_negative_slope, eps, correction, EPS_MODES[eps_mode],
        return_stats, return_entered,
    )  # fmt: skip
    on_lattice = upsample_conv2d.filters_on_lattice

    def call(input, weight, bias, mean, scale, shift, residual):
        filters = on_lattice(weight, input, scale_factor)
        found = kernel(input, filters, bias, mean, scale, shift, residual, *activated, *settled)
        return wanted(found, return_stats, return_entered)

    return call


def _with_rims(input, weight, bias, entry, filters, lattice, border, window, exit, need_entered, rims):
    """(output, entered): by one kernel, and the rims of what is reflected from further inside written over its outputs."""
    scale_factor, _, padding, _, groups, _ = window
    rule = 0.0, 0, False
    output, _, _, entered = kernel(
        input, filters, bias, *entry, *lattice, groups, border, *exit, *rule, False, need_entered
    )
    mean, scale, shift, residual, activation, slope = entry

    def part(dim, start, length):
        added = None if residual is None else residual.narrow(dim, start, length)
        return scale_shift.forward(input.narrow(dim, start, length), mean, scale, shift, None, added, activation, slope)

    def finished(strip):
        return scale_shift.forward(strip, None, None, None, None, None, *exit) if exit[0] else strip

    upsample_conv2d.write_rims(output, part, input, weight, bias, scale_factor, padding, groups, rims, finished)
    return output, entered


def _as_one_kernel(input, weight, bare, scale_factor, stride, padding, dilation, groups, padding_mode):
    """The lattice that the kernel runs on, and its rims; None where there is none, or a library's convolution is ahead."""
    bare = bare and all(factor == 1 for factor in scale_factor)
    bare = bare and not _minimal.has_fewer_products(input, weight, stride, dilation)
    if bare and _by_sample.is_faster(input, upsample_conv2d.stacked(weight, input), groups):
        return None
    return upsample_conv2d.lattice(input, weight, scale_factor, stride, padding, dilation, padding_mode)


def _is_bare(mean, scale, shift, residual, activation, slope, output_activation, need_stats):
    """Whether nothing but a convolution is asked for."""
    return not (activation or output_activation or need_stats) and mean is scale is shift is residual is None


def _meets_all(filters, stride, dilation):
    """Whether the kernel meets all of the input, so that it can keep what entered."""
    return all(step == 1 for step in (*stride, *dilation)) and filters.shape[1] > 0


def is_differentiated(tensors):
    """Whether somebody may ask for gradients by them, in either mode."""
    if forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def step_by_step(convolve, input, entry, exit, rule, need_stats, need_entered):
    """What `forward` returns, by an operator for each step; `convolve` takes what entered."""
    mean, scale, shift, residual, activation, slope = entry
    entered = input
    if activation or any(change is not None for change in (mean, scale, shift, residual)):
        entered = scale_shift.forward(input, mean, scale, shift, None, residual, activation, slope)
    output = convolve(entered)
    if exit[0]:
        output = scale_shift.forward(output, None, None, None, None, None, *exit)
    stats = instance_stats.forward(output, *rule) if need_stats else (output.new_empty(0), output.new_empty(0))
    return output, *stats, entered.clone() if need_entered and entered is input else entered


def _samples(make, shape):
    n, c = shape[:2]
    kernel, groups = some_kernel(shape), some_groups(c)
    around = [width // 2 for width in kernel]
    out_channels = 2 * groups
    yield Sample(
        "normalised, shared",
        (make(*shape), make(2 * c, min(c, 1), *kernel), make(2 * c)),
        dict(
            mean=make(n, c), scale=make(c), shift=make(n, c), activation="silu", padding=around,
            # A scale near zero leaves a plane of next to no deviation: of a small eps its gradient would be all rounding.
            groups=max(1, c), padding_mode="reflect", return_stats=True, eps=1.0,
        ),
    )  # fmt: skip
    yield Sample(
        "per sample, stride 2, a residual",
        # Small filters: of sums as large as ten, an activation rounds what their gradient depends on.
        (make(*shape), make(n, out_channels, c // groups, *kernel) / 8, make(n, out_channels)),
        dict(
            scale=make(n, c), residual=make(*shape), stride=2, padding=around, groups=groups, output_activation="silu",
            return_entered=True,
        ),
    )  # fmt: skip
    yield Sample(
        "upsampled",
        (make(*shape), make(out_channels, c // groups, *kernel)),
        dict(
            mean=make(c), shift=make(c), activation="gelu", scale_factor=2, padding=around, groups=groups,
            padding_mode="reflect", return_stats=True, return_entered=True, correction=1, eps_mode="std", eps=0.1,
        ),
    )  # fmt: skip


OPERATOR = Operator(
    "norm_conv2d",
    norm_conv2d,
    reference,
    _samples,
    kernels=(
        "norm_conv2d",
        "dynamic_conv2d",
        "dynamic_conv2d_backward",
        "instance_stats",
        "scale_shift",
        "scale_shift_backward",
        "upsample_pad2d",
        "upsample_pad2d_backward",
    ),
    maps=2,
    backward_maps=3,
    flops=18,
)
