"""match_histogram against its formula, number by number, and what the formula promises."""

import re
from bisect import bisect_left
from math import floor, isfinite, isnan

import pytest
import torch

from fastnorm import nn
from fastnorm.functional import match_histogram
from fastnorm.ops.match_histogram import reference

INF, NAN = float("inf"), float("nan")


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def shares(plane, target):
    """Of each number of the plane in turn: how much of it each target is. In units of 1 / (n m), all are integers."""
    numbers = sorted(x for x in plane if not isnan(x))
    order = sorted((j for j, y in enumerate(target) if not isnan(y)), key=target.__getitem__)
    n, m = len(numbers), len(order)
    for x in plane:
        share = [0.0] * len(target)
        if not isnan(x):
            first, equals = numbers.index(x), numbers.count(x)
            for rank, j in enumerate(order):
                common = min((first + equals) * m, (rank + 1) * n) - max(first * m, rank * n)
                share[j] = max(0, common) / (equals * m)
        yield share


def by_sorting(plane, target):
    if all(map(isnan, target)):
        return plane
    rows = zip(plane, shares(plane, target))
    return [x if isnan(x) else sum(part * y for part, y in zip(share, target) if part) for x, share in rows]


def by_bins(plane, target, bins):
    def histogram(numbers):
        finite = [x for x in numbers if isfinite(x)] or [0.0]
        low, width = min(finite), max(finite) - min(finite)
        positions = [bins * (min(max(x, low), low + width) - low) / (width or 1) for x in numbers]
        counts = [0] * bins
        for position in positions:
            counts[min(floor(position), bins - 1)] += 1
        return low, width, positions, [sum(counts[:k]) for k in range(bins + 1)]

    present = [y for y in target if not isnan(y)]
    n, m = sum(not isnan(x) for x in plane), len(present)
    if not n or not m:
        return plane
    y_low, y_width, y_positions, y_upto = histogram(present)
    _, width, positions, upto = histogram([x for x in plane if not isnan(x)])
    positions = iter(positions)

    def matched(position):
        if not width:
            return sum(y_low + position / bins * y_width for position in y_positions) / m
        k = min(floor(position), bins - 1)
        level = (upto[k] + (upto[k + 1] - upto[k]) * (position - k)) * m / n
        j = max(bisect_left(y_upto, level), 1) - 1
        return y_low + (j + (level - y_upto[j]) / (y_upto[j + 1] - y_upto[j])) / bins * y_width

    return [x if isnan(x) else matched(next(positions)) for x in plane]


def expected(input, target, bins=None, input_mask=None, target_mask=None):
    """Plane by plane, in float64; masks are (N, *)."""
    output = input.double().flatten(2).clone()
    for n in range(input.shape[0]):
        t = n % target.shape[0]
        taken = slice(None) if input_mask is None else input_mask[n % len(input_mask)].flatten()
        given = slice(None) if target_mask is None else target_mask[t % len(target_mask)].flatten()
        for c in range(input.shape[1]):
            planes = output[n, c][taken].tolist(), target[t, c].double().flatten()[given].tolist()
            found = by_bins(*planes, bins) if bins else by_sorting(*planes)
            output[n, c][taken] = torch.tensor(found, dtype=torch.float64)
    return output.reshape(input.shape)


def assert_matches(input, target, *settings, **masks):
    found = match_histogram(input, target, *settings, **masks)
    assert (found.dtype, found.shape) == (input.dtype, input.shape)
    torch.testing.assert_close(found, expected(input, target, *settings, **masks).to(input.dtype), equal_nan=True)


every_way = pytest.mark.parametrize("bins", [None, 1, 7, 256])
every_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)


@every_type
@every_way
@pytest.mark.parametrize(
    "size, target_size",
    [((5, 7), (5, 7)), ((5, 7), (6, 4)), ((3, 4), (9, 8)), ((1,), (17,)), ((70,), (1,)), ((2, 3, 4), (5, 5, 2))],
)
def test_formula(randn, size, target_size, bins, dtype):
    assert_matches(randn(2, 3, *size).to(dtype), (3 * randn(2, 3, *target_size) - 1).to(dtype), bins)
    assert_matches(randn(2, 3, *size).to(dtype), (3 * randn(1, 3, *target_size) - 1).to(dtype), bins)


@every_way
@pytest.mark.parametrize("samples", [1, 2])
def test_masks(randn, bins, samples):
    input, target = randn(2, 3, 6, 7).float(), randn(2, 3, 5, 9).float()
    masks = dict(input_mask=randn(samples, 6, 7) > 0.5, target_mask=randn(samples, 5, 9) > -0.3)
    assert_matches(input, target, bins, **masks)
    with_channel = {name: mask.unsqueeze(1) for name, mask in masks.items()}
    assert torch.equal(match_histogram(input, target, bins, **with_channel), match_histogram(input, target, bins, **masks))


