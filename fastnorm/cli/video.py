"""Videos: frames through pipes from ffmpeg and to it, nothing on disk but the result, and that whole or not at all.

What a frame's numbers mean is settled on reading, by ffmpeg: turned upright, its pixels square, a constant frame rate, RGB.
Written is BT.709 with 8 bits. Sound is copied, but for WebM, where it becomes Opus; nothing says where a clip was taken.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from .. import pictures
from .._files import in_one_step
from .errors import UserError, complain

READABLE = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv")
_H264 = ["-c:v", "libx264", "-crf", "18", "-c:a", "copy"]
_VP9 = ["-c:v", "libvpx-vp9", "-crf", "24", "-b:v", "0", "-c:a", "libopus"]
# The format by its name in ffmpeg, and how it is encoded.
WRITABLE = {
    ".mp4": ("mp4", _H264),
    ".m4v": ("mp4", _H264),
    ".mov": ("mov", _H264),
    ".mkv": ("matroska", _H264),
    ".webm": ("webm", _VP9),
}
MULTIPLE = 2  # Of sides, which most formats ask for.
_MISSING = "videos need the program ffmpeg: install it (https://ffmpeg.org), so that a shell finds it"
_SQUARE_PIXELS = "scale=round(iw*sar):ih,setsar=1"
_BT709 = (
    "scale=out_color_matrix=bt709:out_range=tv,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)


@dataclass(frozen=True)
class Clip:
    """width, height: even, as its frames are read; rate: frames a second; frames: about how many, None if it is not said."""

    path: Path
    width: int
    height: int
    rate: Fraction
    frames: int | None
    filters: str


def is_one(path: Path) -> bool:
    return path.suffix.lower() in READABLE


def find(folder: Path) -> list[Path]:
    """A folder's own videos, sorted by name; none of what is no folder, or cannot be listed."""
    try:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError:
        return []
    return [entry for entry in entries if is_one(entry) and not entry.name.startswith(".") and entry.is_file()]


def check_format(path: Path) -> None:
    """Raise unless the ending of `path` is one that is written."""
    if path.suffix.lower() not in WRITABLE:
        raise UserError(f"{path}: no video is written under the ending {path.suffix!r}: use {', '.join(WRITABLE)}")


