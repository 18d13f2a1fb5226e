"""What every system asks of a picture: a float tensor (N, 3, H, W), with sides that the network's strides divide."""

from __future__ import annotations

import torch
from torch import Tensor


def check_picture(system: str, name: str, picture: Tensor) -> None:
    if not isinstance(picture, Tensor):
        raise TypeError(f"{system}: {name}: expected a tensor, got {type(picture).__name__}")
    if not picture.is_floating_point():
        raise TypeError(f"{system}: {name}: expected a floating-point tensor in 0..1, got {picture.dtype}")
    if picture.dim() != 4 or picture.shape[1] != 3 or 0 in picture.shape[2:]:
        raise ValueError(f"{system}: {name}: expected shape (N, 3, H, W), got {tuple(picture.shape)}")


def check_alpha(system: str, alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"{system}: alpha: expected a number from 0 to 1, got {alpha}")


def mirror_to_multiple(picture: Tensor, multiple: int, least: int) -> Tensor:
    """`picture` continued by its mirror image, right and below, until H and W are multiples, and at least `least`.

    A side too short for that is mirrored again and again, as in numpy.pad(mode="reflect"), so one pixel will do.
    Where the sides fit already, this is the picture itself, not a copy.
    """
    for dim in (2, 3):
        size = picture.shape[dim]
        wanted = max(least, -(-size // multiple) * multiple)
        if wanted != size:
            turn = 2 * size - 2
            position = torch.arange(wanted, device=picture.device) % max(turn, 1)
            picture = picture.index_select(dim, torch.minimum(position, turn - position))
    return picture
