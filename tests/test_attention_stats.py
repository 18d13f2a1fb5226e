"""attention_stats against the published form in float64, around the edges of its blocks, and where numbers end."""

import re
import subprocess
import sys

import pytest
import torch

from fastnorm.functional import attention_stats


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def published(query, key, value, scale=1.0):
    """AdaAttN's code, in the type of its maps."""
    weight = torch.softmax(torch.bmm(query.flatten(2).permute(0, 2, 1), key.flatten(2)) * scale, dim=-1)
    value = value.flatten(2).permute(0, 2, 1)
    mean = torch.bmm(weight, value)
    std = torch.sqrt(torch.relu(torch.bmm(weight, value**2) - mean**2))
    return tuple(found.permute(0, 2, 1).reshape(*mean.shape[::2], *query.shape[2:]) for found in (mean, std))


# Blocks of 96 keys and channels, panels of 12, 24 or 48 queries, 384 queries to a task.
@pytest.mark.parametrize(
    "queries, keys, channels, value_channels",
    [
        (1, 1, 1, 1), (47, 95, 96, 3), (48, 96, 97, 8), (49, 97, 7, 9), (385, 193, 5, 1), (800, 30, 2, 5),
        (3, 1000, 448, 2), (5, 200, 1, 257),
    ],
)  # fmt: skip
def test_blocks(randn, queries, keys, channels, value_channels):
    maps = randn(2, channels, queries), randn(2, channels, keys), randn(2, value_channels, keys)
    scale = 0.5 * channels**-0.5
    expected = published(*maps, scale)
    torch.testing.assert_close(attention_stats(*maps, scale), expected, rtol=1e-9, atol=1e-7)
    found = attention_stats(*(map.float() for map in maps), scale)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0, atol=3e-6)
    # Of one key the deviation is 0, and in float32 the root of a rounding.
    torch.testing.assert_close(found[1].double().square(), expected[1].square(), rtol=0, atol=2e-5)


def test_gradients(randn):
    maps = [map.requires_grad_() for map in (randn(2, 5, 4, 6), randn(2, 5, 3, 7), randn(2, 3, 3, 7))]
    given = randn(2, 3, 4, 6), randn(2, 3, 4, 6)
    expected = torch.autograd.grad(published(*maps, 0.4), maps, given)
    torch.testing.assert_close(torch.autograd.grad(attention_stats(*maps, 0.4), maps, given), expected)
    for index in range(2):
        alone = torch.autograd.grad(published(*maps, 0.4)[index], maps, given[index])
        torch.testing.assert_close(torch.autograd.grad(attention_stats(*maps, 0.4)[index], maps, given[index]), alone)


def test_gradients_of_a_few_queries_at_a_time(randn, monkeypatch):
    from fastnorm.ops import attention_stats as room

    maps = [map.requires_grad_() for map in (randn(2, 5, 50), randn(2, 5, 20), randn(2, 3, 20))]
    given = randn(2, 3, 50), randn(2, 3, 50)
    expected = torch.autograd.grad(published(*maps), maps, given)
    monkeypatch.setattr(room, "WEIGHTS_AT_A_TIME", 20 * 7)
    torch.testing.assert_close(torch.autograd.grad(attention_stats(*maps), maps, given), expected)


def test_large_scores(randn):
    """Attention of nearly one key: scores of thousands, whose exponentials would overflow."""
    query, key, value = 100 * randn(1, 4, 60), 100 * randn(1, 4, 150), randn(1, 3, 150)
    mean, std = attention_stats(query.float(), key.float(), value.float())
    nearest = torch.einsum("ncq,nck->nqk", query, key).argmax(2)
    torch.testing.assert_close(mean.double(), value[0, :, nearest[0]][None], rtol=0, atol=1e-3)
    assert (std >= 0).all()


