"""Tensors that lie in memory in any way: inputs, parameters and gradients."""

from itertools import cycle

import pytest
import torch
from accuracy import assert_gradients, assert_values
from calls import every_call, every_call_in
from layouts import EXPANDED, STRIDED, channels_last, channels_last_cropped, contiguous, one_number


def among(name, layouts):
    return pytest.mark.parametrize(name, layouts, ids=lambda layout: layout.__name__)


@pytest.mark.core
@among("layout", STRIDED + EXPANDED)
@every_call_in(torch.float32, torch.bfloat16)
def test_inputs_and_parameters(call, dtype, layout):
    sample = call.sample(dtype=dtype).map(layout)
    assert_values(call.operator, sample)
    assert_gradients(call.operator, sample)


@among("layout", STRIDED)
@pytest.mark.parametrize("shape", [(2, 5, 23), (2, 5, 3, 5, 4)], ids=["1-D", "3-D"])
@every_call
def test_lines_and_volumes(call, shape, layout):
    sample = call.sample(shape).map(layout)
    assert_values(call.operator, sample)
    assert_gradients(call.operator, sample)


@pytest.mark.core
@among("second", (contiguous, channels_last, channels_last_cropped))
@among("first", (contiguous, channels_last))
@every_call
def test_maps_of_different_layouts(call, first, second):
    layouts = cycle([first, second])
    sample = call.sample().map(lambda tensor: next(layouts)(tensor) if tensor.dim() > 2 else tensor)
    assert_values(call.operator, sample)
    assert_gradients(call.operator, sample, second)


@among("layout", (contiguous, channels_last) + STRIDED + EXPANDED)
@among("input_layout", (contiguous, channels_last))
@every_call_in(torch.float32, torch.bfloat16)
def test_gradients_in_any_layout(call, dtype, input_layout, layout):
    assert_gradients(call.operator, call.sample(dtype=dtype).map(input_layout), layout)


@pytest.mark.core
@among("input_layout", (contiguous, channels_last))
@every_call
def test_the_gradient_of_a_sum(call, input_layout):
    # A normalised map sums to a constant: its gradient is a difference of terms of the size of the gradient that came.
    assert_gradients(call.operator, call.sample().map(input_layout), one_number, scale=1.0)
