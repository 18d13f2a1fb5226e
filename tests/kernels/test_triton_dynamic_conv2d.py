"""What the Triton kernels of the dynamic convolution compute, in Triton's interpreter, against the formula in float64.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
from interpreted import LAYOUTS, double, every_layout, laid_out, make

from fastnorm.kernels import _convolution, dynamic_conv2d, dynamic_instance_norm
from fastnorm.ops import dynamic_conv2d as conv_reference
from fastnorm.ops import dynamic_instance_norm as norm_reference
from fastnorm.ops._window import PADDING_MODES

# Small maps, cut into patches, some of them inside the map, and into chunks.
SMALL = dict(positions=1, threads=32, row=32, summed=256, tile=16, step=16, tile_float32=16, step_float32=16, chunk=64)
WAYS = {
    "direct": _convolution.Heuristics(dense=10**9),
    "dense": _convolution.Heuristics(dense=1),
    "direct, pieces": _convolution.Heuristics(dense=10**9, **SMALL),
    "direct, rolled pieces": _convolution.Heuristics(dense=10**9, unrolled=0, **SMALL),
    "dense, pieces": _convolution.Heuristics(dense=1, **SMALL),
}
PLANS = (
    _convolution.plan_direct,
    _convolution.plan_direct_filter,
    _convolution.plan_dense,
    _convolution.plan_dense_filter,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory")
every_way = pytest.mark.parametrize("way", WAYS)
both_ways = pytest.mark.parametrize("way", ["direct", "dense"])
every_mode = pytest.mark.parametrize("mode", PADDING_MODES)


@pytest.fixture
def go(monkeypatch):
    """go(way) makes the convolutions of this test go that way."""

    def choose(way):
        monkeypatch.setattr(_convolution, "HEURISTICS", WAYS[way])
        for plan in PLANS:
            plan.cache_clear()

    yield choose
    for plan in PLANS:
        plan.cache_clear()


# Of one rounding, at the end; in bfloat16 the interpreter cuts digits off. Sums are near in float32, for all.
ROUNDING = {torch.float64: 1e-13, torch.float32: 4e-6, torch.bfloat16: 2**-7, torch.float16: 2**-11}


def assert_near(actual, expected, terms, normed=None):
    """`terms`: how many numbers of size 1 were added up. A normalised number is rounded, too, where it is `normed` in a
    low precision, before it is multiplied."""
    rounding = ROUNDING[actual.dtype]
    absolute = max(1, terms) ** 0.5 * 4 * max(min(rounding, 1e-6), ROUNDING[normed or torch.float64])
    torch.testing.assert_close(actual.double(), expected, rtol=rounding * 1.01, atol=absolute)


def check(input, weight, bias, stride=1, padding=0, dilation=1, groups=1, mode="zeros", grad=None):
    """Forward, and backward to everything."""
    settings = *conv_reference.window(weight, stride, padding, dilation), groups, PADDING_MODES[mode]
    output = dynamic_conv2d.forward(input, weight, bias, *settings)
    taps = weight.shape[2:].numel()
    expected = conv_reference.formula(*double((input, weight, bias)), *settings)
    assert_near(output, expected, taps)
    positions = output.shape[2:].numel()

    grad = make(*output.shape, dtype=input.dtype, seed=9) if grad is None else grad
    gradients = dynamic_conv2d.backward(grad, input, weight, *settings, True, True, True)
    expected = conv_reference.backward_formula(*double((grad, input, weight)), *settings)
    for gradient, wanted, terms in zip(gradients, expected, (taps * weight.shape[1], positions, positions), strict=True):
        assert_near(gradient, wanted, terms)
    return output, *gradients


def check_norm(input, weight, bias, *rule, padding="same", groups=1, mode="reflect", scale=1):
    settings = *conv_reference.window(weight, 1, padding, 1), groups, PADDING_MODES[mode]
    output, mean, rstd = dynamic_instance_norm.forward(input, weight, bias, *rule, *settings)
    expected, *statistics = norm_reference.formula(*double((input, weight, bias)), *rule, *settings)
    low = input.dtype if input.dtype.itemsize == 2 else None
    taps, positions = weight.shape[2:].numel(), output.shape[2:].numel()
    assert_near(output, expected, taps, low)
    for statistic, wanted in zip((mean, rstd), statistics, strict=True):
        assert_near(statistic, wanted, 1)

    grad = make(*output.shape, dtype=input.dtype, seed=9)
    arguments = grad, input, mean, rstd, weight
    gradients = dynamic_instance_norm.backward(*arguments, *rule, *settings, True, True, True)
    expected = norm_reference.backward_formula(*double(arguments), *rule, *settings)
    for gradient, wanted, terms in zip(gradients, expected, (taps * weight.shape[1], positions, positions), strict=True):
        assert_near(gradient, wanted, terms, low)


# Every way, padding and layout.


@pytest.mark.long
@every_mode
@both_ways
def test_ways(go, way, mode):
    """Two channels for three outputs, in each of two groups."""
    go(way)
    check(make(2, 4, 5, 6), make(2, 6, 2, 3, 3, seed=1), make(2, 6, seed=2), 1, 1, 1, 2, mode)


@pytest.mark.long
@every_mode
@every_way
def test_pieces_of_lines(go, way, mode):
    go(way)
    check(make(2, 4, 50), make(2, 6, 2, 3, seed=1), make(2, 6, seed=2), 1, 1, 1, 2, mode)


@pytest.mark.long
@pytest.mark.parametrize(
    "way, mode", [("direct, pieces", "zeros"), ("direct, rolled pieces", "reflect"), ("dense, pieces", "reflect")]
)
def test_pieces_of_images(go, way, mode):
    """Inside the map, at its borders and beyond them."""
    go(way)
    check(make(1, 1, 9, 17), make(1, 2, 1, 3, 2, seed=1), make(1, 2, seed=2), 1, (1, 1), 1, 1, mode)


@pytest.mark.long
@every_way
def test_channels_last(go, way):
    go(way)
    input = make(2, 6, 5, 3, layout="channels_last")
    output, *_ = check(input, make(2, 9, 2, 3, 2, seed=1), make(2, 9, seed=2), 1, 1, 1, 3, "reflect")
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@every_layout
def test_depthwise(go, mode, layout):
    go("direct")
    check(make(2, 5, 5, 7, layout=layout), make(2, 5, 1, 3, 3, seed=1), make(2, 5, seed=2), 1, 1, 1, 5, mode)


@pytest.mark.long
@every_mode
@both_ways
def test_windows(go, way, mode):
    """Even kernels, strides that leave positions out, dilations and padding that are not the same on all sides."""
    go(way)
    input = make(1, 2, 6, 7)
    for kernel, stride, padding, dilation in (
        ((2, 4), 1, "same", 1),
        ((3, 2), (2, 3), (4, 2), (3, 2)),
        ((1, 1), 2, 3, 1),
        ((2, 2), 4, 0, 1),
    ):
        check(input, make(1, 2, 1, *kernel, seed=1), None, stride, padding, dilation, 2, mode)


@pytest.mark.long
@both_ways
def test_pointwise(go, way):
    go(way)
    for layout in LAYOUTS:
        check(make(2, 6, 7, 9, layout=layout), make(2, 4, 3, 1, 1, seed=1), make(2, 4, seed=2), groups=2, mode="reflect")


@pytest.mark.long
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@both_ways
def test_volumes(go, way, mode):
    go(way)
    volume, weight = make(1, 2, 4, 3, 5), make(1, 2, 1, 3, 2, 2, seed=1)
    check(volume, weight, None, (1, 2, 1), (2, 1, 1), 1, 2, mode)
    output, *_ = check(volume.to(memory_format=torch.channels_last_3d), weight, None, 1, "same", 1, 2, "zeros")
    assert output.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["reflect", "circular"])
@pytest.mark.parametrize("way", ["direct", "dense"])
def test_padding_as_large_as_it_may_be(go, way, mode):
    go(way)
    most = 4 if mode == "circular" else 3
    check(make(1, 2, 4, 4), make(1, 2, 2, 5, 3, seed=1), None, 1, most, 1, 1, mode)
    check(make(1, 2, 3, 2), make(1, 2, 2, 3, 3, seed=1), None, 1, 1, 1, 1, mode)


@pytest.mark.long
@both_ways
def test_replicated_padding_larger_than_the_map(go, way):
    go(way)
    check(make(1, 2, 2, 3), make(1, 2, 2, 3, 3, seed=1), None, 2, 5, 2, 1, "replicate")


# Types.


# Not bfloat16 in the dense way: the interpreter's tl.dot multiplies its bits. float64 is direct in either.
@pytest.mark.long
@pytest.mark.parametrize(
    "way, dtype",
    [("direct", torch.float64), ("direct", torch.bfloat16), ("direct", torch.float16), ("dense", torch.float16)],
    ids=str,
)
def test_types(go, way, dtype):
    go(way)
    weight, bias = make(2, 6, 2, 1, 2, dtype=dtype, seed=1), make(2, 6, dtype=dtype, seed=2)
    for layout in LAYOUTS:
        input = make(2, 4, 5, 11, dtype=dtype, layout=layout)
        check(input, weight, bias, 1, (0, 1), 1, 2, "reflect")
        check_norm(input, weight, bias, 1e-3, 1, True, groups=2)


def test_a_bias_of_another_type():
    for dtype in (torch.bfloat16, torch.float64):
        check(make(1, 4, 6, 6), make(1, 4, 1, 3, 3, seed=1), make(1, 4, dtype=dtype, seed=2), groups=4)


# The norm.


@pytest.mark.parametrize("layout, mode", [("nchw", "zeros"), ("channels_last", "zeros"), ("nchw", "reflect")])
@both_ways
def test_norm(go, way, mode, layout):
    """The border of zeros is that of the normalised map: far from the input's mean."""
    go(way)
    input = make(2, 4, 5, 21, layout=layout) + 3
    check_norm(input, make(2, 6, 2, 3, 1, seed=1), make(2, 6, seed=2), 1e-5, 0, False, groups=2, mode=mode)


