"""upsample_conv2d is torch's upsampling, padding and convolution, borders included; its filters by phases are made once."""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as torchs

from fastnorm import functional as F
from fastnorm.ops import dynamic_conv2d, upsample_conv2d

MODES = {"reflect": "reflect", "replicate": "replicate", "zeros": "constant", "circular": "circular"}
FACTORS = 2, 3, 4, (1, 2)
SIZE = 7, 5

every_mode = pytest.mark.parametrize("mode", MODES)


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sequence(input, weight, bias, scale_factor, padding, mode, groups=1):
    rows, columns = (scale_factor,) * 2 if isinstance(scale_factor, int) else scale_factor
    above, left = (padding,) * 2 if isinstance(padding, int) else padding
    upsampled = torchs.interpolate(input, scale_factor=(float(rows), float(columns)), mode="nearest")
    padded = torchs.pad(upsampled, (left, left, above, above), MODES[mode])
    return torchs.conv2d(padded, weight, bias, groups=groups)


@every_mode
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 9])
def test_is_torchs_sequence(width, mode):
    weight, bias = random(6, 2, width, width, seed=1), random(6, seed=2)
    input = random(2, 4, *SIZE)
    for factor, padding in itertools.product(FACTORS, range(6)):
        rows = SIZE[0] * (factor if isinstance(factor, int) else factor[0])
        if width <= rows + 2 * padding:
            arguments = factor, padding, mode, 2
            expected = sequence(input, weight, bias, *arguments)
            actual = F.upsample_conv2d(input, weight, bias, *arguments)
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12, msg=lambda m: f"{arguments}: {m}")


@every_mode
@pytest.mark.parametrize("width, factor, padding", [(3, 2, 1), (5, 2, 3), (2, 3, 0), (4, (1, 2), (2, 1)), (1, 2, 0)], ids=str)
def test_gradients_are_torchs(width, factor, padding, mode):
    tensors = [random(2, 4, 5, 7), random(6, 2, width, width, seed=1), random(6, seed=2)]
    for tensor in tensors:
        tensor.requires_grad_()
    arguments = factor, padding, mode, 2
    expected = sequence(*tensors, *arguments)
    gradient = random(*expected.shape, seed=3)
    found = torch.autograd.grad(F.upsample_conv2d(*tensors, *arguments), tensors, gradient)
    torch.testing.assert_close(found, torch.autograd.grad(expected, tensors, gradient), rtol=0, atol=1e-11)


@every_mode
@pytest.mark.parametrize("padding", [1, 3])
def test_a_filter_per_sample(padding, mode):
    input, weight, bias = random(3, 4, 5, 6), random(3, 6, 2, 3, 3, seed=1), random(3, 6, seed=2)
    arguments = 2, padding, mode, 2
    expected = torch.cat([sequence(input[n : n + 1], weight[n], bias[n], *arguments) for n in range(3)])
    torch.testing.assert_close(F.upsample_conv2d(input, weight, bias, *arguments), expected, rtol=0, atol=1e-12)
    shared = torch.cat([sequence(input[n : n + 1], weight[0], bias[n], *arguments) for n in range(3)])
    torch.testing.assert_close(F.upsample_conv2d(input, weight[0], bias, *arguments), shared, rtol=0, atol=1e-12)


@every_mode
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("width", [3, 5, 9])
def test_in_low_precision_no_worse_than_twice_torch(width, dtype, mode):
    tensors = [random(1, 16, 9, 11, dtype=dtype), random(8, 16, width, width, dtype=dtype, seed=1) / 8, random(8, dtype=dtype)]
    arguments = 2, width // 2, mode
    expected = sequence(*(tensor.double() for tensor in tensors), *arguments)
    error, own = (
        (function(*tensors, *arguments).double() - expected).abs().max() for function in (F.upsample_conv2d, sequence)
    )
    assert error <= 2 * own


def test_a_map_smaller_than_its_rims():
    """All of it is reflected: nothing is left to do by phases."""
    input, weight = random(1, 2, 2, 3), random(3, 2, 5, 5, seed=1)
    arguments = 3, (5, 8), "reflect"
    expected = sequence(input, weight, None, *arguments)
    torch.testing.assert_close(F.upsample_conv2d(input, weight, None, *arguments), expected, rtol=0, atol=1e-12)


