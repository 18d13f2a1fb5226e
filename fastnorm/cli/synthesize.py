"""`fastnorm synthesize`: pictures found by optimisation, of a content and styles, or textures of styles alone."""

import argparse
import contextlib
import json
import os
import signal
import time
from pathlib import Path

import torch

from .. import _checkpoint, models, pictures, tune_allocator
from .._errors import first_line
from .._start import Terminated, stop_on_signal
from ..models.descent import OPTIMIZERS, Descent, Diverged
from ..models.pictures import keep_colors, resized
from ..models.subject import COLORS, STARTS
from ..models.system import NOT_CONSTRUCTED
from . import arguments, jobs, progress, style, video
from .errors import UserError, complain, enough_memory
from .jobs import Job
from .masks import Masks
from .settings import assignments, checked, merged
from .weights import load_public

SIZE = 512
RATES = ", ".join(f"{rate:g} of {name}" for name, rate in OPTIMIZERS.items())
BYTES_PER_PIXEL = 1400  # Of a step, as it was measured of gatys at 1024x1024; others take as much or more.
BYTES_PER_STYLE_PIXEL = 500  # The largest maps, without a gradient.
TOO_LARGE = "{} at --size {} is too large for the memory here: choose --tile, or a smaller size"
KEEP_EVERY = 50  # Steps from one checkpoint to the next.

EPILOG = f"""Without --content the result is a texture. Of several styles each has its place (--style a.jpg --style b.jpg
--mask regions.png), or all of them a share everywhere (--style a.jpg:0.3,b.jpg:0.7). Pictures of a folder, or several, are
found one after the other, or --batch of one size at once, each as if it were alone. A step takes a good second on two cores
at {SIZE} pixels, and a picture hundreds of steps: see fastnorm models gatys for what --set changes, and fastnorm stylize for
networks that take one. Ctrl-C leaves the --checkpoint, from which the same command goes on.

VGG-19's weights are read from a public file, torchvision's vgg19-dcbb9e9d.pth or vgg_normalised.pth of public code."""

CHECKPOINT = _checkpoint.Kind(
    "fastnorm synthesize",
    "--checkpoint",
    "synthesis",
    frozenset({"level", "step", "taken", "pictures", "optimizers", "fallen", "ended"}),
    "go on with the same, or choose another --checkpoint",
)


