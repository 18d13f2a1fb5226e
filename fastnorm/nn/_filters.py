"""Filters that come with the call, one for each sample: their shape, and what can be done with them."""

from torch import Tensor

from .._checks import check_groups, check_sizes, check_tensor
from ..ops._window import per_dimension


def filter_shape(name: str, in_channels: int, out_channels: int, kernel_size, groups: int, spatial_dims: int = 2) -> tuple:
    """(C_out, C_in / groups, *kernel), of the filter of one sample; settings that make none are refused."""
    check_sizes(name, "in_channels", in_channels, 1, 1)
    check_sizes(name, "out_channels", out_channels, 1, 1)
    check_sizes(name, "kernel_size", kernel_size, spatial_dims, 1)
    check_groups(name, groups, in_channels)
    if out_channels % groups:
        raise ValueError(f"{name}: groups: expected a divisor of the {out_channels} output channels, got {groups}")
    return (out_channels, in_channels // groups, *per_dimension(kernel_size, spatial_dims))


def per_sample(name: str, argument: str, tensor: Tensor, shape: tuple, input: Tensor) -> Tensor:
    """(N, *shape) for the N samples of `input`; of one for all, a view."""
    check_tensor(name, argument, tensor)
    n = input.shape[0]
    if tuple(tensor.shape[1:]) != tuple(shape) or tensor.shape[0] != 1 and tensor.shape[0] != n:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name}: {argument}: expected shape ({n} or 1, {expected}), got {tuple(tensor.shape)}")
    return tensor.expand(n, *shape)


# Methods of every named tuple of filters, whose fields are tensors with a row for each sample, or None.


def to(self, *device_or_dtype, **options):
    """All tensors moved or cast, as by torch.Tensor.to."""
    return type(self)(*(None if tensor is None else tensor.to(*device_or_dtype, **options) for tensor in self))


def mix(kind, filters, weights):
    """The sum of the filters, each times its weight: S of them, S numbers or an (S,) tensor. One sample goes with any N."""
    name = f"{kind.__name__}.mix"
    if other := next((type(one).__name__ for one in filters if not isinstance(one, kind)), None):
        raise TypeError(f"{name}: filters: expected each to be a {kind.__name__}, got a {other}")
    if not filters or len(weights) != len(filters) or isinstance(weights, Tensor) and weights.dim() != 1:
        got = tuple(weights.shape) if isinstance(weights, Tensor) else len(weights)
        raise ValueError(f"{name}: weights: expected a number for each of one filter or more, {len(filters)}, got {got}")
    return kind(*(_weighted(name, field, tensors, weights) for field, tensors in zip(kind._fields, zip(*filters))))


def _weighted(name, field, tensors, weights):
    present = [(tensor, weight) for tensor, weight in zip(tensors, weights) if tensor is not None]
    shapes = [tuple(tensor.shape) for tensor, _ in present]
    # A kernel of one tap would be broadcast over a larger one.
    if len({shape[1:] for shape in shapes}) > 1 or len({shape[0] for shape in shapes} - {1}) > 1:
        raise ValueError(f"{name}: {field}: expected filters of one shape, got {', '.join(map(str, shapes))}")
    return sum(tensor * weight for tensor, weight in present) if present else None
