"""Costs against numbers counted by hand."""

import pytest
import torch
from small import SIZES
from torch.nn.functional import conv2d

from fastnorm import models
from fastnorm.models import cost


def of_convolutions(*layers):
    """in, out, kernel, part of the picture's pixels at which it is evaluated."""
    return sum(i * o * k * k * part for i, o, k, part in layers)


def test_cin_by_hand():
    """Every layer of a tiny network: contract 4, 5, 6 channels, two residual blocks, expand 4, 2."""
    residual = 4 * [(6, 6, 3, 1 / 16)]
    layers = [(3, 4, 9, 1), (4, 5, 3, 1 / 4), (5, 6, 3, 1 / 16), *residual, (6, 4, 3, 1 / 4), (4, 2, 3, 1), (2, 3, 9, 1)]
    found = cost.cost("cin", **SIZES["cin"])
    # Beside the convolutions the tables of three styles meet the weights of a mixture, which is next to nothing.
    assert found.operations == pytest.approx(of_convolutions(*layers), rel=1e-4)
    norms = sum(out for _, out, _, _ in layers)
    assert found.parameters == sum(i * o * k * k for i, o, k, _ in layers) + 3 * 2 * norms
    assert found.encoding == 0


def test_adain_by_hand():
    """widths 4, 6, 8, 10: the encoder, of 1x1 and 3x3 convolutions to relu4_1, and the decoder, its mirror image."""
    encoder = [(3, 3, 1, 1), (3, 4, 3, 1), (4, 4, 3, 1), (4, 6, 3, 1 / 4), (6, 6, 3, 1 / 4), (6, 8, 3, 1 / 16)]
    encoder += 3 * [(8, 8, 3, 1 / 16)] + [(8, 10, 3, 1 / 64)]
    decoder = [(10, 8, 3, 1 / 64), *3 * [(8, 8, 3, 1 / 16)], (8, 6, 3, 1 / 16), (6, 6, 3, 1 / 4), (6, 4, 3, 1 / 4)]
    decoder += [(4, 4, 3, 1), (4, 3, 3, 1)]
    found = cost.cost("adain", **SIZES["adain"])
    assert found.encoding == of_convolutions(*encoder)
    assert found.operations == of_convolutions(*encoder, *decoder)
    assert found.parameters == sum(i * o * k * k + o for i, o, k, _ in encoder + decoder)


def test_multiply_adds_of_products():
    left, right = torch.empty(2, 5, 7, device="meta"), torch.empty(2, 7, 11, device="meta")
    assert cost.multiply_adds(lambda: left @ right) == 2 * 5 * 7 * 11
    x, weight = torch.empty(2, 4, 8, 9, device="meta"), torch.empty(6, 2, 3, 3, device="meta")
    assert cost.multiply_adds(lambda: conv2d(x, weight, groups=2)) == 2 * 6 * 6 * 7 * 2 * 9


def test_peak_bytes_counts_what_is_held_at_once():
    x = torch.empty(1000, device="meta")
    assert cost.peak_bytes(lambda: x + 1) == 4000
    assert cost.peak_bytes(lambda: (x + 1) * 2) == 8000
    assert cost.peak_bytes(lambda: (x + 1).mul_(2)) == 4000, "in place"
    assert cost.peak_bytes(lambda: (x + 1).view(10, 100).t()) == 4000, "views"
    assert cost.peak_bytes(lambda: x.view(10, 100).mul_(2)) == 0, "memory from elsewhere"

    def one_after_the_other():
        for _ in range(5):
            (x + 1) * 2
        return x.double()

    assert cost.peak_bytes(one_after_the_other) == 8000


def test_memory_is_that_of_maps_at_once():
    """AdaIN: two full maps of the widest stage, and while that is pooled its result and the places of the maxima, int64."""
    found = cost.cost("adain", **SIZES["adain"])
    pixels = cost.SIDE**2
    assert found.memory >= 2 * 4 * 4 * pixels
    assert found.memory <= (2 * 4 * 4 + 4 * 4 / 4 + 8 * 4 / 4) * pixels * 1.01


def test_more_styles_and_larger_pictures_take_more():
    model = cost.on_meta("cin", styles=3, contract=(2, 2, 2), residual_blocks=1, expand=(2, 2))

    def peak(side, styles):
        return cost.peak_bytes(cost.stylizing(model, torch.empty(1, 3, side, side, device="meta"), styles))

    assert peak(256, 1) == pytest.approx(4 * peak(128, 1), rel=0.01)
    assert peak(128, 3) > peak(128, 1)


@pytest.mark.parametrize("name", models.SYSTEMS)
def test_a_system_is_counted_without_weights(name):
    found = cost.cost(name, **SIZES[name])
    assert found.parameters == sum(p.numel() for p in models.build(name, **SIZES[name]).parameters())
    if found.operations is not None:
        assert found.operations > 0 and found.memory > 0


def test_what_cannot_be_told_without_numbers(monkeypatch):
    model = cost.on_meta("adain", **SIZES["adain"])
    monkeypatch.setattr(type(model), "paint", lambda self, content, style, alpha: content * float(content.mean()))
    found = cost.cost("adain", **SIZES["adain"])
    assert (found.operations, found.encoding, found.memory) == (None, None, None)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
