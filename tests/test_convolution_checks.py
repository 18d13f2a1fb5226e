"""What is wrong with the arguments of a dynamic convolution is said in the words of the function, in one line."""

import math

import pytest
import torch

from fastnorm import functional as F

X = torch.randn(2, 4, 6, 5)


def filters(n=2, out=4, per_group=2, *kernel, dtype=torch.float32):
    return torch.randn(n, out, per_group, *(kernel or (3, 3)), dtype=dtype)


WRONG = {
    "another batch": (
        lambda: F.dynamic_conv2d(X, filters(3), groups=2),
        r"weight: expected a filter for each of 2 samples, \(2, C_out, 2, k, k\), got \(3, 4, 2, 3, 3\)",
    ),
    "groups that do not divide": (
        lambda: F.dynamic_conv2d(X, filters(), groups=3),
        "groups: expected a divisor of the input's 4 channels, got 3",
    ),
    "groups that do not divide the output": (
        lambda: F.dynamic_conv2d(X, filters(2, 3), groups=2),
        r"weight: expected a number of output channels that 2 groups divide, got \(2, 3, 2, 3, 3\)",
    ),
    "channels of another group": (
        lambda: F.dynamic_conv2d(X, filters(), groups=1),
        r"weight: expected shape \(2, C_out, 4, k, k\), got \(2, 4, 2, 3, 3\)",
    ),
    "a kernel that is too large": (
        lambda: F.dynamic_conv2d(X, filters(2, 4, 2, 7, 3), groups=2),
        r"weight: expected a kernel that fits into the padded input, \(6, 5\), got \(7, 3\)",
    ),
    "a dilated kernel that is too large": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, dilation=(1, 3)),
        r"weight: expected a kernel that fits into the padded input, \(6, 5\), got \(3, 3\) at a dilation of \(1, 3\)",
    ),
    "too much to reflect": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, padding=5, padding_mode="reflect"),
        r"padding: reflect padding must be smaller than the input, \(6, 5\), got 5",
    ),
    "too much for a circle": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, padding=(0, 6), padding_mode="circular"),
        r"padding: circular padding must be no larger than the input, \(6, 5\), got \(0, 6\)",
    ),
    "an unknown border": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, padding_mode="mirror"),
        "padding_mode: expected 'zeros', 'reflect', 'replicate' or 'circular', got 'mirror'",
    ),
    "a stride of 0": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, stride=0),
        "stride: expected an integer of at least 1 or 2 of them, got 0",
    ),
    "a negative padding": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, padding=-1),
        "padding: expected 'same', 'valid', an integer of at least 0 or 2 of them, got -1",
    ),
    "three strides": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, stride=(1, 1, 1)),
        r"stride: expected an integer of at least 1 or 2 of them, got \(1, 1, 1\)",
    ),
    "a line": (
        lambda: F.dynamic_conv2d(X[..., 0], filters(), groups=2),
        r"input: expected shape \(N, C, H, W\), got \(2, 4, 6\)",
    ),
    "an image": (lambda: F.dynamic_conv1d(X, filters(), groups=2), r"input: expected shape \(N, C, L\), got \(2, 4, 6, 5\)"),
    "a bias per channel": (
        lambda: F.dynamic_conv2d(X, filters(), torch.zeros(4), groups=2),
        r"bias: expected a number for each output plane, \(2, 4\), got \(4,\)",
    ),
    "filters of another type": (
        lambda: F.dynamic_conv2d(X, filters(dtype=torch.float64), groups=2),
        "weight: expected the input's type torch.float32, got torch.float64",
    ),
    "no filters": (lambda: F.dynamic_conv2d(X, None), "weight: expected a tensor, got None"),
    "a filter that is no tensor": (lambda: F.dynamic_instance_norm(X, [1.0]), "weight: expected a tensor, got list"),
    "a kernel of two": (
        lambda: F.adaconv2d(X, filters(), filters(2, 4, 2, 2, 2), groups=2),
        r"pointwise: expected a kernel of \(1, 1\), got \(2, 2\)",
    ),
    "a style per filter": (
        lambda: F.modulated_conv2d(X, torch.randn(3, 4, 3, 3), torch.randn(2, 3)),
        r"style: expected a scale for each plane, \(2, 4\), got \(2, 3\)",
    ),
    "a filter per sample": (
        lambda: F.modulated_conv2d(X, filters(), torch.randn(2, 4)),
        r"weight: expected shape \(C_out, 4, k, k\), got \(2, 4, 2, 3, 3\)",
    ),
}


@pytest.mark.parametrize("call, message", WRONG.values(), ids=WRONG)
def test_said_in_one_line(call, message):
    with pytest.raises((ValueError, TypeError), match=rf"^\w+: {message}$"):
        call()


@pytest.mark.parametrize("function", [F.dynamic_conv2d, F.dynamic_instance_norm], ids=lambda function: function.__name__)
def test_filters_that_are_not_numbers_spread_over_their_plane_alone(function):
    weight = filters(2, 4, 1)
    weight[1, 2] = math.nan
    output = function(X, weight, groups=4, padding=1, padding_mode="reflect")
    assert output[1, 2].isnan().all()
    output[1, 2] = 0
    assert output.isfinite().all()
