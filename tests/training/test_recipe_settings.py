"""What each recipe says unless told otherwise: the papers' facts, or, where they say nothing, the authors' code's."""

import inspect

import pytest

from fastnorm.training import RECIPES, Settings, recipe_of

# What most of them have, and what each has beside that: settings, and weights of losses.
COMMON = dict(steps=40_000, batch_size=8, resize=512, crop=256, lr_decay=0.0, betas=(0.9, 0.999), clip=None, ema=0.999,
              lr_factor=1.0, lr_every=1)  # fmt: skip
FACTS = {
    "adaattn": (dict(steps=50_000, lr=1e-4), dict(style_weight=10, local_weight=3)),
    "adaconv": (dict(steps=160_000, lr=1e-4, lr_decay=5e-5), dict(content_weight=1, style_weight=10)),
    "adain": (dict(steps=160_000, lr=1e-4, lr_decay=5e-5), dict(content_weight=1, style_weight=10)),
    "avatar_net": (dict(steps=120_000, lr=1e-3), dict(reconstruction_weight=10, content_weight=1, variation_weight=10)),
    "cin": (dict(batch_size=16, resize=256, lr=1e-3), dict(content_weight=1, style_weight=1e-4)),
    "din": (dict(steps=160_000, lr=1e-4, lr_decay=5e-5), dict(content_weight=1, style_weight=10)),
    "diversified": (
        dict(steps=100_000, batch_size=4, lr=1e-3), dict(style_weight=1e5, content_weight=1, diversity_weight=1)
    ),
    "ghiasi": (dict(steps=4_000_000, resize=256, lr=1e-5), dict(content_weight=1, style_weight=1e-4)),
    "johnson": (
        dict(batch_size=4, resize=256, lr=1e-3), dict(content_weight=1e5, style_weight=1e10, variation_weight=0)
    ),
    "mgans": (
        dict(batch_size=64, crop=128, lr=0.02, betas=(0.5, 0.999)),
        dict(style_weight=1, content_weight=1, variation_weight=1e-4),
    ),
    "sanet": (
        dict(steps=160_000, batch_size=5, lr=1e-4, lr_decay=5e-5),
        dict(content_weight=1, style_weight=3, identity_weights=(50, 1)),
    ),
    "style_bank": (
        dict(steps=300_000, batch_size=4, lr=0.01, lr_factor=0.8, lr_every=30_000),
        dict(content_weight=1e5, style_weight=1e10, variation_weight=1e-5, identity_weight=1),
    ),
    "super_resolution": (dict(steps=200_000, batch_size=4, crop=288, lr=1e-3), dict(content_weight=1)),
    "texture_networks": (
        dict(steps=50_000, batch_size=16, lr=1e-3, lr_factor=0.8, lr_every=2000), dict(content_weight=1, style_weight=1e5)
    ),
    "wct": (dict(lr=1e-4), dict(pixel_weight=1, feature_weight=1)),
}  # fmt: skip


def test_every_recipe_is_told():
    assert set(FACTS) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_settings_and_weights(name):
    settings, weights = FACTS[name]
    recipe = recipe_of(name)
    assert recipe.settings == Settings(**COMMON | settings)
    own = list(inspect.signature(recipe).parameters.values())[3:]
    assert {argument.name: argument.default for argument in own} == weights


def test_the_rate_falls_by_steps():
    settings = Settings(lr=0.5, lr_decay=0.25, lr_factor=0.5, lr_every=3)
    rates = [settings.rate(step) for step in range(7)]
    assert rates == [0.5 / (1 + 0.25 * step) * part for step, part in enumerate((1, 1, 1, 0.5, 0.5, 0.5, 0.25))]


def test_style_bank_stylises_twice_for_each_auto_encoding():
    assert recipe_of("style_bank").phases == ("style", "style", "identity")


def test_style_bank_has_the_papers_rate():
    """0.8 of what it was, every 30 thousand steps."""
    rate = recipe_of("style_bank").settings.rate
    assert (rate(0), rate(29_999)) == (0.01, 0.01)
    assert rate(30_000) == pytest.approx(0.008) and rate(299_999) == pytest.approx(0.01 * 0.8**9)
