"""Put the table of recipes into docs/training.md.

    python docs/recipes.py
"""

import inspect
from pathlib import Path

import torch

from fastnorm import models
from fastnorm.losses import ContentLoss, DiversityLoss, GramLoss, IdentityLoss, MeanStdLoss, TotalVariationLoss
from fastnorm.models.vgg import VGG19
from fastnorm.training import RECIPES, recipe_of

PAGE = Path(__file__).with_name("training.md")
START, END = "<!-- the table: python docs/recipes.py -->\n", "<!-- end of the table -->"
HEADER = "system", "losses, and at which layers", "arguments, for `--set`", "steps", "batch", "pixels", "learning rate"
KINDS = {
    ContentLoss: "squares",
    MeanStdLoss: "mean and deviation",
    GramLoss: "Gram",
    DiversityLoss: "differences",
    TotalVariationLoss: "total variation",
}
BESIDE = {"mgans": "style: a discriminator's hinge at 3_1"}  # What is no loss of fastnorm.losses.


def page() -> str:
    """The page with the table as it is now."""
    before, rest = PAGE.read_text().split(START)
    align = ["---"] * 3 + ["--:"] * 2 + ["---"] * 2
    rows = [HEADER, align, *(row(name) for name in RECIPES)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{before}{START}\n{table}\n\n{END}{rest.split(END)[1]}"


def row(name: str) -> tuple[str, ...]:
    Recipe = recipe_of(name)
    with torch.device("meta"):
        recipe = Recipe(models.build(name), VGG19(Recipe.layers or ("relu4_1",)), [torch.empty(1, 3, 256, 256)])
    children = {kind: loss for kind, loss in recipe.named_children() if type(loss) in (*KINDS, IdentityLoss)}
    losses = [*([BESIDE[name]] if name in BESIDE else []), *(f"{kind}: {about(loss)}" for kind, loss in children.items())]
    arguments = list(inspect.signature(Recipe).parameters.values())[3:]
    settings = Recipe.settings
    return (
        name,
        "; ".join(losses),
        ", ".join(f"{argument.name}={short(argument.default)}" for argument in arguments),
        f"{settings.steps:,}",
        str(settings.batch_size),
        f"{settings.crop} of {settings.resize}",
        rate(settings),
    )


def about(loss) -> str:
    if isinstance(loss, IdentityLoss):
        return f"squares of pixels, {about(loss.of_features)}"
    kind = "centred Gram" if getattr(loss, "centered", False) else KINDS[type(loss)]
    if getattr(loss, "instance_norm", False):
        kind = "normalised squares"
    layers = loss.weights if isinstance(loss.weights, dict) else ()
    return f"{kind} at {' '.join(layer.removeprefix('relu') for layer in layers)}" if layers else kind


def rate(settings) -> str:
    text = short(settings.lr)
    if settings.lr_decay:
        text += f" / (1 + {short(settings.lr_decay)} k)"
    if settings.lr_factor != 1:
        text += f", times {settings.lr_factor} every {settings.lr_every:,}"
    return text if settings.betas[0] == 0.9 else f"{text}, betas {short(settings.betas)}"


def short(number) -> str:
    """1e5 for 100000.0."""
    if isinstance(number, tuple):
        return f"({', '.join(map(short, number))})"
    if 0 < number < 1e-3 or number >= 1e4:
        digits, exponent = f"{number:.0e}".split("e")
        return f"{digits}e{int(exponent)}"
    return f"{number:g}"


if __name__ == "__main__":
    PAGE.write_text(page())
