"""What the Triton kernels of attention_stats compute, in Triton's interpreter, against the formula in float64.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
from interpreted import double, every_layout, laid_out, make

from fastnorm.kernels import attention_stats
from fastnorm.ops import attention_stats as reference

# All in one block, and blocks of everything in pieces.
WAYS = {
    "whole": attention_stats.Heuristics(busy=0),
    "pieces": attention_stats.Heuristics(blocks=tuple((size, (16, 16, 32, 16)) for size in (2, 4, 8))),
}
NAN, INF = float("nan"), float("inf")

pytestmark = pytest.mark.usefixtures("poisoned_memory", "products_of_bfloat16")
every_way = pytest.mark.parametrize("way", WAYS)
every_type = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
low_precision = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@pytest.fixture(autouse=True)
def go(monkeypatch):
    """go(way) makes the attention of this test go that way."""

    def choose(way):
        monkeypatch.setattr(attention_stats, "HEURISTICS", WAYS[way])
        attention_stats._plan.cache_clear()

    choose("pieces")
    yield choose
    attention_stats._plan.cache_clear()


def assert_accurate(actual, expected, own, scale=0.0):
    """At most twice as far from the formula in float64 as the formula in the type of `actual`, or a few roundings of the
    largest number. In bfloat16 the interpreter cuts digits off, of weights and of results.
    """
    assert (actual.shape, actual.dtype) == (own.shape, own.dtype)
    finite = expected.isfinite()
    torch.testing.assert_close(actual[~finite].double(), expected[~finite], rtol=0, atol=0, equal_nan=True)
    if finite.any():
        error, own_error = ((found[finite].double() - expected[finite]).abs().max().item() for found in (actual, own))
        roundings = {torch.float64: 512, torch.float32: 4, torch.bfloat16: 1, torch.float16: 0.5}[actual.dtype]
        largest = max(scale, expected[finite].abs().max().item())
        assert error <= 2 * own_error + roundings * torch.finfo(actual.dtype).eps * largest, (error, own_error, largest)


def check(query, key, value, scale=1.0, min_var=0.0, need_std=True):
    """Forward, then backward from what the forward found."""
    arguments = query, key, value, scale, min_var, need_std
    found = attention_stats.forward(*arguments)
    expected, own = reference._definition(*double(arguments)), reference._definition(*arguments)
    assert len(found) == len(own)
    # A deviation is as near to 0 as the root of what is left of squares.
    values = value[value.isfinite()].double()
    spread = values.std().item() if values.numel() > 1 else 0.0
    for actual, wanted, torchs in zip(found, expected, own, strict=True):
        assert (actual.dtype, actual.stride()) == (torchs.dtype, torchs.stride())
        # What a caller gets of them.
        assert_accurate(actual.to(query.dtype), wanted, torchs.to(query.dtype), scale=spread)
    return found


def maps(channels=19, values=7, size=(3, 7), keys=(2, 11), samples=1, dtype=torch.float32, layout="nchw"):
    sizes = (channels, *size), (channels, *keys), (values, *keys)
    return [make(samples, *size, dtype=dtype, layout=layout, seed=seed) for seed, size in enumerate(sizes)]


# Every way, layout and type.


@every_layout
@every_way
def test_attention(go, way, layout):
    go(way)
    check(*maps(samples=2, layout=layout), 0.3)
    check(*maps(samples=2, layout=layout), -0.2, 0.5, need_std=False)


@every_layout
@every_type
def test_types(dtype, layout):
    arguments = maps(values=20, dtype=dtype, layout=layout)
    check(*arguments, 0.3)
    check(*arguments, 0.3, need_std=False)


@every_way
@pytest.mark.parametrize(
    "channels, values, size, keys", [(1, 1, (1,), (1,)), (33, 40, (17,), (2, 3, 3)), (16, 16, (4, 4), (16, 1))], ids=str
)
def test_sizes(go, way, channels, values, size, keys):
    go(way)
    for dtype in (torch.float32, torch.float16):
        check(*maps(channels, values, size, keys, 1, dtype), channels**-0.5)


@pytest.mark.parametrize("channels", [448, 960, 1472])
def test_the_published_channels(go, channels):
    """Where scores are not scaled, a query attends to few keys."""
    go("whole")
    check(*maps(channels, 64, (3, 3), (6, 6), 1, torch.float16))


@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
def test_strides(how):
    check(*(laid_out(map, how) for map in maps(samples=2)), 0.3)


def test_maps_of_different_layouts():
    for one in range(3):
        arguments = maps()
        arguments[one] = arguments[one].to(memory_format=torch.channels_last)
        check(*arguments, 0.3)


@pytest.mark.parametrize(
    "samples, channels, values, size", [(0, 3, 4, (2, 2)), (2, 3, 4, (0, 2)), (2, 3, 0, (2, 2)), (2, 0, 4, (2, 2))], ids=str
)
def test_empty(samples, channels, values, size):
    check(*maps(channels, values, size, (2, 5), samples))


def test_a_second_run_has_the_same_bits():
    runs = (attention_stats.forward(*maps(dtype=torch.float16), 0.3, 0.0, True) for _ in range(2))
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("layout", ["nchw", "channels_last", "every other"])
@pytest.mark.parametrize("need_std", [True, False])
def test_outputs_are_what_the_operator_promises(layout, need_std):
    """Shape, type and strides, as the fake implementation has them."""
    arguments = maps(layout="nchw" if layout == "every other" else layout)
    if layout == "every other":
        arguments = [laid_out(map, layout) for map in arguments]
    found = attention_stats.forward(*arguments, 0.3, 0.0, need_std)
    promised = torch.ops.fastnorm.attention_stats(*(map.to("meta") for map in arguments), 0.3, 0.0, need_std)
    for actual, fake in zip(found, promised, strict=True):
        assert (actual.shape, actual.dtype, actual.stride()) == (fake.shape, fake.dtype, fake.stride())


# Gradients.


@every_type
@pytest.mark.parametrize("min_var", [0.0, 0.8])
def test_gradients(dtype, min_var):
    """From what the forward found."""
    arguments = maps(dtype=dtype)
    found, own = (forward(*arguments, 0.3, min_var, True) for forward in (attention_stats.forward, reference._definition))
    grads = [make(*found[0].shape, dtype=dtype, seed=seed) for seed in (3, 4)]
    if min_var:
        # What is cut off is the same in every type but where it is nearly not.
        grads[1] = grads[1] * ((own[1] - min_var**0.5).abs() > 0.05)
    expected = reference.backward_formula(*double((*grads, *arguments)), 0.3, min_var)
    gradients, own = (reference._backward_definition(*grads, *arguments, *saved, 0.3, min_var) for saved in (found, own))
    for actual, wanted, torchs in zip(gradients, expected, own, strict=True):
        assert_accurate(actual, wanted, torchs)


# Hard numbers.


@every_way
@every_type
def test_infinite_scores(go, way, dtype):
    """-infinity has no weight, a query of nothing else no mean, and one of infinity or NaN neither; others do not mind."""
    go(way)
    query, key, value = maps(3, 4, (5,), (40,), 1, dtype)
    key[:, 0] = torch.tensor([-INF] * 33 + [0.5] * 7)
    query[:, 0] = torch.tensor([1.0, 2.0, 0.0, -1.0, NAN])
    mean, std = check(query, key, value)
    assert torch.equal(mean[0, 0].isnan(), torch.tensor([False, False, True, True, True]))
    key[:, 0] = -INF
    mean, std = check(query, key, value)
    assert mean.isnan().all() and std.isnan().all()


@every_type
def test_scores_that_grow_and_fall(dtype):
    """By more than an exponential holds: what was summed so far vanishes, or what comes."""
    key = torch.cat([torch.linspace(-200, 200, 20), torch.linspace(200, -200, 20)]).to(dtype).view(1, 1, 40)
    query = torch.tensor([1.0, -1.0, 0.0]).to(dtype).view(1, 1, 3)
    check(query, key, make(1, 4, 40, dtype=dtype))


@every_type
def test_values_far_from_zero(dtype):
    query, key, value = maps(values=20, dtype=torch.float64)
    far = 1e4 if dtype.itemsize > 2 else 100.0
    check(*(map.to(dtype) for map in (query, key, value + far)), 0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_value_of_no_weight_costs_no_digits(dtype):
    """However far it is from the others."""
    query, key, value = maps(4, 3, (6,), (40,), 1, dtype)
    query[:, 0], key[:, 0] = 1.0, 0.0
    key[0, 0, 7], value[:, :, 7] = -1000.0, 1e6
    mean, std = attention_stats.forward(query, key, value, 0.7, 0.0, True)
    expected = reference._definition(*double((query, key, value)), 0.7, 0.0, True)
    bound = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close((mean.double(), std.double()), expected, rtol=bound, atol=bound)


@low_precision
def test_deviations_of_few_keys(dtype):
    """Of two that are alike: their squares are large, and the difference small."""
    query, key, value = maps(16, 20, (6,), (40,), 1, dtype)
    check(query, key, value, 4.0)
    value[..., 1::2] = value[..., ::2] * (1 + 2**-5)
    key[..., 1::2] = key[..., ::2]
    check(query, key, value, 4.0)


@low_precision
def test_values_of_very_different_sizes(dtype):
    query, key, value = maps(values=20, dtype=dtype)
    value[:, 0] = 0.0
    value[:, 1] *= 2.0**-12
    value[:, 2, 0, 0] = 1e3
    value[:, 3] = value[:, 3] / 64 + 3
    found, own = (forward(query, key, value, 0.3, 0.0, True) for forward in (attention_stats.forward, reference._definition))
    expected = reference._definition(*double((query, key, value)), 0.3, 0.0, True)
    for channel in range(4):
        for actual, wanted, torchs in zip(found, expected, own, strict=True):
            assert_accurate(actual[:, channel].to(dtype), wanted[:, channel], torchs[:, channel].to(dtype))


def test_large_float16_does_not_overflow():
    query, key, value = maps(values=20, dtype=torch.float16)
    value *= 1.5e4
    assert value.abs().max() > 4e4 and value.isfinite().all()
    mean, std = check(query, key, value, 0.3)
    assert mean.isfinite().all() and std.isfinite().all()


def test_large_bfloat16_has_a_mean():
    query, key, value = maps(dtype=torch.bfloat16)
    check(query, key, value * 1e30, 0.3, need_std=False)


@every_type
def test_a_plane_with_nan_spoils_no_other(dtype):
    query, key, value = maps(values=20, dtype=dtype)
    value[:, 3, 0, 0] = NAN
    mean, std = check(query, key, value, 0.3)
    assert mean[:, 3].isnan().all() and std[:, 3].isnan().all() and mean[:, :3].isfinite().all()


@every_type
@pytest.mark.parametrize("min_var", [0.0, 0.3])
def test_constant_values_have_the_least_deviation(dtype, min_var):
    """And no gradient, which the backward knows by the number itself."""
    query, key, value = maps(dtype=dtype)
    value[:] = 3.0
    mean, std = attention_stats.forward(query, key, value, 0.3, min_var, True)
    assert torch.equal(mean, torch.full_like(mean, 3.0))
    assert (std == torch.tensor(min_var**0.5, dtype=std.dtype)).all()