@every_way
def test_masks_of_nothing(randn, bins):
    input, target = randn(2, 3, 6, 7), randn(2, 3, 5, 9)
    nothing, half = torch.zeros(1, 6, 7, dtype=torch.bool), torch.tensor([True, False])[:, None, None].expand(2, 5, 9)
    assert torch.equal(match_histogram(input, target, bins, input_mask=nothing), input)
    assert_matches(input, target, bins, target_mask=half)
    assert torch.equal(match_histogram(input, target, bins, target_mask=half)[1], input[1])


@every_type
@every_way
def test_nan_and_infinity(randn, bins, dtype):
    input, target = randn(1, 4, 40).to(dtype), randn(1, 4, 30).to(dtype)
    input[0, :3, 5], input[0, :3, 8:10], input[0, 2, 11:20] = NAN, INF, -INF
    target[0, 1:, 3], target[0, 2, 7:12], target[0, 3] = NAN, INF, -INF if bins is None else NAN
    assert_matches(input, target, bins)
    input[0, 0] = INF
    target[0, 1] = -INF
    assert_matches(input, target, bins)


def test_equal_numbers_stay_equal(randn):
    """Also 0 and -0."""
    input, target = randn(2, 3, 8, 9).relu(), randn(2, 3, 7, 11)
    input[:, :, 0, :2] = torch.tensor([0.0, -0.0])
    assert_matches(input, target)
    found = match_histogram(input, target)
    for plane, zeros in zip(found.flatten(0, 1), (input == 0).flatten(0, 1)):
        assert zeros.sum() > 20 and (plane[zeros] == plane[zeros][0]).all()
    torch.testing.assert_close(found.mean((2, 3)), target.mean((2, 3)))
    rounded = randn(1, 2, 300).mul(2).round()
    assert_matches(rounded, randn(1, 2, 77))


@every_type
def test_of_as_many_numbers_it_is_a_permutation(randn, dtype):
    input = randn(1, 3, 200).argsort().to(dtype)
    target = randn(1, 3, 10, 20).to(dtype)
    found = match_histogram(input, target)
    assert torch.equal(found.sort().values, target.flatten(2).sort().values)
    assert torch.equal(match_histogram(target, target), target)


@every_way
def test_order_is_kept(randn, bins):
    input = randn(1, 2, 500)
    found = match_histogram(input, randn(1, 2, 300), bins)
    assert (found.gather(2, input.argsort()).diff() >= -1e-12).all()


def test_many_bins_come_near_to_sorting(randn):
    input, target = torch.rand(1, 1, 4000, dtype=torch.float64), randn(1, 1, 5000)
    difference = match_histogram(input, target, 1 << 12) - match_histogram(input, target)
    assert difference.abs().mean() < 2e-3


@every_type
@every_way
def test_constant_planes(randn, bins, dtype):
    """A constant becomes the target's mean, and of a constant target all becomes that."""
    input, target = randn(1, 2, 50).to(dtype), randn(1, 2, 60).to(dtype)
    input[:, 0], target[:, 1] = 3.0, 0.3
    found = match_histogram(input, target, bins)
    torch.testing.assert_close(found[0, 0], target[0, 0].double().mean().to(dtype).expand(50))
    assert (found[0, 1] == target[0, 1, 0]).all()


def test_large_numbers(randn):
    """A mean of 1e4 costs no digits; the end of float16 is no infinity."""
    input, target = randn(1, 1, 300).relu(), (randn(1, 1, 400) + 1e4).float()
    assert (match_histogram(input.float(), target).double() - expected(input, target)).abs().max() < 6e-4
    far = (randn(1, 1, 400).tanh() * 65000).half()
    assert match_histogram(input.half(), far).isfinite().all() and match_histogram(far, far, 256).isfinite().all()


def test_gradients(randn):
    """The target's is its share; the input has none of what is matched."""
    input, target, given = randn(1, 1, 30).relu(), randn(1, 1, 20), randn(1, 1, 30)
    input[..., 3], target[..., 5] = NAN, NAN
    matched = torch.arange(30) >= 2
    input.requires_grad_(), target.requires_grad_()
    output = match_histogram(input, target, input_mask=matched[None])
    of_input, of_target = torch.autograd.grad(output, (input, target), given)
    share = torch.tensor([*shares(input.flatten()[matched].tolist(), target.flatten().tolist())], dtype=torch.float64)
    torch.testing.assert_close(of_target.flatten(), given.flatten()[matched] @ share)
    kept = ~matched | input.isnan().flatten()
    assert torch.equal(of_input.flatten(), torch.where(kept, given.flatten(), 0.0))