@every_mode
def test_a_kernel_of_one_tap_is_applied_to_the_small_map(mode, monkeypatch):
    seen, convolve = [], dynamic_conv2d.forward
    monkeypatch.setattr(dynamic_conv2d, "forward", lambda input, *rest: seen.append(input.shape) or convolve(input, *rest))
    input, weight, bias = random(2, 4, 5, 6), random(3, 4, 1, 1, seed=1), random(3, seed=2)
    expected = sequence(input, weight, bias, 3, 2, mode)
    torch.testing.assert_close(F.upsample_conv2d(input, weight, bias, 3, 2, mode), expected, rtol=0, atol=1e-13)
    output, mean, rstd = F.norm_conv2d(
        input, weight, bias, padding=2, padding_mode=mode, scale_factor=3, return_stats=True
    )
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(mean, expected.mean((2, 3)), rtol=0, atol=1e-13)
    torch.testing.assert_close(rstd, (expected.var((2, 3), correction=0) + 1e-5).rsqrt(), rtol=1e-12, atol=0)
    assert seen == [input.shape] * 2


# Filters by phases.


@pytest.fixture
def made(monkeypatch):
    """A list that grows by one whenever they are made."""
    calls, make = [], upsample_conv2d._phase_filters

    def count(weight, scale_factor):
        calls.append(scale_factor)
        return make(weight, scale_factor)

    monkeypatch.setattr(upsample_conv2d, "_phase_filters", count)
    return calls


X = random(1, 2, 4, 5)


def frozen():
    return torch.nn.Parameter(random(3, 2, 3, 3, seed=1), requires_grad=False)


def assert_right(weight, scale_factor=2):
    actual = F.upsample_conv2d(X, weight, None, scale_factor)
    torch.testing.assert_close(actual, sequence(X, weight, None, scale_factor, 1, "reflect"), rtol=0, atol=1e-12)


def test_of_a_frozen_parameter_they_are_made_once(made):
    weight = frozen()
    for _ in range(3):
        assert_right(weight)
    assert len(made) == 1


def test_they_are_made_anew_after_a_change_in_place(made):
    weight = frozen()
    assert_right(weight)
    weight.mul_(2)
    assert_right(weight)
    assert_right(weight)
    assert len(made) == 2


def test_they_are_made_anew_after_loading(made):
    layer = torch.nn.Conv2d(2, 3, 3, dtype=torch.float64).requires_grad_(False)
    assert_right(layer.weight)
    layer.load_state_dict(torch.nn.Conv2d(2, 3, 3, dtype=torch.float64).state_dict())
    assert_right(layer.weight)
    layer.load_state_dict(torch.nn.Conv2d(2, 3, 3, dtype=torch.float64).state_dict(), assign=True)
    assert_right(layer.requires_grad_(False).weight)
    assert len(made) == 3


def test_they_are_made_anew_where_a_parameter_gets_other_memory(made):
    weight = frozen()
    assert_right(weight)
    weight.data = weight.data * 2
    assert_right(weight)
    assert len(made) == 2


def test_they_are_made_anew_after_a_change_that_torch_does_not_count(made):
    weight = frozen()
    assert_right(weight)
    weight.data.mul_(0.999)
    assert_right(weight)
    assert len(made) == 2


def test_they_are_made_anew_for_another_type(made):
    weight = frozen()
    assert_right(weight)
    weight.data = weight.data.float()
    actual = F.upsample_conv2d(X.float(), weight)
    assert_right(torch.nn.Parameter(weight.double(), requires_grad=False))
    torch.testing.assert_close(actual, sequence(X.float(), weight, None, 2, 1, "reflect"), rtol=0, atol=1e-5)
    assert len(made) == 3


def test_they_are_made_anew_for_another_factor(made):
    weight = frozen()
    assert_right(weight)
    assert_right(weight, 3)
    assert len(made) == 2


@pytest.mark.parametrize("weight", [frozen().detach(), torch.nn.Parameter(frozen().detach())], ids=["tensor", "trained"])
def test_of_what_may_change_they_are_made_at_every_call(weight, made):
    assert_right(weight)
    assert_right(weight)
    assert len(made) == 2


def test_of_a_trained_parameter_they_are_made_once_while_no_gradient_is_taken(made):
    weight = frozen().requires_grad_()
    with torch.inference_mode():
        assert_right(weight)
        assert_right(weight)
    assert len(made) == 1
    assert_right(weight)
    assert len(made) == 2
    x = X.clone().requires_grad_()
    F.upsample_conv2d(x, weight.requires_grad_(False)).sum().backward()  # By what inference mode left.
    assert len(made) == 2 and x.grad.abs().max() > 0


def test_they_are_not_remembered_without_numbers():
    weight = frozen()
    with FakeTensorMode(allow_non_fake_inputs=True):
        F.upsample_conv2d(torch.empty(1, 2, 4, 5, dtype=torch.float64), weight)
    assert_right(weight)


def test_they_go_with_their_parameter():
    weight = frozen()
    assert_right(weight)
    before = len(upsample_conv2d._prepared)
    del weight
    assert len(upsample_conv2d._prepared) == before - 1