# Memory.


@pytest.mark.long
@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
@both_ways
def test_strides(go, way, how):
    go(way)
    input, weight = laid_out(make(2, 4, 4, 9), how), laid_out(make(2, 6, 2, 2, 2, seed=1), how)
    grad = laid_out(make(2, 6, 5, 10, seed=9), how)
    check(input, weight, laid_out(make(2, 6, seed=2), "transposed"), 1, 1, 1, 2, "reflect", grad)
    check(input.to(memory_format=torch.channels_last), weight, None, 1, 1, 1, 2, "zeros", grad)


@pytest.mark.long
@both_ways
def test_a_shared_filter_stays_one(go, way):
    go(way)
    input, weight = make(3, 4, 7, 9), make(1, 6, 2, 3, 3, seed=1).expand(3, -1, -1, -1, -1)
    window = dynamic_conv2d.Window.of((3, 3), [1, 1], [1] * 4, [1, 1], 0)
    planes = dynamic_conv2d.Planes.of(input)
    convolution = _convolution.Convolution.of(planes, input, make(3, 6, 7, 9), weight, window, 2)
    assert len(dynamic_conv2d._filters(weight, convolution)) == 1
    check(input, weight, None, 1, 1, 1, 2, "circular")


@pytest.mark.long
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "every other"])
def test_outputs_are_what_the_operators_promise(layout):
    """Shape, type and strides, as the fake implementation has them; empty where nobody asks."""
    input = make(2, 4, 7, 9)
    input = laid_out(input, layout) if layout == "every other" else input.to(memory_format=LAYOUTS[layout])
    weight, bias, grad = make(2, 6, 2, 3, 2, seed=1), make(2, 6, seed=2), make(2, 6, 4, 8, seed=9)
    settings = [2, 1], [1, 1, 0, 0], [1, 1], 2, 1
    rule = 1e-5, 0, False
    _, mean, rstd = dynamic_instance_norm.forward(input, weight, bias, *rule, *settings)
    calls = [
        ("dynamic_conv2d", dynamic_conv2d.forward, (input, weight, bias, *settings)),
        ("dynamic_instance_norm", dynamic_instance_norm.forward, (input, weight, bias, *rule, *settings)),
    ]
    for needs in ((True, True, True), (True, False, False), (False, True, False), (False, False, True)):
        arguments = grad, input, weight, *settings, *needs
        calls.append(("dynamic_conv2d_backward", dynamic_conv2d.backward, arguments))
        arguments = grad, input, mean, rstd, weight, *rule, *settings, *needs
        calls.append(("dynamic_instance_norm_backward", dynamic_instance_norm.backward, arguments))
    for name, function, arguments in calls:
        metas = [value.to("meta") if isinstance(value, torch.Tensor) else value for value in arguments]
        found, promised = function(*arguments), getattr(torch.ops.fastnorm, name)(*metas)
        found, promised = ((x,) if isinstance(x, torch.Tensor) else x for x in (found, promised))
        for actual, fake in zip(found, promised, strict=True):
            assert (actual.shape, actual.dtype, actual.stride()) == (fake.shape, fake.dtype, fake.stride()), name


