"""A short training of every system, on tiny sizes and drawn pictures: its loss falls."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))

from literal import picture
from small import SIZES

from fastnorm import models
from fastnorm.models.vgg import VGG19
from fastnorm.training import RECIPES, Batch, recipe_of

# The part of the first loss that is left, at most, after so many steps at this rate; where phases differ, of those named.
LEFT = {
    "adaattn": dict(steps=50, lr=3e-3, left=0.65),
    "adaconv": dict(steps=10, lr=1e-2, left=0.6),
    "adain": dict(steps=100, lr=1e-2, left=0.65),
    "avatar_net": dict(steps=30, lr=1e-2, left=0.4),
    "cin": dict(steps=60, lr=2e-3, left=0.5),
    "din": dict(steps=25, lr=1e-2, left=0.3),
    "diversified": dict(steps=10, lr=1e-2, left=0.05),
    "ghiasi": dict(steps=60, lr=2e-3, left=0.5),
    "johnson": dict(steps=60, lr=2e-3, left=0.5),
    # The generator's rises as long as the discriminator learns faster: see test_mgans_phases.py.
    "mgans": dict(steps=40, lr=3e-2, left=dict(discriminator=0.8)),
    "sanet": dict(steps=25, lr=5e-3, left=0.5),
    "style_bank": dict(steps=60, lr=1e-2, left=dict(style=0.5, identity=0.5)),
    "super_resolution": dict(steps=40, lr=1e-2, left=0.5),
    "texture_networks": dict(steps=10, lr=1e-2, left=0.05),
    "wct": dict(steps=60, lr=1e-2, left=0.4),
}


def train(name, steps, lr, seed=0):
    """The losses of each phase, a number a step, on one batch."""
    torch.manual_seed(seed)
    model = models.build(name, **SIZES[name])
    kind = models.SYSTEMS[name].styles
    count = {"paintings": 0, "numbers": getattr(model, "styles", 0), "one": 1, None: 0}[kind]
    styles = [picture(1, 3, 32, 32, seed=10 + i) for i in range(count)]
    Recipe = recipe_of(name)
    recipe = Recipe(model, VGG19(Recipe.layers, (4, 6, 8, 10, 10)) if Recipe.layers else None, styles)
    index = torch.arange(2) % count if kind == "numbers" else None
    paintings = picture(2, 3, 32, 32, seed=20) if kind == "paintings" else None
    batch = Batch(picture(2, 3, 32, 32, seed=30), paintings, index)
    optimizers = {phase: torch.optim.Adam(recipe.trained(phase), lr, recipe.settings.betas) for phase in recipe.phases}
    losses = {phase: [] for phase in recipe.phases}
    for step in range(steps):
        phase = recipe.phases[step % len(recipe.phases)]
        parts = recipe(phase, batch)
        assert all(part >= 0 for kind, part in parts.items() if kind != "diversity"), parts
        loss = sum(parts.values())
        optimizers[phase].zero_grad()
        loss.backward()
        optimizers[phase].step()
        losses[phase].append(loss.item())
    return recipe, batch, losses


def test_every_recipe_is_tested():
    assert set(LEFT) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_falls(name):
    settings = dict(LEFT[name])
    left = settings.pop("left")
    recipe, batch, losses = train(name, **settings)
    left = left if isinstance(left, dict) else dict.fromkeys(recipe.phases, left)
    for phase, part in left.items():
        values = losses[phase]
        assert values[-1] <= part * values[0], (phase, values)
    sample = recipe.sample(batch)
    assert sample.dim() == 4 and sample.shape[1] == 3 and sample.isfinite().all()


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_not_trained_stays(name):
    (fresh, _, _), (recipe, _, _) = (train(name, steps, lr=0.1) for steps in (0, 1))
    fresh = dict(fresh.named_parameters())
    trained = {id(parameter) for parameter in recipe.trained(recipe.phases[0])}
    changed = {key: not torch.equal(parameter, fresh[key]) for key, parameter in recipe.named_parameters()}
    assert any(changed.values())
    for key, parameter in recipe.named_parameters():
        assert id(parameter) in trained or not changed[key], key
