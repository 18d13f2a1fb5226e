"""StyleBank against its formulas; styles that are added."""

import copy

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.style_bank import StyleBank


@pytest.fixture
def small():
    return literal.randomize(StyleBank(styles=3, widths=(4, 6)))


def formulas(model, content, weights, alpha):
    """One picture (3, H, W) by weights (S,)."""
    state = literal.arrays(model)

    def layer(x, conv, norm, stride=1):
        weight = state[f"{conv}.weight"]
        x = literal.conv(literal.mirror(x, weight.shape[-1] // 2), weight, stride)
        return literal.relu(literal.instance_norm(x, state[f"{norm}.weight"], state[f"{norm}.bias"]))

    x = layer(content, "encoder.0", "encoder.1", 2)
    x = layer(x, "encoder.3", "encoder.4", 2)
    y = sum(
        weight * layer(layer(x, f"banks.{number}.0", f"banks.{number}.1"), f"banks.{number}.3", f"banks.{number}.4")
        for number, weight in enumerate(weights)
    )
    x = alpha * y + (1 - alpha) * x
    x = literal.transposed_conv(x, state["decoder.0.weight"], stride=2, padding=1, output_padding=1)
    x = literal.relu(literal.instance_norm(x, state["decoder.1.weight"], state["decoder.1.bias"]))
    x = literal.transposed_conv(x, state["decoder.3.weight"], stride=2, padding=4, output_padding=1)
    return x + state["decoder.3.bias"][:, None, None]


@pytest.mark.parametrize("weights, alpha", [((0, 1, 0), 1.0), ((0.2, 0.5, 0.3), 1.0), ((0, 0, 1), 0.4)])
def test_is_the_formulas(small, weights, alpha):
    content = picture(1, 3, 16, 24).double()
    expected = formulas(small, content[0].numpy(), weights, alpha)
    style = weights.index(1) if 1 in weights else torch.tensor(weights, dtype=torch.float64)
    with torch.no_grad():
        output = small.stylize(content, style, alpha)
    np.testing.assert_allclose(output[0], expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_each_sample_has_its_style(small):
    content = picture(3, 3, 16, 20).double()
    with torch.no_grad():
        output = small.stylize(content, torch.tensor([2, 0, 2]))
        for sample, style in enumerate([2, 0, 2]):
            torch.testing.assert_close(output[sample], small.stylize(content[sample : sample + 1], style)[0])


def test_banks_that_are_not_taken_do_not_run(small):
    assert small.encode(1).keys() == {"1"}
    assert small.encode(torch.tensor([0.0, 0.5, 0.5])).keys() == {"1", "2"}
    assert small.mix([0, 2, 0], [0.2, 0.5, 0.3]).keys() == {"0", "2"}
    small.banks[0].register_forward_hook(lambda *_: pytest.fail("it ran"))
    small.stylize(picture(1, 3, 16, 16).double(), 1)


def test_a_style_is_added(small, tmp_path):
    content = picture(1, 3, 16, 16).double()
    before = copy.deepcopy(small)
    before.save_style(tmp_path / "before.safetensors", 1)
    assert small.add_style() == 3 and small.styles == 4
    with torch.no_grad():
        torch.testing.assert_close(small.stylize(content, 1), before.stylize(content, 1), rtol=0, atol=0)
        kept = small.load_style(tmp_path / "before.safetensors")
        torch.testing.assert_close(small.stylize(content, kept), before.stylize(content, 1), rtol=0, atol=0)
        small.save_style(tmp_path / "new.safetensors", 3)
        with pytest.raises(ValueError, match="new.safetensors: StyleBank: style: expected what its encode made, got one with"):
            before.load_style(tmp_path / "new.safetensors")
        output = small.stylize(content, 3)
        assert (output - small.stylize(content, 1)).abs().max() > 1e-3
        small.save(tmp_path / "bank.safetensors")
        torch.testing.assert_close(StyleBank.load(tmp_path / "bank.safetensors").stylize(content, 3), output, rtol=0, atol=0)


@pytest.mark.parametrize(
    "style, message",
    [
        (3, "style: expected 0 to 2, got 3"),
        (torch.ones(4), r"style: expected weights \(3,\) or \(N, 3\), got shape \(4,\)"),
        (torch.zeros(3), r"style: expected a weight other than 0, got \[\[0.0, 0.0, 0.0\]\]"),
        (torch.tensor([0, 1]), "style: expected a style for all, or for each of 3 samples, got 2"),
    ],
)
def test_wrong_styles_are_named(small, style, message):
    with pytest.raises(ValueError, match=f"^StyleBank: {message}"):
        small.stylize(picture(3, 3, 16, 16).double(), style)
