"""`fastnorm train`: folders of pictures in, the weights of a system out."""

import argparse
import contextlib
import dataclasses
import os
import zlib
from importlib.util import find_spec
from pathlib import Path

import torch

from .. import models, pictures, training, tune_allocator
from .._errors import first_line
from ..training import checkpoint
from ..training.data import CONTENT, STYLE, Batches, Squares
from ..training.loop import Every, train
from ..training.output import Output
from ..training.processes import joined
from ..training.trainer import PRECISIONS, Trainer
from . import arguments, jobs, progress, recipe
from .errors import UserError, complain, enough_memory
from .settings import assignments, merged

NEWEST = ""  # What --resume without a file means.
SAMPLES = 4  # Pictures in a row.

EPILOG = """In the output folder: SYSTEM.safetensors, the model, with weights averaged over the steps; checkpoints/ to go on
from; samples/, a row of contents, one of styles and one of what the model makes of them; log.jsonl, the losses.
Ctrl-C writes a checkpoint and ends; the same command with --resume goes on as if nothing had been.

On several GPUs of a machine: torchrun --nproc-per-node 4 -m fastnorm train SYSTEM ...

What the systems' recipes say, where an option does not:
"""


def add_arguments(parser):
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    recipes = (_in_words(name, training.recipe_of(name).settings) for name in training.RECIPES)
    parser.epilog = EPILOG + "".join(f"  {line}\n" for line in recipes)
    add = parser.add_argument
    add("system", metavar="SYSTEM", help=", ".join(training.RECIPES))
    add("--content", required=True, type=Path, metavar="DIR", help="photos; folders in it count, too")
    add("--style", type=Path, metavar="DIR", help="paintings; a system of numbered styles learns these pictures, numbered "
        "in the order of their names; a system of one style takes the FILE of one picture")
    add("-o", "--output", required=True, type=Path, metavar="FOLDER", help="made if missing")
    add("--resume", nargs="?", const=NEWEST, metavar="FILE", help="go on from a checkpoint (default: the newest in FOLDER)")

    add = parser.add_argument_group("what is learnt").add_argument
    add("--vgg", metavar="FILE", help="the public weights of VGG-19 (default: where torchvision keeps them); random "
        "for trying out")
    add("--inception", metavar="FILE", help="the public weights of Inception-v3, with which ghiasi's style network begins "
        "(default: where torchvision keeps them); random for trying out")
    add("--init", type=Path, metavar="FILE", help="weights to start from, of the same system")
    add("--set", dest="recipe", action="append", default=[], type=assignments, metavar="NAME=VALUE", help="an "
        "argument of the recipe, such as style_weight=20; may be repeated")
    add("--set-model", dest="sizes", action="append", default=[], type=assignments, metavar="NAME=VALUE", help="an "
        "argument of the model, such as widths=[32,64,128,256], or several as a JSON object; may be repeated")
    add("--seed", type=arguments.whole, default=0, metavar="N", help="of all that is drawn by chance (default: 0)")

    add = parser.add_argument_group("how (default: what the recipe says, see below)").add_argument
    add("--steps", type=arguments.count, metavar="N", help="of the whole training")
    add("--batch-size", type=arguments.count, metavar="N", help="pictures a step, of all processes together")
    add("--resize", type=arguments.count, metavar="N", help="pixels of a picture's shorter side")
    add("--crop", type=arguments.count, metavar="N", help="pixels of the square that is cut from it at random")
    add("--lr", type=arguments.positive, metavar="X", help="learning rate of Adam")
    add("--clip", type=_or_none(arguments.positive), metavar="X", help="longest gradient, by its 2-norm; or none")
    add("--ema", type=_or_none(arguments.share), metavar="X", help="decay of the averaged weights, from 0 to 1; or none")

    add = parser.add_argument_group("what is written").add_argument
    add("--save-every", type=arguments.count, default=Every().save, metavar="N", help="steps from one checkpoint to the "
        f"next (default: {Every().save}); the newest {checkpoint.KEPT} are kept")
    add("--sample-every", type=arguments.count, default=Every().sample, metavar="N", help="steps from one picture of "
        f"samples to the next (default: {Every().sample})")
    add("--log-every", type=arguments.count, default=Every().log, metavar="N", help="steps whose losses are averaged for "
        f"the log (default: {Every().log})")
    add("--tensorboard", action="store_true", help="losses and samples for TensorBoard, in FOLDER/tensorboard")

    add = parser.add_argument_group("the machine").add_argument
    add("--device", choices=arguments.DEVICES, default="auto", help="auto (default) is cuda where there is one")
    add("--precision", choices=tuple(PRECISIONS), default="float32", help="of what autocast takes in (default: float32)")
    add("--compile", action="store_true", help="by torch.compile, which takes a minute or so at the start")
    add("--workers", type=arguments.whole, default=2, metavar="N", help="processes that read pictures ahead (default: 2); 0 reads "
        "between steps")