def test_values_far_from_zero(randn):
    """A mean of 1e4 and a deviation of 1: less the mean over keys, no digit of the deviation is lost."""
    query, key, value = randn(1, 8, 60), randn(1, 8, 150), randn(1, 3, 150)
    value = (value + 1e4).float()
    _, expected = published(query, key, value.double(), 0.3)
    _, std = attention_stats(query.float(), key.float(), value, 0.3)
    torch.testing.assert_close(std.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("outlier", [1e4, 1e6])
def test_a_value_of_no_weight_costs_no_digits(randn, outlier):
    """However far it is from the others: as of a key that is masked, or of padding."""
    query, key, value = randn(1, 4, 50), randn(1, 4, 300), randn(1, 3, 300)
    query[:, 0], key[:, 0], key[0, 0, 7], value[:, :, 7] = 1.0, 0.0, -200.0, outlier
    mean, std = attention_stats(query.float(), key.float(), value.float(), 0.7)
    expected = published(query, key, value, 0.7)
    torch.testing.assert_close((mean.double(), std.double()), expected, rtol=0, atol=2e-5)


def test_autocast_leaves_the_formula_alone(randn):
    from fastnorm.ops.attention_stats import reference

    maps = [randn(1, 8, 30).float(), randn(1, 8, 40).float(), randn(1, 3, 40).float()]
    with torch.autocast("cpu", torch.bfloat16):
        found = reference(*maps, 0.3)
    assert all(map(torch.equal, found, reference(*maps, 0.3)))


@pytest.mark.parametrize("far", [0.0, 6e4])
def test_the_end_of_float16(randn, far):
    """Squares of values, and scores, are far beyond the largest number."""
    query, key = 300 * randn(1, 8, 20), 300 * randn(1, 8, 40)
    value = (randn(1, 3, 40).tanh() * (5e3 if far else 6e4) + far).clamp(-65504, 65504)
    query, key, value = (map.half() for map in (query, key, value))
    expected = published(query.double(), key.double(), value.double(), 1e-5)
    found = attention_stats(query, key, value, 1e-5)
    for actual, exact in zip(found, expected):
        torch.testing.assert_close(actual.double(), exact, rtol=2**-10, atol=0)


def test_equal_keys_weigh_the_same(randn):
    value = randn(1, 3, 77)
    mean, std = attention_stats(randn(1, 4, 9), torch.ones(1, 4, 77, dtype=torch.float64), value)
    torch.testing.assert_close(mean, value.mean(2, keepdim=True).expand_as(mean))
    torch.testing.assert_close(std, value.std(2, correction=0, keepdim=True).expand_as(std))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("keys", [1, 7, 97, 4097])
@pytest.mark.parametrize("min_var", [0.0, 0.25])
def test_a_constant_channel_deviates_by_nothing(randn, keys, dtype, min_var):
    maps = [randn(1, 4, 9), randn(1, 4, keys), torch.full((1, 2, keys), 0.1)]
    query, key, value = (map.to(dtype).requires_grad_() for map in maps)
    mean, std = attention_stats(query, key, value, min_var=min_var)
    assert (std == min_var**0.5).all() and torch.allclose(mean, value[..., :1])
    gradients = torch.autograd.grad((mean.sum() + std.sum()), (query, key, value))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_scores_that_are_no_numbers():
    """As of torch's softmax: -infinity has no weight; infinity, NaN, or no weight at all make NaN, of that query alone."""
    key = torch.full((1, 2, 300), -1e30)
    key[0, :, 250] = torch.tensor([1e-30, 0])
    key[0, :, 260] = torch.tensor([0, 1e30])
    # Of (a, b) the scores are -1e30 * (a + b), 1e-30 * a and 1e30 * b.
    query = torch.tensor([[1e30, 1e30], [1e30, 0.0], [0.0, -1e30], [float("nan"), 0.0], [0.0, 1e-30]]).T[None].contiguous()
    value = torch.arange(300.0).reshape(1, 1, 300)
    mean, std = attention_stats(query, key, value)
    expected = torch.softmax(torch.bmm(query.transpose(1, 2), key), -1) @ value.transpose(1, 2)
    torch.testing.assert_close(mean.flatten(), expected.flatten(), equal_nan=True)
    assert torch.equal(std.isnan(), expected.isnan().transpose(1, 2))
    assert mean.isnan().flatten().tolist() == [True, False, True, True, False]
    nothing = attention_stats(torch.tensor([[[1e30, 1.0]]]), torch.full((1, 1, 3), -1e30), torch.ones(1, 1, 3))
    assert all(found.isnan().flatten().tolist() == [True, False] for found in nothing)


def test_an_infinite_value_stays_in_its_channel():
    value = torch.ones(1, 2, 5)
    value[0, 0, 3] = float("inf")
    mean, std = attention_stats(torch.zeros(1, 2, 4), torch.zeros(1, 2, 5), value)
    assert mean[0, 0].isinf().all() and std[0, 0].isnan().all()
    assert (mean[0, 1] == 1).all() and (std[0, 1] == 0).all()


GROWTH = """
import torch
from fastnorm.functional import attention_stats
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
maps = [torch.randn(1, 8, size, size) for size in (128, 64, 64)]
attention_stats(*(map[..., :8, :8] for map in maps))
[map.requires_grad_() for map in maps]
before = peak()
mean, std = attention_stats(*maps)
between = peak()
(mean + std).sum().backward()
print(between - before, peak() - between)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the most that a process held")
def test_memory_is_linear_in_positions():
    """16384 queries and 4096 keys, whose scores are 268 MB."""
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    forward, backward = (int(kilobytes) / 1000 for kilobytes in done.stdout.split())
    assert forward < 16 and backward < 48, f"{forward} MB forward, {backward} MB backward"


@pytest.mark.parametrize(
    "shapes, words",
    [
        (((2, 3, 4), (2, 5, 4), (2, 3, 4)), "key: expected the query's samples and channels, (2, 3, *), got (2, 5, 4)"),
        (((2, 3, 4), (1, 3, 4), (1, 3, 4)), "key: expected the query's samples and channels, (2, 3, *), got (1, 3, 4)"),
        (((2, 3, 4), (2, 3, 4), (2, 3, 5)), "value: expected a position for each key, (2, D, 4), got (2, 3, 5)"),
        (((2, 3, 4), (2, 3, 2, 3), (2, 3, 6)), "value: expected a position for each key, (2, D, 2, 3), got (2, 3, 6)"),
        (((2, 3), (2, 3, 4), (2, 3, 4)), "query: expected shape (N, C, *) with at least one spatial dimension, got (2, 3)"),
        (((2, 3, 4), (2, 3, 0), (2, 3, 0)), "key: expected planes of at least one element, got planes of (0,)"),
    ],
)
def test_shapes_that_do_not_fit(shapes, words):
    with pytest.raises(ValueError, match=f"^attention_stats: {re.escape(words)}$"):
        attention_stats(*map(torch.zeros, shapes))


def test_types_and_numbers_that_do_not_fit():
    map = torch.zeros(1, 2, 3)
    with pytest.raises(TypeError, match="^attention_stats: value: expected the input's type torch.float32, got torch.float64$"):
        attention_stats(map, map, map.double())
    with pytest.raises(ValueError, match="^attention_stats: min_var: "):
        attention_stats(map, map, map, min_var=-1)
    with pytest.raises(TypeError, match="^attention_stats: scale: "):
        attention_stats(map, map, map, scale=map)


def test_a_mean_may_be_changed_in_place(randn):
    maps = [map.requires_grad_() for map in (randn(1, 2, 5), randn(1, 2, 4), randn(1, 3, 4))]
    expected = torch.autograd.grad(published(*maps)[0].square().sum(), maps)
    mean = attention_stats(*maps, return_std=False)
    squared = mean.square_()
    torch.testing.assert_close(torch.autograd.grad(squared.sum(), maps), expected)


def test_gradients_of_a_few_samples_at_a_time(randn, monkeypatch):
    from fastnorm.ops import attention_stats as room

    maps = [map.requires_grad_() for map in (randn(5, 2, 6), randn(5, 2, 7), randn(5, 3, 7))]
    given = randn(5, 3, 6), randn(5, 3, 6)
    expected = torch.autograd.grad(published(*maps), maps, given)
    monkeypatch.setattr(room, "WEIGHTS_AT_A_TIME", 2 * 6 * 7)
    torch.testing.assert_close(torch.autograd.grad(attention_stats(*maps), maps, given), expected)