@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (2, 0, 5, 5), (2, 4, 0, 5)], ids=str)
@both_ways
def test_empty(go, way, shape):
    go(way)
    n, c = shape[:2]
    groups = 2 if c else 1
    check(torch.empty(shape), make(n, 6, c // groups, 1, 3, seed=1), make(n, 6, seed=2), 1, "same", 1, groups)
    check(torch.empty(shape), make(n, 6, c // groups, 1, 3, seed=1), make(n, 6, seed=2), 1, 2, 1, groups)
    check(torch.empty(shape), make(n, 0, c // groups, 1, 3, seed=1), make(n, 0, seed=2), 1, "same", 1, groups)


# Hard numbers.


@pytest.mark.long
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@both_ways
def test_what_is_not_finite_stays_where_it_is_read(go, way, value):
    go(way)
    weight = make(1, 4, 2, 3, 3, seed=1)
    settings = *conv_reference.window(weight, 1, 1, 1), 2, 0
    clean = make(1, 4, 9, 11)
    spoilt = clean.clone()
    spoilt[0, 1, 4, 5] = value
    before, after = (dynamic_conv2d.forward(input, weight, None, *settings) for input in (clean, spoilt))
    met = torch.zeros(1, 4, 9, 11, dtype=torch.bool)
    met[:, :2, 3:6, 4:7] = True
    assert torch.equal(before[~met], after[~met])
    assert not after[met].isfinite().any()


@pytest.mark.long
@both_ways
def test_filters_that_are_not_numbers(go, way):
    go(way)
    weight = make(2, 4, 2, 3, 3, seed=1)
    weight[1, 2] = float("nan")
    settings = *conv_reference.window(weight, 1, 1, 1), 2, 0
    output = dynamic_conv2d.forward(make(2, 4, 5, 6), weight, None, *settings)
    assert output[1, 2].isnan().all() and output.isnan().sum() == output[1, 2].numel()


@pytest.mark.long
@both_ways
def test_large_float16_does_not_overflow(go, way):
    """Sums are float32: terms of 5e4 cancel."""
    go(way)
    input = torch.full((1, 4, 5, 6), 5e4).half()
    weight = torch.tensor([1.0, 1.0, -1.0, -0.5]).half().view(1, 1, 4, 1, 1).expand(1, 3, 4, 1, 1)
    settings = *conv_reference.window(weight, 1, 0, 1), 1, 0
    output = dynamic_conv2d.forward(input, weight, None, *settings)
    assert torch.equal(output, torch.full((1, 3, 5, 6), 2.5e4).half())
