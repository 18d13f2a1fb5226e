"""The recipe that the arguments of `fastnorm train` ask for: a model, what it begins with, and the weights of its losses."""

import argparse
import contextlib
import inspect
import json
import math
import warnings

from .. import models, training
from .._errors import first_line
from ..models.inception import Inception
from ..models.system import NOT_CONSTRUCTED
from ..models.vgg import VGG19
from .errors import UserError, enough_memory


def build(args, kind, styles, settings, device):
    """Raises UserError for what does not fit.

    Args:
        kind: of the system's styles, as of `models.Entry`.
        styles: pictures of those that have numbers, or of the only one.
    """
    Recipe = training.recipe_of(args.system)
    given = _weights(args, Recipe)
    model = _model(args, {"styles": len(styles)} if kind == "numbers" else {})
    multiple, least = model.multiple * model.enlarges, model.least * model.enlarges
    if settings.crop < least or settings.crop % multiple:
        raise UserError(f"--crop {settings.crop}: {args.system} needs a multiple of {multiple}, from {least} up")
    try:
        vgg = _eyes(args, model, Recipe.layers)
        _begin(args, model)
        if args.init:
            model.load_state_dict(type(model).load(args.init, **model.config).state_dict())
        eye = None if vgg is None else vgg.to(device)
        return Recipe(model.to(device), eye, [style.to(device) for style in styles], **given).to(device)
    except (ValueError, FileNotFoundError, models.MissingWeights) as error:
        raise UserError(error) from None


def _weights(args, Recipe):
    """What --set says."""
    defaults = {each.name: each.default for each in list(inspect.signature(Recipe).parameters.values())[3:]}
    others = "steps, rate and other settings have options of their own"
    return _checked("--set", args.recipe, defaults, f"{args.system}'s recipe has {', '.join(defaults)}; {others}")


def _model(args, counted):
    defaults = models.default_sizes(args.system)
    sizes = _checked("--set-model", args.sizes, defaults, f"{args.system} has {', '.join(defaults)}")
    if counted.keys() & sizes.keys():
        raise UserError("--set-model styles: it is the number of pictures in --style, leave it out")
    said = ", ".join(f"{name}={json.dumps(value)}" for name, value in sizes.items())
    usual = ", ".join(f"{name}={json.dumps(defaults[name])}" for name in sizes)
    refused = f"--set-model {said}: {args.system} cannot be built so, the default is {usual}"
    try:
        with warnings.catch_warnings(), enough_memory(f"--set-model {said}: there is not enough memory for it"):
            warnings.simplefilter("ignore")  # torch's, of layers that are empty.
            model = models.build(args.system, **counted, **sizes)
    except NOT_CONSTRUCTED as error:
        if not sizes:
            raise
        raise UserError(f"{refused}: {first_line(error)}") from None
    if not all(parameter.numel() for parameter in model.parameters()):
        raise UserError(f"{refused}: a layer would be empty")
    return model


def _checked(option, assignments, defaults, otherwise):
    """The values by name; raises unless each has a default, and is of its kind."""
    given = merged(assignments)
    for name, value in given.items():
        if name not in defaults:
            raise UserError(f"{option} {name}: {otherwise}")
        if not _is_like(defaults[name], value):
            raise UserError(f"{option} {name}: expected {_kind(defaults[name])}, got {json.dumps(value)}")
    return given


def _is_like(default, value):
    """Of a type, finite, and not below 0; lists of whole numbers, or of lists, may be of any length but 0."""
    if isinstance(default, tuple):
        if not isinstance(value, list) or not value or isinstance(default[0], float) and len(value) != len(default):
            return False
        return all(_is_like(default[0], each) for each in value)
    if isinstance(default, float):
        return type(value) in (int, float) and 0 <= value < math.inf
    if default is None:  # A whole number that need not be said.
        return value is None or _is_like(0, value)
    return type(value) is type(default) and (type(value) is not int or 0 <= value < 2**31)


def _kind(default):
    if isinstance(default, tuple):
        return f"a list such as {json.dumps(default)}"
    words = {float: "a number from 0 up", int: "a whole number from 0 up", bool: "true or false", str: "a word"}
    return words.get(type(default), "a whole number or null")


def _eyes(args, model, layers):
    """VGG for the losses, the model's own where that has all layers; with its weights, in the model, too."""
    own = [module for module in model.modules() if isinstance(module, VGG19)]
    vgg = next((eye for eye in own if set(layers) <= set(eye.layers)), None) if layers else None
    if layers and vgg is None:
        vgg = VGG19(layers)
        own.append(vgg)
    _load_public("--vgg", args.vgg, own)
    return vgg


def _begin(args, model):
    """With public weights, if the model has a network that does, and none from elsewhere."""
    own = [module for module in model.modules() if isinstance(module, Inception)]
    if args.inception and not own:
        raise UserError(f"--inception {args.inception}: the model has no Inception-v3, leave it out")
    if args.init is None and args.resume is None:
        _load_public("--inception", args.inception, own)


def _load_public(option, path, networks):
    if path == "random":
        return
    for network in networks:
        try:
            network.load_public(path)
        except models.MissingWeights as error:
            raise UserError(f"{option}: {error}; or {option} random to try out") from None


def merged(repeated):
    """All that an option said which was given several times, the last for each name."""
    return {name: value for said in repeated for name, value in said.items()}


def assignments(text):
    """NAME=VALUE, or a JSON object."""
    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, or a JSON object, got {text!r}")
    with contextlib.suppress(ValueError):
        return {name: json.loads(value)}
    return {name: value}
