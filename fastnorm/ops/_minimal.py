"""Where the CPU kernels convolve by minimal filterings (csrc/cpu/minimal.h), in fewer products; the input's gradient, too.

That is for filters that all samples share. The gradient of the input of a convolution with stride 1 is one as well: of the
output's gradient, with filters turned around, inputs and outputs exchanged. Measured on two threads of an AVX-512 Xeon,
3x3, one sample, milliseconds here and by oneDNN:

    channels, map       output           gradient of the input
    128, 128x128         7.2   15.8       7.1   15.8
    256, 64x64           7.7   14.9       7.3   16.0
    512, 32x32          12.2   15.1      10.8   17.3
    512, 28x28          12.5   12.0      12.5   12.5
    512, 24x24          10.8    9.0      10.8    9.2
    512, 16x16           5.8    4.2       5.8    4.1
    256, 36x36           7.0    4.7       7.2    5.0
    256, 48x48           5.9    8.2       5.9    8.9
    256, 72x72          12.8   18.4      12.8   19.0

A vector holds a tile of 2 or 4 columns in each lane: of a row that leaves too many of them idle, 36 columns as well as 68,
the kernel makes a direct sum, which is slower than oneDNN's; and rows of few tiles are too little work at a time.
"""

import torch

from . import backends
from ._window import ZEROS, border_index, unpad

# Columns from which on it is ahead of oneDNN; and lanes of the widest vectors, as it counts them.
LEAST_COLUMNS, LANES = 32, 16


def has_fewer_products(input, weight, stride, dilation) -> bool:
    """Whether the kernel multiplies less often than a convolution does; `weight` is of all samples, or of each."""
    shared = weight.dim() == input.dim() or weight.shape[0] == 1 or weight.stride(0) == 0
    if input.device.type != "cpu" or not shared or any(step != 1 for step in dilation):
        return False
    return input.dim() > 3 and (*weight.shape[-2:], *stride[-2:]) in ((3, 3, 1, 1), (3, 3, 2, 2), (4, 4, 2, 2))


def takes(input, weight, stride, dilation, groups) -> bool:
    """Whether it is a 3x3 convolution of maps with a stride of 1 that has fewer products, in either direction."""
    if torch.compiler.is_compiling() or groups != 1 or input.dim() != 4 or input.dtype == torch.float64:
        return False  # A compiler is to make one graph for every size.
    if 0 in (*input.shape, *weight.shape) or tuple(stride) != (1, 1) or backends.which("dynamic_conv2d", "cpu") != "cpu":
        return False
    return has_fewer_products(input, weight, stride, dilation)


def fills_vectors(columns) -> bool:
    """Whether a row of outputs is one of which oneDNN is not ahead."""
    lanes_used = [(tiles, -(-tiles // LANES) * LANES) for tiles in (-(-columns // 2), -(-columns // 4))]
    return columns >= LEAST_COLUMNS and any(4 * tiles >= 3 * lanes for tiles, lanes in lanes_used)


def gradient_of_input(grad, weight, padding, padding_mode):
    """Of a convolution with a stride of 1; `weight` is as of `dynamic_conv2d`."""
    turned = exchanged(weight[:1].flip(3, 4), 1).contiguous().expand(grad.shape[0], -1, -1, -1, -1)
    around = [weight.shape[3 + side // 2] - 1 - count for side, count in enumerate(padding)]
    met = grad
    for side, count in enumerate(around):
        if count < 0:  # Outputs that meet nothing but the padding.
            dim, around[side] = 2 + side // 2, 0
            met = _end(met, dim, 1 - side % 2, met.shape[dim] + count)
    found = torch.ops.fastnorm.dynamic_conv2d(met, turned, None, [1, 1], around, [1, 1], 1, ZEROS)
    if padding_mode != ZEROS:
        _add_rims(found, grad, weight[0], padding, padding_mode)
    return found


def _add_rims(found, grad, weight, padding, padding_mode):
    """What is padded came from inside: to its gradient there that of each side of the padding."""
    rows, columns = found.shape[2:]
    for side, count in enumerate(padding):
        if count:
            dim, last = 2 + side // 2, side % 2
            rim = _rim(grad, weight, dim, last, count)
            if dim == 2:
                rim = unpad(rim, (count, columns), (0, 0, *padding[2:]), padding_mode)
            else:
                rim = rim.narrow(2, padding[0], rows)  # Corners are the rows'.
            index = border_index(found.shape[dim], *padding[2 * dim - 4 : 2 * dim - 2], padding_mode, grad.device)
            found.index_add_(dim, _end(index, 0, last, count), rim)


def _rim(grad, weight, dim, last, count):
    """The first or last rows, or columns, of the padded input's gradient: few taps meet few outputs there."""
    outputs, taps = (_end(tensor, dim, last, min(count, tensor.shape[dim])) for tensor in (grad, weight))
    size = [length + width - 1 for length, width in zip(outputs.shape[2:], taps.shape[2:])]
    none, like_rim = [0, 0], grad.new_empty(len(grad), taps.shape[1], *size)
    rim, _, _ = torch.ops.aten.convolution_backward(
        outputs, like_rim, taps, None, [1, 1], none, [1, 1], False, none, 1, (True, False, False)
    )
    return _end(rim, dim, last, count)


def _end(tensor, dim, last, count):
    return tensor.narrow(dim, tensor.shape[dim] - count if last else 0, count)


def exchanged(filters, groups):
    """(N, C_out, C_in / groups, *) to (N, C_in, C_out / groups, *)."""
    n, channels, others, *kernel = filters.shape
    by_group = filters.reshape(n, groups, channels // groups, others, *kernel).transpose(2, 3)
    return by_group.reshape(n, groups * others, channels // groups, *kernel)
