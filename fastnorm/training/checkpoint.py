"""Where a training stands, as one file: weights, averages, optimisers, step and settings; nothing in it can run.

There are no states of random generators, for each step draws from its own number.
"""

from __future__ import annotations

from pathlib import Path

from .. import _checkpoint
from .._errors import UserError

KIND = _checkpoint.Kind(
    "fastnorm train",
    "--resume",
    "training",
    frozenset({"step", "recipe", "average", "optimizers", "scaler"}),
    "go on with the same, or start anew in another folder (--init takes weights along)",
)
KEPT = 3  # The newest; those of fewer steps make room.


def path_in(folder: Path, step: int) -> Path:
    return folder / f"{step:06d}.pt"


def newest(folder: Path) -> Path | None:
    """The one of the most steps, where there is one."""
    return max(_all(folder), key=_step, default=None)


def save(folder: Path, state: dict, settings: dict) -> Path:
    """Write `Trainer.state()` with what the training was told, as a dict that JSON can hold; returns where it is."""
    path = path_in(folder, state["step"])
    try:
        _checkpoint.write(path, state, settings)
        before = (old for old in _all(folder) if _step(old) < state["step"])
        for old in sorted(before, key=_step)[: 1 - KEPT]:
            old.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path


def load(path: Path, settings: dict) -> dict:
    """The state; raises UserError for a file that is none, or one of a training that was told something else."""
    return _checkpoint.read(path, settings, KIND)


def _all(folder):
    return [path for path in folder.glob("*.pt") if path.stem.isdigit()]


def _step(path):
    return int(path.stem)
