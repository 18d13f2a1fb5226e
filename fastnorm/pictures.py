"""Pictures on disk: found, checked by their header, read as RGB in 0..1, written whole or not at all.

What a picture's numbers mean is settled on reading: it is turned upright by its EXIF orientation, a
colour profile is converted to sRGB, and transparent parts show white. So what is written is upright sRGB,
without a profile and without EXIF, which may tell where a photo was taken.
"""

import contextlib
import io
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ._errors import UserError
from ._files import write_whole

try:
    from PIL import Image, ImageCms, ImageOps
except ImportError:
    raise UserError("pictures need pillow: pip install pillow") from None

READABLE = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
KINDS = tuple(dict.fromkeys(READABLE.values()))
WRITABLE = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 92}),
}
_LONGEST = {"PNG": 2**31 - 1, "JPEG": 65535, "WEBP": 16383}  # Sides that the formats can store.
_MOST_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # Where Pillow refuses to decode.
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # The tag of EXIF, and its values for pictures on their side.
SMALLEST = 8  # Pixels a side; below, the networks see little more than mirror images.


@dataclass
class Picture:
    """rgb: (1, 3, H, W), float32 in 0..1. alpha: an 8-bit map of the same size, or None."""

    rgb: torch.Tensor
    alpha: Image.Image | None = None


def find(path: Path) -> list[Path]:
    """The pictures that an argument stands for: a folder's own, sorted by name, or the file itself."""
    if not os.path.isdir(path):
        return [path]
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    found = [entry for entry in entries if _is_listed(entry)]
    if not found:
        raise UserError(f"{path} holds no picture: put one there, {_endings(READABLE)}")
    return found


def find_below(folder: Path) -> list[Path]:
    """The pictures of a folder and of all folders in it, but for hidden ones, sorted by name."""
    found = []
    for parent, folders, names in os.walk(folder, onerror=_cannot_be_listed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for path in (Path(parent, name) for name in names) if _is_listed(path)]
    if not found:
        raise UserError(f"{folder} holds no picture: put some there, {_endings(READABLE)}")
    return sorted(found)


def _cannot_be_listed(error):
    raise UserError(f"{error.filename} cannot be read: {error.strerror}") from None


def _is_listed(path):
    return path.suffix.lower() in READABLE and not path.name.startswith(".") and os.path.isfile(path)


def _endings(formats):
    return ", ".join(formats)


def measure(path: Path, longest: int | None = None, upright: bool = False) -> tuple[int, int]:
    """The sides at which `path` would be read, before it is turned upright, or after that, from its header alone."""
    with _opened(path) as image:
        size = image.size[::-1] if upright and image.getexif().get(ORIENTATION) in LYING else image.size
        width, height = size = _fit(size, longest)
    if min(size) < SMALLEST:
        at = f" at --size {longest}" if longest else ""
        raise UserError(
            f"{path} is {width}x{height} pixels{at}: the smallest that works is {SMALLEST}x{SMALLEST}, "
            f"choose a larger picture or --size"
        )
    return size


def count(path: Path) -> int:
    """How many pictures the file holds, as an animated GIF does; what cameras put beside a photo does not count."""
    with _opened(path) as image:
        if image.format != "MPO":
            with contextlib.suppress(Exception):  # Pillow's decoders raise many kinds, of a later one that is damaged.
                return getattr(image, "n_frames", 1)
    return 1


def _fit(size: tuple[int, int], longest: int | None = None, shorter: int | None = None) -> tuple[int, int]:
    """The size whose longer side is `longest`, or whose shorter side is `shorter`, in the same proportions."""
    if longest is None and shorter is None:
        return size
    scale = shorter / min(size) if longest is None else longest / max(size)
    return tuple(max(1, round(side * scale)) for side in size)


def read(path: Path, longest: int | None = None, *, shorter: int | None = None) -> Picture:
    """The picture upright, in sRGB, resized so that its longer side is `longest`, or its shorter one `shorter`."""
    with _opened(path) as image:
        image = _to_rgb(ImageOps.exif_transpose(image))
        size = _fit(image.size, longest, shorter)
        if size != image.size:
            image = image.resize(size, Image.Resampling.LANCZOS)
    return Picture(_on_white(image)[None], image.getchannel("A") if image.mode == "RGBA" else None)


