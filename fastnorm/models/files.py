"""Weights and styles on disk: safetensors, with what they are weights of inside.

Nothing here runs code that a file holds: a pickle is refused, but for plain tensors in public checkpoints of VGG.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from .._errors import first_line
from .._files import write_whole

__all__ = ["check_finite", "load_tensors", "read", "read_about", "read_public", "write"]

ABOUT = "fastnorm"  # The entry of a file's metadata that is ours.
FLOATS = torch.float16, torch.bfloat16, torch.float32, torch.float64


class MissingPackage(ModuleNotFoundError):
    """A package of the extra `models` is not installed."""


def _safetensors():
    try:
        import safetensors.torch
    except ModuleNotFoundError:
        raise MissingPackage("weights are read and written by a package: pip install safetensors") from None
    return safetensors


def write(path, tensors: dict[str, Tensor], kind: str, system: str, config: dict) -> None:
    """One file, put in place in one step.

    Args:
        kind: "weights" or "style".
        system, config: whose, and what it was constructed with.
    """
    about = dict(version=__version__, kind=kind, system=system, config=config)
    # Views of one memory, as of a style for all samples, would be refused.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    # One entry, for several would be in any order: what is the same is the same file.
    write_whole(Path(path), _safetensors().torch.save(tensors, {ABOUT: json.dumps(about)}))


def read(path) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a safetensors file, and what it says about itself: kind, system and config, where it is ours."""
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        about = _about(file, path)
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS and (tensor.is_floating_point() or tensor.is_complex()):
            raise ValueError(f"{path}: {name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}")
    return tensors, about


def read_about(path) -> dict:
    """What a safetensors file says about itself, as `read` gives it, without its tensors."""
    with _opened(path) as file:
        return _about(file, path)


@contextlib.contextmanager
def _opened(path):
    path = _existing(path)
    safetensors = _safetensors()
    if _is_pickle(path):
        raise ValueError(f"{path} is a pickle, which may run code: expected a .safetensors file")
    if _first_bytes(path)[8:9] not in (b"{", b""):
        raise ValueError(f"{path} is no safetensors file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            yield file
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a whole safetensors file, get it again: {error}") from None


def _about(file, path) -> dict:
    about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    if not isinstance(about, dict) or not isinstance(about.setdefault("config", {}), dict):
        raise ValueError(f"{path}: what it says about itself is damaged, get it again")
    return about


def read_public(path) -> dict[str, Tensor]:
    """The tensors of a public checkpoint: safetensors, or what torch.save wrote, of which tensors alone are read."""
    path = _existing(path)
    if not _is_pickle(path):
        return read(path)[0]
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on damaged files, and prints advice that is not for here.
        words = "is refused, as damaged or as holding more than tensors, which may run code"
        raise ValueError(f"{path} {words}: {first_line(error)}") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path}: expected a state_dict, tensors by name, got {type(tensors).__name__}")
    return dict(tensors)


def load_tensors(module: torch.nn.Module, tensors: dict[str, Tensor], source) -> None:
    """Fill a module; raises ValueError with the first name that is missing, unknown, of another shape, or not finite."""
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            raise ValueError(f"{source}: expected {name} {_words(tensor)}, which is not there")
        if tensors[name].shape != tensor.shape:
            raise ValueError(f"{source}: {name}: expected shape {_words(tensor)}, got {_words(tensors[name])}")
    if unknown := next((name for name in tensors if name not in own), None):
        raise ValueError(f"{source}: {unknown} is not of {type(module).__name__}")
    check_finite(tensors, source)
    module.load_state_dict(tensors)


def check_finite(tensors: dict[str, Tensor], source) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{source}: {name} holds NaN or infinity: the training that wrote it diverged, take another")


def _existing(path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file {path}" + (": it is a folder" if path.is_dir() else ""))
    return path


def _is_pickle(path: Path) -> bool:
    """By its first bytes: a zip file as of torch.save, or a bare pickle."""
    first = _first_bytes(path)
    return first[:2] == b"PK" or first[:1] == b"\x80" and first[8:9] != b"{"


def _first_bytes(path: Path) -> bytes:
    """Nine: of safetensors the length of a header, and its first."""
    with open(path, "rb") as file:
        return file.read(9)


def _words(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
