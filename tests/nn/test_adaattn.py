"""AdaAttN: the content by the mean and deviation that attention finds in the style."""

import copy
import re

import pytest
import torch
from attention_by_hand import AdaAttN, assert_is_the_formula

from fastnorm import nn


@pytest.mark.parametrize("rule", [{}, dict(eps=0.1), dict(min_var=0.6)], ids=str)
@pytest.mark.parametrize("style_size", [(3, 7), (5, 4), (1, 1)], ids=str)
def test_is_the_formula(style_size, rule):
    """And its gradients, those of no deviation at all too."""
    assert_is_the_formula(AdaAttN, AdaAttN.maps(style_size=style_size), **rule)


def test_every_key_counts_and_nothing_is_drawn():
    module, inputs = AdaAttN.make(3, 1), AdaAttN.maps()
    assert torch.equal(module(*inputs, seed=1), module(*inputs))
    torch.testing.assert_close(module(*inputs), AdaAttN.by_hand(module.state_dict(), *inputs), rtol=1e-10, atol=1e-10)


CONTENT, STYLE, CONTENT_KEY, STYLE_KEY = AdaAttN.maps()


@pytest.mark.parametrize(
    "replaced, error, words",
    [
        (dict(content=[1]), TypeError, "content: expected a tensor, got list"),
        (dict(content=CONTENT[:, :2]), ValueError, "content: expected 3 channels, got 2"),
        (dict(content=CONTENT.float()), TypeError, "content: expected the weights' type torch.float64, got torch.float32"),
        (dict(style=STYLE[0, 0]), ValueError, "style: expected 3 or 4 dimensions, got (3, 7)"),
        (dict(style=STYLE[:1]), ValueError, "style: expected as many samples as of content, 2, got 1"),
        (dict(style=STYLE[..., :0]), ValueError, "style: expected a map of at least 1 x 1, got 3 x 0"),
        (dict(content_key=CONTENT), ValueError, "content_key: expected 4 channels, got 3"),
        (dict(content_key=STYLE_KEY), ValueError, "content_key: expected the size of content, 5 x 4, got 3 x 7"),
        (dict(style_key=CONTENT_KEY), ValueError, "style_key: expected the size of style, 3 x 7, got 5 x 4"),
        (dict(style_key=None), TypeError, "style_key: expected a tensor, got None"),
        (
            dict(content=CONTENT[..., :1, :1], content_key=CONTENT_KEY[..., :1, :1]), ValueError,
            "content: expected more than one position, to normalise by",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_call(replaced, error, words):
    arguments = dict(content=CONTENT, style=STYLE, content_key=CONTENT_KEY, style_key=STYLE_KEY) | replaced
    with pytest.raises(error, match=f"^{re.escape(f'AdaAttN: {words}')}$"):
        AdaAttN.make()(**arguments)


@pytest.mark.parametrize("name, arguments", [("in_planes", (0,)), ("key_planes", (3, 4, 2.5))])
def test_what_is_no_width(name, arguments):
    with pytest.raises(ValueError, match=f"^AdaAttN: {name}: expected an integer of at least 1, got {arguments[-1]}$"):
        nn.AdaAttN(*arguments)


def test_state_copy_and_words():
    """The names of the authors' checkpoints."""
    module = nn.AdaAttN(3, 64 * 64, 4)
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == {
        "f.weight": (4, 4, 1, 1),
        "f.bias": (4,),
        "g.weight": (4, 4, 1, 1),
        "g.bias": (4,),
        "h.weight": (3, 3, 1, 1),
        "h.bias": (3,),
    }
    assert nn.AdaAttN(3).f.weight.shape == (3, 3, 1, 1)
    inputs = AdaAttN.maps(dtype=torch.float32)
    assert torch.equal(copy.deepcopy(module)(*inputs), module(*inputs))
    assert repr(module).startswith("AdaAttN(\n  3, key_planes=4, eps=1e-05, min_var=0.0\n")


@pytest.mark.parametrize("name, value", [("eps", -1.0), ("eps", "x"), ("min_var", -1.0), ("min_var", None)])
def test_numbers_that_are_none(name, value):
    with pytest.raises((ValueError, TypeError), match=f"^AdaAttN: {name}: expected a"):
        nn.AdaAttN(4, **{name: value})
