"""Shapes at the edge: empty, single, odd, long, and larger than any block that a kernel works on."""

import math
import re

import pytest
import torch
from accuracy import assert_gradients, assert_values
from calls import (
    CALLS,
    DTYPES,
    TINY,
    bends,
    calls_in_time,
    cotangents,
    differentiate,
    double,
    every_call,
    first_calls,
    public,
    run,
    tensors,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import STRIDED, channels_last, contiguous, every_layout

SHAPES = {
    "one plane": (1, 1, 7, 5),
    "one channel": (3, 1, 13, 17),
    "primes": (3, 5, 31, 37),
    "a row": (2, 3, 1, 31),
    "a column": (2, 3, 31, 1),
    "many channels": (2, 1031, 3, 2),
    "many samples": (67, 2, 3, 5),
}


@pytest.mark.core
@every_layout
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@every_call
def test_odd_shapes(call, shape, layout):
    sample = call.sample(shape).map(layout)
    assert_values(call.operator, sample)
    # In a plane alone the terms of a gradient, a few tenths each, may happen to cancel.
    assert_gradients(call.operator, sample, layout, scale=0.25)


@pytest.mark.core
@every_layout
@pytest.mark.parametrize("shape", [(0, 3, 5, 7), (2, 0, 5, 7), (0, 0, 5, 7)], ids=str)
@every_call
def test_empty(call, shape, layout):
    sample = call.sample(shape).map(layout)
    outputs, expected = run(call.operator.run, sample), run(call.operator.reference, sample)
    for output, own in zip(outputs, expected, strict=True):
        assert (output.shape, output.dtype) == (own.shape, own.dtype)
    given = cotangents(outputs)
    gradients, expected = (differentiate(f, sample, given) for f in (call.operator.run, call.operator.reference))
    for gradient, own in zip(gradients, expected, strict=True):
        # Of a bias alone there may be something to sum; nothing is exactly zero.
        torch.testing.assert_close(gradient, own, rtol=1e-5, atol=0)


def refuses_planes_of_one(call):
    """instance_norm as torch's does; an unbiased variance, which divides by 0 there. Planes of a style, or of an upsampled
    map, are larger.
    """
    settings = call.sample(TINY).kwargs
    return call.operator.name == "instance_norm" or settings.get("correction") == 1 and "scale_factor" not in settings


@pytest.mark.core
@pytest.mark.parametrize("shape", [(2, 3, 1), (2, 3, 1, 1), (2, 3, 2), (2, 3, 1, 2)], ids=str)
@every_call
def test_planes_of_one_or_two(call, shape):
    sample = call.sample(shape)
    if math.prod(shape[2:]) == 1 and refuses_planes_of_one(call):
        with pytest.raises(ValueError, match=f"^{call.operator.name}: .* element.*, got planes of {re.escape(str(shape[2:]))}$"):
            run(public(call), sample)
        return
    if len(shape) == 4 or not call.operator.name.endswith("2d"):
        run(public(call), sample)
    assert_values(call.operator, sample)
    if math.prod(shape[2:]) == 1 and sample.kwargs.get("eps_mode") == "std":
        # The root of no variance has no derivative: autograd makes NaN of it, the operators 0.
        given = cotangents(run(call.operator.reference, sample))
        assert all(gradient.isfinite().all() for gradient in differentiate(call.operator.run, sample, given))
        return
    # Terms of up to 1 / sqrt(eps) cancel: a normalised number does not depend on its plane of one.
    scale = 1e3
    if sample.kwargs.get("return_stats"):
        scale = max(scale, deviations_from_zero(call, sample) * largest_gradient(call, sample))
    assert_gradients(call.operator, sample, scale=scale)


def deviations_from_zero(call, sample):
    """Of the output's planes, at most: in the gradient of their rstd as much of x - mean cancels."""
    output, mean, *_ = run(call.operator.reference, sample.map(double))
    deviation = output.flatten(2).std(2, correction=0)
    return (mean.abs() / deviation)[deviation > 0].max().item() if deviation.any() else 0.0


def largest_gradient(call, sample):
    given = [gradient.double() for gradient in cotangents(run(call.operator.reference, sample))]
    gradients = differentiate(call.operator.reference, sample.map(double), given)
    return max(gradient.abs().max().item() for gradient in gradients)


def assert_right(call, shape, dtype, layout):
    sample = call.sample(shape, dtype).map(layout)
    assert_values(call.operator, sample)
    # Of a million deviations one lies within a rounding of the least, where it is cut off or not.
    if not bends(sample) and not sample.kwargs.get("min_var"):
        assert_gradients(call.operator, sample, layout)


@pytest.mark.parametrize("dtype, layout", [(torch.float32, contiguous), (torch.bfloat16, channels_last)])
@every_call
def test_large_planes(call, dtype, layout):
    assert_right(call, (1, 2, 181, 183), dtype, layout)


@pytest.mark.parametrize(
    "shape, dtype, layout",
    [
        # A little more than the megabyte that one core keeps at hand: of a sample, or of a plane.
        ((1, 7, 191, 199), torch.float32, channels_last),
        ((1, 1, 270_001), torch.float32, contiguous),
        pytest.param((1, 1, 613, 701), torch.bfloat16, contiguous, marks=pytest.mark.long),
        pytest.param((1, 2, 613, 701), torch.float32, channels_last, marks=pytest.mark.long),
        pytest.param((1, 1, 1_000_003), torch.float32, contiguous, marks=pytest.mark.long),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@calls_in_time
def test_larger_planes(call, shape, dtype, layout):
    assert_right(call, shape, dtype, layout)


def larger_than_caches(call):
    """5 planes of 941 columns, and so many rows that the largest map is one of 8 megabytes."""
    sample = call.sample((1, 5, 20, 941))
    largest = max(map.numel() for map in (*tensors(sample), *run(call.operator.run, sample)))
    return 1, 5, 20 * (1 << 21) // largest + 1, 941


@pytest.mark.parametrize("layout", [contiguous, pytest.param(channels_last, marks=pytest.mark.long)])
@first_calls
def test_maps_larger_than_caches(call, layout):
    assert_values(call.operator, call.sample(larger_than_caches(call)).map(layout))


@pytest.mark.long
@every_layout
@first_calls
def test_gradients_larger_than_caches(call, layout):
    assert_gradients(call.operator, call.sample(larger_than_caches(call)).map(layout), layout)


@pytest.mark.core
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    call=st.sampled_from(CALLS),
    dtype=st.sampled_from(DTYPES),
    layouts=st.tuples(*[st.sampled_from((contiguous, channels_last) + STRIDED)] * 2),
    batch=st.tuples(st.integers(0, 4), st.integers(1, 40)),
    # A plane of 6 or more: with fewer the gradient of the norm nearly vanishes, and with it a measure of its error.
    plane=st.lists(st.integers(1, 24), min_size=1, max_size=3).filter(lambda plane: 6 <= math.prod(plane) <= 3000),
    seed=st.integers(0, 1000),
)
def test_any_shape(call, dtype, layouts, batch, plane, seed):
    layout, gradient_layout = layouts
    sample = call.sample((*batch, *plane), dtype, seed).map(layout)
    assert_values(call.operator, sample)
    assert_gradients(call.operator, sample, gradient_layout)
