"""silu, gelu, sigmoid and tanh at the ends of a type, where their formulas meet 0 * inf, and where they cancel."""

import pytest
import torch
from calls import DEVICE, backend, every_dtype

from fastnorm import functional
from fastnorm.ops import OPERATORS

ACTIVATIONS = {
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
SLOPES_AT_0 = {"silu": 0.5, "gelu": 0.5, "sigmoid": 0.25, "tanh": 1.0}
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)

FAR = float("inf"), float("nan"), 3e38, 1e36, 65504.0, 1e4, 100.0, 20.0
MIDDLE = 9.0, 3.3, 1.1, 0.64, 0.62, 0.3, 0.032, 0.031, 0.01
NEAR = 0.0, 1e-40, 1e-7

# Where a value underflows it may be 0, or what the other way to round leaves.
NOTHING = 1e-30


def numbers(magnitudes, dtype):
    """A plane of both signs of them and of the type's own ends, each often enough for whole vectors and a rest."""
    info = torch.finfo(dtype)
    ends = [info.max] if magnitudes is FAR else [info.tiny, info.tiny * info.eps]
    plane = torch.tensor([*magnitudes, *ends], dtype=torch.float64, device=DEVICE).to(dtype)
    return torch.cat([plane, -plane]).repeat(5).view(1, 1, -1)


def value_and_gradient(function, input):
    input = input.clone().requires_grad_()
    output = function(input)
    return output.detach(), *torch.autograd.grad(output, input, torch.ones_like(output))


def activated(input, activation):
    return value_and_gradient(lambda input: functional.scale_shift(input, activation=activation), input)


@pytest.mark.core
@every_dtype
@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_far_from_zero(activation, dtype):
    """As float64 has it, or torch in the same type: its gelu overflows below float64, at infinity even to NaN."""
    input, function = numbers(FAR, dtype), ACTIVATIONS[activation]
    expected, own = value_and_gradient(function, input.double()), value_and_gradient(function, input)
    for actual, *either in zip(activated(input, activation), expected, own, strict=True):
        close = (
            torch.isclose(actual, wanted.to(dtype), rtol=4 * torch.finfo(dtype).eps, atol=NOTHING, equal_nan=True)
            for wanted in either
        )
        wrong = ~torch.stack([*close]).any(0)
        assert not wrong.any(), [*zip(input[wrong].tolist(), actual[wrong].tolist())]


@pytest.mark.core
@every_dtype
@every_activation
def test_near_zero(activation, dtype):
    """To the last subnormal number."""
    if dtype == torch.bfloat16 and DEVICE == "cpu" and backend(OPERATORS["scale_shift"]) == "triton":
        pytest.skip("Triton's interpreter rounds subnormal numbers to bfloat16 wrongly")
    input, info = numbers(NEAR, dtype), torch.finfo(dtype)
    value, gradient = activated(input, activation)
    wanted = ACTIVATIONS[activation](input.double())
    torch.testing.assert_close(value.double(), wanted, rtol=4 * info.eps, atol=info.tiny * info.eps)
    torch.testing.assert_close(gradient, torch.full_like(input, SLOPES_AT_0[activation]), rtol=4 * info.eps, atol=2e-7)


@every_dtype
@every_activation
def test_between(activation, dtype):
    input, eps = numbers(MIDDLE, dtype), torch.finfo(dtype).eps
    expected = value_and_gradient(ACTIVATIONS[activation], input.double())
    for actual, wanted in zip(activated(input, activation), expected, strict=True):
        torch.testing.assert_close(actual.double(), wanted, rtol=4 * eps, atol=4 * eps)


@every_dtype
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_saturated(activation, dtype):
    input = numbers(FAR, dtype)
    wanted = ACTIVATIONS[activation](input.double())
    actual = functional.scale_shift(input, activation=activation)
    torch.testing.assert_close(actual.double(), wanted, rtol=4 * torch.finfo(dtype).eps, atol=1e-8, equal_nan=True)
