"""The recipe that the arguments of `fastnorm train` ask for: a model, what it begins with, and the weights of its losses."""

import inspect
import json
import warnings

from .. import models, training
from .._errors import first_line
from ..models.inception import Inception
from ..models.system import NOT_CONSTRUCTED
from ..models.vgg import VGG19
from .errors import UserError, enough_memory
from .settings import checked
from .weights import load_public


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
    return checked("--set", args.recipe, defaults, f"{args.system}'s recipe has {', '.join(defaults)}; {others}")


def _model(args, counted):
    defaults = models.default_sizes(args.system)
    sizes = checked("--set-model", args.sizes, defaults, f"{args.system} has {', '.join(defaults)}")
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


def _eyes(args, model, layers):
    """VGG for the losses, the model's own where that has all layers; with its weights, in the model, too."""
    own = [module for module in model.modules() if isinstance(module, VGG19)]
    vgg = next((eye for eye in own if set(layers) <= set(eye.layers)), None) if layers else None
    if layers and vgg is None:
        vgg = VGG19(layers)
        own.append(vgg)
    load_public("--vgg", args.vgg, own)
    return vgg


def _begin(args, model):
    """With public weights, if the model has a network that does, and none from elsewhere."""
    own = [module for module in model.modules() if isinstance(module, Inception)]
    if args.inception and not own:
        raise UserError(f"--inception {args.inception}: the model has no Inception-v3, leave it out")
    if args.init is None and args.resume is None:
        load_public("--inception", args.inception, own)
