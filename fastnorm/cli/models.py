"""`fastnorm models`: the style-transfer systems, what they take and what they cost."""

import dataclasses
import functools
import inspect
import json
from importlib import import_module

from .. import models
from ..models.cost import SIDE, cost
from ..training import RECIPES, recipe_of
from . import table
from .errors import UserError

EPILOG = f"""Counted for the sizes of the paper, a picture and a painting of {SIDE}x{SIDE} pixels, float32, without
computing anything: operations are multiply-adds of convolutions and products for each pixel, of the picture with its style
encoded before, and of encoding the painting; memory is what all tensors of a call hold at most, without weights and picture,
and without what the kernels take for themselves (3 to 33 MB where it was measured). A dash stands where it depends on the
picture itself."""

HEADER = ("system", "styles", "parameters", "operations", "encoding", "memory", "weights")
# After how many columns of text numbers follow.
TEXT_COLUMNS = 2


def add_arguments(parser):
    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="a system, of which more is said")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print one JSON object")
    shape.add_argument("--markdown", action="store_true", help="print the table as of docs/models.md")


def run(args) -> int:
    if args.name is not None and args.name not in models.SYSTEMS:
        raise UserError(f"there is no system {args.name!r}, choose from {', '.join(models.SYSTEMS)}")
    names = list(models.SYSTEMS) if args.name is None else [args.name]
    found = {name: facts(name) for name in names}
    if args.json:
        print(json.dumps(found[args.name] | details(args.name) if args.name else found))
    elif args.markdown:
        print(markdown(found))
    else:
        table.show(f"{SIDE}x{SIDE}, float32", HEADER, [cells(name, each) for name, each in found.items()], TEXT_COLUMNS)
        if args.name:
            print("\n".join(_lines(args.name, details(args.name))))
    return 0


@functools.cache
def facts(name: str) -> dict:
    entry = models.SYSTEMS[name]
    trained = "to be trained" if name in RECIPES else "to be given"
    return {
        "styles": entry.styles,
        "description": entry.description,
        "weights": "published" if entry.published else trained,
        **dataclasses.asdict(cost(name)),
    }


def details(name: str) -> dict:
    """paper: the docstring of the module; arguments of the constructor with defaults; training, if there is a recipe."""
    entry = models.SYSTEMS[name]
    module = import_module(f"{models.__name__}.{entry.module}")
    arguments = inspect.signature(getattr(module, entry.class_name)).parameters.values()
    return {
        "paper": inspect.getdoc(module),
        "arguments": {argument.name: argument.default for argument in arguments},
        "training": _training(name) if name in RECIPES else None,
    }


def _training(name):
    recipe = recipe_of(name)
    arguments = inspect.signature(recipe).parameters.values()
    own = {argument.name: argument.default for argument in arguments if argument.name not in ("model", "vgg", "styles")}
    return dataclasses.asdict(recipe.settings) | own


def cells(name: str, found: dict) -> tuple[str, ...]:
    numbers = found["operations"], found["encoding"]
    memory = "-" if found["memory"] is None else f"{found['memory'] / 1e6:.0f} MB"
    return (name, found["styles"] or "none", _short(found["parameters"]), *map(_short, numbers), memory, found["weights"])


def markdown(found: dict) -> str:
    rows = [cells(name, each) for name, each in found.items()]
    align = ["---" if i < TEXT_COLUMNS or i == len(HEADER) - 1 else "--:" for i in range(len(HEADER))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEADER, align, *rows))


def _short(number):
    """Three digits of it, and thousands or millions."""
    if number is None:
        return "-"
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 1000 * size else f"{number / size:.0f}{unit}"
    return f"{number:.0f}"


def _lines(name, found):
    yield found["paper"]
    yield ""
    yield f"fastnorm.models.build({name!r}, ...), with these defaults:"
    yield from (f"    {argument} = {value!r}" for argument, value in found["arguments"].items())
    if found["training"]:
        yield ""
        yield f"fastnorm train {name}, with these settings:"
        yield from (f"    {setting} = {value!r}" for setting, value in found["training"].items())
