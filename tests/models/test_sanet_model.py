"""SANet against its formulas."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.sanet import SANet


def small():
    model = literal.randomize(SANet(widths=(4, 6, 8, 10)))
    for attention in (model.sanet4, model.sanet5):
        attention.f.weight.data.mul_(0.1)  # Scores of about 1, so that many keys count.
    return model


def attended(model, content, style):
    """By stage, of features."""
    state, found = literal.arrays(model), {}
    for stage in (4, 5):
        x, y = content[f"relu{stage}_1"], style[f"relu{stage}_1"]
        query, key, value = (
            literal.mirrored_conv(map, state, f"sanet{stage}.{name}")
            for name, map in (("f", literal.normalised(x)), ("g", literal.normalised(y)), ("h", y))
        )
        mean, _ = literal.attended(query, key, value)
        found[stage] = literal.mirrored_conv(mean, state, f"sanet{stage}.out_conv") + x
    return found


def decoded(model, maps):
    state = literal.arrays(model)
    x = literal.mirrored_conv(maps[4] + literal.upsample(maps[5]), state, "decoder.0")
    for place, up in ((1, False), (4, True), (6, False), (8, False), (10, False), (13, True), (15, False), (18, True)):
        x = literal.upsample(x) if up else x
        x = literal.relu(literal.mirrored_conv(x, state, f"decoder.{place}"))
    return literal.mirrored_conv(x, state, "decoder.20")


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_is_the_formulas(alpha):
    model, content, style = small(), picture(1, 3, 32, 48).double(), picture(1, 3, 37, 50, seed=1).double()
    expected = literal.blended(model, content, [(1, style)], alpha, attended, decoded)
    with torch.no_grad():
        output = model.stylize(content, style, alpha)[0]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_what_is_kept_at_the_published_sizes():
    with torch.device("meta"):
        kept = SANet().encode(torch.empty(2, 3, 64, 96))
    assert {name: tuple(tensor.shape) for name, tensor in kept.items()} == {
        "0.key4": (2, 512, 8, 12), "0.value4": (2, 512, 8, 12),
        "0.key5": (2, 512, 4, 6), "0.value5": (2, 512, 4, 6),
        "0.weight": (2,),
    }  # fmt: skip
