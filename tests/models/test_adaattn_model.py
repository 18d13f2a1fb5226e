"""AdaAttN against its formulas."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.adaattn import AdaAttN

def small():
    model = literal.randomize(AdaAttN(widths=(4, 6, 8, 10)))
    for attention in model.attention.values():
        attention.f.weight.data.mul_(0.1)  # Scores of about 1, so that many keys count.
    return model


def attended(model, content, style):
    """By stage, of features."""
    state, found = literal.arrays(model), {}
    for stage in (3, 4, 5):
        x, y = content[f"relu{stage}_1"], style[f"relu{stage}_1"]
        query, keys, values = (
            literal.mirrored_conv(map, state, f"attention.{stage}.{name}")
            for name, map in (("f", key(content, stage)), ("g", key(style, stage)), ("h", y))
        )
        mean, std = literal.attended(query, keys, values)
        found[stage] = std * literal.normalised(x) + mean
    return found


def key(features, stage):
    """Of all stages to this, at its positions: of a larger map the first in each square."""
    maps = [features[f"relu{each}_1"][:, :: 2 ** (stage - each), :: 2 ** (stage - each)] for each in range(1, stage + 1)]
    return literal.normalised(np.concatenate(maps))


def decoded(model, maps):
    state = literal.arrays(model)
    x = literal.mirrored_conv(maps[4] + literal.upsample(maps[5]), state, "deep.0")
    x = literal.upsample(literal.relu(literal.mirrored_conv(x, state, "deep.1")))
    x = np.concatenate([x, maps[3]])
    for place, up in ((0, False), (2, False), (4, False), (6, False), (9, True), (11, False), (14, True)):
        x = literal.upsample(x) if up else x
        x = literal.relu(literal.mirrored_conv(x, state, f"shallow.{place}"))
    return literal.mirrored_conv(x, state, "shallow.16")


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_is_the_formulas(alpha):
    model, content, style = small(), picture(1, 3, 32, 48).double(), picture(1, 3, 37, 50, seed=1).double()
    expected = literal.blended(model, content, [(1, style)], alpha, attended, decoded)
    with torch.no_grad():
        output = model.stylize(content, style, alpha)[0]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_what_is_kept_at_the_published_sizes():
    with torch.device("meta"):
        kept = AdaAttN().encode(torch.empty(2, 3, 64, 96))
    assert {name: tuple(tensor.shape) for name, tensor in kept.items()} == {
        "0.key3": (2, 448, 16, 24), "0.value3": (2, 256, 16, 24),
        "0.key4": (2, 960, 8, 12), "0.value4": (2, 512, 8, 12),
        "0.key5": (2, 1472, 4, 6), "0.value5": (2, 512, 4, 6),
        "0.weight": (2,),
    }  # fmt: skip
