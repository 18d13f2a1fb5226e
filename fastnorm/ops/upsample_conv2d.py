"""upsample_conv2d: nearest upsampling, padding, a convolution; by phases, of lines and volumes, too.

    output = conv(pad(upsample(input, f)), weight) + bias

An upsampled map u holds each x[j] f times. Of the K taps that an output takes from u, those that meet the same x[j] may
be added up beforehand:

    output[y] = sum over k of weight[k] u[y + k - p] = sum over j of phase[f j - y + p + f - 1] x[j]
    phase[s]  = sum over a < f of weight[s - a]            K + f - 1 taps, of which an output meets each f-th

So it is the convolution of a map whose elements lie f apart, zeros between them, and only (K + f - 1) / f taps a dimension
meet an element: 2x2 instead of 3x3 for f = 2. At the border, nearest and then reflect by less than f is the map with its
edge replicated, exactly; zeros, replicate and circular padding mean the same in either map. Where more is reflected, the
outputs that meet that much are computed apart, from the map itself. A kernel of one tap commutes with upsampling: it is
applied first, to f^2 times fewer elements.

At least, per element of the output: 1 + 1 / f^2 reads and writes; 2 * C_in * ((K + f - 1) / f)^2 flops.
"""

import torch
from torch.utils.weak import WeakIdKeyDictionary

from . import dynamic_conv2d, scale_shift, upsample_pad2d
from ._layout import bias_gradient, memory_format, widen
from ._library import differentiable
from ._minimal import exchanged
from ._operator import Operator, Sample
from ._window import PADDING_MODES, REFLECT, REPLICATE, ZEROS, both_sides, output_size, pad, per_dimension
from .dynamic_conv2d import some_groups, some_kernel


def upsample_conv2d(input, weight, bias=None, scale_factor=2, padding=1, padding_mode="reflect", groups=1):
    return forward(input, weight, bias, *_settings(input, weight, scale_factor, padding), groups, PADDING_MODES[padding_mode])


def reference(input, weight, bias=None, scale_factor=2, padding=1, padding_mode="reflect", groups=1):
    settings = *_settings(input, weight, scale_factor, padding), groups, PADDING_MODES[padding_mode]
    return formula(input, weight, bias, *settings).to(input.dtype)


def _settings(input, weight, scale_factor, padding):
    """scale_factor, stride, padding and dilation as lists, with both sides of the padding."""
    ones = [1] * (input.dim() - 2)
    return per_dimension(scale_factor, len(ones)), ones, both_sides(padding, weight.shape[-len(ones) :], ones), ones


def formula(input, weight, bias, scale_factor, stride, padding, dilation, groups, padding_mode):
    """In the type in which the input is computed."""
    for dim, factor in enumerate(scale_factor, start=2):
        input = input.repeat_interleave(factor, dim) if factor != 1 else input
    filters = per_sample(widen(weight), input)
    return dynamic_conv2d.formula(input, filters, bias, stride, padding, dilation, groups, padding_mode)


def per_sample(weight, input):
    """Filters of each sample, (N, C_out, C_in / groups, *), of its own or of one that all share."""
    filters = stacked(weight, input)
    return filters.expand(input.shape[0], *filters.shape[1:])


def stacked(weight, input):
    """(1 or N, C_out, C_in / groups, *)."""
    return weight if weight.dim() == input.dim() + 1 else weight.unsqueeze(0)


# As a convolution of a map whose elements lie apart.


def lattice(input, weight, scale_factor, stride, padding, dilation, padding_mode):
    """(filters, input_dilation, stride, padding, dilation, padding_mode), and the rims beyond which they come to the same.

    None where none do, or where the kernel is applied before it is upsampled.
    """
    if all(factor == 1 for factor in scale_factor):
        return (filters_on_lattice(weight, input, scale_factor), scale_factor, stride, padding, dilation, padding_mode), ()
    if any(step != 1 for step in (*stride, *dilation)) or _commutes(weight, stride):
        return None
    rims = ()
    if padding_mode == REFLECT:
        rims, padding_mode = _rims(scale_factor, padding), REPLICATE
        if any(rims) and not _are_within(rims, input, weight, scale_factor, padding):
            return None
    filters = filters_on_lattice(weight, input, scale_factor)
    return (filters, scale_factor, stride, _around(scale_factor, padding), dilation, padding_mode), rims


