"""The same bits in every run, for any number of threads."""

import pytest
import torch
from calls import DEVICE, backend, calls_in_time, cotangents, differentiate, every_call_in, run
from layouts import every_layout


def results(call, sample, given):
    return *run(call.operator.run, sample), *differentiate(call.operator.run, sample, given)


def assert_the_same_bits(call, shape, dtype, layout):
    if backend(call.operator) == "definition" or DEVICE != "cpu":
        pytest.skip("a property of the CPU kernels")
    sample = call.sample(shape, dtype).map(layout)
    given = cotangents(run(call.operator.reference, sample))
    expected = results(call, sample, given)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, results(call, sample, given), expected)), f"{threads} threads"


# Work is divided by plane, or within one.
@every_layout
@every_call_in(torch.float32, torch.float64, torch.bfloat16)
def test_the_same_bits_for_any_number_of_threads(call, dtype, layout):
    assert_the_same_bits(call, (3, 37, 23, 29), dtype, layout)


@pytest.mark.parametrize(
    "dtype", [torch.float32, *(pytest.param(dtype, marks=pytest.mark.long) for dtype in (torch.float64, torch.bfloat16))]
)
@every_layout
@calls_in_time
def test_the_same_bits_of_a_large_plane(call, dtype, layout):
    assert_the_same_bits(call, (1, 2, 211, 307), dtype, layout)


@every_layout
@calls_in_time
def test_the_same_bits_in_every_run(call, layout):
    sample = call.sample((1, 2, 211, 307)).map(layout)
    given = cotangents(run(call.operator.reference, sample))
    expected = results(call, sample, given)
    # Memory differs from run to run, and with it alignment and what it held before.
    ballast = [torch.empty(size) for size in (1, 1013, 70001)]
    assert all(map(torch.equal, results(call, sample, given), expected)), len(ballast)
