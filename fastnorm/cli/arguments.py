"""Arguments that several commands share."""

import argparse
import contextlib

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


def count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, got {text!r}")
