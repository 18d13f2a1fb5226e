"""Convolutions so dense that torch's own take them a sample at a time: as by the kernels."""

import pytest
import torch
from accuracy import assert_gradients, assert_values
from calls import DEVICE
from layouts import every_layout

from fastnorm.ops import OPERATORS, _by_sample
from fastnorm.ops._operator import Sample

every_operator = pytest.mark.parametrize("name", ["dynamic_conv2d", "dynamic_instance_norm"])
every_mode = pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])


@pytest.fixture(autouse=True)
def from_few_channels_on(monkeypatch):
    """So that small maps will do."""
    monkeypatch.setattr(_by_sample, "is_faster", lambda input, weight, groups: True)


def make(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64).to(DEVICE, torch.float32)


def sample(shape, kernel, **settings):
    n, c = shape[:2]
    filters = make(n, 6, c // settings["groups"], *kernel)
    return Sample("dense", (make(*shape), filters, make(n, 6)), settings)


@every_layout
@every_mode
@every_operator
@pytest.mark.parametrize(
    "shape, kernel",
    [((3, 4, 9, 8), (3, 2)), ((2, 4, 11), (4,)), ((2, 4, 4, 5, 6), (3, 3, 1))],
    ids=["2-D", "1-D", "3-D"],
)
def test_same_size(name, padding_mode, shape, kernel, layout):
    call = sample(shape, kernel, padding="same", groups=2, padding_mode=padding_mode).map(layout)
    assert_values(OPERATORS[name], call)
    assert_gradients(OPERATORS[name], call)


@every_mode
@every_operator
def test_strides_and_dilation(name, padding_mode):
    call = sample((2, 4, 13, 12), (3, 3), stride=(2, 3), padding=(2, 1), dilation=(2, 1), groups=1, padding_mode=padding_mode)
    assert_values(OPERATORS[name], call)
    assert_gradients(OPERATORS[name], call)


@every_operator
def test_filters_alone(name):
    """Without a gradient of the input there is nothing to do by sample."""
    call = sample((2, 4, 9, 8), (3, 3), padding=1, groups=1)
    input, filters, bias = call.args
    filters = filters.requires_grad_()
    (found,) = torch.autograd.grad(OPERATORS[name].run(input, filters, bias, **call.kwargs).square().sum(), filters)
    (expected,) = torch.autograd.grad(OPERATORS[name].reference(input, filters, bias, **call.kwargs).square().sum(), filters)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
