"""Products of matrices, in their own type."""

from torch import Tensor

from . import backends, dynamic_conv2d, norm_conv2d
from ._layout import product
from ._window import ZEROS


def batched_product(a: Tensor, b: Tensor) -> Tensor:
    """(N, M, K) by (N, K, L). On CPU by our own pointwise convolution, whose bits do not depend on threads as those of a
    library's product do.
    """
    if backends.which("dynamic_conv2d", b.device.type) != "cpu" or 0 in (*a.shape, b.shape[2]):
        return product(a, b)
    return dynamic_conv2d.dynamic_conv2d(b, a.unsqueeze(-1))


def product_of_positions(matrices: Tensor, input: Tensor, mean: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """matrices @ (input - mean) + bias at each position, in one pass, like the input: matrices (N or 1, D, C) in the type in
    which it is computed, mean (N, C), bias (N or 1, D). It has no gradient.
    """
    dims = input.dim() - 2
    one, none = [1] * dims, [0] * (2 * dims)
    filters = matrices.reshape(*matrices.shape, *one)
    bias = None if bias is None else bias.expand(input.shape[0], -1)
    entry = mean, None, None, None, 0, 0.0
    exit = 0, 0.0, 0.0, 0, False, False, False
    return norm_conv2d.kernel(input, filters, bias, *entry, one, one, none, one, 1, ZEROS, *exit)[0]
