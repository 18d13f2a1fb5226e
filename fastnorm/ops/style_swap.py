"""style_swap: a content whose every patch is replaced by the patch of the style that is most like it.

    output = swap_patches(style, patch_match(content, style), size of the content)   Chen and Schmidt 2016, arXiv:1612.04337

A pixel that no patch covers, as the last ones may be where patches begin at every second pixel, stays the content's. No
kernel of its own. The choice has no gradient: the output's goes to the style, and where a pixel stayed, to the content.
"""

import torch

from . import patch_match, swap_patches
from ._layout import memory_format
from ._operator import Operator, Sample
from ._patches import some_map, some_patch_size, times_covered


def style_swap(content, style, patch_size=3, stride=1, usage_penalty=0.0):
    return _compose(patch_match.patch_match, swap_patches.swap_patches, content, style, patch_size, stride, usage_penalty)


def reference(content, style, patch_size=3, stride=1, usage_penalty=0.0):
    return _compose(patch_match.reference, swap_patches.reference, content, style, patch_size, stride, usage_penalty)


def _compose(match, swap, content, style, patch_size, stride, usage_penalty):
    size = content.shape[2:]
    output = swap(style, match(content, style, patch_size, stride, usage_penalty), size, patch_size, stride)
    if stride > 1:
        output = torch.where(times_covered(size, patch_size, stride, content.device) > 0, output, content)
    return output.contiguous(memory_format=memory_format(content))


def _samples(make, shape):
    n, c, *plane = some_map(shape)
    # Whatever the size of a patch, one pixel at least stays.
    arguments = make(n, c, 6, 7), make(n, c, *plane)
    yield Sample("stride 2", arguments, dict(patch_size=some_patch_size(plane), stride=2))


OPERATOR = Operator(
    "style_swap",
    style_swap,
    reference,
    _samples,
    kernels=("patch_match", "swap_patches", "swap_patches_backward"),
    maps=3,
    backward_maps=2,
    flops=0,
)
