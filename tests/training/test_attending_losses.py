"""The losses of AdaAttN and SANet against their formulas."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "models"))

import literal
import test_adaattn_model
import test_sanet_model
from literal import picture

from fastnorm.training import Batch, recipe_of

CONTENT, STYLE = picture(1, 3, 32, 48).double(), picture(1, 3, 48, 32, seed=1).double()


def features(state, picture):
    return literal.vgg19(state, picture, "relu5_1")


def apart(x, y):
    return ((x - y) ** 2).mean()


def statistics_apart(x, y):
    deviations = (np.sqrt(map.var((1, 2)) + 1e-5) for map in (x, y))
    return apart(x.mean((1, 2)), y.mean((1, 2))) + apart(*deviations)


def painted(system, model, content, style):
    """A picture, of features."""
    return system.decoded(model, system.attended(model, content, style))


def of_adaattn(model, content, style):
    state = literal.arrays(model)
    x, y = features(state, content), features(state, style)
    output = features(state, painted(test_adaattn_model, model, x, y))
    local = 0
    for stage in (3, 4, 5):
        layer = f"relu{stage}_1"
        mean, std = literal.attended(test_adaattn_model.key(x, stage), test_adaattn_model.key(y, stage), y[layer])
        local += apart(output[layer], std * literal.normalised(x[layer]) + mean)
    far = sum(statistics_apart(output[f"relu{stage}_1"], y[f"relu{stage}_1"]) for stage in (2, 3, 4, 5))
    return {"global": 10 * far, "local": 3 * local}


def of_sanet(model, content, style):
    state, layers = literal.arrays(model), [f"relu{stage}_1" for stage in (1, 2, 3, 4, 5)]
    x, y = features(state, content), features(state, style)
    output = features(state, painted(test_sanet_model, model, x, y))
    of_content = 0
    for layer in layers[3:]:
        plain = np.ones(len(x[layer])), np.zeros(len(x[layer]))
        of_content += apart(*(literal.instance_norm(maps[layer], *plain) for maps in (output, x)))
    identity = 0
    for picture, own in ((content, x), (style, y)):
        same = painted(test_sanet_model, model, own, own)
        again = features(state, same)
        identity += 50 * apart(same, picture) + sum(apart(again[layer], own[layer]) for layer in layers)
    return dict(
        content=of_content,
        style=3 * sum(statistics_apart(output[layer], y[layer]) for layer in layers),
        identity=identity,
    )


CASES = [(test_adaattn_model, of_adaattn), (test_sanet_model, of_sanet)]


@pytest.mark.parametrize("system, formulas", CASES, ids=["adaattn", "sanet"])
def test_losses_are_the_formulas(system, formulas):
    model = system.small()
    losses = recipe_of(model.system())(model)("all", Batch(CONTENT, STYLE))
    expected = formulas(model, CONTENT[0].numpy(), STYLE[0].numpy())
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name].item(), value, rtol=1e-8, err_msg=name)
