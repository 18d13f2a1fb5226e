"""Avatar-Net against its formulas."""

import re

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.avatar_net import AvatarNet


def small(**settings):
    return literal.randomize(AvatarNet((4, 6, 8, 10), **settings))


def formulas(model, content, styles, weights, alpha):
    """The styles' results side by side, at each place where a style enters."""
    state = literal.arrays(model)
    x = literal.vgg19(state, content, "relu4_1")["relu4_1"]
    of_styles = [literal.vgg19(state, style, "relu4_1") for style in styles]

    def blended(results):
        return sum(weight * result for weight, result in zip(weights, results))

    decorated = blended([decorator(x, features["relu4_1"], model.patch_size) for features in of_styles])
    x = alpha * decorated + (1 - alpha) * x
    for scale, convolutions in ((3, 3), (2, 1), (1, 1)):
        x = literal.stage_back(x, state, f"decoder.stage{scale + 1}", convolutions)
        x = blended([adain(x, features[f"relu{scale}_1"]) for features in of_styles])
    return literal.mirrored_conv(x, state, "decoder.stage1")


def decorator(x, y, size):
    (of_x, _), (of_y, mean) = literal.centred(x), literal.centred(y)
    whitened = (literal.covariance_power(of_x, -0.5) @ of_x).reshape(x.shape)
    patches = patches_of((literal.covariance_power(of_y, -0.5) @ of_y).reshape(y.shape), size)
    swapped, times = np.zeros_like(x), np.zeros(x.shape[1:])
    for (row, column), patch in patches_of(whitened, size).items():
        best = max(patches.values(), key=lambda other: (patch * other).sum() / np.linalg.norm(other))
        swapped[:, row : row + size, column : column + size] += best
        times[row : row + size, column : column + size] += 1
    swapped = (swapped / times).reshape(len(x), -1)
    return (literal.covariance_power(of_y, 0.5) @ swapped + mean).reshape(x.shape)


def patches_of(x, size):
    rows, columns = (length - size + 1 for length in x.shape[1:])
    return {(i, j): x[:, i : i + size, j : j + size] for i in range(rows) for j in range(columns)}


def adain(x, y):
    return literal.instance_norm(x, np.sqrt(y.var((1, 2)) + 1e-5), y.mean((1, 2)))


def pictures(count):
    return [picture(1, 3, 53, 42 + 8 * seed, seed=seed).double() for seed in range(1, count + 1)]


@pytest.mark.parametrize("patch_size, alpha", [(3, 1.0), (5, 0.3), (1, 1.0)])
def test_is_the_formulas(patch_size, alpha):
    model, content, [style] = small(patch_size=patch_size), picture(1, 3, 40, 48).double(), pictures(1)
    expected = formulas(model, content[0].numpy(), [style[0].numpy()], [1.0], alpha)
    with torch.no_grad():
        output = model.stylize(content, style, alpha)[0]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * abs(expected).max())


@torch.no_grad()
def test_a_mixture_transfers_each_style_and_sums():
    """Of styles whose maps have other sizes, mixtures among them; and so do regions of equal weights."""
    model, content, styles = small(), picture(1, 3, 40, 48).double(), pictures(3)
    weights = [0.5, 0.3, 0.2]
    expected = formulas(model, content[0].numpy(), [style[0].numpy() for style in styles], weights, 0.8)
    mixed = model.mix([model.mix(styles[:2], [0.625, 0.375]), styles[2]], [0.8, 0.2])
    output = model.stylize(content, mixed, 0.8)
    np.testing.assert_allclose(output[0], expected, rtol=0, atol=1e-9 * abs(expected).max())
    mask = torch.tensor(weights, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 40, 48)
    torch.testing.assert_close(model.stylize_regions(content, styles, mask, 0.8), output)


@torch.no_grad()
def test_small_pictures_are_mirrored():
    """Until they have a patch."""
    model = small(patch_size=5)
    assert model.least == 40
    output = model.stylize(picture(1, 3, 3, 5).double(), picture(1, 3, 1, 2, seed=1).double())
    assert output.shape == (1, 3, 3, 5) and output.isfinite().all()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: AvatarNet(patch_size=0), "AvatarNet: patch_size: expected an integer of at least 1, got 0"),
        (lambda: AvatarNet(method="svd"), "AvatarNet: method: expected 'eigh' or 'newton_schulz', got 'svd'"),
        (lambda: small().export_onnx("net.onnx"), "AvatarNet: method: expected 'newton_schulz' for ONNX"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        call()
