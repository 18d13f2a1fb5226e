"""What is wrong with the arguments of a convolution is said in the words of the function, in one line."""

import math

import pytest
import torch

from fastnorm import functional as F

X = torch.randn(2, 4, 6, 5)


def filters(n=2, out=4, per_group=2, *kernel, dtype=torch.float32):
    return torch.randn(n, out, per_group, *(kernel or (3, 3)), dtype=dtype)


SHARED = torch.randn(4, 4, 3, 3)

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
        "stride: expected an integer of at least 1, or 2 of them, got 0",
    ),
    "a negative padding": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, padding=-1),
        "padding: expected 'same', 'valid', an integer of at least 0, or 2 of them, got -1",
    ),
    "three strides": (
        lambda: F.dynamic_conv2d(X, filters(), groups=2, stride=(1, 1, 1)),
        r"stride: expected an integer of at least 1, or 2 of them, got \(1, 1, 1\)",
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


# Of the two functions whose map is upsampled, and whose filters the samples may share: (arguments, message).
FACTOR = "scale_factor: expected an integer of at least 1, or 2 of them, got"
WRONG_UPSAMPLED = {
    "a factor of 0": (dict(scale_factor=0), f"{FACTOR} 0"),
    "half a factor": (dict(scale_factor=1.5), f"{FACTOR} 1.5"),
    "a factor that is no integer": (dict(scale_factor=2.0), f"{FACTOR} 2.0"),
    "a negative factor": (dict(scale_factor=(2, -1)), rf"{FACTOR} \(2, -1\)"),
    "three factors": (dict(scale_factor=(1, 2, 2)), rf"{FACTOR} \(1, 2, 2\)"),
    "a factor that is true": (dict(scale_factor=True), f"{FACTOR} True"),
    "too much to reflect": (
        dict(scale_factor=2, padding=(0, 10), padding_mode="reflect"),
        r"padding: reflect padding must be smaller than the upsampled input, \(12, 10\), got \(0, 10\)",
    ),
    "too much for a circle": (
        dict(scale_factor=(1, 2), padding=7, padding_mode="circular"),
        r"padding: circular padding must be no larger than the upsampled input, \(6, 10\), got 7",
    ),
    "an unknown border": (
        dict(padding_mode="mirror"),
        "padding_mode: expected 'zeros', 'reflect', 'replicate' or 'circular', got 'mirror'",
    ),
    "a negative padding": (
        dict(padding=-1),
        "padding: expected 'same', 'valid', an integer of at least 0, or 2 of them, got -1",
    ),
    "a kernel that is too large": (
        dict(weight=torch.randn(4, 4, 13, 1), scale_factor=2, padding=0),
        r"weight: expected a kernel that fits into the padded input, \(12, 10\), got \(13, 1\)",
    ),
    "a line": (dict(input=X[..., 0]), r"input: expected shape \(N, C, H, W\), got \(2, 4, 6\)"),
    "an empty plane": (dict(input=X[..., :0]), r"input: expected planes of at least one element, got planes of \(6, 0\)"),
    "integers": (dict(input=X.long()), "input: expected float32, float64, bfloat16 or float16, got torch.int64"),
    "no filters": (dict(weight=None), "weight: expected a tensor, got None"),
    "another number of channels": (
        dict(weight=SHARED[:, :3]),
        r"weight: expected shape \(C_out, 4, k, k\) or \(2, C_out, 4, k, k\), got \(4, 3, 3, 3\)",
    ),
    "a kernel of no taps": (
        dict(weight=SHARED[..., :0]),
        r"weight: expected shape \(C_out, 4, k, k\) or \(2, C_out, 4, k, k\), got \(4, 4, 3, 0\)",
    ),
    "a matrix": (
        dict(weight=torch.randn(4, 4)),
        r"weight: expected shape \(C_out, 4, k, k\) or \(2, C_out, 4, k, k\), got \(4, 4\)",
    ),
    "filters of another batch": (
        dict(weight=filters(3, 4, 4)),
        r"weight: expected shape \(C_out, 4, k, k\) or \(2, C_out, 4, k, k\), got \(3, 4, 4, 3, 3\)",
    ),
    "filters of another type": (
        dict(weight=SHARED.double()),
        "weight: expected the input's type torch.float32, got torch.float64",
    ),
    "filters elsewhere": (dict(weight=SHARED.to("meta")), "weight: expected a tensor on cpu, got one on meta"),
    "groups that do not divide": (dict(groups=3), "groups: expected a divisor of the input's 4 channels, got 3"),
    "no groups": (dict(groups=0), "groups: expected a divisor of the input's 4 channels, got 0"),
    "groups that do not divide the output": (
        dict(weight=torch.randn(3, 2, 3, 3), groups=2),
        r"weight: expected a number of output channels that 2 groups divide, got \(3, 2, 3, 3\)",
    ),
    "a bias of another length": (dict(bias=torch.ones(5)), r"bias: expected shape \(4,\) or \(2, 4\), got \(5,\)"),
    "a bias of another batch": (dict(bias=torch.ones(1, 4)), r"bias: expected shape \(4,\) or \(2, 4\), got \(1, 4\)"),
    "a bias that is no tensor": (dict(bias=1.0), "bias: expected a tensor, got float"),
    "a bias of integers": (
        dict(bias=torch.ones(4, dtype=torch.int64)),
        "bias: expected float32, float64, bfloat16 or float16, got torch.int64",
    ),
    "a bias elsewhere": (dict(bias=torch.ones(4, device="meta")), "bias: expected a tensor on cpu, got one on meta"),
}


@pytest.mark.parametrize("function", [F.upsample_conv2d, F.norm_conv2d], ids=lambda function: function.__name__)
@pytest.mark.parametrize("arguments, message", WRONG_UPSAMPLED.values(), ids=WRONG_UPSAMPLED)
def test_what_is_wrong_with_an_upsampled_layer(function, arguments, message):
    with pytest.raises((ValueError, TypeError), match=rf"^{function.__name__}: {message}$"):
        function(**{"input": X, "weight": SHARED} | arguments)


@pytest.mark.parametrize("function", [F.dynamic_conv2d, F.dynamic_instance_norm], ids=lambda function: function.__name__)
def test_filters_that_are_not_numbers_spread_over_their_plane_alone(function):
    weight = filters(2, 4, 1)
    weight[1, 2] = math.nan
    output = function(X, weight, groups=4, padding=1, padding_mode="reflect")
    assert output[1, 2].isnan().all()
    output[1, 2] = 0
    assert output.isfinite().all()
