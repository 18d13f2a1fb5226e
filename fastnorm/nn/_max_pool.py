"""The maximum of each 2x2, for whose gradient a byte is kept: which of the four it is.

torch keeps its input, and each position as an int64; and on CPU it goes through a contiguous plane number by number. Maxima
of whole rows, then of every second column, are vectors' work. Measured on two threads, milliseconds of 64 channels, 256x256:

                                           torch     here
    without a gradient                     11.6       1.4
    with one, forward and backward         15.1       8.7
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from ..ops import backends
from ..ops._layout import memory_format
from ..ops._library import differentiable
from ..ops.norm_conv2d import is_differentiated


class MaxPool2x2(nn.MaxPool2d):
    """nn.MaxPool2d(2)."""

    def __init__(self, ceil_mode: bool = False) -> None:
        super().__init__(2, ceil_mode=ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        if not _is_vectors_work(input):
            return super().forward(input)
        if not is_differentiated((input,)):
            return _largest(_whole(input, self.ceil_mode))
        return _pooled(input, self.ceil_mode)[0]


def _is_vectors_work(input):
    """In channels_last it is so to torch, too. Exporters and compilers know torch's own."""
    if backends.reference() or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    contiguous = input.dim() == 4 and memory_format(input) == torch.contiguous_format
    return contiguous and input.device.type == "cpu" and input.is_floating_point() and min(input.shape[2:]) > 1


def _whole(input, ceil_mode):
    """The input with as many rows and columns as windows meet; what is repeated is no larger than what was there."""
    rows, columns = (size % 2 for size in input.shape[2:])
    if ceil_mode and (rows or columns):
        return pad(input, (0, columns, 0, rows), mode="replicate")
    return input[..., : input.shape[2] - rows, : input.shape[3] - columns]


def _largest(input):
    rows = torch.maximum(input[..., 0::2, :], input[..., 1::2, :])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


# Autograd. The position is 0 or 1 in the upper row, 2 or 3 in the lower: of equal numbers the first, as torch has it.


def _pool(input, ceil_mode):
    """The maxima and their positions."""
    input = _whole(input, ceil_mode)
    output = _largest(input)
    corners = input[..., 0::2, 0::2], input[..., 0::2, 1::2], input[..., 1::2, 0::2]
    first, second, third = ((corner < output).view(torch.uint8) for corner in corners)
    # How many of them are passed by on the way to the first that is the largest.
    third.mul_(second.mul_(first))
    return output, first.add_(second).add_(third)


def _definition(input, ceil_mode):
    return max_pool2d(input, 2, ceil_mode=ceil_mode, return_indices=True)


def _save(ctx, inputs, output):
    input, ctx.ceil_mode = inputs
    ctx.size = input.shape
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _differentiate(ctx, grad, _):
    (position,), width = ctx.saved_tensors, ctx.size[3]
    rows, columns = (2 * torch.arange(size) for size in position.shape[2:])
    index = position.to(torch.int64)
    index.add_(index >> 1, alpha=width - 2).add_(rows[:, None] * width + columns)
    like_input, twice = grad.new_empty(1).expand(ctx.size), [2, 2]
    grad_input = torch.ops.aten.max_pool2d_with_indices_backward(
        grad, like_input, twice, twice, [0, 0], [1, 1], ctx.ceil_mode, index
    )
    return grad_input, None


_pooled = differentiable(_pool, _definition, _save, _differentiate)