def run(args) -> int:
    tune_allocator()
    with joined(arguments.device(args.device)) as processes:
        settings = _settings(args)
        with _memory_for(settings):
            trainer, batches, output = _prepare(args, settings, processes)
            _train(args, trainer, batches, output)
    return 0


def _train(args, trainer, batches, output):
    settings, first = trainer.settings, trainer.processes.first
    if first:
        print(_in_words(args.system, settings), f"{_counted(batches)}, {trainer.processes.device}", sep="; ", flush=True)
        output.begin(trainer.step)
    every = Every(args.log_every, args.save_every, args.sample_every)
    with progress.steps(settings.steps, trainer.step) if first else contextlib.nullcontext() as show:

        def report(step, losses):
            if first:
                show(step, losses and ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items()))

        try:
            train(trainer, batches, output, every, args.workers, report, complain)
        except KeyboardInterrupt:
            if first and (path := output.newest()):
                complain(f"--resume goes on from {path}")
            raise
    if first:
        print(f"{output.model}: {args.system} after {trainer.step} steps")


def _prepare(args, settings, processes):
    kind = models.SYSTEMS[args.system].styles
    _check_style(args, kind)
    if settings.batch_size % processes.size:
        expected = f"a multiple of {processes.size}, the number of processes"
        raise UserError(f"--batch-size {settings.batch_size}: expected {expected}")
    resumed = _resumed(args) if args.resume is not None else None
    if processes.first:
        _check_output(args)
    content = _squares(args.content, CONTENT, args.seed, settings)
    paintings = _squares(args.style, STYLE, args.seed, settings) if kind == "paintings" else None
    styles = _styles(args.style, kind, settings.resize)

    torch.manual_seed(args.seed)
    built = recipe.build(args, kind, list(styles.values()), settings, processes.device)
    trainer = Trainer(built, settings, processes, args.precision, args.seed, args.compile)
    numbers = len(styles) if kind == "numbers" else 0
    batches = Batches(content, paintings, numbers, settings.batch_size, processes.rank, processes.size, built.chosen)
    told = _told(args, trainer, batches, list(styles))
    if resumed:
        _load(trainer, resumed, told)
    if not processes.first:
        return trainer, batches, None
    batch = batches.batch(range(SAMPLES))
    row = _style_row(batch, list(styles), settings.crop)
    return trainer, batches, Output(args.output, told, batch, row, args.tensorboard)


# What the user may have got wrong.


def _settings(args):
    """The recipe's, with what the options say."""
    if args.system not in training.RECIPES:
        problem = f"there is no system {args.system!r}"
        if args.system in models.SYSTEMS:
            problem = f"{args.system} is a system, but not one that is trained"
        raise UserError(f"{problem}: expected one of {', '.join(training.RECIPES)}")
    if find_spec("safetensors") is None:
        raise UserError("the model is written by a package: pip install safetensors")
    names = [field.name for field in dataclasses.fields(training.Settings)]
    said = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    said = {name: None if value == "none" else value for name, value in said.items()}
    settings = dataclasses.replace(training.recipe_of(args.system).settings, **said)
    if settings.crop > settings.resize:
        raise UserError(f"--crop {settings.crop}: expected at most --resize, which is {settings.resize}")
    return settings


def _check_style(args, kind):
    if kind is None and args.style:
        raise UserError(f"--style {args.style}: {args.system} has no style, leave it out")
    if kind is not None and not args.style:
        expected = dict(paintings="a folder of paintings", numbers="a folder of its styles", one="the picture of its style")
        raise UserError(f"{args.system} needs --style, {expected[kind]}")


