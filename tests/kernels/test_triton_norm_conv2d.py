"""What the Triton kernels of a layer compute, in Triton's interpreter, against its reference in float64: the map
upsampled, padded and convolved as they stand there.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
from interpreted import LAYOUTS, double, every_layout, laid_out, make

from fastnorm.kernels import _convolution, norm_conv2d
from fastnorm.kernels._window import Window
from fastnorm.ops import norm_conv2d as layer
from fastnorm.ops import upsample_conv2d
from fastnorm.ops._activation import CODES
from fastnorm.ops._window import PADDING_MODES

SMALL = dict(positions=1, threads=32, row=32, tile=16, step=16, tile_float32=16, step_float32=16)
WAYS = {
    "direct": _convolution.Heuristics(dense=10**9),
    "dense": _convolution.Heuristics(dense=1, folded=0),
    "folded": _convolution.Heuristics(dense=1),
    "direct, pieces": _convolution.Heuristics(dense=10**9, **SMALL),
    "dense, pieces": _convolution.Heuristics(dense=1, folded=0, **SMALL),
    "folded, pieces": _convolution.Heuristics(dense=1, **SMALL),
}
# What is folded is of 16 bits.
TYPES = {way: torch.float16 if "folded" in way else torch.float32 for way in WAYS}

pytestmark = pytest.mark.usefixtures("poisoned_memory")
every_way = pytest.mark.parametrize("way", WAYS)
every_piece = pytest.mark.parametrize("way", [way for way in WAYS if "pieces" in way])
both_ways = pytest.mark.parametrize("way", ["direct", "dense"])


@pytest.fixture
def go(monkeypatch):
    """go(way) makes the convolutions of this test go that way."""
    plans = _convolution.plan_direct, _convolution.plan_dense

    def choose(way):
        monkeypatch.setattr(_convolution, "HEURISTICS", WAYS[way])
        for plan in plans:
            plan.cache_clear()

    yield choose
    for plan in plans:
        plan.cache_clear()


ROUNDING = {torch.float64: 1e-13, torch.float32: 4e-6, torch.bfloat16: 2**-7, torch.float16: 2**-11}


def assert_near(actual, expected, terms, low=None):
    """A sum, in float32, of `terms` numbers of size 1; of numbers that were first rounded to `low`, where it is given."""
    rounding = ROUNDING[actual.dtype]
    absolute = terms**0.5 * 4 * max(min(rounding, 1e-6), ROUNDING[low or torch.float64])
    torch.testing.assert_close(actual.double(), expected, rtol=rounding * 1.01, atol=absolute)


def run(input, weight, bias, entry, window, groups, mode, exit, rule, needs):
    """As the operator runs its kernel, where the border can be read in the map itself."""
    (filters, *window, border), _ = upsample_conv2d.lattice(input, weight, *window, PADDING_MODES[mode])
    return norm_conv2d.forward(input, filters, bias, *entry, *window, groups, border, *exit, *rule, *needs)


def check(
    input, weight, bias=None, mean=None, scale=None, shift=None, residual=None, activation=None, factor=1, stride=1,
    padding=1, dilation=1, groups=1, mode="reflect", output_activation=None, rule=(1e-3, 0, "var"),
):  # fmt: skip
    """All outputs."""
    settings = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=mode)
    changes = dict(mean=mean, scale=scale, shift=shift, residual=residual)
    expected = layer.reference(
        *double((input, weight, bias)), **settings, **dict(zip(changes, double(changes.values()))),
        activation=activation, negative_slope=0.3, scale_factor=factor, output_activation=output_activation,
        output_negative_slope=0.7, return_stats=True, eps=rule[0], correction=rule[1], eps_mode=rule[2],
        return_entered=True,
    )  # fmt: skip
    window = layer.settings(weight, input, stride, padding, dilation, factor)
    entry, exit = (*changes.values(), CODES[activation], 0.3), (CODES[output_activation], 0.7)
    rule = *rule[:2], rule[2] == "std"
    output, *others = run(input, weight, bias, entry, window, groups, mode, exit, rule, (True, True))
    low = input.dtype if input.dtype.itemsize == 2 else None
    assert_near(output, expected[0], weight[0].numel(), low)
    for actual, wanted in zip(others, expected[1:], strict=True):
        # An output that was rounded, and then activated, may be much of a deviation away.
        assert_near(actual, wanted, weight[0].numel() if low else 1, low)


def everything(shape=(2, 4, 5, 6), out=6, groups=2, kernel=(3, 3), dtype=torch.float32, layout="nchw", samples=None):
    """Input, weight, bias and all that changes the input."""
    n, c = shape[:2]
    filters = *([samples] if samples else []), out, c // groups, *kernel
    planes = (n, c), (c,), (1, c)
    return (
        make(*shape, dtype=dtype, layout=layout),
        make(*filters, dtype=dtype, seed=1) / 2,
        make(*([samples] if samples else []), out, dtype=dtype, seed=2),
        *(make(*plane, seed=seed) for seed, plane in enumerate(planes, start=3)),
        make(*shape, dtype=dtype, layout=layout, seed=6),
    )


# Every way, part, padding and layout.


@pytest.mark.parametrize("way", ["direct", "dense", "folded"])
def test_layer(go, way):
    go(way)
    check(*everything(dtype=TYPES[way]), "leaky_relu", groups=2, output_activation="leaky_relu", rule=(1e-2, 1, "std"))


@pytest.mark.long
@every_layout
@every_way
def test_pieces(go, way, layout):
    """Patches inside the map, at its borders, and beyond them; a filter per sample."""
    go(way)
    input, *others = everything((2, 4, 9, 13), dtype=TYPES[way], layout=layout, samples=2)
    check(input, *others, "silu", groups=2, output_activation="relu")
    check(input, *others, "relu", stride=2, padding=0, groups=2)


@pytest.mark.long
@pytest.mark.parametrize("mode", PADDING_MODES)
@both_ways
def test_a_border_is_one_of_what_comes_in(go, way, mode):
    """Zeros stay zeros, whatever the activation makes of them."""
    go(way)
    check(*everything((1, 2, 4, 5), 3, 1), "sigmoid", padding=(2, 1), mode=mode, output_activation="tanh")


@pytest.mark.long
@both_ways
def test_parts_may_be_absent(go, way):
    go(way)
    input, weight, bias, *changes = everything()
    for index, change in enumerate(changes):
        alone = [change if index == other else None for other in range(4)]
        check(input, weight, None, *alone, groups=2, mode="zeros")
    check(input, weight, bias, groups=2)
    check(input, weight, None, activation="gelu", groups=2)


@pytest.mark.long
def test_lines_and_volumes():
    check(*everything((2, 4, 50), kernel=(3,)), "relu", groups=2, factor=2)
    check(*everything((1, 2, 3, 4, 5), 3, 1, (3, 1, 2)), "relu", padding=(1, 0, 1), factor=(2, 1, 2))


# Upsampled.


def test_upsampled_by_2():
    check(*everything(), "relu", factor=2, groups=2)


@pytest.mark.long
@every_layout
@every_piece
def test_phases(go, way, layout):
    go(way)
    arguments = everything((1, 4, 9, 13), dtype=TYPES[way], layout=layout)
    check(*arguments, "relu", factor=2, groups=2)
    check(*arguments, "relu", factor=(1, 2), groups=2, padding=0)


@pytest.mark.long
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("factor", [2, 3, 4, (3, 2)], ids=str)
def test_factors(mode, factor):
    """Phases that meet elements with more or fewer taps, and those that a small map has no output of."""
    check(*everything((1, 2, 3, 4), 3, 1), "relu", factor=factor, mode=mode)
    check(*everything((1, 2, 1, 2), 3, 1, (2, 1)), "relu", factor=factor, padding=0, mode=mode)


def test_a_phase_meets_elements_with_some_taps():
    around = [2, 1, 2, 1]
    assert Window.of((4, 4), [1, 1], around, [1, 1], 2, (2, 2)).met == (1, 2, 2)
    # With a stride, each tap is asked.
    assert Window.of((4, 4), [2, 2], around, [1, 1], 2, (2, 2)).met == (1, 4, 4)


@pytest.mark.long
@pytest.mark.parametrize("mode", PADDING_MODES)
@both_ways
def test_elements_apart_with_a_stride_or_a_dilation(go, way, mode):
    go(way)
    input, weight = make(1, 2, 4, 5), make(1, 3, 2, 3, 2, seed=1)
    for stride, dilation in (([2, 1], [1, 1]), ([1, 1], [1, 2]), ([3, 2], [2, 3])):
        lattice = [2, 3], stride, [3, 1, 2, 4], dilation, 1, PADDING_MODES[mode]
        arguments = None, None, None, None, None, 0, 0.0, *lattice, 0, 0.0, 1e-5, 0, False, False, False
        output, *_ = norm_conv2d.forward(input, weight, *arguments)
        expected, *_ = layer._definition(*double((input, weight)), *arguments)
        assert_near(output, expected, 12)


# Few channels, wide kernels.


@pytest.mark.parametrize("way", [pytest.param("direct", marks=pytest.mark.long), "folded"])
@pytest.mark.parametrize("channels, out", [(3, 8), (4, 3)], ids=str)
def test_nine_by_nine(go, way, channels, out):
    go(way)
    check(*everything((1, channels, 5, 6), out, 1, (9, 9), dtype=TYPES[way]), "relu", padding=4)


# Types and memory.


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_types(go, dtype):
    """bfloat16 goes directly: the interpreter's tl.dot multiplies its bits."""
    go("direct")
    input, weight, bias, *changes = everything(dtype=dtype)
    check(input, weight, bias, *changes, "leaky_relu", groups=2, output_activation="gelu")
    check(input, weight, bias, *double(changes), "leaky_relu", groups=2, factor=2)


