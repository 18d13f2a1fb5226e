"""`fastnorm stylize`: pictures in, the same pictures painted in another style out."""

import argparse
import contextlib
import json
import time
from pathlib import Path

import torch

from .. import models, pictures, tune_allocator
from ..models.pictures import keep_colors
from ..ops import backends
from . import arguments, jobs, progress, style
from .errors import UserError, complain

EPILOG = """Pictures are written upright, in sRGB, without EXIF or colour profile. Transparency is kept, except in JPEG;
what is transparent is painted as white. A file that exists is replaced, an input never."""


def add_arguments(parser):
    parser.epilog = EPILOG
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=Path, help="a picture, several, or a folder of them")
    add("--style", required=True, metavar="SPEC", type=style.parse, help=style.FORMS)
    add("-o", "--output", required=True, metavar="OUT", help="for one picture a file, its ending the format "
        "(.png, .jpg, .webp); for several a folder, made if missing")
    add("--alpha", type=_share, default=1.0, metavar="A", help="how much of the style, from 0 to 1 (default 1)")
    add("--size", type=arguments.count, metavar="N", help="longer side in pixels, may enlarge (default: as it is)")
    add("--preserve-color", action="store_true", help="keep the picture's colours, take only light and dark")
    add("--device", choices=arguments.DEVICES, default="auto", help="auto (default) is cuda where there is one")
    add("--threads", type=arguments.count, metavar="N", help="CPU threads (default: torch's choice)")
    add("--json", action="store_true", help="print one JSON object that says what was done")


def run(args) -> int:
    device = arguments.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    tune_allocator()

    sound, done, failed = [], [], []
    for job in jobs.plan(args.inputs, args.output, keep=args.style.files):
        with _told(job, failed):
            jobs.check(job, args.size, device)
            sound.append(job)

    if sound:
        paint = painter(args.style, device, args.alpha, args.preserve_color)
        with progress.bar("stylize", len(sound)) as advance:
            for job in sound:
                with _told(job, failed):
                    done.append(_stylize(job, args.size, device, paint))
                advance()

    if args.json:
        print(json.dumps(_report(args, device, done, failed)))
    else:
        for picture in done:
            print("{output}: {width}x{height}, {seconds:.2f} s".format(**picture))
    return 2 if failed else 0


def _report(args, device, done, failed):
    return {
        "style": args.style.describe(),
        "alpha": args.alpha,
        "preserve_color": args.preserve_color,
        "device": device,
        "threads": torch.get_num_threads(),
        "backend": backends.which("instance_norm", device),
        "pictures": done,
        "failed": failed,
    }


@contextlib.contextmanager
def _told(job, failed):
    """What is wrong with one picture is told and noted in `failed`; the others go on."""
    try:
        yield
    except UserError as error:
        complain(error)
        failed.append({"input": str(job.source), "error": str(error)})


def painter(chosen, device: str, alpha: float = 1.0, preserve_color: bool = False):
    """The function that paints content (1, 3, H, W) in 0..1; the style is encoded here, once for all pictures."""
    try:
        model = models.load(chosen.system).to(device)
    except models.MissingWeights as error:
        raise UserError(error) from None
    with torch.inference_mode():
        encoded = chosen.encode(model, device)

    @torch.inference_mode()
    def paint(content):
        stylized = model.stylize(content, encoded, alpha)
        return keep_colors(content, stylized) if preserve_color else stylized

    return paint


def _stylize(job, longest, device, paint):
    picture = pictures.read(job.source, longest)
    started = time.perf_counter()
    with _memory_for(job.source):
        stylized = paint(picture.rgb.to(device)).cpu()
    seconds = time.perf_counter() - started
    pictures.write(job.target, pictures.Picture(stylized, picture.alpha))
    height, width = stylized.shape[2:]
    return {
        "input": str(job.source),
        "output": str(job.target),
        "width": width,
        "height": height,
        "seconds": round(seconds, 4),
    }


@contextlib.contextmanager
def _memory_for(path):
    try:
        yield
    except RuntimeError as error:  # torch has a type of its own for this on a GPU only.
        if "allocate" not in str(error):
            raise
        raise UserError(f"{path} is too large for the memory here: choose a smaller --size") from None


def _share(text):
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
