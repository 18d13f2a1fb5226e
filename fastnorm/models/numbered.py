"""Styles that have numbers: those of a system's training, and their mixtures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def weights_of(system: str, style: int | Tensor, styles: int, like: Tensor) -> Tensor:
    """A style of any form as the weights of a mixture, (1, S) or (N, S), of the type and on the device of `like`."""
    style = indices_or_weights(system, style, styles).to(like.device)
    return (style if style.is_floating_point() else one_hot(style, styles)).to(like.dtype)


def indices_or_weights(system: str, style: int | Tensor, styles: int) -> Tensor:
    """`style` as indices (N,) or weights (N, S), N = 1 where it serves all samples."""
    if type(style) is int and 0 <= style < styles:
        return torch.tensor([style])
    try:
        style = torch.as_tensor(style)
    except (TypeError, ValueError, RuntimeError):
        expected = "a number, indices (N,), or weights"
        raise TypeError(f"{system}: style: expected {expected}, got {type(style).__name__}") from None
    if style.is_floating_point():
        if style.dim() not in (1, 2) or style.shape[-1] != styles:
            expected = f"weights ({styles},) or (N, {styles})"
            raise ValueError(f"{system}: style: expected {expected}, got shape {tuple(style.shape)}")
        return torch.atleast_2d(style)
    if style.dim() > 1:
        raise ValueError(f"{system}: style: expected an index or indices (N,), got shape {tuple(style.shape)}")
    # Looking would stall a GPU and break a compiled graph; there the look-up itself fails.
    free = style.device.type == "cpu" and not torch.compiler.is_compiling()
    if free and not ((0 <= style) & (style < styles)).all():
        raise ValueError(f"{system}: style: expected 0 to {styles - 1}, got {style.tolist()}")
    return torch.atleast_1d(style.long())
