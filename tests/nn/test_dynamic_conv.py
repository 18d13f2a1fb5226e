"""DynamicConv1d, 2d and 3d: the settings of a convolution, whose filter comes with the call."""

import copy

import pytest
import torch
from torch.nn import functional

from fastnorm import nn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


MODULES = {1: nn.DynamicConv1d, 2: nn.DynamicConv2d, 3: nn.DynamicConv3d}
CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
SIZE = (7, 6, 5)
INPUT, WEIGHT, BIAS = random(2, 4, 7, 6), random(2, 6, 2, 3, 3, seed=1), random(2, 6, seed=2)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_is_a_convolution_for_each_sample(dims, mode, bias):
    module = MODULES[dims](4, 6, 3, stride=2, padding=2, dilation=2, groups=2, padding_mode=mode)
    input, weight = random(2, 4, *SIZE[:dims]), random(2, 6, 2, *[3] * dims, seed=1)
    bias = BIAS if bias else None
    padded = functional.pad(input, (2, 2) * dims, mode="constant" if mode == "zeros" else mode)
    expected = torch.cat([
        CONVOLUTIONS[dims](padded[n : n + 1], weight[n], None if bias is None else bias[n], 2, 0, 2, 2) for n in range(2)
    ])  # fmt: skip
    torch.testing.assert_close(module(input, weight, bias), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", [(3, 1), (2, 5)], ids=str)
def test_keeps_the_size(kernel):
    weight = random(2, 4, 1, *kernel)
    output = nn.DynamicConv2d(4, 4, kernel, padding="same", groups=4)(INPUT, weight)
    padded = functional.pad(INPUT, [side for width in kernel[::-1] for side in ((width - 1) // 2, width // 2)])
    expected = torch.cat([functional.conv2d(padded[n : n + 1], weight[n], groups=4) for n in range(2)])
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)


def test_one_filter_for_all_is_torch_conv2d():
    module = nn.DynamicConv2d(4, 6, 3, padding=1, groups=2)
    expected = functional.conv2d(INPUT, WEIGHT[0], BIAS[0], padding=1, groups=2)
    torch.testing.assert_close(module(INPUT, WEIGHT[:1], BIAS[:1]), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(module(INPUT[0], WEIGHT[:1], BIAS[:1]), expected[0], rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_the_numbers():
    module = nn.DynamicConv2d(2, 2, (1, 3), padding="same", padding_mode="reflect")
    inputs = [random(2, 2, 2, 4), random(1, 2, 2, 1, 3), random(2, 2)]
    assert torch.autograd.gradcheck(module, [tensor.requires_grad_() for tensor in inputs], fast_mode=True)


@pytest.mark.parametrize(
    "input, weight, bias, error, words",
    [
        (INPUT[:, :3], WEIGHT, None, ValueError, "input: expected 4 channels, got 3"),
        (INPUT[0, 0], WEIGHT, None, ValueError, r"input: expected 3 or 4 dimensions, got \(7, 6\)"),
        (INPUT, WEIGHT[0], None, ValueError, r"weight: expected shape \(2 or 1, 6, 2, 3, 3\), got \(6, 2, 3, 3\)"),
        (
            random(3, 4, 7, 6), WEIGHT, None, ValueError,
            r"weight: expected shape \(3 or 1, 6, 2, 3, 3\), got \(2, 6, 2, 3, 3\)",
        ),
        (INPUT, WEIGHT, BIAS[0], ValueError, r"bias: expected shape \(2 or 1, 6\), got \(6,\)"),
        (INPUT, None, None, TypeError, "weight: expected a tensor, got None"),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_call(input, weight, bias, error, words):
    with pytest.raises(error, match=f"^DynamicConv2d: {words}$"):
        nn.DynamicConv2d(4, 6, 3, groups=2)(input, weight, bias)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((4, 6, 3, 1, 0, 1, 3), "groups: expected a divisor of the input's 4 channels, got 3"),
        ((4, 6, 3, 1, 0, 1, 4), "groups: expected a divisor of the 6 output channels, got 4"),
        ((4, 6, (3, 3, 3)), r"kernel_size: expected an integer of at least 1, or 2 of them, got \(3, 3, 3\)"),
        ((4, 6.0, 3), "out_channels: expected an integer of at least 1, got 6.0"),
    ],
    ids=str,
)
def test_what_is_no_module(arguments, words):
    with pytest.raises(ValueError, match=f"^DynamicConv2d: {words}$"):
        nn.DynamicConv2d(*arguments)


def test_has_no_state_and_says_its_settings():
    module = copy.deepcopy(nn.DynamicConv2d(4, 6, 3, padding="same", groups=2))
    assert module.state_dict() == {}
    assert repr(module) == (
        "DynamicConv2d(4, 6, kernel_size=(3, 3), stride=1, padding='same', dilation=1, groups=2, padding_mode='zeros')"
    )
