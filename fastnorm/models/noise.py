"""Noise by a formula: the same numbers on every machine, and in every program that a compiler or an exporter makes of it."""

from __future__ import annotations

import torch
from torch import Tensor

PRIME = 2**31 - 1  # Squares of what is below it fit in 64 bits.
OFFSET = 0x9E3779B9 % PRIME  # From 0 and 1, which are powers of themselves.


def uniform(like: Tensor, shape: tuple[int, ...], *seeds: int) -> Tensor:
    """Noise of this shape, evenly in 0..1, of the type and on the device of `like`.

    A number comes of the seeds and of its place alone: a larger map begins with the smaller one.
    """
    number = 0
    for seed in seeds:
        number = _mixed(number + seed)
    for dim, size in enumerate(shape):
        place = torch.arange(1, size + 1, device=like.device).view(-1, *(1,) * (len(shape) - 1 - dim))
        number = _mixed(number * place)
    # Of a type that holds such numbers, which float16 does not.
    return (number.to(torch.promote_types(like.dtype, torch.float32)) / PRIME).to(like.dtype)


def _mixed(number):
    """A fifth power modulo the prime, which no two numbers below it share."""
    number = (number + OFFSET) % PRIME
    square = number * number % PRIME
    return square * square % PRIME * number % PRIME
