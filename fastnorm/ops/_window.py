"""Where a convolution looks: kernel, stride, padding and dilation in each spatial dimension, and what lies beyond a border.

Padding is a pair (before, after) for each dimension, one after the other. No kernel materialises it: a position beyond
the border is read at an index inside.
"""

import itertools

import torch
from torch.nn.functional import pad as pad_with_zeros

PADDING_MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}
ZEROS, REFLECT, REPLICATE, CIRCULAR = PADDING_MODES.values()


def per_dimension(value, dims):
    """A number for each spatial dimension, of one for all or of one each."""
    return [value] * dims if isinstance(value, (int, torch.SymInt)) else list(value)


def both_sides(padding, kernel, dilation):
    """Padding before and after in each dimension; "same" keeps the size at a stride of 1, "valid" is none."""
    if padding == "same":
        around = [step * (size - 1) for size, step in zip(kernel, dilation)]
        return [side for total in around for side in (total // 2, total - total // 2)]
    padding = per_dimension(0 if padding == "valid" else padding, len(kernel))
    return [side for side in padding for _ in range(2)]


def from_last(padding, dims):
    """Padding before and after in each dimension, of one number for all, or as F.pad has it: the last dimension first."""
    if isinstance(padding, (int, torch.SymInt)):
        return [padding] * (2 * dims)
    return [side for dim in reversed(range(dims)) for side in padding[2 * dim : 2 * dim + 2]]


def output_size(size, kernel, stride, padding, dilation):
    """As of every convolution."""
    around = [before + after for before, after in zip(padding[::2], padding[1::2])]
    return [
        (length + more - step * (width - 1) - 1) // jump + 1
        for length, more, width, jump, step in zip(size, around, kernel, stride, dilation)
    ]


def border_index(size, before, after, mode, device):
    """The position inside that each position of the padded dimension is read at; not for zeros."""
    position = torch.arange(-before, size + after, device=device)
    if mode == REFLECT:
        return size - 1 - (size - 1 - position.abs()).abs()
    if mode == REPLICATE:
        return position.clamp(0, size - 1)
    # position.remainder(size), which the ONNX exporter knows for a fixed size only.
    return position - size * (position // size)


def pad(map, padding, mode):
    """(N, C, *) with its padding, by the rule of `mode`."""
    if mode == ZEROS:
        return pad_with_zeros(map, list(itertools.chain(*zip(padding[-2::-2], padding[::-2]))))
    for dim, (before, after) in enumerate(zip(padding[::2], padding[1::2]), start=2):
        if before or after:
            map = map.index_select(dim, border_index(map.shape[dim], before, after, mode, map.device))
    return map


def unpad(gradient, size, padding, mode):
    """The gradient of a map of `size`, from that of the padded one."""
    for dim, (before, after) in enumerate(zip(padding[::2], padding[1::2]), start=2):
        length = size[dim - 2]
        if mode == ZEROS:
            gradient = gradient.narrow(dim, before, length)
        elif before or after:
            gradient = spread(gradient, dim, border_index(length, before, after, mode, gradient.device), length)
    return gradient


def spread(values, dim, index, size):
    """Zeros of `size` along `dim`, to which each of `values` is added at its index."""
    shape = [*values.shape[:dim], size, *values.shape[dim + 1 :]]
    return values.new_zeros(shape).index_add(dim, index, values)


def taps(kernel):
    """Every position in the kernel."""
    return itertools.product(*map(range, kernel))


def seen_by(tap, padded, size, stride, dilation):
    """What a tap of the kernel meets on its way over the padded map: (N, C, *size)."""
    for dim, (at, length, jump, step) in enumerate(zip(tap, size, stride, dilation), start=2):
        padded = padded.narrow(dim, at * step, jump * (length - 1) + 1)
        if jump != 1:
            padded = padded[(slice(None),) * dim + (slice(None, None, jump),)]
    return padded


def put_back(tap, values, size, stride, dilation):
    """The reverse of `seen_by`: the values where the tap met them, in a padded map of `size`, zero elsewhere."""
    for dim, (at, length, jump, step) in enumerate(zip(tap, size, stride, dilation), start=2):
        index = at * step + jump * torch.arange(values.shape[dim], device=values.device)
        values = spread(values, dim, index, length)
    return values
