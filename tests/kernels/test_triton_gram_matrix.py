"""What the Triton kernels of gram_matrix compute, in Triton's interpreter, against the formula in float64.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
import triton
import triton.language as tl
from interpreted import every_layout, laid_out, make

from fastnorm.kernels import gram_matrix
from fastnorm.ops import gram_matrix as reference

# In one chunk, and in many, of blocks of 16 channels.
WAYS = {
    "whole": gram_matrix.Heuristics(busy=1, longest=10**9),
    "split": gram_matrix.Heuristics(blocks=tuple((size, (16, 16, 128)) for size in (2, 4, 8)), chunk=16, merged=64),
}
NAN, INF = float("nan"), float("inf")

pytestmark = pytest.mark.usefixtures("poisoned_memory", "products_of_bfloat16")
every_way = pytest.mark.parametrize("way", WAYS)
plain_and_centred = pytest.mark.parametrize("centred", [False, True])
every_type = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
low_precision = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@pytest.fixture(autouse=True)
def go(monkeypatch):
    """go(way) makes the sums of this test go that way."""

    def choose(way):
        monkeypatch.setattr(gram_matrix, "HEURISTICS", WAYS[way])
        gram_matrix._plan.cache_clear()

    choose("split")
    yield choose
    gram_matrix._plan.cache_clear()


def check(input, centred, bound=None):
    """Within `bound` of the largest sum of squares; in float32 at most twice as far as torch, or a few roundings."""
    gram, mean = gram_matrix.forward(input, centred)
    expected, expected_mean = reference.formula(input.double(), centred)
    own, own_mean = reference._definition(input, centred)
    for actual, promised in ((gram, own), (mean, own_mean)):
        assert (actual.shape, actual.dtype, actual.stride()) == (promised.shape, promised.dtype, promised.stride())
    assert torch.equal(gram.nan_to_num(), gram.mT.nan_to_num())
    finite = expected.isfinite()
    torch.testing.assert_close(gram[~finite].double(), expected[~finite], rtol=0, atol=0, equal_nan=True)
    if finite.any():
        size = expected[finite].abs().max().item()
        error, own_error = ((found - expected)[finite].abs().max().item() for found in (gram, own))
        roundings = 4 * torch.finfo(gram.dtype).eps * size if bound is None else bound * size
        assert error <= 2 * own_error + roundings, (error, own_error, size)
    if centred:
        bound = 1e-6 * input.abs().max().item()
        torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=bound)
    return gram, mean


@plain_and_centred
@every_layout
@every_way
def test_pairs(go, way, layout, centred):
    go(way)
    check(make(2, 19, 7, 9, layout=layout), centred)


@plain_and_centred
@every_layout
@every_type
def test_types(dtype, layout, centred):
    check(make(1, 35, 5, 6, dtype=dtype, layout=layout) + 0.5, centred)


@plain_and_centred
@every_way
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 17), (1, 33, 2, 3, 4), (1, 50, 5, 1)], ids=str)
def test_sizes(go, way, shape, centred):
    go(way)
    check(make(*shape), centred)
    check(make(*shape, dtype=torch.float16), centred)


@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
def test_strided_maps(how):
    check(laid_out(make(2, 5, 6, 4), how), True)


@plain_and_centred
@pytest.mark.parametrize("samples, channels", [(0, 3), (2, 0)])
def test_empty(samples, channels, centred):
    gram, mean = gram_matrix.forward(make(samples, channels, 2, 3), centred)
    assert gram.shape == (samples, channels, channels)
    assert mean.shape == ((samples, channels) if centred else (0,))


@triton.jit
def _blocks_of_pairs(rows, columns, COUNT: tl.constexpr):
    block = tl.arange(0, COUNT)
    row, column = gram_matrix._block_of(block)
    tl.store(rows + block, row)
    tl.store(columns + block, column)


def test_every_block_of_pairs_is_found():
    """A hundred thousand: those of 57000 channels."""
    rows, columns = torch.empty(2, 1 << 17, dtype=torch.int32)
    _blocks_of_pairs[(1,)](rows, columns, len(rows))
    expected = torch.tril_indices(512, 512)[:, : len(rows)]
    assert torch.equal(torch.stack([rows, columns]).long(), expected)


def test_many_blocks_of_pairs():
    check(make(1, 16 * 5 + 3, 2), False)


def test_a_second_run_has_the_same_bits():
    one, other = (gram_matrix.forward(make(1, 19, 7, 9), True)[0] for _ in range(2))
    assert torch.equal(one, other)


# Hard numbers.


@every_way
def test_means_far_from_zero(go, way):
    """As near as torch.cov."""
    go(way)
    input = make(1, 5, 20, 30) + 1e4
    gram, _ = gram_matrix.forward(input, True)
    expected, torchs = torch.cov(input[0].double().flatten(1)), torch.cov(input[0].flatten(1))
    error, own_error = ((found - expected).abs().max().item() for found in (gram[0].double() / 599, torchs))
    assert error <= max(own_error, 1e-6), (error, own_error)


@low_precision
@pytest.mark.parametrize("far", [0.5, 3.0, 5.0, 30.0, -100.0])
def test_means_far_from_zero_in_16_bits(dtype, far):
    """About the mean at which the centre leaves zero, and beyond. What cancels costs four bits at most."""
    input = (make(1, 5, 10, 30, dtype=torch.float64) + far).to(dtype)
    # bfloat16 loses some of the last digits of what is further away than half of the mean: a sixteenth of a last place.
    check(input, True, bound=2**-12 if dtype == torch.bfloat16 else 2e-5)


@low_precision
def test_planes_of_very_different_means(dtype):
    input = make(1, 6, 10, 20, dtype=torch.float64)
    input[:, 1] += 50.0
    input[:, 2] /= 4096
    input[:, 3, 2, 2] = 4000.0
    input[:, 4] = 3.0
    input[:, 5, 0, 0], input[:, 5, 0, 1] = -900.0, 900.0
    input = input.to(dtype)
    gram, _ = gram_matrix.forward(input, True)
    expected, _ = reference.formula(input.double(), True)
    # As they are to each other.
    lengths = expected.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-3)
    scaled = (gram - expected) / (lengths.unsqueeze(2) * lengths.unsqueeze(1))
    assert scaled.abs().max() < 1e-4


def test_large_float16_does_not_overflow():
    """Deviations of twice the largest number are counted in twos."""
    input = make(1, 4, 10, 100, dtype=torch.float64).mul(2000).add(30000)
    input[0, 0, 0, 0] = -60000.0
    input = input.half()
    assert input.isfinite().all()
    gram, _ = check(input, True, bound=2e-5)
    assert gram.isfinite().all()
    check(input, False)


def test_large_bfloat16():
    check(make(1, 4, 10, 10, dtype=torch.bfloat16) * 1e15, True, bound=2e-5)


@plain_and_centred
@every_type
def test_a_plane_that_is_no_number_spoils_no_other(dtype, centred):
    input = make(1, 19, 5, 6, dtype=dtype)
    input[:, 3, 0, 0], input[:, 17, 2, 1] = NAN, INF
    gram, _ = gram_matrix.forward(input, centred)
    kept = [channel for channel in range(19) if channel not in (3, 17)]
    assert gram[:, kept][:, :, kept].isfinite().all() and gram[:, 3].isnan().all()
    expected, _ = reference.formula(input.double(), centred)
    assert torch.equal(gram.isnan(), expected.isnan())


@every_type
def test_constant_planes(dtype):
    input = make(1, 5, 6, 7, dtype=dtype)
    input[:, 1:3] = 3.0
    gram, _ = gram_matrix.forward(input, True)
    assert not gram[:, 1:3].any()