def test_a_target_for_all_gets_the_gradients_of_all(randn):
    input, target, given = randn(3, 2, 17), randn(1, 2, 23).requires_grad_(), randn(3, 2, 17)
    own = target.detach().repeat(3, 1, 1).requires_grad_()
    shared, each = (torch.autograd.grad(match_histogram(input, of), of, given)[0] for of in (target, own))
    torch.testing.assert_close(shared, each.sum(0, keepdim=True))


def test_by_bins_a_match_is_constant(randn):
    maps = [randn(1, 2, 30).requires_grad_(), randn(1, 2, 40).requires_grad_()]
    mask = torch.arange(30)[None] < 20
    of_input, of_target = torch.autograd.grad(match_histogram(*maps, 16, mask).sum(), maps)
    assert torch.equal(of_input, (~mask).double().expand(1, 2, 30)) and (of_target == 0).all()


def test_nothing_to_match_with_has_the_gradient_of_a_copy(randn):
    input, target = randn(1, 2, 9).requires_grad_(), torch.full((1, 2, 4), NAN, dtype=torch.float64).requires_grad_()
    of_input, of_target = torch.autograd.grad(match_histogram(input, target).sum(), (input, target))
    assert (of_input == 1).all() and (of_target == 0).all()


MAP, OTHER = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 6, 7)
META = torch.ones(2, 4, 5, dtype=torch.bool, device="meta")


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((torch.zeros(2, 3), OTHER), ValueError, "input: expected shape (N, C, *) with at least one spatial dimension, got"),
        ((MAP, torch.zeros(2, 3, 0)), ValueError, "target: expected planes of at least one element, got planes of (0,)"),
        ((MAP, OTHER[:, :2]), ValueError, "target: expected 3 channels and 2 samples or 1, got (2, 2, 6, 7)"),
        ((MAP, torch.zeros(3, 3, 4)), ValueError, "target: expected 3 channels and 2 samples or 1, got (3, 3, 4)"),
        ((MAP, OTHER.half()), TypeError, "target: expected the input's type torch.float32, got torch.float16"),
        ((MAP, OTHER, 0), ValueError, "bins: expected None or an integer from 1 to 65536, got 0"),
        ((MAP, OTHER, 2.0), ValueError, "bins: expected None or an integer from 1 to 65536, got 2.0"),
        ((MAP, OTHER, True), ValueError, "bins: expected None or an integer from 1 to 65536, got True"),
        ((MAP, OTHER, 65537), ValueError, "bins: expected None or an integer from 1 to 65536, got 65537"),
        (
            (MAP, OTHER, None, MAP > 0),
            ValueError,
            "input_mask: expected shape (2, 4, 5) or (2, 1, 4, 5), of 2 samples or 1, got (2, 3, 4, 5)",
        ),
        (
            (MAP, OTHER, None, None, MAP[:, 0] > 0),
            ValueError,
            "target_mask: expected shape (2, 6, 7) or (2, 1, 6, 7), of 2 samples or 1, got (2, 4, 5)",
        ),
        ((MAP, OTHER, None, MAP[:, 0]), TypeError, "input_mask: expected bool, got torch.float32"),
        ((MAP, OTHER, None, 1), TypeError, "input_mask: expected a tensor, got int"),
        ((MAP, OTHER, None, META), ValueError, "input_mask: expected a tensor on cpu, got one on meta"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(arguments, error, words):
    with pytest.raises(error, match=f"^match_histogram: {re.escape(words)}"):
        match_histogram(*arguments)


def test_module(randn):
    input, target, mask = randn(1, 2, 4, 5), randn(1, 2, 7, 3), randn(1, 4, 5) > 0
    assert torch.equal(nn.MatchHistogram()(input, target), match_histogram(input, target))
    module = nn.MatchHistogram(bins=8)
    assert torch.equal(module(input, target, mask), match_histogram(input, target, 8, mask)) and not module.state_dict()
    assert repr(module) == "MatchHistogram(bins=8)"


def test_levels_that_are_whole_numbers():
    """Two thirds of a bin of three numbers: the level is the fifth's, and the next bin of the target far away."""
    input = torch.tensor([74, 77, 30, 19, 22, 26, 20, 85, 81, 21, 17, 89, 89, 54, 51, 35, 26, 37, 71, 54.0])
    target = torch.tensor([37, 23, 47, 32.0])
    found = [run(input.view(1, 1, -1), target.view(1, 1, -1), 8) for run in (match_histogram, reference)]
    assert found[0][0, 0, 1].item() == pytest.approx(38.0) and torch.allclose(*found)