def filters_on_lattice(weight, input, scale_factor):
    """(1 or N, C_out, C_in / groups, *), for a map with its elements that far apart."""
    if any(factor != 1 for factor in scale_factor):
        weight = phase_filters(weight, scale_factor)
    return stacked(weight, input)


def _commutes(weight, stride):
    """Whether a pixel's outputs depend on that pixel alone, so that it makes no difference which of them is upsampled."""
    return all(size == 1 for size in (*weight.shape[-len(stride) :], *stride))


def _rims(scale_factor, padding):
    """How many outputs, before and after in each dimension, meet what is reflected by f and more."""
    return [max(0, side + 1 - scale_factor[index // 2]) if side else 0 for index, side in enumerate(padding)]


def _are_within(rims, input, weight, scale_factor, padding):
    """Whether there are outputs between them."""
    ones = [1] * len(scale_factor)
    size = output_size([f * s for f, s in zip(scale_factor, input.shape[2:])], weight.shape[-len(ones) :], ones, padding, ones)
    return all(s > before + after for s, before, after in zip(size, rims[::2], rims[1::2]))


def _around(scale_factor, padding):
    """The padding of a map with its elements apart: an output's first tap meets what was held f - 1 elements before."""
    return [side + (1 - index % 2) * (scale_factor[index // 2] - 1) for index, side in enumerate(padding)]


def phase_filters(weight, scale_factor):
    """The weight with taps added up for every phase, (.., K + f - 1, ..), in the type in which maps are computed."""
    return prepared(weight, ("phases", *scale_factor), lambda weight: _phase_filters(weight, scale_factor))


def prepared(weight, how, prepare):
    """prepare(weight), done once of a parameter that needs no gradient, and anew when its numbers have changed.

    Whoever changes them may go past every count of changes, by `weight.data` as moving averages do: so the numbers
    themselves are compared, which takes a tenth of making the filters. On a GPU that would wait for it, and they are made at
    each call.
    """
    differentiated = weight.requires_grad and torch.is_grad_enabled()
    if differentiated or not isinstance(weight, torch.nn.Parameter) or weight.device.type != "cpu" or torch.compiler.is_compiling():
        return prepare(weight)
    numbers = weight.detach()
    if type(numbers) is not torch.Tensor:  # A fake one, or one that some other library made: it may have no numbers.
        return prepare(weight)
    known, of, filters = _prepared.get(weight, (None, None, None))
    if known != how or of.dtype != weight.dtype or not torch.equal(of, numbers):
        # What inference mode makes, no backward could use later.
        with torch.inference_mode(False), torch.no_grad():
            of, filters = numbers.clone(), prepare(weight)
        _prepared[weight] = how, of, filters
    return filters


_prepared = WeakIdKeyDictionary()


def _phase_filters(weight, scale_factor):
    filters, dims = widen(weight), len(scale_factor)
    for dim, factor in enumerate(scale_factor, start=filters.dim() - dims):
        if factor != 1:
            length, more = filters.shape[dim], factor - 1
            zeros = filters.new_zeros([more if axis == dim else size for axis, size in enumerate(filters.shape)])
            around = torch.cat([zeros, filters, zeros], dim)
            filters = sum(around.narrow(dim, shift, length + more) for shift in range(factor))
    return filters


def dilated_formula(input, filters, bias, input_dilation, stride, padding, dilation, groups, padding_mode):
    """The convolution of the map with its elements `input_dilation` apart; a border is read at an element inside."""
    if any(step != 1 for step in input_dilation):
        lengths = [size * step + sum(padding[2 * dim :][:2]) for dim, (size, step) in enumerate(zip(input.shape[2:], input_dilation))]
        input = pad(input, _in_elements(input_dilation, padding), padding_mode)
        for dim, (step, length) in enumerate(zip(input_dilation, lengths)):
            input = apart(input, dim + 2, step).narrow(dim + 2, -padding[2 * dim] % step, length)
        padding, padding_mode = [0] * len(padding), ZEROS
    filters = filters.expand(input.shape[0], *filters.shape[1:])
    return dynamic_conv2d.formula(input, filters, bias, stride, padding, dilation, groups, padding_mode)


def _in_elements(input_dilation, padding):
    """Padding of the map itself that covers that of the map with its elements apart."""
    return [-(-side // input_dilation[index // 2]) for index, side in enumerate(padding)]


def apart(map, dim, step):
    """Elements `step` apart along `dim`, zeros between them and behind the last."""
    if step == 1:
        return map
    cells = map.unsqueeze(dim + 1)
    zeros = cells.new_zeros([step - 1 if axis == dim + 1 else size for axis, size in enumerate(cells.shape)])
    return torch.cat([cells, zeros], dim + 1).flatten(dim, dim + 1)


# The operator.


def forward(input, weight, bias, scale_factor, stride, padding, dilation, groups, padding_mode):
    if all(factor == 1 for factor in scale_factor):
        return _convolve(input, weight, bias, stride, padding, dilation, groups, padding_mode)
    if _commutes(weight, stride):
        return _convolve_first(input, weight, bias, scale_factor, padding, groups, padding_mode)
    same = lattice(input, weight, scale_factor, stride, padding, dilation, padding_mode)
    if same is not None:
        (filters, _, _, around, _, border), rims = same
        if any(rims):
            return _with_rims(input, weight, bias, scale_factor, padding, groups, rims)
        return convolve_on_lattice(input, filters, bias, scale_factor, around, groups, border)
    upsampled = upsample_pad2d.forward(input, scale_factor, padding, padding_mode)
    return _convolve(upsampled, weight, bias, stride, [0] * len(padding), dilation, groups, ZEROS)


def _convolve(input, weight, bias, stride, padding, dilation, groups, padding_mode):
    bias = bias if bias is None else bias.expand(input.shape[0], bias.shape[-1])
    return dynamic_conv2d.forward(input, per_sample(weight, input), bias, stride, padding, dilation, groups, padding_mode)


def _convolve_first(input, weight, bias, scale_factor, padding, groups, padding_mode):
    ones = [1] * len(scale_factor)
    # Zeros around the map become the bias.
    last = bias is not None and padding_mode == ZEROS and any(padding)
    output = _convolve(input, weight, None if last else bias, ones, [0] * len(padding), ones, groups, ZEROS)
    output = upsample_pad2d.forward(output, scale_factor, padding, padding_mode)
    return scale_shift.forward(output, None, None, bias, None, None, 0, 0.0) if last else output


def _with_rims(input, weight, bias, scale_factor, padding, groups, rims):
    """By phases where little is reflected; around that, dimension by dimension, from the upsampled and padded map."""
    ones = [1] * len(scale_factor)
    around = [side - rim for side, rim in zip(padding, rims)]
    output = forward(input, weight, bias, scale_factor, ones, around, ones, groups, REFLECT)
    for dim in reversed(range(len(ones))):
        for last in (0, 1):
            count = rims[2 * dim + last]
            if count:
                sides = [*around]
                sides[2 * dim + last], sides[2 * dim + 1 - last] = padding[2 * dim + last], 0
                strip = _strip(input.narrow, input, weight, bias, scale_factor, sides, groups, dim, last, count)
                output = torch.cat([output, strip] if last else [strip, output], dim + 2)
        around[2 * dim : 2 * dim + 2] = padding[2 * dim : 2 * dim + 2]
    return output.contiguous(memory_format=memory_format(input))


def write_rims(output, part, input, weight, bias, scale_factor, padding, groups, rims, finished):
    """Over those outputs of a lattice that are not the same; `part(dim, start, length)` is what enters there of the input, and
    `finished` what becomes of an output.
    """
    for side, count in enumerate(rims):
        if count:
            dim, last = divmod(side, 2)
            sides = [*padding]
            sides[2 * dim + 1 - last] = 0
            strip = finished(_strip(part, input, weight, bias, scale_factor, sides, groups, dim, last, count))
            output.narrow(dim + 2, output.shape[dim + 2] - count if last else 0, count).copy_(strip)


def _strip(part, input, weight, bias, scale_factor, padding, groups, dim, last, count):
    """The first outputs along a dimension, or the last."""
    ones, factor, length = [1] * len(scale_factor), scale_factor[dim], input.shape[dim + 2]
    met = count + weight.shape[dim - len(ones)] - 1
    side = padding[2 * dim + last]
    elements = min(length, -(-max(side + 1, met - side) // factor))
    layout = memory_format(input)
    part = part(dim + 2, length - elements if last else 0, elements).contiguous(memory_format=layout)
    padded = upsample_pad2d.forward(part, scale_factor, padding, REFLECT)
    padded = padded.narrow(dim + 2, padded.shape[dim + 2] - met if last else 0, met).contiguous(memory_format=layout)
    return _convolve(padded, weight, bias, ones, [0] * len(padding), ones, groups, ZEROS)


# By phases, and its gradient. Filters are (1 or N, C_out, C_in / groups, *), already added up.


def _definition(input, filters, bias, scale_factor, padding, groups, border):
    ones = [1] * len(scale_factor)
    output = dilated_formula(widen(input), filters, bias, scale_factor, ones, padding, ones, groups, border)
    return output.to(input.dtype, memory_format=memory_format(input))


def _convolve_by_phases(input, filters, bias, scale_factor, padding, groups, border):
    ones = [1] * len(scale_factor)
    entry, exit, rule = (None, None, None, None, 0, 0.0), (0, 0.0), (0.0, 0, False)
    return torch.ops.fastnorm.norm_conv2d(
        input, filters, bias, *entry, scale_factor, ones, padding, ones, groups, border, *exit, *rule, False, False
    )[0]


def _save(ctx, inputs, output):
    input, filters, bias, *ctx.settings = inputs
    ctx.bias = None if bias is None else (bias.dim(), bias.dtype)
    ctx.save_for_backward(input, filters)


def _differentiate(ctx, grad):
    """By the convolution that this one is the transpose of: of the output's gradient, with steps of f."""
    input, filters = ctx.saved_tensors
    dtype, grad = grad.dtype, grad.contiguous(memory_format=memory_format(input))
    if dtype == torch.float16:
        # A phase may overflow where the sum of all does not.
        input, grad = widen(input), widen(grad)
    scale_factor, padding, groups, border = ctx.settings
    need_input, need_filters, need_bias = ctx.needs_input_grad[:3]
    ones, spatial = [1] * len(scale_factor), tuple(range(3, filters.dim()))
    # No element that lies between two others, before the border, meets anything.
    around = [side // f if index % 2 == 0 else -(-side // f) for index, side in enumerate(padding) for f in [scale_factor[index // 2]]]
    # What position j of the padded map meets begins at f * (j - around) + padding - (K - 1) of the output.
    sides = [
        side
        for dim, (factor, kernel) in enumerate(zip(scale_factor, filters.shape[3:]))
        for side in (
            kernel - 1 - padding[2 * dim] + factor * around[2 * dim],
            (input.shape[2 + dim] + around[2 * dim + 1] - 1) * factor + padding[2 * dim] - grad.shape[2 + dim] + 1,
        )
    ]
    turned = exchanged(filters.flip(spatial), groups)
    step = scale_factor, sides, ones, groups, ZEROS
    grad_input = grad_filters = grad_bias = None
    if need_input:
        shared = turned.to(grad.dtype).expand(grad.shape[0], *turned.shape[1:])
        grad_padded = dynamic_conv2d.forward(grad, shared, None, *step)
        grad_input = upsample_pad2d.backward(grad_padded, ones, around, border).to(dtype)
    if need_filters:
        padded = upsample_pad2d.forward(input, ones, around, border)
        shared = turned.to(grad.dtype).expand(grad.shape[0], *turned.shape[1:])
        found = dynamic_conv2d.backward(padded, grad, shared, *step, False, True, False)[1].to(filters.dtype)
        found = exchanged(found, groups).flip(spatial)
        grad_filters = found.sum(0, keepdim=True) if filters.shape[0] == 1 else found
    if need_bias:
        grad_bias = bias_gradient(grad, *ctx.bias)
    return grad_input, grad_filters, grad_bias, None, None, None, None


convolve_on_lattice = differentiable(_convolve_by_phases, _definition, _save, _differentiate)


def _samples(make, shape):
    n, c = shape[:2]
    kernel, groups = some_kernel(shape), some_groups(c)
    around = [width // 2 for width in kernel]
    filters = 2 * groups, c // groups
    yield Sample("reflected", (make(*shape), make(*filters, *kernel), make(filters[0])), dict(padding=around, groups=groups))
    yield Sample(
        "by 3, circular, per sample",
        (make(*shape), make(n, *filters, *some_kernel(shape, 2))),
        dict(scale_factor=3, padding=1, groups=groups, padding_mode="circular"),
    )
    yield Sample(
        "rims",
        (make(*shape), make(*filters, *kernel)),
        dict(padding=[min(2, 2 * size - 1) for size in shape[2:]], groups=groups),
    )


OPERATOR = Operator(
    "upsample_conv2d",
    upsample_conv2d,
    reference,
    _samples,
    kernels=(
        "norm_conv2d",
        "dynamic_conv2d",
        "dynamic_conv2d_backward",
        "scale_shift",
        "scale_shift_backward",
        "upsample_pad2d",
        "upsample_pad2d_backward",
    ),
    maps=5,
    backward_maps=10,
    flops=32,
)