def probe(path: Path, longest: int | None = None) -> Clip:
    """What a video is, by its first frame, and the size at which it will be read."""
    if not path.is_file():
        raise UserError(f"{path} is not a file" if path.exists() else f"{path}: there is no such file, check its name")
    # Of a Y4M stream the header is one line of text.
    first = ["-filter:v", _SQUARE_PIXELS, "-frames:v", "1", "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "pipe:1"]
    command = [_ffmpeg(), "-nostdin", "-hide_banner", "-i", f"file:{path}", "-map", "0:v:0", *first]
    ended = subprocess.run(command, capture_output=True, start_new_session=True)
    words = ended.stderr.decode(errors="replace")
    header = re.match(rb"YUV4MPEG2 .*?W(\d+) .*?H(\d+) .*?F(\d+):(\d+)", ended.stdout.split(b"\n")[0])
    if ended.returncode or not header:
        raise UserError(f"{path} cannot be read as a video: ffmpeg: {_last_line(words)}")
    width, height, *rate = map(int, header.groups())
    rate = Fraction(*rate)
    wanted = (width, height)
    if longest:
        wanted = tuple(max(1, round(side * longest / max(width, height))) for side in (width, height))
    wanted = tuple(side // MULTIPLE * MULTIPLE for side in wanted)
    if min(wanted) < pictures.SMALLEST:
        raise UserError(f"{path} is {wanted[0]}x{wanted[1]} pixels: the smallest that works is {pictures.SMALLEST} a side")
    fit = "scale={}:{}:flags=lanczos" if longest else "crop={}:{}:0:0"
    filters = f"{_SQUARE_PIXELS},{fit.format(*wanted)},fps={rate}"
    return Clip(path, *wanted, rate, _frames(words, rate), filters)


def _frames(words, rate):
    if found := re.search(r"Duration: (\d+):(\d+):(\d+\.?\d*)", words):
        hours, minutes, seconds = map(float, found.groups())
        return max(1, round((60 * (60 * hours + minutes) + seconds) * rate))
    return None


def frames(clip: Clip, batch: int = 1) -> Iterator[np.ndarray]:
    """All frames, up to `batch` at once: (n, H, W, 3), 8 bits; fewer than the file speaks of are told."""
    arguments = ["-nostdin", "-i", f"file:{clip.path}", "-map", "0:v:0", "-filter:v", clip.filters]
    size, count, failed = clip.width * clip.height * 3, 0, f"{clip.path} cannot be read to its end"
    with _running([*arguments, "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"], failed, stdout=subprocess.PIPE) as process:
        while data := process.stdout.read(batch * size):
            whole = len(data) // size
            count += whole
            if whole:
                yield np.frombuffer(data, np.uint8, whole * size).reshape(-1, clip.height, clip.width, 3)
            if len(data) % size:
                break  # It was cut off in a frame, and tells why as it ends.
    # Durations are rounded, and of the longest stream.
    if clip.frames and count < min(0.95 * clip.frames, clip.frames - 1):
        complain(f"{clip.path} ends after {count} of about {clip.frames} frames: it may be cut short")


@contextlib.contextmanager
def writing(target: Path, clip: Clip, scale: int = 1) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields the function that takes frames (n, scale * H, scale * W, 3), 8 bits; in the end the video is there, with sound.
    """
    size = f"{scale * clip.width}x{scale * clip.height}"
    file_format, codecs = WRITABLE[target.suffix.lower()]
    pipe = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(clip.rate), "-i", "pipe:0"]
    sound = ["-i", f"file:{clip.path}", "-map", "0:v:0", "-map", "1:a?", "-map_metadata", "-1"]
    color = ["-filter:v", _BT709, "-pix_fmt", "yuv420p"]
    failed = f"{target} cannot be written"
    try:
        with in_one_step(target) as temporary:
            output = ["-f", file_format, "-y", f"file:{temporary}"]
            with _running([*pipe, *sound, *color, *codecs, *output], failed, stdin=subprocess.PIPE) as process:
                yield lambda frames: process.stdin.write(np.ascontiguousarray(frames).data)
    except OSError as error:
        raise UserError(f"{failed}: {error.strerror}") from None


@contextlib.contextmanager
def _running(arguments, failed, **pipes):
    """ffmpeg, which has ended, and well, when this ends; it is stopped when something is raised inside."""
    # A session of its own: Ctrl-C is for us, who end it.
    process = subprocess.Popen(
        [_ffmpeg(), "-hide_banner", "-loglevel", "error", *arguments],
        stderr=subprocess.PIPE, start_new_session=True, **pipes,
    )  # fmt: skip
    # Read all the time, for a full pipe would stop it.
    last = deque(maxlen=1)
    reader = threading.Thread(target=lambda: last.extend(line for line in process.stderr if line.strip()), daemon=True)
    reader.start()
    try:
        try:
            yield process
            if process.stdin:
                process.stdin.close()
            broken = False
        except BrokenPipeError:  # It has ended before we did, and said why.
            broken = True
        if process.wait() or broken:
            reader.join()
            words = last[0].decode(errors="replace") if last else ""
            raise UserError(f"{failed}: ffmpeg: {_last_line(words) or f'exit code {process.returncode}'}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):  # What it did not take any more.
                if pipe:
                    pipe.close()


def _last_line(words):
    return next((line.strip() for line in reversed(words.splitlines()) if line.strip()), "")


def _ffmpeg():
    found = shutil.which("ffmpeg")
    if found is None:
        raise UserError(_MISSING)
    return found
