"""AdaIN against its formulas."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.adain import AdaIN


@pytest.fixture
def small():
    return literal.randomize(AdaIN(widths=(4, 6, 8, 10)))


def decoder(state, x):
    for place, up in ((0, False), (3, True), (5, False), (7, False), (9, False), (12, True), (14, False), (17, True)):
        x = literal.upsample(x) if up else x
        x = literal.relu(literal.mirrored_conv(x, state, f"decoder.{place}"))
    return literal.mirrored_conv(x, state, "decoder.19")


def formulas(model, content, style, alpha):
    state = literal.arrays(model)
    x, y = (literal.vgg19(state, picture, "relu4_1")["relu4_1"] for picture in (content, style))
    std, mean = y.std((1, 2), ddof=1), y.mean((1, 2))
    return decoder(state, alpha * literal.instance_norm(x, std, mean) + (1 - alpha) * x)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_is_the_formulas(small, alpha):
    content, style = picture(1, 3, 32, 24).double(), picture(1, 3, 19, 42, seed=1).double()
    expected = formulas(small, content[0].numpy(), style[0].numpy(), alpha)
    with torch.no_grad():
        output = small.stylize(content, style, alpha)[0]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * abs(expected).max())