def add_arguments(parser):
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--system", default="gatys", metavar="NAME", help=f"{', '.join(models.SYNTHESES)} (default: gatys)")
    add("--content", nargs="+", default=[], type=Path, metavar="PICTURE", help="one, several, or a folder; none for a "
        "texture")
    add("--style", action="append", default=[], required=True, type=style.parse, metavar="SPEC", help="the path of a "
        "painting, or a mixture with weights (a.jpg:0.3,b.jpg:0.7); may be repeated, with --mask")
    add("-o", "--output", required=True, metavar="OUT", help="for one picture a file, its ending the format (.png, .jpg, "
        ".webp); for several a folder, made if missing")
    add("--vgg", metavar="FILE", help="the public weights of VGG-19 (default: where torchvision keeps them); random for "
        "trying out")
    add("--mask", action="append", default=[], metavar="PICTURE", type=Path, help="where each of several styles goes, as in "
        "fastnorm stylize")

    add = parser.add_argument_group("sizes").add_argument
    add("--size", type=arguments.count, metavar="N", help=f"longer side in pixels, may enlarge (default: {SIZE})")
    add("--style-scale", type=arguments.positive, default=1.0, metavar="X", help="styles' longer side, in parts of that "
        "(default: 1); larger ones have larger strokes")
    add("--texture-size", type=_sides, metavar="WxH", help="of a texture (default: the style's)")
    add("--original-size", action="store_true", help="enlarge the result to the content's own size")
    add("--tile", type=arguments.count, metavar="N", help="encode squares of N pixels, for pictures beyond memory: the "
        "result is the same, a step of 512 takes about twice the time")

    add = parser.add_argument_group("how it is found").add_argument
    add("--start", metavar="WHERE", help="content (default), noise (default of a texture), style, or a picture")
    add("--optimizer", choices=tuple(OPTIMIZERS), default="lbfgs", help="lbfgs (default), or adam, which takes less memory")
    add("--lr", type=arguments.positive, metavar="X", help=f"its rate (default: {RATES})")
    add("--history", type=arguments.count, default=20, metavar="N", help="steps that lbfgs remembers, each in the memory "
        "of two pictures (default: 20)")
    add("--steps", type=_steps, metavar="N[,N...]", help="of each level (default: the system's)")
    add("--tolerance", type=arguments.share, default=0.0, metavar="X", help="a level ends where the loss falls by less than "
        "this part in 20 steps, such as 0.01 (default: 0, never)")
    add("--set", dest="settings", action="append", default=[], type=assignments, metavar="NAME=VALUE", help="an argument of "
        "the system, such as style_weight=2000 or 'style_layers=[\"relu1_1\",\"relu3_1\"]'; may be repeated")
    add("--seed", type=arguments.whole, default=0, metavar="N", help="of noise, and of random weights (default: 0)")
    add("--batch", type=arguments.count, default=1, metavar="N", help="contents of one size at once (default: 1)")

    add = parser.add_argument_group("what comes out").add_argument
    add("--preserve-color", nargs="?", choices=COLORS, const=COLORS[0], metavar="HOW", help="keep the content's colours: of "
        "the result light and dark alone (luminance, the default), or by giving them to the styles before (histogram)")
    add("--save-every", type=arguments.count, metavar="N", help="write the picture so far every N steps, beside OUT, its "
        "level and step behind the name")
    add("--checkpoint", type=Path, metavar="FILE", help=f"keep there where it stands, every {KEEP_EVERY} steps and on "
        "Ctrl-C; where the file is there, go on from it; it is removed in the end")
    add("--json", action="store_true", help="print one JSON object that says what was done")

    add = parser.add_argument_group("the machine").add_argument
    add("--device", choices=arguments.DEVICES, default="auto", help="auto (default) is cuda where there is one")
    add("--threads", type=arguments.count, metavar="N", help="CPU threads (default: torch's choice)")


def run(args) -> int:
    device = arguments.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    tune_allocator()
    longest = args.size or SIZE
    paintings = _paintings(args.style)
    _check_together(args)
    masks = Masks(args.mask, len(args.style), _longest_of_mask(args, longest))
    inputs = _inputs(args, paintings)
    planned = _planned(args, paintings[0], inputs)
    groups, failed = _groups(planned, longest, args)
    _check_checkpoint(args, groups, planned, inputs)
    for group in groups:
        _check_memory(args, group, longest, device)
    kept = [*inputs, *(path for job in planned for path in (job.source, job.target))]
    done = []
    if groups:
        system = _system(args, device)
        side = _longest_of_style(args, longest)
        styles = [pictures.read(path, side).rgb.to(device) for path in paintings]
        for group in groups:
            readable, contents = _read(group, args, longest, failed, len(planned) == 1)
            if not readable:
                continue
            try:
                with enough_memory(TOO_LARGE.format(readable[0].source, longest)):
                    done += _Run(args, system, readable, contents, styles, masks, kept).result()
            except UserError as error:
                if len(planned) == 1:
                    raise
                _note(error, readable, failed)
    if args.json:
        print(json.dumps(_report(args, device, done, failed)))
    else:
        for each in done:
            losses = ", ".join(f"{name} {loss:.4g}" for name, loss in each["losses"].items())
            print("{output}: {width}x{height}, {steps} steps, {seconds:.1f} s; {}".format(losses, **each))
    return 2 if failed or any(each["diverged"] for each in done) else 0


