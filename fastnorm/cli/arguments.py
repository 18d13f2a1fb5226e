"""Arguments that several commands share."""

import argparse
import contextlib
import math

import torch

from .errors import UserError

DEVICES = ("auto", "cpu", "cuda")


def device(name: str) -> str:
    """The device that `--device` means: auto is cuda where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return name


def shape(text: str, least: int = 1) -> tuple[int, ...]:
    """Sizes with an x between them, `least` of them or more."""
    sizes = text.split("x")
    if len(sizes) < least or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected sizes such as 1x3x512x512, got {text!r}")
    return tuple(map(int, sizes))


def count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, got {text!r}")


def whole(text):
    with contextlib.suppress(ValueError):
        if 0 <= int(text) < 2**63:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 up, got {text!r}")


def positive(text):
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")


def share(text):
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number from 0 up and below 1, got {text!r}")
