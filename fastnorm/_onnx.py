"""Models as ONNX, without what torch says of itself on the way."""

from __future__ import annotations

import contextlib
import logging
import warnings
from importlib import import_module

import torch
from torch import nn


def exported(model: nn.Module, args: tuple = (), **settings) -> torch.onnx.ONNXProgram:
    """What torch.onnx.export makes of it by torch.export; its `save` with external_data=False writes one file.

    Raises ModuleNotFoundError where onnx or onnxscript is missing.
    """
    for needed in ("onnx", "onnxscript"):
        try:
            import_module(needed)
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(f"ONNX is written by a package: pip install {missing.name}", name=missing.name) from None
    with _quiet():
        return torch.onnx.export(model, args, dynamo=True, verbose=False, **settings)


@contextlib.contextmanager
def _quiet():
    """Without packages that are not needed, and names that torch will change."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        log.setLevel(level)
