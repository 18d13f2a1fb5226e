"""Where a long work stands, as one file of tensors, numbers and words, beside the settings that it was told: nothing in it
can run."""

from __future__ import annotations

import contextlib
import errno
import json
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch

from ._errors import UserError, first_line
from ._files import in_one_step


def write(path: Path, state: dict, settings: dict) -> None:
    """Put it into place in one step; settings are what JSON can hold. Raises OSError."""
    with in_one_step(path) as temporary, open(temporary, "xb") as file:
        try:
            torch.save({"settings": json.dumps(settings), **state}, file)
        except RuntimeError as error:  # torch's own writer says so where a disk is full.
            raise OSError(errno.EIO, first_line(error)) from None


class Kind(NamedTuple):
    """command, option: whose checkpoints they are, and by which one is named; work: its kind; parts: what a state has;
    otherwise: what to do where settings differ."""

    command: str
    option: str
    work: str
    parts: frozenset[str]
    otherwise: str


def read(path: Path, settings: dict, kind: Kind) -> dict:
    """The state; raises UserError for a file that is none, or one of a work that was told something else."""
    if not path.is_file():
        raise UserError(f"{kind.option} {path}: there is no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{kind.option} {path}: it is no checkpoint of {kind.command}, or not all of one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about pickles of kinds that are refused anyway.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on damaged files, and prints advice that is not for here.
        refused = "is refused, as damaged or as holding more than tensors, which may run code"
        raise UserError(f"{path} {refused}: {first_line(error)}") from None
    if not isinstance(state, dict) or not kind.parts | {"settings"} <= state.keys():
        raise UserError(f"{path} is no checkpoint of {kind.command}")
    there, here = None, json.loads(json.dumps(settings))
    with contextlib.suppress(ValueError, TypeError):
        there = json.loads(state.pop("settings"))
    if not isinstance(there, dict):
        raise UserError(f"{path} is no checkpoint of {kind.command}")
    for name in there | here:
        if there.get(name) != here.get(name):
            said = f"with {name} {there.get(name)}, this one has {here.get(name)}"
            raise UserError(f"{path} is of a {kind.work} {said}: {kind.otherwise}")
    return state
