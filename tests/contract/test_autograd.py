"""Derivatives of the first three orders, and what is kept for the backward."""

import pytest
import torch
from accuracy import assert_accurate
from calls import (
    TINY,
    cotangents,
    differentiable_calls,
    double,
    every_call,
    filters_of,
    hands_on,
    keeps_maps,
    leaves,
    of_inputs,
    run,
    tensors,
)
from layouts import every_layout


# By default along random directions, in which any wrong entry of a Jacobian shows; with `-m long` number by number.
by_directions = pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.long)], ids=["fast", "whole"])


@by_directions
@every_layout
@differentiable_calls
def test_gradcheck(call, layout, fast):
    sample = call.sample(TINY, torch.float64)
    if "bins" in sample.kwargs:
        pytest.skip("counts as constant, see test_match_histogram.py")
    function, inputs = of_inputs(call.operator.run, sample.map(layout))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=fast)


@by_directions
@every_layout
@differentiable_calls
def test_gradgradcheck(call, layout, fast):
    function, inputs = of_inputs(call.operator.run, call.sample(TINY, torch.float64).map(layout))
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=fast)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@differentiable_calls
def test_second_derivative_in_every_type(call, dtype):
    """As a penalty on the gradient takes it."""

    def second_derivatives(function, change=lambda tensor: tensor):
        changed, inputs = leaves(sample.map(change))
        gradients = [change(gradient).requires_grad_() for gradient in given]
        first = torch.autograd.grad(run(function, changed), inputs, gradients, create_graph=True)
        inputs += gradients
        found = torch.autograd.grad(first, inputs, [change(gradient) for gradient in again], allow_unused=True)
        return [torch.zeros_like(tensor) if gradient is None else gradient for gradient, tensor in zip(found, inputs)]

    sample = call.sample(dtype=dtype)
    given = cotangents(run(call.operator.reference, sample))
    again = cotangents([tensor for tensor in tensors(sample) if tensor.is_floating_point()], seed=2)
    actual, own = second_derivatives(call.operator.run), second_derivatives(call.operator.reference)
    expected = second_derivatives(call.operator.reference, double)
    # A number per plane is a sum of what one step hands on to the next in the map's type.
    computed = dtype if hands_on(call.operator) else torch.float32
    for index, gradient in enumerate(actual):
        assert_accurate(gradient, expected[index], own[index], f"second derivative {index}", computed, scale=10)


@differentiable_calls
def test_third_derivatives(call):
    """Where inputs depend on each other: every derivative must end at the inputs, not in what made them."""
    function, inputs = of_inputs(call.operator.run, call.sample(TINY, torch.float64))
    reference, _ = of_inputs(call.operator.reference, call.sample(TINY, torch.float64))

    def derivatives(function):
        first, *others = inputs
        outputs = function(first, *(other + first.mean() for other in others))
        # A cube, so that no derivative is a constant.
        scalar, found = sum((output**3).sum() for output in outputs), []
        for order in range(3):
            gradients = torch.autograd.grad(scalar, inputs, create_graph=True)
            given = cotangents(gradients, seed=order)
            scalar = sum((gradient * weight).sum() for gradient, weight in zip(gradients, given))
            found += gradients
        return found

    for actual, expected in zip(derivatives(function), derivatives(reference), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12 * expected.abs().max().item())


@every_call
def test_backward_keeps_no_map_but_its_inputs(call):
    sample, inputs = leaves(call.sample((2, 3, 64, 64)))
    inputs = {tensor.untyped_storage().data_ptr() for tensor in tensors(sample)}
    kept = []

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in inputs:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = run(call.operator.run, sample)
    # Statistics and what follows from them: numbers per plane. And the filters that are made of others.
    allowed = max([2 * 3, *(2 * filters.numel() for filters in filters_of(call, sample))])
    if hands_on(call.operator) or keeps_maps(call.operator) or call.operator.name == "attention_stats":
        # Maps in between, but none that is only upsampled and padded; or the results themselves, but no scores.
        allowed = max(tensor.numel() for tensor in (*tensors(sample), *outputs))
    assert max(kept, default=0) <= allowed
