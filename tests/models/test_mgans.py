"""MGANs against its formulas."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.mgans import MGANs, discriminator


def randomized(module):
    literal.randomize(module)
    generator = torch.Generator().manual_seed(1)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module


def conv_transpose(x, weight):
    """4x4, stride 2, padding 1: each number sends its filter to the squares around its place; one pixel is cut off."""
    channels, height, width = x.shape
    output = np.zeros((weight.shape[1], 2 * height + 2, 2 * width + 2))
    for i in range(height):
        for j in range(width):
            output[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("c,coyx->oyx", x[:, i, j], weight)
    return output[:, 1:-1, 1:-1]


def encoder(state, x):
    x = literal.conv(x, state["encoder.preprocess.weight"]) + state["encoder.preprocess.bias"][:, None, None]
    for stage, count in enumerate((2, 2, 4, 1), 1):
        x = literal.max_pool(x) if stage > 1 else x
        for i in range(1, count + 1):
            x = literal.relu(literal.mirrored_conv(x, state, f"encoder.conv{stage}_{i}"))
    return x


def decoder(state, x):
    x = literal.conv(np.pad(x, ((0, 0), (1, 1), (1, 1))), state["decoder.0.weight"])
    for place in (1, 4, 7):
        x = literal.relu(literal.running_norm(x, state, f"decoder.{place}"))
        x = conv_transpose(x, state[f"decoder.{place + 2}.weight"])
    return literal.sigmoid(x + state["decoder.9.bias"][:, None, None])


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_is_the_formulas(alpha):
    model = randomized(MGANs(encoder_widths=(4, 6, 8, 10), widths=(7, 6, 5)))
    content, state = picture(1, 3, 32, 24).double(), literal.arrays(model)
    x = content[0].numpy()
    expected = alpha * decoder(state, encoder(state, x)) + (1 - alpha) * x
    with torch.no_grad():
        np.testing.assert_allclose(model.stylize(content, alpha=alpha)[0], expected, rtol=0, atol=1e-9)


def test_the_discriminator_is_the_formulas():
    module = randomized(discriminator(6))
    state, features = literal.arrays(module), picture(2, 6, 12, 8).double()
    with torch.no_grad():
        scores = module(features)
    assert scores.shape == (2, 1, 3, 2)
    for own, x in zip(scores, features.numpy()):
        for place in (0, 3):
            x = literal.conv(np.pad(x, ((0, 0), (1, 1), (1, 1))), state[f"{place}.weight"], stride=2)
            x = literal.leaky_relu(literal.running_norm(x, state, f"{place + 1}"), 0.2)
        expected = literal.conv(x, state["6.weight"]) + state["6.bias"][:, None, None]
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-9 * abs(expected).max())
