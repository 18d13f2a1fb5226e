"""Which picture is read from where and written where, settled before any work starts."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import pictures
from . import video
from .errors import UserError, complain

HUNGRIEST = 10_000  # Bytes a pixel, more than any system takes.


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path


def plan(inputs: list[Path], output: str, keep: list[Path]) -> list[Job]:
    """One job per picture of `inputs`, or per video; raises where two would meet, or a file of `keep` be lost.

    `output` is a folder for several pictures, for a folder of them, and where it is one or ends in a slash.
    """
    sources = [source for path in inputs for source in _found(path)]
    kind = _kind(sources)
    is_folder = os.path.isdir(output) or output.endswith(("/", os.sep))
    if is_folder or len(sources) > 1 or os.path.isdir(inputs[0]):
        if Path(output).suffix.lower() in kind.WRITABLE and not os.path.isdir(output):
            raise UserError(f"-o {output}: several {_names(kind)} need a folder, this names a {_names(kind)[:-1]}")
        check_folder(output)
        jobs = [Job(source, Path(output) / _name(source, kind)) for source in sources]
    else:
        jobs = [Job(sources[0], Path(output))]
        if video.is_one(jobs[0].target) != (kind is video):
            made = f"{sources[0]} is a {_names(kind)[:-1]}, and so is what comes of it"
            raise UserError(f"-o {output}: {made}: use {', '.join(kind.WRITABLE)}")
        kind.check_format(jobs[0].target)
        check_parent(jobs[0].target)
    check_targets(jobs, keep)
    return jobs


def _found(path):
    """The pictures of a folder, or its videos where it has no pictures; or the file itself."""
    videos = video.find(path)
    if not videos:
        return pictures.find(path)
    try:
        found = pictures.find(path)
    except UserError:
        return videos
    complain(f"{path} holds pictures, which are taken, and videos, which are not: name those by themselves")
    return found


def _kind(sources):
    """The module that reads and writes them."""
    videos = [source for source in sources if video.is_one(source)]
    if videos and len(videos) < len(sources):
        other = next(source for source in sources if not video.is_one(source))
        raise UserError(f"{videos[0]} is a video, {other} is not: run pictures and videos apart")
    return video if videos else pictures


def _names(kind):
    return "videos" if kind is video else "pictures"


def check(job: Job, longest: int | None, painter) -> None:
    """Raise unless the header says that the picture can be read, stylised and written at this size."""
    width, height = size = pictures.measure(job.source, longest)
    pictures.check_format(job.target, size)
    if (stills := pictures.count(job.source)) > 1:
        complain(f"{job.source} holds {stills} pictures, of which the first is taken")
    check_memory(job.source, width, height, painter)


def check_memory(source: Path, width: int, height: int, painter, samples: int = 1) -> None:
    """Raise where stylising at this size takes more memory than there is."""
    present = memory(painter.device)
    if present is None or width * height * samples * HUNGRIEST < present:
        return  # Counting takes a moment.
    needed = painter.memory(height, width, samples)
    if needed is not None and needed > present:
        smaller = "--size" if samples == 1 else "--batch or --size"
        raise UserError(
            f"{source} at {width}x{height} pixels needs {needed / 1e9:.0f} GB of memory, the {painter.device} has "
            f"{present / 1e9:.0f}: choose a smaller {smaller}"
        )


def memory(device):
    """Bytes of the CPU's or the GPU's memory; None where the system does not say."""
    if device == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _name(source, kind):
    """A file's name in the output folder: its own, with .png or .mp4 for an ending that is not written."""
    return source.name if source.suffix.lower() in kind.WRITABLE else source.stem + next(iter(kind.WRITABLE))


def check_folder(output):
    """Raise unless there is a folder of that name that can be written in, or one can be made."""
    existing = Path(os.path.abspath(output))
    while not os.path.lexists(existing):
        existing = existing.parent
    _check_is_folder(existing, output)
    _try_writing(existing, output)


def check_parent(target, option="-o"):
    """Raise unless a file can be made beside this one."""
    _check_is_folder(target.parent, target, option)
    _try_writing(target.parent, target, option)


def _check_is_folder(path, output, option="-o"):
    if not os.path.isdir(path):
        otherwise = "choose another" if os.path.lexists(path) else "make it one, or choose another"
        raise UserError(f"{option} {output}: {path} is not a folder: {otherwise}")


def _try_writing(folder, output, option="-o"):
    """Raise unless a file can be made in `folder`, by making one that has no name and leaves no trace."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{option} {output} cannot be written, choose another place: {error.strerror}") from None


def check_targets(jobs: list[Job], keep: list[Path]) -> None:
    """Raise where two would be written to one place, or over an input or a file of `keep`."""
    claimed = {}
    for job in jobs:
        if job.target in claimed:
            raise UserError(
                f"{claimed[job.target]} and {job.source} would both become {job.target}: rename one or run them apart"
            )
        check_is_no_input(job.target, [*keep, *(each.source for each in jobs)])
        if os.path.isdir(job.target):
            raise UserError(f"{job.target} cannot be written: it is a folder")
        claimed[job.target] = job.source


def check_is_no_input(target: Path, inputs: list[Path], option: str = "-o", what: str = "an input") -> None:
    if os.path.realpath(target) in {os.path.realpath(path) for path in inputs}:
        raise UserError(f"{target} would be overwritten, and it is {what}: choose another {option}")
