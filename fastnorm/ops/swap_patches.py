"""swap_patches: a map made of patches of a style, each where an index says; where patches overlap, their average.

    output[n, c, y] = average over the patches p that cover y of  style[n, c, y - start(p) + start(index[n, p])]

Chen and Schmidt 2016 (arXiv:1612.04337) write it as a transposed convolution of a one-hot map. A pixel that no patch covers
is 0. It is linear: the gradient of its gradient is the operator itself, and nothing but the index is kept for either.

At least: one read of the style and one write of the output, and k * k additions for each number of it.
"""

import torch

from ._layout import memory_format, widen
from ._library import define, differentiable
from ._operator import Operator, Sample
from ._patches import grid, put_back, seen_by, some_map, some_patch_size, taps, times_covered
from ._window import per_dimension


def swap_patches(style, index, size, patch_size=3, stride=1):
    return forward(*_settings(style, index, size), patch_size, stride)


def reference(style, index, size, patch_size=3, stride=1):
    return _definition(*_settings(style, index, size), patch_size, stride)


def _settings(style, index, size):
    """As the kernels take them: a style for each sample."""
    return style.expand(index.shape[0], -1, -1, -1), index, per_dimension(size, 2)


# The formula, forward and backward, in the type in which the map is computed.


def formula(style, index, size, patch_size, stride):
    style, chosen = widen(style), _chosen(style, index)
    output = sum(
        put_back(tap, seen_by(tap, style, patch_size, stride).gather(2, chosen), size, patch_size, stride)
        for tap in taps(patch_size)
    )
    return output / _shares(output, patch_size, stride)


def backward_formula(grad, index, style_size, patch_size, stride):
    grad, chosen = widen(grad), _chosen(grad, index)
    grad = grad / _shares(grad, patch_size, stride)
    patches = torch.Size(grid(style_size, patch_size, stride)).numel()
    return sum(
        put_back(tap, _add_up(seen_by(tap, grad, patch_size, stride), chosen, patches), style_size, patch_size, stride)
        for tap in taps(patch_size)
    )


def _chosen(map, index):
    """For each channel, (N, C, patches)."""
    return index.flatten(1).unsqueeze(1).expand(-1, map.shape[1], -1)


def _shares(map, patch_size, stride):
    """Among how many patches a pixel is divided."""
    return times_covered(map.shape[2:], patch_size, stride, map.device).clamp(min=1)


def _add_up(pixels, chosen, patches):
    """(N, C, patches of the style), each the sum of the pixels that chose it."""
    return pixels.new_zeros(*pixels.shape[:2], patches).scatter_add(2, chosen, pixels)


# The operator.


def _definition(style, index, size, patch_size, stride):
    return formula(style, index, size, patch_size, stride).to(style.dtype, memory_format=memory_format(style), copy=True)


def _fake(style, index, size, patch_size, stride):
    return style.new_empty(*style.shape[:2], *size).to(memory_format=memory_format(style))


_forward_kernel = define(
    "swap_patches",
    "(Tensor style, Tensor index, SymInt[] size, int patch_size, int stride) -> Tensor",
    _definition,
    _fake,
)


# Its backward, laid out as the gradient that comes.


def _backward_definition(grad, index, style_size, patch_size, stride):
    found = backward_formula(grad, index, style_size, patch_size, stride)
    return found.to(grad.dtype, memory_format=memory_format(grad), copy=True)


_backward_kernel = define(
    "swap_patches_backward",
    "(Tensor grad, Tensor index, SymInt[] style_size, int patch_size, int stride) -> Tensor",
    _backward_definition,
    _fake,
)


# Autograd.


def _save(ctx, inputs, output):
    map, index, _, *ctx.settings = inputs
    ctx.size = map.shape[2:]
    ctx.save_for_backward(index)


def _differentiate(ctx, grad):
    return backward(grad, *ctx.saved_tensors, ctx.size, *ctx.settings), None, None, None, None


def _differentiate_backward(ctx, grad):
    return forward(grad, *ctx.saved_tensors, ctx.size, *ctx.settings), None, None, None, None


forward = differentiable(_forward_kernel, _definition, _save, _differentiate)
backward = differentiable(_backward_kernel, _backward_definition, _save, _differentiate_backward)


def _samples(make, shape):
    n, c, *plane = some_map(shape)
    patch_size, size = some_patch_size(plane), (6, 11)
    patches = torch.Size(grid(plane, patch_size, 1)).numel()
    index = make(n, *grid(size, patch_size, 1)).double().abs().mul(1000).long() % patches
    yield Sample("overlapping", (make(n, c, *plane), index), dict(size=size, patch_size=patch_size))


OPERATOR = Operator(
    "swap_patches",
    swap_patches,
    reference,
    _samples,
    kernels=("swap_patches", "swap_patches_backward"),
    maps=2,
    backward_maps=2,
    flops=9,
)
