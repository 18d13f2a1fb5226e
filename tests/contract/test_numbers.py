"""Numbers that break careless arithmetic: a large mean, the end of float16, constant planes, NaN and infinity."""

import pytest
import torch
from accuracy import assert_gradients, assert_values
from calls import DEVICE, bends, cotangents, differentiate, double, every_call, every_call_in, hands_on, run, tensors, with_input
from layouts import every_layout

from fastnorm import functional

SHAPE = 2, 19, 17, 19


def skip_scores(call):
    if call.operator.name == "attention_stats":
        pytest.skip("scores of 1e5, whose last places decide: see test_large_scores and test_values_far_from_zero")
    if call.operator.name in ("patch_match", "style_swap"):
        pytest.skip("all patches point the same way: the last places of their correlation decide")


@every_layout
@pytest.mark.parametrize("mean", [1e4, -1e4])
@every_call
def test_large_mean(call, mean, layout):
    skip_scores(call)
    sample = with_input(call.sample(SHAPE).map(layout), lambda input: input + mean)
    if "mean" in sample.kwargs:
        # It is the input's: what is left of the input is as large as ever.
        sample.kwargs["mean"] = sample.kwargs["mean"] + mean
    assert_values(call.operator, sample)
    if not bends(sample):
        # A backward that saves the mean in float32 is off by half its last place, in deviations.
        assert_gradients(call.operator, sample, relative=1e4 * torch.finfo(torch.float32).eps / 2)


@every_layout
@pytest.mark.parametrize("shape", [(2, 19, 64, 64), (1, 3, 300, 301)], ids=str)
def test_large_mean_no_worse_than_torch(shape, layout):
    input = layout(torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE) + 1e4)
    expected = torch.nn.functional.instance_norm(input.double())
    error = (functional.instance_norm(input).double() - expected).abs().max()
    torch_error = (torch.nn.functional.instance_norm(input.contiguous()).double() - expected).abs().max()
    assert error <= torch_error + 4 * torch.finfo(torch.float32).eps * expected.abs().max()


@every_layout
@pytest.mark.parametrize("shape", [(2, 19, 64, 64), (1, 3, 300, 301)], ids=str)
def test_large_mean_gradient_no_worse_than_torch(shape, layout):
    generator = torch.Generator().manual_seed(0)
    input, gradient = (torch.randn(shape, generator=generator).to(DEVICE) for _ in range(2))

    def differentiate(function, input, gradient):
        input = input.detach().requires_grad_()
        return torch.autograd.grad(function(input), input, gradient)[0].double()

    input = input + 1e4
    expected = differentiate(torch.nn.functional.instance_norm, input.double(), gradient.double())
    own = differentiate(torch.nn.functional.instance_norm, input, gradient)
    actual = differentiate(functional.instance_norm, layout(input), gradient)
    floor = 4 * torch.finfo(torch.float32).eps * expected.abs().max()
    assert (actual - expected).abs().max() <= (own - expected).abs().max() + floor


@every_layout
@pytest.mark.parametrize("mean, deviation", [(0, 3e4), (6e4, 1e3), (-6e4, 300)], ids=["wide", "high", "low"])
@every_call
def test_the_end_of_float16(call, mean, deviation, layout):
    skip_scores(call)

    def far_out(input):
        return (input.double().tanh() * deviation + mean).clamp(-65504, 65504).half()

    sample = with_input(call.sample(SHAPE, torch.float16).map(layout), far_out)
    assert tensors(sample)[0].isfinite().all()
    in_steps = hands_on(call.operator)
    assert_values(call.operator, sample, scale=deviation, in_steps=in_steps)
    assert_gradients(call.operator, sample, in_steps=in_steps)


@every_layout
@every_call_in(torch.float32, torch.bfloat16)
@pytest.mark.parametrize("value", [0.0, 0.1, *(pytest.param(value, marks=pytest.mark.long) for value in (1.0, -1e4))])
def test_constant_planes(call, value, dtype, layout):
    """Planes 1 of sample 0 and 0 of sample 1."""

    def with_constants(input):
        input = input.clone()
        input[0, 1] = input[1, 0] = value
        return input

    sample = with_input(call.sample(SHAPE, dtype).map(layout), with_constants)
    assert_values(call.operator, sample)
    given = cotangents(run(call.operator.reference, sample))
    expected = differentiate(call.operator.reference, sample.map(double), [gradient.double() for gradient in given])
    if not all(gradient.isfinite().all() for gradient in expected):
        # eps outside the root: autograd makes 0 times infinity of it, the operators 0.
        assert all(gradient.isfinite().all() for gradient in differentiate(call.operator.run, sample, given))
    elif not bends(sample):
        # The terms are of size 1 / sqrt(eps), and cancel.
        assert_gradients(call.operator, sample, scale=1e3)


@every_layout
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@every_call
def test_nan_and_infinity_stay_where_they_belong(call, value, layout):
    """Where the reference stays the same nothing changes by a bit; where it is not finite, the operator is not."""

    def spoil(input):
        input = input.clone()
        input[1, 2, 3, 4] = value
        return input

    clean = call.sample().map(layout)
    spoilt = with_input(clean, spoil)
    given = cotangents(run(call.operator.reference, clean))

    def results(function, sample, given=given):
        return *run(function, sample), *differentiate(function, sample, given)

    wide = [gradient.double() for gradient in given]
    expected = zip(*(results(call.operator.reference, sample.map(double), wide) for sample in (clean, spoilt)))
    actual = zip(*(results(call.operator.run, sample) for sample in (clean, spoilt)))
    for (expected_before, expected_after), (before, after) in zip(expected, actual, strict=True):
        unchanged = expected_after == expected_before
        if before.shape == clean.args[0].shape:
            unchanged[1, 2] = False
        assert torch.equal(after[unchanged], before[unchanged])
        assert not after[~expected_after.isfinite()].isfinite().any()
