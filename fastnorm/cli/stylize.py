"""`fastnorm stylize`: pictures in, the same pictures painted in another style out; or videos."""

import argparse
import contextlib
import json
import time
from pathlib import Path

import torch

from .. import pictures, tune_allocator
from ..ops import backends
from . import arguments, jobs, progress, style, system, video
from .errors import UserError, complain, enough_memory
from .painter import DTYPES, Painter

EPILOG = """Pictures are written upright, in sRGB, without EXIF or colour profile. Transparency is kept, except in JPEG;
what is transparent is painted as white. A file that exists is replaced, an input never. Of a folder the pictures are taken,
not those of folders in it, or its videos where it has no pictures. Videos pass through ffmpeg, each frame is painted by
itself, the sound stays; pictures and videos are not taken together. One --mask numbers the regions of S styles by S gray
levels, evenly from black, the first, to white; of several, one for each style, the brightness is the style's share. Masks
are of the picture's size, before --size or after it."""


def add_arguments(parser):
    parser.epilog = EPILOG
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=Path, help="a picture, several, or a folder of them; or a video")
    add("--style", action="append", default=[], metavar="SPEC", type=style.parse, help=style.FORMS + "; may be repeated, "
        "with --mask; left out where the system has one style")
    add("-o", "--output", required=True, metavar="OUT", help="for one picture a file, its ending the format "
        "(.png, .jpg, .webp; for a video .mp4, .mov, .mkv, .webm); for several a folder, made if missing")
    system.add_arguments(parser)
    add("--mask", action="append", default=[], metavar="PICTURE", type=Path, help="where each of several styles goes")
    add("--alpha", type=_share, default=1.0, metavar="A", help="how much of the style, from 0 to 1 (default 1)")
    add("--size", type=arguments.count, metavar="N", help="longer side in pixels, may enlarge (default: as it is)")
    add("--preserve-color", action="store_true", help="keep the picture's colours, take only light and dark")
    add("--dtype", choices=DTYPES, default=DTYPES[0], help="in which the network runs (default: float32)")
    add("--batch", type=arguments.count, default=1, metavar="N", help="frames of a video at once (default 1)")
    add("--device", choices=arguments.DEVICES, default="auto", help="auto (default) is cuda where there is one")
    add("--threads", type=arguments.count, metavar="N", help="CPU threads (default: torch's choice)")
    add("--json", action="store_true", help="print one JSON object that says what was done")


def run(args) -> int:
    device = arguments.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    tune_allocator()

    chosen = system.choose(args.model, args.weights, args.style)
    painter = Painter(chosen, args.style, args.mask, device, args.dtype, args.alpha, args.preserve_color, args.size)
    clips, sound, done, failed = {}, [], [], []
    for job in jobs.plan(args.inputs, args.output, keep=painter.files):
        with _told(job, failed):
            if video.is_one(job.source):
                clips[job] = clip = video.probe(job.source, args.size)
                painter.regions.check(clip.height, clip.width, video.MULTIPLE, whose=job.source)
                jobs.check_memory(job.source, clip.width, clip.height, painter, args.batch)
            else:
                jobs.check(job, args.size, painter)
            sound.append(job)

    if sound:
        painter.prepare()
    if clips:
        for job in sound:
            with _told(job, failed):
                done.append(_stylize_video(job, clips[job], args.batch, painter))
    elif sound:
        with progress.bar("stylize", len(sound)) as advance:
            for job in sound:
                with _told(job, failed):
                    done.append(_stylize(job, args.size, painter))
                advance()

    if args.json:
        print(json.dumps(_report(args, painter, "videos" if clips else "pictures", done, failed)))
    else:
        for each in done:
            frames = ", {frames} frames".format(**each) if clips else ""
            print("{output}: {width}x{height}{}, {seconds:.2f} s".format(frames, **each))
        if failed and done:
            complain(f"{len(failed)} of {len(failed) + len(done)} could not be painted")
    return 2 if failed else 0


def _report(args, painter, kind, done, failed):
    described = [each.describe() for each in args.style]
    style = described[0] if len(described) == 1 else {"regions": described, "masks": [str(mask) for mask in args.mask]}
    return {
        "style": {"system": painter.chosen.name} | (style if described else {}),
        "alpha": args.alpha,
        "preserve_color": args.preserve_color,
        "dtype": args.dtype,
        "device": painter.device,
        "threads": torch.get_num_threads(),
        "backend": backends.which("instance_norm", painter.device),
        kind: done,
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


def _stylize(job, longest, painter):
    picture = pictures.read(job.source, longest)
    painter.regions.check(*picture.rgb.shape[2:], whose=job.source)
    started = time.perf_counter()
    with _memory_for(job.source):
        stylized = painter(picture.rgb)
    seconds = time.perf_counter() - started
    height, width = stylized.shape[2:]
    alpha = picture.alpha
    if alpha is not None and alpha.size != (width, height):
        alpha = alpha.resize((width, height))
    pictures.check_format(job.target, (width, height))
    pictures.write(job.target, pictures.Picture(stylized, alpha))
    return _facts(job, width, height, seconds)


def _stylize_video(job, clip, batch, painter):
    started, count = time.perf_counter(), 0
    with (
        contextlib.closing(video.frames(clip, batch)) as found,
        video.writing(job.target, clip, painter.scale) as write,
        progress.bar(job.source.name, clip.frames) as advance,
        _memory_for(job.source),
    ):
        for frames in found:
            content = torch.tensor(frames).permute(0, 3, 1, 2).float() / 255
            stylized = painter(content).clamp(0, 1).mul(255).round().to(torch.uint8)
            write(stylized.permute(0, 2, 3, 1).contiguous().numpy())
            count += len(frames)
            advance(len(frames))
        if not count:
            raise UserError(f"{job.source} holds no frames")
    width, height = painter.scale * clip.width, painter.scale * clip.height
    return _facts(job, width, height, time.perf_counter() - started) | {"frames": count}


def _facts(job, width, height, seconds):
    return {
        "input": str(job.source),
        "output": str(job.target),
        "width": width,
        "height": height,
        "seconds": round(seconds, 4),
    }


def _memory_for(path):
    return enough_memory(f"{path} is too large for the memory here: choose a smaller --size")


def _share(text):
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