def _check_output(args):
    jobs.check_folder(args.output)
    path = checkpoint.newest(args.output / "checkpoints")
    if path and args.resume is None:
        raise UserError(f"-o {args.output} holds a training already, {path}: --resume goes on, or choose another folder")
    if path and args.resume != NEWEST and not (os.path.exists(args.resume) and os.path.samefile(args.resume, path)):
        advice = "move it away, or choose another folder"
        raise UserError(f"--resume {args.resume}: -o {args.output} holds another checkpoint, {path}: {advice}")


def _squares(folder, stream, seed, settings):
    squares = Squares(_folder(folder, stream), stream, seed, settings.resize, settings.crop)
    squares[0]  # Raises unless there is one good picture.
    return squares


def _folder(path, stream):
    if not path.is_dir():
        problem = "is a file, expected a folder" if path.exists() else "there is no such folder"
        raise UserError(f"{'--content' if stream == CONTENT else '--style'} {path}: {problem}")
    return path


def _styles(path, kind, shorter):
    """The pictures, by their paths, that the model learns by number, or the one that it learns."""
    if kind == "one":
        return {path: pictures.read(path, shorter=shorter).rgb}
    good = {}
    if kind == "numbers":
        for picture in pictures.find_below(_folder(path, STYLE)):
            try:
                good[picture] = pictures.read(picture, shorter=shorter).rgb
            except UserError as error:
                complain(error)
        if not good:
            raise UserError(f"--style {path} holds no picture that can be read")
    return good


def _memory_for(settings):
    smaller = f"a smaller --batch-size than {settings.batch_size}, or --crop than {settings.crop}"
    return enough_memory(f"there is not enough memory: choose {smaller}")


# Where a training goes on.


def _resumed(args):
    """The checkpoint's path."""
    if args.resume != NEWEST:
        return Path(args.resume)
    path = checkpoint.newest(args.output / "checkpoints")
    if path is None:
        raise UserError(f"--resume: there is no checkpoint in {args.output / 'checkpoints'}")
    return path


def _told(args, trainer, batches, paths):
    """What has to stay for a training to go on exactly; how long it is may change."""
    settings = {f"--{name.replace('_', '-')}": value for name, value in dataclasses.asdict(trainer.settings).items()}
    del settings["--steps"]
    return {
        "system": args.system,
        "--set-model": trainer.recipe.model.config,
        "--set": merged(args.recipe),
        **settings,
        "--seed": args.seed,
        "--precision": args.precision,
        "--content": _names(batches.content.paths, args.content),
        "--style": _names(batches.style.paths if batches.style else paths, args.style),
        "untrained weights (--vgg, --init)": _digest(trainer.recipe),
    }


def _names(paths, folder):
    """How many pictures, and a number that differs when their names do."""
    root = folder.parent if paths == [folder] else folder
    names = "\n".join(path.relative_to(root).as_posix() for path in paths)
    return f"{len(paths)} pictures ({zlib.crc32(names.encode()):08x})"


def _digest(module):
    number = 0
    for parameter in module.parameters():
        if not parameter.requires_grad:
            number = zlib.crc32(parameter.detach().cpu().contiguous().numpy(), number)
    return f"{number:08x}"


def _load(trainer, path, told):
    state = checkpoint.load(path, told)
    try:
        trainer.load(state, path)
    except ValueError as error:
        raise UserError(error) from None
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} is no whole checkpoint of this training: {first_line(error)}") from None
    if trainer.step >= trainer.settings.steps:
        raise UserError(f"{path} has {trainer.step} steps done already: choose more --steps than {trainer.settings.steps}")


# What is shown.


def _style_row(batch, paths, crop):
    """The style of each sample, (N, 3, crop, crop); None for a system without."""
    if batch.style is not None or not paths:
        return batch.style
    numbers = [0] * SAMPLES if batch.index is None else batch.index.tolist()
    # From the middle, the shorter side whole.
    return torch.stack([pictures.read_square(paths[n], crop, crop, 0.5, 0.5) for n in numbers])


def _in_words(system, settings):
    size = f"{settings.crop}x{settings.crop} from a shorter side of {settings.resize}"
    return f"{system}: {settings.steps} steps of {settings.batch_size} squares of {size}, --lr {settings.lr:g}"


def _counted(batches):
    counts = [f"{len(batches.content.paths)} photos"]
    if batches.style:
        counts.append(f"{len(batches.style.paths)} paintings")
    if batches.styles:
        counts.append(f"{batches.styles} styles")
    return ", ".join(counts)


# Arguments.


def _or_none(kind):
    return lambda text: text if text == "none" else kind(text)
