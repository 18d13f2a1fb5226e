"""Which picture is read from where and written where, settled before any work starts."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import pictures
from .errors import UserError

BYTES_PER_PIXEL = 417  # The peak of the hungrier network, CIN, in float32: the same from 1024x1024 to 3000x3000.


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path


def plan(inputs: list[Path], output: str, keep: list[Path]) -> list[Job]:
    """One job per picture of `inputs`; raises where two would meet, or a file of `keep` be lost.

    `output` is a folder for several pictures, for a folder of them, and where it is one or ends in a slash.
    """
    sources = [picture for path in inputs for picture in pictures.find(path)]
    is_folder = os.path.isdir(output) or output.endswith(("/", os.sep))
    if is_folder or len(sources) > 1 or os.path.isdir(inputs[0]):
        if Path(output).suffix.lower() in pictures.WRITABLE and not os.path.isdir(output):
            raise UserError(f"-o {output}: several pictures need a folder, this names a picture")
        check_folder(output)
        jobs = [Job(source, Path(output) / _name(source)) for source in sources]
    else:
        jobs = [Job(sources[0], Path(output))]
        _check_parent(jobs[0].target)
    _check_targets(jobs, keep)
    return jobs


def check(job: Job, longest: int | None, device: str):
    """Raise unless the header says that the picture can be read, stylised and written at this size."""
    width, height = size = pictures.measure(job.source, longest)
    pictures.check_format(job.target, size)
    needed, present = width * height * BYTES_PER_PIXEL, _memory(device)
    if present is not None and needed > present:
        raise UserError(
            f"{job.source} at {width}x{height} pixels needs {needed / 1e9:.0f} GB of memory, the {device} has "
            f"{present / 1e9:.0f}: choose a smaller --size"
        )


def _memory(device):
    """Bytes of the CPU's or the GPU's memory; None where the system does not say."""
    if device == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _name(source):
    """A picture's name in the output folder: its own, with .png for an ending that is not written."""
    return source.name if source.suffix.lower() in pictures.WRITABLE else source.stem + ".png"


def check_folder(output):
    """Raise unless there is a folder of that name that can be written in, or one can be made."""
    existing = Path(os.path.abspath(output))
    while not os.path.lexists(existing):
        existing = existing.parent
    _check_is_folder(existing, output)
    _try_writing(existing, output)


def _check_parent(target):
    pictures.check_format(target)
    _check_is_folder(target.parent, target)
    _try_writing(target.parent, target)


def _check_is_folder(path, output):
    if not os.path.isdir(path):
        raise UserError(f"-o {output}: {path} is not a folder: make it one, or choose another")


def _try_writing(folder, output):
    """Raise unless a file can be made in `folder`, by making one that has no name and leaves no trace."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"-o {output} cannot be written, choose another place: {error.strerror}") from None


def _check_targets(jobs, keep):
    kept = {os.path.realpath(path) for path in keep} | {os.path.realpath(job.source) for job in jobs}
    claimed = {}
    for job in jobs:
        if job.target in claimed:
            raise UserError(
                f"{claimed[job.target]} and {job.source} would both become {job.target}: rename one or run them apart"
            )
        if os.path.realpath(job.target) in kept:
            raise UserError(f"{job.target} would be overwritten, and it is an input: choose another -o")
        if os.path.isdir(job.target):
            raise UserError(f"{job.target} cannot be written: it is a folder")
        claimed[job.target] = job.source
