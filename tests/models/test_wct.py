"""WCT against its formulas."""

import re

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm import models
from fastnorm.models.wct import WCT

WIDTHS = 4, 5, 6, 7, 8


def small(**settings):
    return literal.randomize(WCT(WIDTHS, **settings))


def formulas(model, content, style, alpha):
    state = literal.arrays(model)
    of_style = literal.vgg19(state, style, f"relu{max(model.levels)}_1")
    for level in model.levels:
        x = literal.vgg19(state, content, f"relu{level}_1")[f"relu{level}_1"]
        (planes, _), (of_planes, mean) = literal.centred(x), literal.centred(of_style[f"relu{level}_1"])
        whitened = literal.covariance_power(planes, -0.5) @ planes
        colored = (literal.covariance_power(of_planes, 0.5) @ whitened + mean).reshape(x.shape)
        content = decoder(state, f"decoders.{level}", level, alpha * colored + (1 - alpha) * x)
    return content


def decoder(state, name, level, x):
    """512-256 up, three of 256, 256-128 up, 128, 128-64 up, 64, 64-3, from relu4_1; 512-512 up, three of 512 before it, from
    relu5_1.
    """
    stages = (3, 3, 1, 1)[5 - level :]
    for number, convolutions in enumerate(stages):
        x = literal.stage_back(x, state, f"{name}.{number}", convolutions)
    return literal.mirrored_conv(x, state, f"{name}.{len(stages)}")


@pytest.mark.parametrize("levels, alpha", [((5, 4, 3, 2, 1), 1.0), ((5, 4, 3, 2, 1), 0.3), ((2, 4), 0.8)], ids=str)
def test_is_the_formulas(levels, alpha):
    model = small(levels=levels)
    content, style = picture(1, 3, 48, 32).double(), picture(1, 3, 39, 52, seed=1).double()
    expected = formulas(model, content[0].numpy(), style[0].numpy(), alpha)
    with torch.no_grad():
        output = model.stylize(content, style, alpha)[0]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-8 * abs(expected).max())


@torch.no_grad()
def test_a_mixture_is_the_mixture_of_transferred_features():
    """And so are regions of equal weights."""
    model = small(levels=(4,))
    content = picture(1, 3, 32, 48).double()
    one, other = (model.encode(picture(1, 3, 40, 41, seed=seed).double()) for seed in (1, 2))
    features = model.encoder(content)
    between = 0.3 * model.transferred(features, one, 4, 0.6) + 0.7 * model.transferred(features, other, 4, 0.6)
    output = model.stylize(content, model.mix([one, other], [0.3, 0.7]), 0.6)
    torch.testing.assert_close(output, model.decoders["4"](between))
    mask = torch.tensor([0.3, 0.7], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 32, 48)
    torch.testing.assert_close(model.stylize_regions(content, [one, other], mask, 0.6), output)


@torch.no_grad()
def test_small_pictures_are_mirrored():
    model = small()
    output = model.stylize(picture(1, 3, 3, 5).double(), picture(1, 3, 1, 2, seed=1).double())
    assert output.shape == (1, 3, 3, 5) and output.isfinite().all()


def test_one_encoder_to_the_deepest_level():
    model = models.build("wct", widths=WIDTHS, levels=(1, 3))
    assert (model.multiple, model.least) == (4, 8)
    assert model.encoder.layers == ("relu1_1", "relu3_1") and set(model.decoders) == {"1", "3"}
    assert [tuple(model.decoders["1"][0].weight.shape)] == [(3, 4, 3, 3)]


def test_by_products_it_is_the_same_style(tmp_path):
    """Weights of one method serve the other."""
    exact = small(levels=(2, 1))
    exact.save(tmp_path / "wct.safetensors")
    by_products = models.load("wct", tmp_path / "wct.safetensors", method="newton_schulz")
    content, style = picture(1, 3, 32, 48).double(), picture(1, 3, 40, 41, seed=1).double()
    with torch.no_grad():
        expected = exact.stylize(content, style)
        difference = (by_products.stylize(content, style) - expected).abs().mean() / expected.abs().mean()
        assert 0 < difference < 0.05
        exact.save_style(tmp_path / "style.safetensors", style)
        kept = by_products.load_style(tmp_path / "style.safetensors")
        assert all(torch.equal(kept[name], tensor) for name, tensor in exact.encode(style).items())


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: WCT(levels=()), "WCT: levels: expected some of 5, 4, 3, 2, 1, each once, got ()"),
        (lambda: WCT(levels=(6, 1)), "WCT: levels: expected some of 5, 4, 3, 2, 1, each once, got (6, 1)"),
        (lambda: WCT(levels=(2, 2)), "WCT: levels: expected some of 5, 4, 3, 2, 1, each once, got (2, 2)"),
        (lambda: WCT(method="svd"), "WCT: method: expected 'eigh' or 'newton_schulz', got 'svd'"),
        (lambda: small().export_onnx("wct.onnx"), "WCT: method: expected 'newton_schulz' for ONNX"),
        (lambda: small().encoder(torch.zeros(1, 3, 32, 32), "relu1_2"), "VGG19: layer: expected one of relu1_1, relu2_1"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        call()
