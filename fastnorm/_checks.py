"""Arguments of the public functions, checked in their own words: function, argument, what was expected, what came."""

import math

import torch
from torch import Tensor

from .ops._activation import CODES
from .ops.instance_stats import EPS_MODES


def check_map(function: str, input: Tensor, name: str = "input") -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"{function}: {name}: expected a tensor, got {type(input).__name__}")
    if not input.is_floating_point():
        raise TypeError(f"{function}: {name}: expected a floating-point tensor, got {input.dtype}")
    if input.dim() < 3:
        raise ValueError(f"{function}: {name}: expected shape (N, C, *) with at least one spatial dimension, got {_shape(input)}")
    if math.prod(input.shape[2:]) == 0:
        raise ValueError(f"{function}: {name}: expected planes of at least one element, got {_shape(input)}")


def check_per_plane(function: str, name: str, parameter: Tensor | None, input: Tensor, shared_samples: bool = False) -> None:
    """A (C,) or (N, C) parameter of `input`; with `shared_samples`, (1, C) too."""
    if parameter is None:
        return
    n, c = input.shape[:2]
    if not isinstance(parameter, Tensor):
        raise TypeError(f"{function}: {name}: expected a tensor, got {type(parameter).__name__}")
    shape = parameter.shape
    if not (shape[-1:] == (c,) and (len(shape) == 1 or len(shape) == 2 and (shape[0] == n or shared_samples and shape[0] == 1))):
        raise ValueError(f"{function}: {name}: expected shape ({c},) or ({n}, {c}), got {_shape(parameter)}")
    _check_same_device(function, name, parameter, input)


def check_same_shape(function: str, name: str, map: Tensor | None, input: Tensor) -> Tensor | None:
    """A map of the input's shape, in its type (autocast mixes types; elsewhere a mixture is an error)."""
    if map is None:
        return None
    if not isinstance(map, Tensor):
        raise TypeError(f"{function}: {name}: expected a tensor, got {type(map).__name__}")
    if map.shape != input.shape:
        raise ValueError(f"{function}: {name}: expected the input's shape {_shape(input)}, got {_shape(map)}")
    _check_same_device(function, name, map, input)
    if map.dtype != input.dtype:
        if not torch.is_autocast_enabled(input.device.type):
            raise TypeError(f"{function}: {name}: expected the input's type {input.dtype}, got {map.dtype}")
        map = map.to(input.dtype)
    return map


def check_statistics_settings(function: str, input: Tensor, eps: float, correction: int, eps_mode: str) -> None:
    if not eps >= 0:
        raise ValueError(f"{function}: eps: expected a number of at least 0, got {eps}")
    if correction not in (0, 1):
        raise ValueError(f"{function}: correction: expected 0 (biased) or 1 (unbiased), got {correction}")
    if math.prod(input.shape[2:]) <= correction:
        raise ValueError(f"{function}: correction: an unbiased variance needs planes of 2 elements or more, got {_shape(input)}")
    if eps_mode not in EPS_MODES:
        raise ValueError(f"{function}: eps_mode: expected one of {', '.join(EPS_MODES)}, got {eps_mode!r}")


def check_activation(function: str, activation: str | None) -> None:
    if activation not in CODES:
        raise ValueError(f"{function}: activation: expected None or one of {', '.join(filter(None, CODES))}, got {activation!r}")


def _check_same_device(function: str, name: str, tensor: Tensor, input: Tensor) -> None:
    if tensor.device != input.device:
        raise ValueError(f"{function}: {name}: expected a tensor on {input.device}, got one on {tensor.device}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
