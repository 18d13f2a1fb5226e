"""SpatiallyAdaptiveNorm2d: SPADE with its convolutions."""

import copy

import pytest
import torch
from torch.nn.functional import conv2d, instance_norm, interpolate, leaky_relu

from fastnorm import nn

INPUT = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.SpatiallyAdaptiveNorm2d(3, 4, hidden_channels=5, eps=1e-3, activation="leaky_relu", negative_slope=0.2).double()


@pytest.mark.parametrize("size", [(6, 8), (3, 4), (13, 5)], ids=str)
def test_is_the_published_block(module, size):
    condition = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(1)).double()
    state = module.state_dict()
    hidden = conv2d(interpolate(condition, size=(6, 8)), state["shared.0.weight"], state["shared.0.bias"], padding=1).relu()
    gamma, beta = (conv2d(hidden, state[f"{name}.weight"], state[f"{name}.bias"], padding=1) for name in ("gamma", "beta"))
    expected = leaky_relu(instance_norm(INPUT, eps=1e-3) * (1 + gamma) + beta, 0.2)
    torch.testing.assert_close(module(INPUT, condition), expected, rtol=1e-10, atol=1e-10)


def test_every_parameter_learns(module):
    condition = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1)).double()
    module(INPUT, condition).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


def test_kernel_size_and_width():
    module = nn.SpatiallyAdaptiveNorm2d(3, 4, kernel_size=5)
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == {
        "shared.0.weight": (128, 4, 5, 5),
        "shared.0.bias": (128,),
        "gamma.weight": (3, 128, 5, 5),
        "gamma.bias": (3,),
        "beta.weight": (3, 128, 5, 5),
        "beta.bias": (3,),
    }
    assert module(INPUT.float(), torch.randn(2, 4, 6, 8)).shape == INPUT.shape


def test_correction_type_and_device():
    module = nn.SpatiallyAdaptiveNorm2d(3, 4, 5, correction=1, dtype=torch.float64)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float64}
    condition = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1)).double()
    hidden = module.shared(condition)
    var, mean = torch.var_mean(INPUT, dim=(2, 3), correction=1, keepdim=True)
    expected = (INPUT - mean) / (var + 1e-5).sqrt() * (1 + module.gamma(hidden)) + module.beta(hidden)
    torch.testing.assert_close(module(INPUT, condition), expected, rtol=1e-10, atol=1e-10)
    nowhere = nn.SpatiallyAdaptiveNorm2d(3, 4, device="meta")
    assert {parameter.device.type for parameter in nowhere.parameters()} == {"meta"}


def test_one_map_without_a_batch(module):
    condition = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    expected = module(INPUT[:1], condition[None])[0]
    torch.testing.assert_close(module(INPUT[0], condition), expected, rtol=1e-12, atol=1e-12)


def test_an_empty_batch(module):
    assert module(INPUT[:0], torch.empty(0, 4, 3, 4).double()).shape == (0, 3, 6, 8)


@pytest.mark.parametrize("batch", [(2,), ()], ids=["batch", "one map"])
def test_compiles_whole(module, batch):
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (6, 7):
        input, condition = torch.randn(*batch, 3, size, 9).double(), torch.randn(*batch, 4, 5, size + 1).double()
        torch.testing.assert_close(compiled(input, condition), module(input, condition))


def test_types_meet_under_autocast(module):
    module, input = module.float(), INPUT.float()
    condition = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        actual = module(input, condition.bfloat16())
    # The convolutions round to 8 bits.
    torch.testing.assert_close(actual, module(input, condition), rtol=0.05, atol=0.05)


def test_copy_and_words(module):
    condition = torch.randn(2, 4, 6, 8).double()
    assert torch.equal(copy.deepcopy(module)(INPUT, condition), module(INPUT, condition))
    assert repr(module).startswith("SpatiallyAdaptiveNorm2d(\n  3, eps=0.001, activation='leaky_relu'\n")
