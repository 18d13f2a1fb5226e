"""UpsamplePad2d and the reflection pads: torch's modules, in one pass, with the same gradient from every run."""

import pytest
import torch
from torch.nn import functional

from fastnorm import nn

SIZE = 5, 6, 7
MODES = {"reflect": "reflect", "replicate": "replicate", "zeros": "constant", "circular": "circular"}

every_mode = pytest.mark.parametrize("mode", MODES)
every_dims = pytest.mark.parametrize("dims", [1, 2, 3])


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def value_and_gradient(function, input):
    input = input.detach().requires_grad_()
    output = function(input)
    return output.detach(), *torch.autograd.grad(output, input, random(*output.shape, dtype=output.dtype, seed=1))


def assert_same(module, expected, input):
    """Values to the bit, gradients to the last places of a sum."""
    (value, gradient), (expected_value, expected_gradient) = (value_and_gradient(f, input) for f in (module, expected))
    assert torch.equal(value, expected_value)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)


def upsampled(input, scale_factor):
    rows, columns = (scale_factor,) * 2 if isinstance(scale_factor, int) else scale_factor
    return torch.nn.Upsample(scale_factor=(rows, columns))(input)


@every_mode
@pytest.mark.parametrize("padding", [0, 1, 3, (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("scale_factor", [1, 2, 3, 7, (2, 1)], ids=str)
def test_is_torchs_upsampling_then_padding(scale_factor, padding, mode):
    sides = [padding] * 4 if isinstance(padding, int) else list(padding)
    assert_same(
        nn.UpsamplePad2d(scale_factor, padding, mode),
        lambda input: functional.pad(upsampled(input, scale_factor), sides, MODES[mode]),
        random(2, 3, *SIZE[:2]),
    )


def test_upsamples_twice_and_reflects_a_pixel_unless_told():
    usual = torch.nn.Sequential(torch.nn.Upsample(scale_factor=2), torch.nn.ReflectionPad2d(1))
    assert_same(nn.UpsamplePad2d(), usual, random(2, 3, *SIZE[:2]))


@every_dims
@pytest.mark.parametrize("batch", [(2, 3), (3,), (0, 3)], ids=str)
@pytest.mark.parametrize("padding", [0, 2, "sides"], ids=str)
def test_reflection_pads_are_torchs(dims, batch, padding):
    padding = (1, 0, 3, 2, 4, 1)[: 2 * dims] if padding == "sides" else padding
    ours, torchs = (getattr(package, f"ReflectionPad{dims}d")(padding) for package in (nn, torch.nn))
    assert isinstance(ours, type(torchs)) and ours.extra_repr() == torchs.extra_repr()
    assert_same(ours, torchs, random(*batch, *SIZE[:dims]))


@pytest.mark.parametrize("module", [nn.UpsamplePad2d(3, (0, 1, 2, 3), "circular"), nn.ReflectionPad2d(2)], ids=repr)
def test_unbatched(module):
    input = random(2, 3, *SIZE[:2])
    assert torch.equal(module(input[1]), module(input)[1])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_are_sums_in_float32(layout):
    """Of 1600 equal numbers, each a bfloat16: a sum in that type would end at 256."""
    input = torch.ones(1, 8, 2, 2, dtype=torch.bfloat16).to(memory_format=layout).requires_grad_()
    nn.UpsamplePad2d(40, 0)(input).sum().backward()
    assert torch.equal(input.grad, torch.full_like(input, 1600))


@every_mode
def test_gradients_are_the_same_in_every_run_and_near_to_float64(mode):
    input, gradient = random(2, 19, 33, 31, dtype=torch.float32), random(2, 19, 105, 99, dtype=torch.float32, seed=1)
    module = nn.UpsamplePad2d(3, 3, mode)

    def differentiate(input, gradient):
        input = input.detach().requires_grad_()
        return torch.autograd.grad(module(input), input, gradient)[0]

    found = [differentiate(input, gradient) for _ in range(3)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0].double(), differentiate(input.double(), gradient.double()), rtol=0, atol=1e-5)


def test_numbers_are_copied_as_they_are():
    """What is not a number, too, and the sign of a zero."""
    input = torch.tensor([[[[float("nan"), -0.0, float("inf"), 1e-45]]]])
    output = nn.UpsamplePad2d(2, 0)(input)
    assert torch.equal(output.view(torch.int32), upsampled(input, 2).view(torch.int32))


WRONG = {
    "half a factor": (lambda: nn.UpsamplePad2d(1.5), "scale_factor: expected an integer of at least 1, or 2 of them, got 1.5"),
    "a factor that is no integer": (
        lambda: nn.UpsamplePad2d(2.0),
        "scale_factor: expected an integer of at least 1, or 2 of them, got 2.0",
    ),
    "a factor of 0": (lambda: nn.UpsamplePad2d(0), "scale_factor: expected an integer of at least 1, or 2 of them, got 0"),
    "a negative factor": (
        lambda: nn.UpsamplePad2d((2, -1)),
        r"scale_factor: expected an integer of at least 1, or 2 of them, got \(2, -1\)",
    ),
    "three factors": (
        lambda: nn.UpsamplePad2d((1, 2, 2)),
        r"scale_factor: expected an integer of at least 1, or 2 of them, got \(1, 2, 2\)",
    ),
    "two sides": (
        lambda: nn.UpsamplePad2d(2, (1, 1)),
        r"padding: expected an integer of at least 0, or 4 of them, got \(1, 1\)",
    ),
    "a negative side": (
        lambda: nn.UpsamplePad2d(2, (1, 1, 0, -1)),
        r"padding: expected an integer of at least 0, or 4 of them, got \(1, 1, 0, -1\)",
    ),
    "half a pixel": (lambda: nn.UpsamplePad2d(2, 0.5), "padding: expected an integer of at least 0, or 4 of them, got 0.5"),
    "too much to reflect": (
        lambda: nn.UpsamplePad2d(2, (0, 0, 10, 0)),
        r"padding: reflect padding must be smaller than the upsampled input, \(10, 12\), got \(0, 0, 10, 0\)",
    ),
    "too much for a circle": (
        lambda: nn.UpsamplePad2d((1, 2), 6, "circular"),
        r"padding: circular padding must be no larger than the upsampled input, \(5, 12\), got 6",
    ),
    "an unknown border": (
        lambda: nn.UpsamplePad2d(2, 1, "constant"),
        "padding_mode: expected 'zeros', 'reflect', 'replicate' or 'circular', got 'constant'",
    ),
    "too much of itself": (
        lambda: nn.ReflectionPad2d(5),
        r"padding: reflect padding must be smaller than the input, \(5, 6\), got \(5, 5, 5, 5\)",
    ),
    "a crop": (
        lambda: nn.ReflectionPad2d((-1, 0, 0, 0)),
        r"padding: expected an integer of at least 0, or 4 of them, got \(-1, 0, 0, 0\)",
    ),
}


@pytest.mark.parametrize("module, message", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(module, message):
    with pytest.raises(ValueError, match=rf"^(UpsamplePad2d|upsample_pad2d|reflection_pad): {message}$"):
        module()(random(2, 3, *SIZE[:2]))


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5, 6, 7)], ids=str)
def test_another_number_of_dimensions(shape):
    with pytest.raises(ValueError, match=r"^UpsamplePad2d: input: expected 3 or 4 dimensions, got \("):
        nn.UpsamplePad2d()(random(*shape))


@every_mode
def test_the_largest_padding(mode):
    """All that there is to mirror, or to go round; of an edge, and of zeros, more than that."""
    most = {"reflect": 9, "circular": 10}.get(mode, 40)
    assert_same(
        nn.UpsamplePad2d(2, most, mode),
        lambda input: functional.pad(upsampled(input, 2), [most] * 4, MODES[mode]),
        random(2, 3, 5, 5),
    )
