"""whiten_color: the content with the covariance and the mean of the style (WCT, Li et al. 2017, arXiv:1705.08086).

    T = alpha * cov(style)^(1/2) @ cov(content)^(-1/2) + (1 - alpha) * identity
    output = T @ (content - mean(content)) + alpha * mean(style) + (1 - alpha) * mean(content)

Both roots are symmetric, E D^(1/2) E^T, as in the paper. The blend with the content is in the filter, so the content is
read once for its covariance and once for the result, whose mean is subtracted before the product, for digits.

At least, per element: three reads (content twice, style) and one write; 4 * C flops. The roots take C^3 a few times.
"""

from typing import Callable, NamedTuple

import torch

from . import _spectral, dynamic_conv2d, gram_matrix, scale_shift
from ._layout import product, wide_dtype, widen
from ._operator import Operator, Sample
from ._product import batched_product, product_of_positions
from .instance_stats import plane_size
from .norm_conv2d import is_differentiated


class Steps(NamedTuple):
    """What it is made of: gram(input, centred), roots(matrices, inverted, eps, method, multiply), multiply(a, b) and
    transform(matrices, input, mean, bias).
    """

    gram: Callable
    roots: Callable
    multiply: Callable
    transform: Callable


def whiten_color(content, style, alpha=1.0, eps=1e-5, method="eigh"):
    return _compose(KERNELS, content, style, alpha, eps, method)


def reference(content, style, alpha=1.0, eps=1e-5, method="eigh"):
    return _compose(FORMULAS, content, style, alpha, eps, method)


def _compose(steps, content, style, alpha, eps, method):
    of_content, mean = moments(steps, content)
    bias, root = coloring(steps, style, eps, method, wide_dtype(content))
    whitening = steps.roots(of_content, content.shape[0], eps, method, steps.multiply)
    filters = steps.multiply(root.expand_as(of_content), whitening)
    if alpha != 1:
        identity = torch.eye(content.shape[1], dtype=filters.dtype, device=filters.device)
        filters = alpha * filters + (1 - alpha) * identity
        bias = alpha * bias + (1 - alpha) * mean
    return steps.transform(filters, content, mean, bias)


def moments(steps, input):
    """Covariance and mean of each sample; the covariance of a single position is 0."""
    gram, mean = steps.gram(input, True)
    return gram / max(plane_size(input) - 1, 1), mean


def color_stats(steps, input, eps, method):
    """Mean, and root of the covariance."""
    covariance, mean = moments(steps, input)
    return mean, steps.roots(covariance, 0, eps, method, steps.multiply)


def coloring(steps, style, eps, method, dtype):
    """Those of a style, a map or the two themselves: (N or 1, C) and (N or 1, C, C)."""
    mean, root = color_stats(steps, style, eps, method) if isinstance(style, torch.Tensor) else style
    return torch.atleast_2d(mean).to(dtype), (root if root.dim() == 3 else root.unsqueeze(0)).to(dtype)


def _transform(matrices, input, mean, bias):
    """matrices @ (input - mean) + bias at each position."""
    if not is_differentiated((matrices, input, mean, bias)):
        return product_of_positions(matrices, input, mean, bias)
    input, dtype = widen(input), input.dtype
    centred = input if mean is None else scale_shift.scale_shift(input, mean)
    n, *pair = input.shape[0], *matrices.shape[1:]
    filters = matrices.expand(n, *pair).reshape(n, *pair, *[1] * (input.dim() - 2))
    bias = None if bias is None else bias.expand(n, -1)
    return dynamic_conv2d.dynamic_conv2d(centred, filters, bias).to(dtype)


def _transform_formula(matrices, input, mean, bias):
    planes = widen(input).flatten(2)
    output = product(matrices, planes if mean is None else planes - mean.unsqueeze(2))
    return (output if bias is None else output + bias.unsqueeze(2)).reshape(input.shape).to(input.dtype)


KERNELS = Steps(gram_matrix.forward, _spectral.roots, batched_product, _transform)
FORMULAS = Steps(gram_matrix.formula, _spectral.reference, product, _transform_formula)


# Roots of covariances are as ill-conditioned as these: with an eps of 1 they are not, whatever the map.
CONDITIONED = dict(eps=1.0, method="newton_schulz")


def few_channels(shape):
    """The same map of at most 32 channels: of a thousand, a root takes seconds."""
    n, c, *plane = shape
    return n, min(c, 32), *plane


def _samples(make, shape):
    n, c, *plane = few_channels(shape)
    style = make(1, c, *(size + 1 for size in plane))
    yield Sample("one style for all, half-way", (make(n, c, *plane), style), dict(alpha=0.6, **CONDITIONED))
    yield Sample("mean and root", (make(n, c, *plane), (make(n, c), make(1, c, c))), CONDITIONED)


OPERATOR = Operator(
    "whiten_color",
    whiten_color,
    reference,
    _samples,
    kernels=(
        *gram_matrix.OPERATOR.kernels,
        "matrix_roots",
        "matrix_roots_backward",
        "dynamic_conv2d",
        "dynamic_conv2d_backward",
        "scale_shift",
        "scale_shift_backward",
    ),
    maps=4,
    backward_maps=6,
    flops=4,
)
