"""SANet: what attention finds in the style, added to the content."""

import copy
import re

import pytest
import torch
from attention_by_hand import SANet, assert_is_the_formula

from fastnorm import nn


@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("style_size", [(3, 7), (5, 4), (1, 2)], ids=str)
def test_is_the_formula(style_size, eps):
    """And its gradients."""
    assert_is_the_formula(SANet, SANet.maps(style_size=style_size), eps=eps)


CONTENT, STYLE = SANet.maps()


@pytest.mark.parametrize(
    "content, style, error, words",
    [
        ("x", STYLE, TypeError, "content: expected a tensor, got str"),
        (CONTENT[:, :2], STYLE, ValueError, "content: expected 4 channels, got 2"),
        (CONTENT.float(), STYLE, TypeError, "content: expected the weights' type torch.float64, got torch.float32"),
        (CONTENT[..., :1, :1], STYLE, ValueError, "content: expected more than one position, to normalise by"),
        (CONTENT, STYLE[:1], ValueError, "style: expected as many samples as of content, 2, got 1"),
        (CONTENT, STYLE[..., :1, :1], ValueError, "style: expected more than one position, to normalise by"),
        (CONTENT, STYLE.flatten(2)[0, 0], ValueError, "style: expected 3 or 4 dimensions, got (21,)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_call(content, style, error, words):
    with pytest.raises(error, match=f"^{re.escape(f'SANet: {words}')}$"):
        SANet.make()(content, style)


def test_what_is_no_width():
    with pytest.raises(ValueError, match="^SANet: in_planes: expected an integer of at least 1, got 0$"):
        nn.SANet(0)


def test_state_copy_and_words():
    """The names of the authors' checkpoints."""
    module = nn.SANet(4)
    layers = "f", "g", "h", "out_conv"
    expected = {f"{name}.{part}": shape for name in layers for part, shape in (("weight", (4, 4, 1, 1)), ("bias", (4,)))}
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == expected
    inputs = SANet.maps(dtype=torch.float32)
    assert torch.equal(copy.deepcopy(module)(*inputs), module(*inputs))
    assert repr(module).startswith("SANet(\n  4, eps=1e-05\n")
