"""Diversified texture synthesis against the layers of the authors' networks."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.diversified import Diversified
from fastnorm.models.noise import uniform


def small(**settings):
    return literal.randomize(Diversified(styles=3, channels=8, **settings))


def normed(x, state, name):
    return literal.instance_norm(x, state[f"{name}.weight"], state[f"{name}.bias"])


def layer(x, state, name, activation):
    return activation(normed(literal.circular_conv(x, state[f"{name}.0.weight"]), state, f"{name}.1"))


def first(x, state, name):
    """Of each position 8x8, by a transposed convolution."""
    x = np.einsum("chw,coyx->ohywx", x, state[f"{name}.0.weight"])
    x = x.reshape(x.shape[0], 8 * x.shape[1], 8 * x.shape[3])
    return literal.leaky_relu(normed(x, state, f"{name}.1"))


def doubled(x, state, name):
    return normed(literal.upsample(x), state, f"{name}.0")


def pictures(state, content, unit, noise):
    """`unit` S numbers, noise (h, w): it goes into the channels of the styles by their weights."""
    relu = literal.relu
    x = layer(layer(content, state, "encoder.0", relu), state, "encoder.1", relu)
    x = layer(layer(literal.max_pool(x), state, "encoder.3", relu), state, "encoder.4", relu)
    maps = literal.circular_conv(unit[:, None, None] * noise, state["selector.weight"])
    x = np.concatenate([literal.max_pool(x), relu(normed(maps, state, "selected"))])
    for place in range(6):
        x = layer(x, state, f"decoder.{place}", relu)
    x = doubled(x, state, "decoder.6")
    x = layer(layer(x, state, "decoder.7", relu), state, "decoder.8", relu)
    x = doubled(x, state, "decoder.9")
    return literal.circular_conv(x, state["decoder.10.weight"]) + state["decoder.10.bias"][:, None, None]


def textures(state, unit, noise):
    """noise (D, h, w), of which D numbers add up to 1; the generator takes its outer product with the selection unit."""
    leaky = literal.leaky_relu
    noise = noise / noise.sum(0)
    x = first(np.concatenate([each * unit[:, None, None] for each in noise]), state, "first")
    selected = first(np.broadcast_to(unit[:, None, None], (len(unit), *noise.shape[1:])), state, "first_selector")
    for i in range(5):
        x = doubled(np.concatenate([x, selected]), state, f"generator.{i}.0")
        for place in (1, 2, 3):
            x = layer(x, state, f"generator.{i}.{place}", leaky)
        selected = doubled(selected, state, f"selector.{i}.0")
        selected = layer(layer(selected, state, f"selector.{i}.1", leaky), state, f"selector.{i}.2", leaky)
    x = np.concatenate([x, selected])
    x = layer(layer(x, state, "last.0", leaky), state, "last.1", leaky)
    return literal.circular_conv(x, state["last.2.weight"]) + state["last.2.bias"][:, None, None]


def close(output, expected):
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_stylize_is_the_formulas():
    model, content = small(seed=3), picture(3, 3, 24, 16).double()
    state = literal.arrays(model.generator)
    noise = uniform(content, (1, 1, 6, 4), 3)[0].numpy()
    units = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        each, all = model.stylize(content, units), model.stylize(content, 2)
    for n in range(3):
        close(each[n], pictures(state, content[n].numpy(), units[n].numpy(), noise))
        close(all[n], pictures(state, content[n].numpy(), np.array([0.0, 0.0, 1.0]), noise))


def test_synthesize_is_the_formulas():
    model = small(content=False)
    state, noise = literal.arrays(model.generator), uniform(torch.zeros(1).double(), (2, 2, 1, 2), 4).numpy()
    with torch.no_grad():
        output = model.synthesize(torch.tensor([1, 0]), 250, 300, samples=2, seed=4)
    for n, unit in enumerate((np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]))):
        close(output[n], textures(state, unit, noise[n])[:, :250, :300])


@torch.no_grad()
def test_seeds_and_samples():
    model = small(content=False)
    pair = model.synthesize(1, 256, 256, samples=2, seed=4)
    torch.testing.assert_close(model.synthesize(1, 256, 256, seed=4), pair[:1], rtol=0, atol=1e-9)
    assert (pair[0] - pair[1]).abs().max() > 1e-3
    assert (model.synthesize(1, 256, 256, seed=5) - pair[:1]).abs().max() > 1e-3
    assert (model.synthesize(2, 256, 256, seed=4) - pair[:1]).abs().max() > 1e-3


def test_errors():
    for settings, message in (
        (dict(styles=0), "styles: expected an integer of at least 1, got 0"),
        (dict(channels=12), "channels: expected a multiple of 8, got 12"),
    ):
        with pytest.raises(ValueError, match=f"^Diversified: {message}$"):
            Diversified(**settings)
    with pytest.raises(TypeError, match="^Diversified: content: expected True or False, got 1$"):
        Diversified(content=1)
    with pytest.raises(TypeError, match="^Diversified: it stylises pictures"):
        small().synthesize(0, 8, 8)
    model = small(content=False)
    with pytest.raises(TypeError, match="^Diversified: it makes textures"):
        model.stylize(torch.rand(1, 3, 8, 8).double(), 0)
    for sizes, name in (((0, 8), "height"), ((8, 2.0), "width"), ((8, 8, -1), "samples")):
        with pytest.raises(ValueError, match=f"^Diversified: {name}: expected an integer of at least"):
            model.synthesize(0, *sizes)
    for style, message in (
        (3, r"expected 0 to 2, got 3"),
        (torch.ones(2), r"expected weights \(3,\) or \(N, 3\), got shape \(2,\)"),
        (torch.tensor([0, 1]), "expected a style for all, or for each of 3 samples, got 2"),
    ):
        with pytest.raises(ValueError, match=f"^Diversified: style: {message}$"):
            model.synthesize(style, 8, 8, samples=3)
