"""patch_match: for each patch of a content the patch of a style that is most like it, by normalised cross-correlation.

    index[p] = argmax over q of  <content patch p, style patch q> / (|content patch p| |style patch q|)

                              Li and Wand 2016, arXiv:1601.04589; Chen and Schmidt 2016, arXiv:1612.04337

With a usage penalty content patches choose one after the other, and a style patch loses as much for each time that it has
been chosen: the deep feature reshuffle of Gu et al., CVPR 2018.

A product of patches is a sum of products of pixels, k * k of them, and each of these is in as many products of patches. So
a kernel multiplies pixels once, 2 * C flops for each pair of them, and adds up, which is 1 / (k * k) of what a convolution
with all patches does; and it keeps no matrix of scores.
"""

import torch

from ._layout import product, wide_dtype, widen
from ._library import define
from ._operator import Operator, Sample
from ._patches import grid, seen_by, some_map, some_patch_size, taps

# Scores that the definition holds at a time: 8 MB in float32, a few times.
SCORES_AT_A_TIME = 1 << 21


def patch_match(content, style, patch_size=3, stride=1, usage_penalty=0.0, return_score=False):
    index, score = _kernel(content.detach(), style.detach(), patch_size, stride, float(usage_penalty))
    return (index, score) if return_score else index


def reference(content, style, patch_size=3, stride=1, usage_penalty=0.0, return_score=False):
    index, score = formula(content.detach(), style.detach(), patch_size, stride, usage_penalty)
    return (index, score) if return_score else index


# The formula, of a few rows of content patches at a time. A patch without length correlates with nothing: 0.


def formula(content, style, patch_size, stride, usage_penalty):
    content, style = widen(content), widen(style)
    rows, columns = grid(content.shape[2:], patch_size, stride)
    of_style = _inverse_lengths(style, patch_size, stride)
    patches = of_style.shape[1]
    used = content.new_zeros(content.shape[0], patches, dtype=torch.float64) if usage_penalty else None

    found = []
    at_a_time = max(1, SCORES_AT_A_TIME // max(1, content.shape[0] * patches * columns))
    for first in range(0, rows, at_a_time):
        last = min(first + at_a_time, rows)
        some = content[:, :, first * stride : (last - 1) * stride + patch_size]
        of_content = _inverse_lengths(some, patch_size, stride)
        likeness = _products(some, style, patch_size, stride) * of_style.unsqueeze(2)
        if usage_penalty:
            index, used = _choose_in_turn(likeness * of_content.unsqueeze(1), used, usage_penalty)
        else:
            index = _largest(likeness, 1)
        score = likeness.gather(1, index.unsqueeze(1)).squeeze(1) * of_content
        found.append((index.unflatten(1, (last - first, columns)), score.unflatten(1, (last - first, columns))))
    return tuple(torch.cat(parts, 1) for parts in zip(*found))


def _products(content, style, patch_size, stride):
    """(N, style patches, content patches)."""
    return sum(
        product(seen_by(tap, content, patch_size, stride).mT, seen_by(tap, style, patch_size, stride)).mT
        for tap in taps(patch_size)
    )


def _inverse_lengths(map, patch_size, stride):
    """Of each patch, (N, patches), and 0 of one that has none."""
    squares = map.square().sum(1, keepdim=True)
    lengths = sum(seen_by(tap, squares, patch_size, stride) for tap in taps(patch_size)).squeeze(1).sqrt()
    return torch.where(lengths > 0, 1 / lengths, 0.0)


def _largest(values, dim):
    """The first of the largest numbers; what is no number is less than all of them."""
    return torch.where(values.isnan(), -torch.inf, values).max(dim).indices


def _choose_in_turn(correlation, used, usage_penalty):
    """The choice of each content patch, and how often each style patch is then used; in float64, for penalties are large."""
    patch, chosen = torch.arange(used.shape[1], device=used.device), []
    for values in correlation.unbind(2):
        index = _largest(values.double() - usage_penalty * used, 1)
        used = used + (patch == index.unsqueeze(1))
        chosen.append(index)
    return torch.stack(chosen, 1), used


# The operator. It has no gradient: an index does not change by a little.


def _definition(content, style, patch_size, stride, usage_penalty):
    return formula(content, style, patch_size, stride, usage_penalty)


def _fake(content, style, patch_size, stride, usage_penalty):
    shape = content.shape[0], *grid(content.shape[2:], patch_size, stride)
    return content.new_empty(shape, dtype=torch.int64), content.new_empty(shape, dtype=wide_dtype(content))


_kernel = define(
    "patch_match",
    "(Tensor content, Tensor style, int patch_size, int stride, float usage_penalty) -> (Tensor index, Tensor score)",
    _definition,
    _fake,
)


def _samples(make, shape):
    n, c, *plane = some_map(shape)
    content, style, patch_size = make(n, c, 6, 9), make(n, c, *plane), some_patch_size(plane)
    yield Sample("with scores", (content, style), dict(patch_size=patch_size, return_score=True))
    yield Sample("in turn, stride 2", (content, style), dict(patch_size=patch_size, stride=2, usage_penalty=0.1))


OPERATOR = Operator(
    "patch_match",
    patch_match,
    reference,
    _samples,
    kernels=("patch_match",),
    maps=2,
    backward_maps=0,
    flops=0,
)