class _Run:
    """Pictures of one size, or one texture, from beginning to end."""

    def __init__(self, args, system, group, contents, styles, masks, kept):
        """kept: files that pictures on the way may not be written over."""
        self.args, self.group, self.contents = args, group, contents
        content = torch.cat([picture.rgb for picture in self.contents]).to(styles[0].device) if self.contents else None
        size, mask = (args.texture_size or styles[0].shape[2:]) if content is None else content.shape[2:], None
        if masks:
            masks.check(*size, whose=group[0].source if self.contents else "the texture")
            mask = _repeated(masks.at(*size).to(styles[0].device), args.style)
        try:
            self.descent = Descent(
                system, content, styles, weights=_weights(args.style), mask=mask, size=args.texture_size,
                start=_start(args.start), seed=args.seed, optimizer=args.optimizer, lr=args.lr, history=args.history,
                steps=args.steps, tolerance=args.tolerance, preserve_color=args.preserve_color, tile=args.tile,
            )  # fmt: skip
        except (TypeError, ValueError) as error:
            raise UserError(error) from None
        self.told = _told(args, self.descent)
        for number, level in enumerate(self.descent.levels if args.save_every else (), 1):
            for step in range(args.save_every, level.steps + 1, args.save_every):
                for job in group:
                    jobs.check_is_no_input(_so_far(job, number, step), kept, what="an input or a result")

    def result(self) -> list[dict]:
        """What was done, for each picture, once all are written."""
        args, descent, started, last, diverged = self.args, self.descent, time.perf_counter(), None, None
        self._resume()
        counts = [level.steps for level in descent.levels]
        done = sum(counts[: descent.level]) + descent.step
        with stop_on_signal() as asked:
            try:
                with progress.steps(sum(counts), done) as show:
                    while not descent.finished:
                        last = descent.advance()
                        done = sum(counts[: last.level - 1]) + last.step
                        show(done, ", ".join(f"{name} {sum(each):.4g}" for name, each in last.losses.items()))
                        self._keep_up(last, done, asked())
                picture = descent.result()
            except Diverged as error:
                picture, diverged = error.picture, str(error)
            except (TypeError, ValueError) as error:
                raise UserError(error) from None
            self._write(picture)
            if args.checkpoint:
                args.checkpoint.unlink(missing_ok=True)
            if diverged:
                kept = ", ".join(str(job.target) for job in self.group)
                complain(f"{diverged}; the last picture before is kept, {kept}")
            self._stop(asked())
        return [self._facts(number, last, time.perf_counter() - started, diverged) for number in range(len(self.group))]

    def _keep_up(self, last, done, stops):
        """What is due behind a step: the picture so far, a checkpoint, an end."""
        args = self.args
        if args.save_every and last.step % args.save_every == 0:
            self._write(self.descent.result(), last)
        if self.descent.finished:
            return
        if args.checkpoint and (stops or done % KEEP_EVERY == 0):
            if self._keep() and stops:
                complain(f"the same command goes on from {args.checkpoint}")
        self._stop(stops)

    def _stop(self, signalled):
        if signalled:
            raise Terminated if signalled == signal.SIGTERM else KeyboardInterrupt

    def _resume(self):
        path = self.args.checkpoint
        if path is None or not path.exists():
            return
        state = _checkpoint.read(path, self.told, CHECKPOINT)
        try:
            self.descent.load(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{path} is no whole checkpoint of this synthesis: {first_line(error)}") from None

    def _keep(self):
        """Whether it could: a disk that is full is no reason to lose what was found."""
        try:
            _checkpoint.write(self.args.checkpoint, self.descent.state(), self.told)
        except OSError as error:
            complain(f"--checkpoint {self.args.checkpoint} cannot be written: {error.strerror}")
            return False
        return True

    def _write(self, found, step=None):
        """The pictures; those so far, of a step, beside where they will be."""
        for number, job in enumerate(self.group):
            picture, alpha = found[number : number + 1].cpu(), None
            if self.contents:
                alpha = self.contents[number].alpha
                if self.args.original_size and step is None:
                    original = pictures.read(job.source)
                    picture, alpha = resized(picture, *original.rgb.shape[2:]), original.alpha
                    if self.args.preserve_color == "luminance":
                        picture = keep_colors(original.rgb, picture)
            target = job.target if step is None else _so_far(job, step.level, step.step)
            pictures.write(target, pictures.Picture(picture, alpha))
            self.size = picture.shape[2:]

    def _facts(self, number, last, seconds, diverged):
        job = self.group[number]
        return {
            "input": str(job.source) if self.contents else None,
            "output": str(job.target),
            "width": self.size[1],
            "height": self.size[0],
            "steps": self.descent.taken,
            "seconds": round(seconds, 4),
            "losses": {name: losses[number] for name, losses in last.losses.items()} if last else {},
            "diverged": diverged,
        }


def _so_far(job, level, step):
    return job.target.with_name(f"{job.target.stem}-{level}-{step:04d}{job.target.suffix}")


# What the user may have got wrong.


def _check_together(args):
    if args.system not in models.SYNTHESES:
        problem = "it is a network, of fastnorm stylize" if args.system in models.SYSTEMS else "there is no such system"
        raise UserError(f"--system {args.system}: {problem}: choose from {', '.join(models.SYNTHESES)}")
    if args.content:
        if args.texture_size:
            raise UserError("--texture-size: with --content the result is of its size: choose one of the two")
        return
    for option in ("original_size", "preserve_color"):
        if getattr(args, option):
            raise UserError(f"--{option.replace('_', '-')}: it is of a content, and there is none: give --content")
    if args.start == "content":
        raise UserError("--start content: there is none: give --content, or choose noise, style or a picture")


def _paintings(styles):
    """Paths of all, in the order of the styles."""
    for each in styles:
        if each.kind != "paintings" or each.stored:
            raise UserError(f"style {each}: expected a painting, or a mixture of them, as a.jpg:0.3,b.jpg:0.7")
    return [path for each in styles for path in each.parts]


def _inputs(args, paintings):
    """Files that nothing may be written over."""
    start = [] if args.start is None or args.start in STARTS else [Path(args.start)]
    vgg = [] if args.vgg in (None, "random") else [Path(args.vgg)]
    return [*paintings, *args.content, *args.mask, *start, *vgg]


def _planned(args, painting, inputs):
    if args.content:
        planned = jobs.plan(args.content, args.output, inputs)
        for job in planned:
            if video.is_one(job.source):
                raise UserError(f"{job.source} is a video: synthesize takes pictures, fastnorm stylize videos")
        return planned
    target = Path(args.output)
    if target.is_dir() or args.output.endswith("/"):
        raise UserError(f"-o {args.output}: a texture is one picture, this names a folder")
    pictures.check_format(target)
    jobs.check_parent(target)
    job = Job(painting, target)
    jobs.check_targets([job], inputs)
    return [job]


def _groups(planned, longest, args):
    """Lists of jobs that run at once, and what is wrong with others: it is told, and the rest goes on."""
    by_size, failed = {}, []
    if not args.content:
        (job,) = planned
        own = pictures.measure(job.source, _longest_of_style(args, longest))
        pictures.check_format(job.target, args.texture_size or own)
        return [planned], failed
    for job in planned:
        try:
            size = pictures.measure(job.source, longest, upright=True)
            pictures.check_format(job.target, pictures.measure(job.source) if args.original_size else size)
            by_size.setdefault(size, []).append(job)
        except UserError as error:
            if len(planned) == 1:
                raise
            _note(error, [job], failed)
    split = [group[i : i + args.batch] for group in by_size.values() for i in range(0, len(group), args.batch)]
    return split, failed


def _read(group, args, longest, failed, is_alone):
    """The jobs whose pictures can be read, and these; none of a texture."""
    if not args.content:
        return group, []
    readable, contents = [], []
    for job in group:
        try:
            contents.append(pictures.read(job.source, longest))
            readable.append(job)
        except UserError as error:
            if is_alone:
                raise
            _note(error, [job], failed)
    return readable, contents


def _note(error, group, failed):
    complain(error)
    failed += [{"input": str(job.source), "error": str(error)} for job in group]


def _longest_of_style(args, longest):
    return max(pictures.SMALLEST, round(longest * args.style_scale))


def _longest_of_mask(args, longest):
    """Masks are resized as what they are of."""
    if args.content:
        return longest
    return max(args.texture_size) if args.texture_size else _longest_of_style(args, longest)


def _check_checkpoint(args, groups, planned, inputs):
    path = args.checkpoint
    if path is None:
        return
    if len(groups) > 1:
        raise UserError(f"--checkpoint {path}: expected one picture, or a --batch of one size, got {len(groups)} runs")
    if os.path.isdir(path):
        raise UserError(f"--checkpoint {path} is a folder, name a file in it")
    jobs.check_parent(path, "--checkpoint")
    if path in [job.target for job in planned]:
        raise UserError(f"--checkpoint {path}: -o names the same file, choose another")
    jobs.check_is_no_input(path, inputs, "--checkpoint")


def _check_memory(args, group, longest, device):
    source, present = group[0].source, jobs.memory(device)
    of_style = _longest_of_style(args, longest)
    width, height = args.texture_size[::-1] if args.texture_size else pictures.measure(
        source, longest if args.content else of_style
    )  # fmt: skip
    kept = 2 * args.history if args.optimizer == "lbfgs" else 2  # Pictures, of 12 bytes a pixel.
    needed = len(group) * height * width * (BYTES_PER_PIXEL + 12 * kept) + of_style**2 * BYTES_PER_STYLE_PIXEL
    if args.tile is None and present is not None and needed > present:
        raise UserError(
            f"{source} at {width}x{height} pixels needs {needed / 1e9:.0f} GB of memory, the {device} has "
            f"{present / 1e9:.0f}: choose --tile 512, or a smaller --size, --style-scale or --history"
        )


def _system(args, device):
    defaults = models.default_sizes(args.system)
    given = checked("--set", args.settings, defaults, f"{args.system} has {', '.join(defaults)}", any_length=True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(args.seed)  # For random weights, which are to be the same when this goes on.
            system = models.build(args.system, **given)
        load_public("--vgg", args.vgg, [system.vgg])
    except NOT_CONSTRUCTED as error:
        raise UserError(f"{'--set: ' if given else ''}{first_line(error)}") from None
    return system.to(device)


def _weights(styles):
    """Of each painting; those of a mixture sum to 1."""
    return [weight for each in styles for weight in each.parts.values()]


def _repeated(mask, styles):
    """The mask of a region for each painting of its mixture."""
    return mask[:, [region for region, each in enumerate(styles) for _ in each.parts]]


def _start(where):
    if where is None or where in STARTS:
        return where
    return pictures.read(Path(where)).rgb


def _told(args, descent):
    """What has to stay for a synthesis to go on exactly."""
    return {
        "--system": args.system,
        "--set": merged(args.settings),
        "--content": [str(path) for path in args.content],
        "--style": [str(each) for each in args.style],
        "--size": [*descent.subject.size],
        "--style-scale": args.style_scale,
        "--steps": [level.steps for level in descent.levels],
        "--optimizer": args.optimizer,
        "--lr": descent.lr,
        "--history": args.history,
        "--mask": [str(path) for path in args.mask],
        "--preserve-color": args.preserve_color,
        "--tolerance": args.tolerance,
        "--vgg": args.vgg,
        "--seed": args.seed,
    }


def _report(args, device, done, failed):
    return {
        "system": args.system,
        "settings": {**models.default_sizes(args.system), **merged(args.settings)},
        "styles": [each.describe() for each in args.style],
        "device": device,
        "threads": torch.get_num_threads(),
        "pictures": done,
        "failed": failed,
    }


# Arguments.


def _sides(text):
    with contextlib.suppress(ValueError):
        width, height = map(arguments.count, text.split("x"))
        return height, width
    raise argparse.ArgumentTypeError(f"expected sizes such as 640x480, got {text!r}")


def _steps(text):
    counts = [arguments.count(part) for part in text.split(",")]
    return counts[0] if len(counts) == 1 else counts
