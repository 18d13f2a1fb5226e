"""Arguments of the public functions, checked in their own words: function, argument, what was expected, what came."""

import math

import torch
from torch import Tensor

from .ops._activation import CODES
from .ops.instance_stats import EPS_MODES

_TYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
_INDEX_TYPES = {torch.int64, torch.int32}


def check_map(function: str, input: Tensor, name: str = "input") -> int:
    """An (N, C, *) map; returns how many elements a plane has."""
    _check_tensor(function, name, input)
    if input.dim() < 3:
        raise ValueError(f"{function}: {name}: expected shape (N, C, *) with at least one spatial dimension, got {_shape(input)}")
    size = math.prod(input.shape[2:])
    if size == 0:
        raise ValueError(f"{function}: {name}: expected planes of at least one element, got {_shape(input)}")
    return size


def check_per_plane(function: str, name: str, parameter: Tensor | None, input: Tensor, shared_samples: bool = False) -> None:
    """A (C,) or (N, C) parameter of `input`; with `shared_samples`, (1, C) too."""
    if parameter is None:
        return
    n, c = input.shape[:2]
    _check_tensor(function, name, parameter)
    shape = parameter.shape
    if not (shape[-1:] == (c,) and (len(shape) == 1 or len(shape) == 2 and (shape[0] == n or shared_samples and shape[0] == 1))):
        raise ValueError(f"{function}: {name}: expected shape ({c},) or ({n}, {c}), got {_shape(parameter)}")
    check_same_device(function, name, parameter, input)


def check_same_shape(function: str, name: str, map: Tensor | None, input: Tensor) -> Tensor | None:
    """A map of the input's shape, in its type (autocast mixes types; elsewhere a mixture is an error)."""
    if map is None:
        return None
    _check_tensor(function, name, map)
    if map.shape != input.shape:
        raise ValueError(f"{function}: {name}: expected the input's shape {_shape(input)}, got {_shape(map)}")
    check_same_device(function, name, map, input)
    if map.dtype != input.dtype:
        if not torch.is_autocast_enabled(input.device.type):
            raise TypeError(f"{function}: {name}: expected the input's type {input.dtype}, got {map.dtype}")
        map = map.to(input.dtype)
    return map


def check_running_statistics(function: str, running_mean: Tensor | None, running_var: Tensor | None, input: Tensor) -> None:
    """Both of shape (C,)."""
    c = input.shape[1]
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic is None:
            raise ValueError(f"{function}: {name}: expected a tensor of shape ({c},), got None")
        _check_tensor(function, name, statistic)
        if statistic.shape != (c,):
            raise ValueError(f"{function}: {name}: expected shape ({c},), got {_shape(statistic)}")
        check_same_device(function, name, statistic, input)


def check_styles(function: str, weight: Tensor, bias: Tensor, style: Tensor, input: Tensor) -> None:
    """Tables with a row for each style, and the rows or mixtures that are wanted."""
    n, c = input.shape[:2]
    for name, table in (("weight", weight), ("bias", bias)):
        _check_tensor(function, name, table)
        if table.dim() != 2 or table.shape != (weight.shape[0], c):
            raise ValueError(f"{function}: {name}: expected shape (S, {c}), got {_shape(table)}")
        check_same_device(function, name, table, input)
    if not isinstance(style, Tensor):
        raise TypeError(f"{function}: style: expected a tensor, got {type(style).__name__}")
    if style.is_floating_point():
        _check_tensor(function, "style", style)
        if style.shape != (n, weight.shape[0]):
            raise ValueError(f"{function}: style: expected a mixture ({n}, {weight.shape[0]}), got {_shape(style)}")
    elif style.dtype not in _INDEX_TYPES:
        raise TypeError(f"{function}: style: expected int64 indices, or a floating-point mixture, got {style.dtype}")
    elif style.shape != (n,):
        raise ValueError(f"{function}: style: expected an index per sample, ({n},), got {_shape(style)}")
    check_same_device(function, "style", style, input)


def check_eps(function: str, eps: float, name: str = "eps") -> None:
    if not eps >= 0:
        raise ValueError(f"{function}: {name}: expected a number of at least 0, got {eps}")


def check_statistics_settings(
    function: str, input: Tensor, eps: float, correction: int, eps_mode: str, whose: str = ""
) -> None:
    """How a standard deviation is taken; `whose` is what the names of these arguments start with."""
    check_eps(function, eps, f"{whose}eps")
    if correction not in (0, 1):
        raise ValueError(f"{function}: {whose}correction: expected 0 (biased) or 1 (unbiased), got {correction}")
    if math.prod(input.shape[2:]) <= correction:
        raise ValueError(
            f"{function}: {whose}correction: an unbiased variance needs planes of 2 elements or more, got {_shape(input)}"
        )
    if eps_mode not in EPS_MODES:
        raise ValueError(f"{function}: eps_mode: expected one of {', '.join(EPS_MODES)}, got {eps_mode!r}")


def check_activation(function: str, activation: str | None) -> None:
    if activation not in CODES:
        raise ValueError(f"{function}: activation: expected None or one of {', '.join(filter(None, CODES))}, got {activation!r}")


def check_same_device(function: str, name: str, tensor: Tensor, input: Tensor) -> None:
    if tensor.device != input.device:
        raise ValueError(f"{function}: {name}: expected a tensor on {input.device}, got one on {tensor.device}")


def _check_tensor(function: str, name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{function}: {name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in _TYPES:
        raise TypeError(f"{function}: {name}: expected float32, float64, bfloat16 or float16, got {tensor.dtype}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
