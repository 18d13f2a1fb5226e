"""Texture Networks against the layers of the paper."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.texture_networks import TextureNetworks


def small(**settings):
    model = literal.randomize(TextureNetworks(scales=3, channels=4, noise=2, **settings))
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


def normed(x, state, name):
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    if f"{name}.running_var" in state:
        return literal.running_norm(x, state, name)
    return literal.instance_norm(x, weight, bias)


def block(x, state, name):
    for place in (0, 3, 6):
        x = literal.circular_conv(x, state[f"{name}.{place}.weight"])
        x = literal.leaky_relu(normed(x, state, f"{name}.{place + 1}"))
    return x


def formulas(model, maps):
    """Of maps of each scale, the coarsest first: upsampled, then normed, then beside the next scale's."""
    state = literal.arrays(model)
    x = block(maps[0], state, "entering.0.0")
    before = "entering.0.1"
    for scale in range(1, model.scales):
        x = normed(literal.upsample(x), state, before)
        x = np.concatenate([x, normed(block(maps[scale], state, f"entering.{scale}.0"), state, f"entering.{scale}.1")])
        x = block(x, state, "last.0" if scale == model.scales - 1 else f"joining.{scale - 1}.0")
        before = f"joining.{scale - 1}.1"
    return literal.conv(x, state["last.1.weight"]) + state["last.1.bias"][:, None, None]


def squares(x, size):
    """Means over squares."""
    channels, height, width = x.shape
    return x.reshape(channels, height // size, size, width // size, size).mean((2, 4))


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_stylize_is_the_formulas(norm):
    model, content = small(norm=norm, seed=3), picture(2, 3, 24, 16).double()
    noises = [noise[0].numpy() for noise in model.noises(1, (6, 4), 3)]
    assert [noise.shape for noise in noises] == [(2, 6, 4), (2, 12, 8), (2, 24, 16)]
    with torch.no_grad():
        output = model.stylize(content)
    for own, each in zip(output, content.numpy()):
        maps = [np.concatenate([squares(each, size), noise]) for size, noise in zip((4, 2, 1), noises)]
        expected = formulas(model, maps)
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_synthesize_is_the_formulas():
    model = small(content=False)
    with torch.no_grad():
        output = model.synthesize(21, 16, samples=2, seed=9)
    assert output.shape == (2, 3, 21, 16)
    noises = model.noises(2, (6, 4), 9)
    for n in range(2):
        expected = formulas(model, [noise[n].numpy() for noise in noises])[:, :21]
        np.testing.assert_allclose(output[n], expected, rtol=0, atol=1e-9 * abs(expected).max())
    assert (output[0] - output[1]).abs().max() > 1e-2


@torch.no_grad()
def test_seeds():
    model = small(content=False)
    first = model.synthesize(8, 9, seed=4)
    assert torch.equal(model.synthesize(8, 9, seed=4), first)
    assert (model.synthesize(8, 9, seed=5) - first).abs().max() > 1e-2
    assert torch.equal(model.synthesize(8, 9, samples=2, seed=4)[:1], first)
    content = picture(1, 3, 8, 8).double()
    assert (small(seed=1).stylize(content) - small(seed=2).stylize(content)).abs().max() > 1e-2


@torch.no_grad()
def test_a_texture_has_no_seam():
    """Noise that is shifted beyond a border and back makes the texture shifted so, by whole pixels of the coarsest scale."""
    model = small(content=False)
    noises = model.noises(1, (6, 4), 0)
    shifted = model.generate([noise.roll((2 * 2**scale, 2**scale), (2, 3)) for scale, noise in enumerate(noises)])
    torch.testing.assert_close(shifted, model.generate(noises).roll((8, 4), (2, 3)), rtol=0, atol=1e-9)


def test_errors():
    for settings, message in (
        (dict(scales=1), "scales: expected an integer of at least 2, got 1"),
        (dict(norm="layer"), "norm: expected one of instance, batch, got 'layer'"),
    ):
        with pytest.raises(ValueError, match=f"^TextureNetworks: {message}$"):
            TextureNetworks(**settings)
    with pytest.raises(TypeError, match="^TextureNetworks: content: expected True or False, got 1$"):
        TextureNetworks(content=1)
    with pytest.raises(TypeError, match="^TextureNetworks: it stylises pictures"):
        small().synthesize(8, 8)
    with pytest.raises(TypeError, match="^TextureNetworks: it makes textures"):
        small(content=False).stylize(torch.rand(1, 3, 8, 8).double())
    for sizes, name in (((0, 8), "height"), ((8, 2.0), "width"), ((8, 8, -1), "samples")):
        with pytest.raises(ValueError, match=f"^TextureNetworks: {name}: expected an integer of at least"):
            small(content=False).synthesize(*sizes)
