"""What the Triton kernels of match_histogram compute, in Triton's interpreter, against the formula in float64.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
from interpreted import double, every_layout, laid_out, make

from fastnorm.kernels import match_histogram
from fastnorm.ops import match_histogram as reference

# All in one program; chunks; and counts that are added up number by number.
WAYS = {
    "whole": match_histogram.Heuristics(),
    "chunks": match_histogram.Heuristics(numbers=16),
    "in memory": match_histogram.Heuristics(numbers=32, held_bins=0),
}
NAN, INF = float("nan"), float("inf")

pytestmark = pytest.mark.usefixtures("poisoned_memory")
every_way = pytest.mark.parametrize("way", WAYS)
every_type = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
by_both = pytest.mark.parametrize("bins", [0, 7])


@pytest.fixture(autouse=True)
def go(monkeypatch):
    def choose(way):
        monkeypatch.setattr(match_histogram, "HEURISTICS", WAYS[way])

    choose("chunks")
    return choose


def check(input, target, input_mask=None, target_mask=None, bins=0):
    found = match_histogram.forward(input, target, input_mask, target_mask, bins)
    promised = torch.ops.fastnorm.match_histogram(*(map.to("meta") for map in (input, target)), None, None, bins)
    assert (found.shape, found.dtype, found.stride()) == (promised.shape, promised.dtype, promised.stride())
    expected = reference.formula(*double((input, target)), input_mask, target_mask, bins)
    roundings = {torch.float64: 512, torch.float32: 1, torch.bfloat16: 1, torch.float16: 1}[input.dtype]
    eps = roundings * torch.finfo(input.dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=eps, atol=eps, equal_nan=True)
    return found


@every_layout
@every_way
@by_both
def test_maps(go, way, bins, layout):
    go(way)
    check(make(2, 2, 5, 9, layout=layout), 3 * make(2, 2, 4, 7, layout=layout, seed=1) - 1, bins=bins)


@every_type
@by_both
def test_types(bins, dtype):
    check(make(1, 2, 40, dtype=dtype), make(1, 2, 33, dtype=dtype, seed=1), bins=bins)


@pytest.mark.parametrize("bins", [0, 1, 32])
@pytest.mark.parametrize("size, target_size", [(1, 1), (1, 50), (50, 1), (48, 48), (20, 61), (61, 20)])
def test_sizes(bins, size, target_size):
    check(make(1, 2, size), make(1, 2, target_size, seed=1), bins=bins)


@by_both
@pytest.mark.parametrize("samples", [1, 2])
def test_masks_and_a_target_for_all(bins, samples):
    masks = make(samples, 1, 5, 9) > -0.5, make(1, 4, 7) > 0.2
    check(make(2, 2, 5, 9), make(1, 2, 4, 7, seed=1), *masks, bins)
    check(make(2, 2, 5, 9), make(2, 2, 4, 7, seed=1), *masks, bins)


@by_both
@pytest.mark.parametrize("nothing", [0, 1])
def test_masks_of_nothing(bins, nothing):
    masks = [None, None]
    masks[nothing] = torch.zeros(1, 5, 9, dtype=torch.bool)
    input = make(2, 1, 5, 9)
    assert torch.equal(check(input, make(2, 1, 5, 9, seed=1), *masks, bins), input)


@every_type
@by_both
def test_nan_and_infinity(bins, dtype):
    input, target = make(1, 4, 40, dtype=dtype), make(1, 4, 30, dtype=dtype, seed=1)
    input[0, :3, 5], input[0, :3, 8:10], input[0, 2, 11:20] = NAN, INF, -INF
    target[0, 1:, 3], target[0, 2, 7:12], target[0, 2, 14], target[0, 3] = NAN, INF, -INF, NAN
    check(input, target, bins=bins)
    input[0, 0], target[0, 1] = INF, -INF
    check(input, target, bins=bins)


@by_both
def test_equal_numbers(bins):
    """Also 0 and -0."""
    input = make(1, 2, 60).relu()
    input[..., :2] = torch.tensor([0.0, -0.0])
    found = check(input, make(1, 2, 45, seed=1), bins=bins)
    for plane, zeros in zip(found[0], input[0] == 0):
        assert (plane[zeros] == plane[zeros][0]).all()
    check(torch.full((1, 2, 30), 2.0), make(1, 2, 45, seed=1), bins=bins)
    check(make(1, 2, 45), torch.full((1, 2, 30), 0.1), bins=bins)


def test_a_permutation():
    target = make(1, 2, 50, seed=1)
    found = check(make(1, 2, 50), target)
    assert torch.equal(found.sort().values, target.sort().values)


@by_both
@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
def test_strides(bins, how):
    check(laid_out(make(2, 2, 4, 6), how), laid_out(make(2, 2, 5, 3, seed=1), how), bins=bins)


@by_both
def test_empty(bins):
    for shape in ((0, 3, 4), (2, 0, 4)):
        assert check(torch.zeros(shape), torch.zeros(shape), bins=bins).shape == shape