def read_square(path: Path, shorter: int, side: int, across: float, down: float) -> torch.Tensor:
    """A square of the picture, (3, side, side), cut from it where its shorter side is `shorter`.

    across, down: where it lies, from 0, left and at the top, to 1.
    """
    with _opened(path) as image:
        if min(image.size) < SMALLEST:
            size = "{}x{}".format(*image.size)
            raise UserError(f"{path} is {size} pixels: the smallest that works is {SMALLEST}x{SMALLEST}")
        image = _to_rgb(ImageOps.exif_transpose(image))
        scale = min(image.size) / shorter
        # Corners on whole pixels of the resized picture, of which nothing but the square is computed.
        rooms = (int(length / scale + 1e-6) - side for length in image.size)
        left, top = (min(int(share * (room + 1)), room) for share, room in zip((across, down), rooms))
        edges = (min((start + side) * scale, length) for start, length in zip((left, top), image.size))
        image = image.resize((side, side), Image.Resampling.LANCZOS, box=(left * scale, top * scale, *edges))
    return _on_white(image)


def _on_white(image):
    """(3, H, W), float32 in 0..1."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255


@contextlib.contextmanager
def _opened(path):
    """The picture with its header read; whatever goes wrong with it inside is a UserError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # Opening a pipe would wait for ever.
            raise UserError(f"{path} is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damage that it can read past.
            with Image.open(path, formats=KINDS) as image:
                if image.mode == "F":
                    raise UserError(f"{path} has floating-point pixels: save it with 8 or 16 bits a channel")
                yield image
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"{path} has more than {_MOST_PIXELS:,} pixels: make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"{path} is not a picture by its content: expected {', '.join(KINDS)}") from None
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file, check its name") from None
    except MemoryError:
        raise UserError(f"{path} is too large for the memory here: choose a smaller --size") from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged data.
        reason = getattr(error, "strerror", None)
        if reason:
            raise UserError(f"{path} cannot be read: {reason}") from None
        raise UserError(f"{path} is damaged or cut short, get it again: {error}") from None


def _to_rgb(image):
    """8-bit RGB, or RGBA where something is transparent, in sRGB, from any mode."""
    if image.mode.startswith("I"):
        return _from_16_bits(image).convert("RGB")
    rgb = _to_srgb(image)
    if image.has_transparency_data:
        rgb.putalpha(image.convert("RGBA").getchannel("A"))
    return rgb


def _from_16_bits(image):
    """8-bit gray; Pillow's own conversion would clip at 255."""
    return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))


def _to_srgb(image):
    """8-bit RGB without alpha, a colour profile converted to sRGB."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGBA").convert("RGB")
    if profile:
        # A profile that is damaged, or made for another mode, says nothing about the colours.
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert("RGB")


def check_format(path: Path, size: tuple[int, int] = (1, 1)):
    """Raise unless the ending of `path` is one that is written, in a format that holds such a size."""
    if path.suffix.lower() not in WRITABLE:
        raise UserError(f"{path}: no format is written under the ending {path.suffix!r}: use {_endings(WRITABLE)}")
    file_format, _ = WRITABLE[path.suffix.lower()]
    if max(size) > _LONGEST[file_format]:
        raise UserError(f"{path}: {file_format} holds at most {_LONGEST[file_format]} pixels a side: use .png")


def write(path: Path, picture: Picture):
    """Encode by the ending of `path` and put the file in place in one step; JPEG has no alpha."""
    pixels = picture.rgb[0].clamp(0, 1).mul(255).round().to(torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    file_format, options = WRITABLE[path.suffix.lower()]
    if picture.alpha is not None and file_format != "JPEG":
        image.putalpha(picture.alpha)
    encoded = io.BytesIO()
    image.save(encoded, file_format, **options)
    try:
        write_whole(path, encoded.getbuffer())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
