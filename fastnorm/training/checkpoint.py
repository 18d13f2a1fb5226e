"""Where a training stands, as one file: weights, averages, optimisers, step and settings; nothing in it can run.

There are no states of random generators, for each step draws from its own number.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path

import torch

from .._errors import UserError, first_line
from .._files import write_whole

PARTS = {"settings", "step", "recipe", "average", "optimizers", "scaler"}
KEPT = 3  # The newest; those of fewer steps make room.


def path_in(folder: Path, step: int) -> Path:
    return folder / f"{step:06d}.pt"


def newest(folder: Path) -> Path | None:
    """The one of the most steps, where there is one."""
    return max(_all(folder), key=_step, default=None)


def save(folder: Path, state: dict, settings: dict) -> Path:
    """Write `Trainer.state()` with what the training was told, as a dict that JSON can hold; returns where it is."""
    path = path_in(folder, state["step"])
    data = io.BytesIO()
    torch.save({"settings": json.dumps(settings), **state}, data)
    try:
        write_whole(path, data.getbuffer())
        before = (old for old in _all(folder) if _step(old) < state["step"])
        for old in sorted(before, key=_step)[: 1 - KEPT]:
            old.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path


def load(path: Path, settings: dict) -> dict:
    """The state; raises UserError for a file that is none, or one of a training that was told something else."""
    if not path.is_file():
        raise UserError(f"--resume {path}: there is no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"--resume {path}: it is no checkpoint of fastnorm train, or not all of one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about pickles of kinds that are refused anyway.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on damaged files, and prints advice that is not for here.
        refused = "is refused, as damaged or as holding more than tensors, which may run code"
        raise UserError(f"{path} {refused}: {first_line(error)}") from None
    if not isinstance(state, dict) or not PARTS <= state.keys():
        raise UserError(f"{path} is no checkpoint of fastnorm train")
    _check_settings(path, json.loads(state.pop("settings")), json.loads(json.dumps(settings)))
    return state


def _check_settings(path, there, here):
    for name in there | here:
        if there.get(name) != here.get(name):
            said = f"{path} is of a training with {name} {there.get(name)}, this one has {here.get(name)}"
            raise UserError(f"{said}: go on with the same, or start anew in another folder (--init takes weights along)")


def _all(folder):
    return [path for path in folder.glob("*.pt") if path.stem.isdigit()]


def _step(path):
    return int(path.stem)
