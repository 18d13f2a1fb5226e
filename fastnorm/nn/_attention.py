"""What modules of attention to a style share."""

from torch import Tensor, nn

from .. import functional
from ..ops.instance_stats import plane_size
from ._style_net import check_style_map


def as_batches(module: nn.Module, **maps: tuple[Tensor, int]) -> list[Tensor]:
    """Maps by the names of their arguments, each with the channels that it must have: (N, C, H, W), N that of the first."""
    name, dtype = type(module).__name__, module.h.weight.dtype
    batches = [
        check_style_map(module, map, channels, (1, 1), dtype, argument) for argument, (map, channels) in maps.items()
    ]
    (first, *_), n = maps, batches[0].shape[0]
    for argument, batch in zip(maps, batches):
        if batch.shape[0] != n:
            raise ValueError(f"{name}: {argument}: expected as many samples as of {first}, {n}, got {batch.shape[0]}")
    return batches


def for_each(module: nn.Module, content: Tensor, **maps: tuple[Tensor, int]) -> list[Tensor]:
    """What was kept of a style, as `as_batches` takes it, of N or one for all: a row for each sample of the content."""
    batches = as_batches(module, **maps)
    (first, *_), rows, n = maps, batches[0].shape[0], content.shape[0]
    if rows not in (1, n):
        raise ValueError(f"{type(module).__name__}: {first}: expected as many samples as of content, {n}, or 1, got {rows}")
    return [batch.expand(n, -1, -1, -1) for batch in batches]


def mean_variance_norm(module: nn.Module, map: Tensor, argument: str) -> Tensor:
    """Instance normalisation by the unbiased variance."""
    if plane_size(map) == 1:
        raise ValueError(f"{type(module).__name__}: {argument}: expected more than one position, to normalise by")
    return functional.instance_norm(map, eps=module.eps, correction=1)