@pytest.mark.long
@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
@both_ways
def test_strides(go, way, how):
    go(way)
    input, weight, bias, mean, scale, shift, residual = everything()
    mean, scale = mean.mT.contiguous().mT, scale.repeat_interleave(2)[::2]
    maps = [laid_out(tensor, how) for tensor in (input, weight, residual)]
    check(*maps[:2], bias, mean, scale, shift, maps[2], "relu", groups=2)
    last = input.to(memory_format=torch.channels_last)
    check(last, maps[1], bias, mean, scale, shift, maps[2], "relu", groups=2, factor=2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_are_what_the_operator_promises(layout):
    """Shape, type and strides, as the fake implementation has them; empty where nobody asks."""
    input, weight, bias, *changes = everything(dtype=torch.float16, layout=layout)
    lattice = [2, 2], [1, 1], [2, 1, 2, 1], [1, 1], 2, 2
    outputs = []
    for needs in ((True, False), (False, True), (False, False)):
        arguments = input, weight[None].float(), bias, *changes, 1, 0.0, *lattice, 0, 0.0, 1e-5, 0, False, *needs
        metas = [value.to("meta") if isinstance(value, torch.Tensor) else value for value in arguments]
        found = norm_conv2d.forward(*arguments)
        for actual, fake in zip(found, torch.ops.fastnorm.norm_conv2d(*metas), strict=True):
            assert (actual.shape, actual.dtype, actual.stride()) == (fake.shape, fake.dtype, fake.stride())
        outputs.append(found[0])
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("shape, out", [((0, 4, 5, 5), 6), ((2, 4, 0, 5), 6), ((2, 4, 5, 5), 0)], ids=str)
@both_ways
def test_empty(go, way, shape, out):
    """The mean of no numbers is not a number; what comes in is there without an output, too."""
    go(way)
    input, weight, bias, *changes = everything(shape, out, kernel=(1, 1))
    settings = [1, 1], [1, 1], [0] * 4, [1, 1], 2, 0
    arguments = input, weight[None], bias, *changes, 1, 0.0, *settings, 0, 0.0, 1e-5, 0, False, True, True
    for actual, wanted in zip(norm_conv2d.forward(*arguments), layer._definition(*double(arguments)), strict=True):
        torch.testing.assert_close(actual.double(), wanted, rtol=1e-5, atol=1e-5, equal_nan=True)


# Hard numbers.


@pytest.mark.parametrize("way", ["direct, pieces", "dense, pieces"])
def test_a_mean_far_from_zero_costs_no_digits(go, way):
    go(way)
    input, weight = make(1, 2, 9, 13), torch.eye(2)[..., None, None]
    window = layer.settings(weight, input, 1, 0, 1, 1)
    rule, entry = (0.0, 0, False), (None, None, None, None, 0, 0.0)
    bias = torch.tensor([1e4, -1e4])
    output, mean, rstd, _ = run(input, weight, bias, entry, window, 1, "zeros", (0, 0.0), rule, (True, False))
    planes = output.double()
    # The nearest float32 to 1e4 is at most 2^-11 away.
    torch.testing.assert_close(mean.double(), planes.mean((2, 3)), rtol=0, atol=2**-11 * 1.01)
    expected = planes.var((2, 3), correction=0).rsqrt()
    torch.testing.assert_close(rstd.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.long
@pytest.mark.parametrize("factor", [2, 3])
@both_ways
def test_what_is_not_finite_stays_where_it_is_read(go, way, factor):
    """No tap meets an element that it only passes."""
    go(way)
    weight = make(4, 2, 3, 3, seed=1)
    clean = make(1, 4, 5, 6)
    spoilt = clean.clone()
    spoilt[0, 1, 2, 3] = float("inf")
    window = layer.settings(weight, clean, 1, 1, 1, factor)
    settings = (None, None, None, None, 0, 0.0), window, 2, "zeros", (0, 0.0), (1e-5, 0, False), (False, True)
    (before, *_), (after, *_, entered) = (run(input, weight, None, *settings) for input in (clean, spoilt))
    met = torch.zeros(before.shape, dtype=torch.bool)
    met[:, :2, 2 * factor - 1 : 3 * factor + 1, 3 * factor - 1 : 4 * factor + 1] = True
    assert torch.equal(before[~met], after[~met])
    assert not after[met].isfinite().any()
    assert torch.equal(entered, spoilt)
