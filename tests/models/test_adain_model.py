"""AdaIN against its formulas."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.adain import AdaIN


def decoder(state, x):
    for place, up in ((0, False), (3, True), (5, False), (7, False), (9, False), (12, True), (14, False), (17, True)):
        x = literal.upsample(x) if up else x
        x = literal.relu(literal.mirrored_conv(x, state, f"decoder.{place}"))
    return literal.mirrored_conv(x, state, "decoder.19")


def formulas(model, content, style, alpha, eps):
    state = literal.arrays(model)
    x, y = (literal.vgg19(state, picture, "relu4_1")["relu4_1"] for picture in (content, style))
    std, mean = y.std((1, 2), ddof=1), y.mean((1, 2))
    return decoder(state, alpha * literal.instance_norm(x, std, mean, eps) + (1 - alpha) * x)


@pytest.mark.parametrize("alpha, eps", [(1.0, 1e-5), (0.3, 0.1)])
def test_is_the_formulas(alpha, eps):
    small = literal.randomize(AdaIN(widths=(4, 6, 8, 10), eps=eps))
    content, style = picture(1, 3, 32, 24).double(), picture(1, 3, 19, 42, seed=1).double()
    expected = formulas(small, content[0].numpy(), style[0].numpy(), alpha, eps)
    with torch.no_grad():
        output = small.stylize(content, style, alpha)[0]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * abs(expected).max())
