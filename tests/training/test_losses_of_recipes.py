"""The losses of every recipe, in each phase, against the papers' formulas: values, gradients, and what is trained."""

import inspect
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import formulas
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))

from literal import picture
from small import SIZES

from fastnorm import models
from fastnorm.models.vgg import VGG19
from fastnorm.training import RECIPES, Batch, recipe_of


class Case(NamedTuple):
    """weights: none is its default, those of one recipe differ. trained: by phase, the first names of the parameters
    that the paper trains. sizes: beside the small ones.
    """

    weights: dict
    trained: dict[str, tuple[str, ...]]
    sizes: dict = {}


MODEL = {"all": ("model.",)}
CASES = {
    "adaattn": Case(
        dict(style_weight=7.0, local_weight=2.0), {"all": ("model.attention.", "model.deep.", "model.shallow.")}
    ),
    "adaconv": Case(
        dict(content_weight=3.0, style_weight=7.0), {"all": ("model.style_encoder.", "model.predictors.", "model.decoder.")}
    ),
    "adain": Case(dict(content_weight=3.0, style_weight=7.0), {"all": ("model.decoder.",)}),
    "avatar_net": Case(
        dict(reconstruction_weight=7.0, content_weight=3.0, variation_weight=2.0), {"all": ("model.decoder.",)}
    ),
    "cin": Case(dict(content_weight=3.0, style_weight=2e-4), MODEL),
    "din": Case(
        dict(content_weight=3.0, style_weight=7.0), {"all": ("model.encoder.", "model.din.", "model.decoder.")}
    ),
    "diversified": Case(dict(style_weight=7e4, content_weight=3.0, diversity_weight=2.0), MODEL),
    "diversified of textures": Case(
        dict(style_weight=7e4, content_weight=3.0, diversity_weight=2.0), MODEL, dict(content=False)
    ),
    "ghiasi": Case(dict(content_weight=3.0, style_weight=2e-4), MODEL),
    "johnson": Case(dict(content_weight=3e4, style_weight=2e9, variation_weight=7e4), MODEL),
    "mgans": Case(
        dict(style_weight=3.0, content_weight=7.0, variation_weight=2.0),
        {"discriminator": ("discriminator.",), "generator": ("model.decoder.",)},
    ),
    "sanet": Case(
        dict(content_weight=2.0, style_weight=7.0, identity_weights=(5.0, 3.0)),
        {"all": ("model.sanet4.", "model.sanet5.", "model.decoder.")},
    ),
    "style_bank": Case(
        dict(content_weight=3e4, style_weight=2e9, variation_weight=7e4, identity_weight=5.0),
        {"style": ("model.",), "identity": ("model.encoder.", "model.decoder.")},
    ),
    "super_resolution": Case(dict(content_weight=3.0), MODEL),
    "texture_networks": Case(dict(content_weight=3.0, style_weight=7e4), MODEL),
    "texture_networks of textures": Case(dict(content_weight=3.0, style_weight=7e4), MODEL, dict(content=False)),
    "wct": Case(
        dict(pixel_weight=3.0, feature_weight=2.0), {f"relu{level}_1": (f"model.decoders.{level}.",) for level in (3, 2, 1)}
    ),
}
PHASES = [(name, phase) for name, case in CASES.items() for phase in case.trained]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """The case, its recipe, the styles that it learns, and a batch whose pictures have gradients; all in float64."""
    name, case = request.param.split(" ")[0], CASES[request.param]
    torch.manual_seed(0)
    model = models.build(name, **SIZES[name] | case.sizes)
    kind = models.SYSTEMS[name].styles
    styles = [picture(1, 3, 40, 48, seed=10 + i).double() for i in range(dict(numbers=3, one=1).get(kind, 0))]
    Recipe = recipe_of(name)
    recipe = Recipe(model, VGG19(Recipe.layers, (4, 6, 8, 10, 10)), styles, **case.weights).double()
    content, style = (picture(3, 3, 32, 32, seed=seed).double().requires_grad_() for seed in (20, 30))
    index = torch.tensor([2, 0, 2]) if kind == "numbers" else None
    return name, case, recipe, styles, Batch(content, style if kind == "paintings" else None, index)


def losses_and_gradients(losses_of, recipe, batch):
    """Gradients of the sum, by name; of the pictures, too, which tell a goal that has a graph."""
    torch.manual_seed(1)
    losses = losses_of()
    learns = {name: parameter for name, parameter in recipe.named_parameters() if parameter.requires_grad}
    learns |= {name: picture for name, picture in batch._asdict().items() if name != "index" and picture is not None}
    gradients = torch.autograd.grad(sum(losses.values()), list(learns.values()), allow_unused=True)
    return losses, dict(zip(learns, gradients))


def test_every_recipe_is_tested():
    assert {name.split(" ")[0] for name in CASES} == set(RECIPES)
    for name, case in CASES.items():
        defaults = inspect.signature(recipe_of(name.split(" ")[0])).parameters
        assert set(list(defaults)[3:]) == set(case.weights), name
        assert all(defaults[weight].default != value for weight, value in case.weights.items()), name


def test_losses_are_the_formulas(case):
    name, about, recipe, styles, batch = case
    for phase in about.trained:
        formula = partial(getattr(formulas, name), recipe, phase, batch, styles, **about.weights)
        expected, expected_gradients = losses_and_gradients(formula, recipe, batch)
        losses, gradients = losses_and_gradients(partial(recipe, phase, batch), recipe, batch)
        assert losses.keys() == expected.keys()
        for loss, value in expected.items():
            assert value.abs() > 1e-9
            close(losses[loss], value, f"{phase}, {loss}")
        # Before a norm a bias does nothing: its gradient is what roundings leave.
        largest = max(value.abs().max().item() for value in expected_gradients.values() if value is not None)
        for key, value in expected_gradients.items():
            assert (value is None) == (gradients[key] is None), (phase, key)
            if value is not None:
                close(gradients[key], value, f"{phase}, gradient of {key}", rtol=1e-5, atol=1e-9 * largest)


def close(own, expected, what, rtol=1e-7, atol=0.0):
    torch.testing.assert_close(own, expected, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}")


def test_what_is_trained(case):
    _, about, recipe, _, _ = case
    assert list(dict.fromkeys(recipe.phases)) == list(about.trained)
    names = {id(parameter): name for name, parameter in recipe.named_parameters()}
    for phase, beginnings in about.trained.items():
        trained = [names[id(parameter)] for parameter in recipe.trained(phase)]
        assert sorted(trained) == sorted(name for name in names.values() if name.startswith(beginnings)), phase
