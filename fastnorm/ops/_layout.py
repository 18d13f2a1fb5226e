"""How the planes of a tensor lie in memory, and in which type they are computed."""

import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(input: Tensor) -> torch.memory_format:
    """channels_last for a tensor that is dense in that order only; contiguous for every other one."""
    channels_last = _CHANNELS_LAST.get(input.dim())
    if channels_last is not None and not input.is_contiguous() and input.is_contiguous(memory_format=channels_last):
        return channels_last
    return torch.contiguous_format


def empty_map(input: Tensor, wanted: bool = True) -> Tensor:
    """An output of the input's shape, type and layout; an empty one where it is not wanted."""
    return torch.empty_like(input, memory_format=memory_format(input)) if wanted else input.new_empty(0)


def empty_statistic(input: Tensor, wanted: bool = True) -> Tensor:
    """One number per plane, (N, C), in the type in which `input` is computed."""
    return input.new_empty(input.shape[:2] if wanted else 0, dtype=wide_dtype(input))


def store_like(wanted: Tensor, value: Tensor | None) -> Tensor:
    """A copy of `value` in the type and layout of `wanted`; `wanted` itself where that is another shape: not wanted."""
    if value is None or value.shape != wanted.shape:
        return wanted
    return value.to(wanted.dtype, memory_format=memory_format(wanted), copy=True)


def wide_dtype(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def widen(map: Tensor) -> Tensor:
    return map.to(wide_dtype(map))


def per_plane(parameter: Tensor | None, input: Tensor, default: float = 0.0) -> Tensor:
    """A (C,) or (N, C) parameter, widened and shaped to broadcast over the planes of `input`."""
    if parameter is None:
        parameter = torch.full((1,), default, device=input.device)
    if parameter.dim() == 1:
        parameter = parameter.unsqueeze(0)
    return parameter.to(wide_dtype(input)).reshape(*parameter.shape, *[1] * (input.dim() - 2))


def plane_sum(map: Tensor) -> Tensor:
    """(N, C, *) to (N, C)."""
    return map.flatten(2).sum(2)


def fold_like(gradient: Tensor, parameter: Tensor | None) -> Tensor | None:
    """A gradient per plane, (N, C), summed and cast to the shape and type of its (C,), (1, C) or (N, C) parameter."""
    if parameter is None:
        return None
    if parameter.shape != gradient.shape:
        shared = parameter.dim() == 2
        # A sum costs as much as a small kernel: one sample needs none.
        gradient = gradient.sum(0, keepdim=shared) if gradient.shape[0] != 1 else gradient.reshape(parameter.shape)
    return gradient.to(parameter.dtype)


def bias_gradient(grad: Tensor, dims: int, dtype: torch.dtype) -> Tensor:
    """Of a bias that was added to each plane: (C,), or (N, C) where it has two `dims`."""
    summed = plane_sum(widen(grad))
    return (summed if dims == 2 else summed.sum(0)).to(dtype)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Of matrices, in their own type: autocast would take it to bfloat16. A column by a row needs no sum."""
    if a.shape[-1] == 1:
        return a * b
    if torch.amp.is_autocast_available(a.device.type) and torch.is_autocast_enabled(a.device.type):
        with torch.autocast(a.device.type, enabled=False):
            return a @ b
    return a @ b
