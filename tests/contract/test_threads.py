"""The same bits in every run, for any number of threads."""

import pytest
import torch
from calls import DEVICE, backend, cotangents, differentiate, every_call, run
from layouts import every_layout

# Many planes, and few large ones: work is divided by plane, or within one.
every_shape = pytest.mark.parametrize("shape", [(3, 37, 23, 29), (1, 2, 211, 307)], ids=["planes", "a large plane"])


def results(call, sample, given):
    return *run(call.operator.run, sample), *differentiate(call.operator.run, sample, given)


@every_shape
@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@every_call
def test_the_same_bits_for_any_number_of_threads(call, dtype, layout, shape):
    if backend(call.operator) == "definition" or DEVICE != "cpu":
        pytest.skip("a property of the CPU kernels")
    sample = call.sample(shape, dtype).map(layout)
    given = cotangents(run(call.operator.reference, sample))
    expected = results(call, sample, given)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, results(call, sample, given), expected)), f"{threads} threads"


@every_layout
@every_call
def test_the_same_bits_in_every_run(call, layout):
    sample = call.sample((1, 2, 211, 307)).map(layout)
    given = cotangents(run(call.operator.reference, sample))
    expected = results(call, sample, given)
    # Memory differs from run to run, and with it alignment and what it held before.
    ballast = [torch.empty(size) for size in (1, 1013, 70001)]
    assert all(map(torch.equal, results(call, sample, given), expected)), len(ballast)
