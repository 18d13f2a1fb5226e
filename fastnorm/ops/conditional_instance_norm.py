"""conditional_instance_norm: an instance norm whose weight and bias are those of a style, or a mixture of styles.

    output = act((input - mean) * rstd * weight[style] + bias[style] + residual)       Dumoulin et al. 2017,
    output = act((input - mean) * rstd * (style @ weight) + (style @ bias) + residual)    arXiv:1610.07629

Choosing the style's row costs nothing beside the map: it is an instance norm with a weight per sample.

At least, per element: one read and one write; 7 flops.
"""

import torch

from . import instance_norm
from ._layout import wide_dtype
from ._operator import Operator, Sample


def conditional_instance_norm(input, weight, bias, style, eps=1e-5, activation=None, residual=None, negative_slope=0.01):
    return _compose(instance_norm.instance_norm, input, weight, bias, style, eps, activation, residual, negative_slope)


def reference(input, weight, bias, style, eps=1e-5, activation=None, residual=None, negative_slope=0.01):
    return _compose(instance_norm.reference, input, weight, bias, style, eps, activation, residual, negative_slope)


def _compose(norm, input, weight, bias, style, eps, activation, residual, negative_slope):
    return norm(
        input, *(of_style(table, style, wide_dtype(input)) for table in (weight, bias)), residual=residual,
        eps=eps, activation=activation, negative_slope=negative_slope,
    )  # fmt: skip


def of_style(table, style, dtype):
    """Rows of an (S, C) table: by index (N,), or by mixture (N, S), which is computed in `dtype`."""
    if not style.is_floating_point():
        return table.index_select(0, style)
    # A few numbers, which every pixel is multiplied by. As a matrix product, autocast would take them to bfloat16.
    return (style.to(dtype).unsqueeze(-1) * table.to(dtype)).sum(-2)


def _samples(make, shape):
    n, c = shape[:2]
    index = torch.arange(n) % 3
    yield Sample("index", (make(*shape), make(3, c), make(3, c), index.to(make(1).device)))
    yield Sample("mixture, relu", (make(*shape), make(3, c), make(3, c), make(n, 3)), dict(activation="relu"))


OPERATOR = Operator(
    "conditional_instance_norm",
    conditional_instance_norm,
    reference,
    _samples,
    kernels=("instance_norm", "instance_norm_backward"),
    maps=2,
    backward_maps=3,
    flops=7,
)
