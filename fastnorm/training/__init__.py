"""How the published systems are trained, one recipe each: `fastnorm train SYSTEM`.

    recipe = fastnorm.training.recipe_of("adain")(model, vgg)
    loss = sum(recipe("all", Batch(content, style)).values())
"""

from importlib import import_module

from .recipe import Batch, Recipe, Settings

__all__ = ["RECIPES", "Batch", "Recipe", "Settings", "recipe_of"]

# A system's recipe is `Recipe` in the file of its name.
RECIPES = (
    "adaattn", "adaconv", "adain", "avatar_net", "cin", "din",
    "diversified", "ghiasi", "johnson", "mgans", "sanet", "style_bank",
    "super_resolution", "texture_networks", "wct",
)  # fmt: skip


def recipe_of(name: str) -> type[Recipe]:
    """The recipe of a system, by its name in `fastnorm.models.SYSTEMS`."""
    if name not in RECIPES:
        raise ValueError(f"recipe_of: name: expected one of {', '.join(RECIPES)}, got {name!r}")
    return import_module(f"{__name__}.{name}").Recipe
