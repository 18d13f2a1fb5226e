"""What the Triton kernels compute, in Triton's interpreter, against the formulas of the operators in float64.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
from interpreted import double, every_layout, laid_out, make

from fastnorm.kernels import _launch, instance_norm, instance_stats, layer_instance_norm, scale_shift
from fastnorm.ops import instance_norm as norm_reference
from fastnorm.ops import instance_stats as stats_reference
from fastnorm.ops import layer_instance_norm as layer_reference
from fastnorm.ops import scale_shift as affine_reference
from fastnorm.ops._activation import ACTIVATIONS, CODES

# Thresholds at which planes of a hundred elements go each way, in tiles of 32 or 64 and chunks of 64 elements, and the
# numbers of three channels in two tiles.
SMALL = dict(held=(1, 1, 1, 1), taken=(2, 1, 1, 1), fewest_threads=32, most_threads=32, small=32, sample_tile=2)
WAYS = {
    "held": _launch.Heuristics(),
    "walked": _launch.Heuristics(**SMALL, busy=0),
    "split": _launch.Heuristics(**SMALL, busy=10**9, wave_bytes=1000),
}
SHAPE = 2, 3, 9, 11

pytestmark = pytest.mark.usefixtures("poisoned_memory")

every_way = pytest.mark.parametrize("way", WAYS)
held_and_split = pytest.mark.parametrize("way", ["held", "split"])


@pytest.fixture
def go():
    """go(way) makes the planes of this test go that way."""

    def choose(way):
        _launch.HEURISTICS = WAYS[way]
        _launch.plan_reduction.cache_clear()
        _launch.plan_map.cache_clear()
        _launch.sample_tile.cache_clear()

    yield choose
    choose("held")


# In float32, a few roundings; in float16 one more, of half a unit in the last place; in bfloat16 of a whole one, as the
# interpreter cuts digits off. `test_triton_targets.py` sees to it that a GPU rounds.
ROUNDING = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-11}


def assert_near(actual, expected, scale=1.0):
    """`expected` is float64; None, where nothing is wanted, is an empty tensor."""
    if expected is None:
        assert actual.numel() == 0
        return
    rounding = ROUNDING[actual.dtype]
    absolute = scale * (rounding if rounding < 1e-5 else 2e-6)
    torch.testing.assert_close(actual.double(), expected, rtol=rounding * 1.01, atol=absolute)


def sum_scale(input):
    """How large a sum over a plane may be before its terms cancel."""
    return float(input[0, 0].numel()) ** 0.5 * 4


def check_stats(input, *settings):
    mean, rstd = instance_stats.forward(input, *settings)
    expected_mean, expected_rstd = stats_reference.formula(input.double(), *settings)
    assert_near(mean, expected_mean, scale=1 / expected_rstd.min().item())
    assert_near(rstd, expected_rstd)


def check_norm(input, weight, bias, gamma, residual, *settings, grad=None):
    """Forward, then backward from the statistics that the forward found."""
    arguments = weight, bias, gamma, residual, *settings
    output, *statistics = instance_norm.forward(input, *arguments)
    expected, *expected_statistics = norm_reference.formula(input.double(), *double(arguments))
    assert_near(output, expected, scale=4)
    for actual, statistic, scale in zip(statistics, expected_statistics, (1 / expected_statistics[1].min().item(), 1)):
        assert_near(actual, statistic, scale)

    grad = make(*input.shape, dtype=input.dtype, seed=9) if grad is None else grad
    gradients = instance_norm.backward(grad, input, *statistics, *arguments)
    expected = norm_reference.backward_formula(*double((grad, input, *statistics, *arguments)))
    activated = settings[-2] != 0
    expected = (*expected[:4], expected[4] if residual is not None and activated else None)
    for actual, gradient, scale in zip(gradients, expected, (4, *[sum_scale(input)] * 2, 4, 4), strict=True):
        assert_near(actual, gradient, scale)


def check_affine(input, mean, scale, shift, gamma, residual, activation, slope, extra=(None, None), grad=None):
    arguments = mean, scale, shift, gamma, residual
    output = scale_shift.forward(input, *arguments, activation, slope)
    assert_near(output, affine_reference.formula(input.double(), *double(arguments), activation, slope), scale=8)

    grad = make(*input.shape, dtype=input.dtype, seed=9) if grad is None else grad
    gradients = scale_shift.backward(grad, input, *arguments, *extra, activation, slope, True, True)
    expected = affine_reference.full_backward_formula(*double((grad, input, *arguments, *extra)), activation, slope)
    expected = (*expected[:4], expected[4] if residual is not None and activation else None)
    for actual, gradient, size in zip(gradients, expected, (8, *[sum_scale(input) * 4] * 2, 8, 8), strict=True):
        assert_near(actual, gradient, size)


def check_layer(input, rho, weight, bias, residual, *settings, grad=None):
    """Forward, then backward from the statistics that the forward found."""
    arguments = rho, weight, bias, residual, *settings
    output, *statistics = layer_instance_norm.forward(input, *arguments)
    assert_near(output, layer_reference.formula(input.double(), *double(arguments)), scale=8)
    var, mean = torch.var_mean(input.double().flatten(2), 2, correction=0)
    for actual, statistic, scale in zip(statistics, (mean, var), (var.max().item() ** 0.5, 0), strict=True):
        assert_near(actual, statistic, scale)

    grad = make(*input.shape, dtype=input.dtype, seed=9) if grad is None else grad
    gradients = layer_instance_norm.backward(grad, input, *statistics, *arguments)
    expected = layer_reference.backward_formula(*double((grad, input, *arguments)))
    activated = settings[-2] != 0
    expected = (*expected[:4], expected[4] if residual is not None and activated else None)
    for actual, gradient, scale in zip(gradients, expected, (8, *[sum_scale(input) * 4] * 3, 8), strict=True):
        assert_near(actual, gradient, scale)


def everything(layout="nchw", dtype=torch.float32, shape=SHAPE):
    n, c = shape[:2]
    maps = [make(*shape, dtype=dtype, layout=layout, seed=seed) for seed in range(3)]
    return maps[0], make(n, c, seed=3), make(c, seed=4), *maps[1:]


# The ways and layouts.


@every_layout
@every_way
def test_statistics(go, way, layout):
    go(way)
    check_stats(make(*SHAPE, layout=layout), 1e-5, 0, False)
    check_stats(make(*SHAPE, layout=layout), 0.1, 1, True)


@every_layout
@every_way
def test_norm(go, way, layout):
    go(way)
    check_norm(*everything(layout), 1e-5, 1, False, 0.7, CODES["silu"], 0.0)


@every_layout
@every_way
def test_norm_alone(go, way, layout):
    go(way)
    check_norm(make(*SHAPE, layout=layout), None, None, None, None, 0.1, 0, True, 1.0, CODES[None], 0.0)


@every_layout
@every_way
def test_affine(go, way, layout):
    go(way)
    input, a, b, gamma, residual = everything(layout)
    check_affine(input, b, a, b, gamma, residual, CODES["gelu"], 0.0, extra=(a, b))


@every_layout
@every_way
def test_layer_norm(go, way, layout):
    go(way)
    input, weight, bias, _, residual = everything(layout)
    check_layer(input, make(3, seed=5), weight, bias, residual, 1e-5, 1, CODES["silu"], 0.0)


@every_layout
@every_way
def test_layer_norm_alone(go, way, layout):
    go(way)
    check_layer(make(*SHAPE, layout=layout), make(3, seed=5), None, None, None, 0.1, 0, CODES[None], 0.0)


@every_way
def test_each_way_is_taken(go, way):
    go(way)
    plan = _launch.plan_reduction(_launch.Planes.of(make(*SHAPE)), 2)
    assert plan.tile.whole == (way == "held")
    assert plan.split == (way == "split")
    # Four planes of four share a program; each has its own; each has two chunks, and two planes go through L2 together.
    waves = list(plan.waves(make(*SHAPE), make(*SHAPE)))
    assert [len(wave) for wave in waves] == {"held": [2], "walked": [6], "split": [4, 4, 4]}[way]
    assert [program for wave in waves for program in wave] == list(range(len(plan.programs)))


@every_layout
def test_pieces_of_a_split_change_no_bit(go, monkeypatch, layout):
    go("split")
    arguments = *everything(layout), 1e-5, 0, False, 1.0, CODES["relu"], 0.0
    pieces = instance_norm.forward(*arguments)
    monkeypatch.setitem(WAYS, "split", _launch.Heuristics(**SMALL, busy=10**9))
    go("split")
    for one, other in zip(pieces, instance_norm.forward(*arguments), strict=True):
        assert torch.equal(one, other)


# Types.


@pytest.mark.parametrize(
    "way, dtype",
    [("held", torch.float64), ("split", torch.float64), ("split", torch.bfloat16), ("walked", torch.float16)],
    ids=str,
)
def test_types(go, way, dtype):
    go(way)
    input, weight, bias, gamma, residual = everything(dtype=dtype)
    if dtype == torch.float64:
        weight, bias = weight.double(), bias.double()
    check_stats(input, 1e-3, 1, True)
    # 0.7, 1e-3 and 0.2 are no float32 numbers.
    check_norm(input, weight, bias, gamma, residual, 1e-3, 0, True, 0.7, CODES["leaky_relu"], 0.2)
    check_affine(input, bias, weight, bias, gamma, residual, CODES["leaky_relu"], 0.2)
    check_layer(input, bias, weight, bias, residual, 1e-3, 1, CODES["leaky_relu"], 0.2)


def test_parameters_and_maps_of_other_types():
    input = make(*SHAPE)
    for dtype in (torch.bfloat16, torch.float64):
        weight, bias = make(3, dtype=dtype, seed=1), make(2, 3, dtype=dtype, seed=2)
        gamma, residual = (make(*SHAPE, dtype=dtype, seed=seed) for seed in (3, 4))
        check_norm(input, weight, bias, gamma, residual, 1e-5, 0, False, 1.0, CODES["silu"], 0.0)
        check_layer(input, weight, bias, weight, residual, 1e-5, 0, CODES["silu"], 0.0)


# Activations.


@pytest.mark.parametrize("name", [activation.name for activation in ACTIVATIONS])
def test_activations(name):
    input, grad = torch.linspace(-9, 9, 2 * 3 * 7 * 5).view(2, 3, 7, 5), make(2, 3, 7, 5)
    check_affine(input, None, None, None, None, None, CODES[name], 0.3, grad=grad)
    check_affine(input.double(), None, None, None, None, None, CODES[name], 0.3, grad=grad.double())


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.name)
def test_activations_at_the_edges(activation):
    input = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 100.0, -100.0]).view(1, 1, 7)
    ones = torch.ones_like(input)
    code = CODES[activation.name]
    output = scale_shift.forward(input, None, None, None, None, None, code, 0.3)
    gradient, *_ = scale_shift.backward(ones, input, *[None] * 7, code, 0.3, True, False)
    for actual, expected in ((output, activation.function(input, 0.3)), (gradient, activation.derivative(input, 0.3))):
        finite = expected.isfinite()
        torch.testing.assert_close(actual[finite], expected[finite], rtol=1e-6, atol=1e-30)
        assert not actual[~finite].isfinite().any()


# What may be absent, and how parameters lie.


@pytest.mark.parametrize("gamma", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_maps_may_be_absent(gamma, residual):
    input, weight, bias, *maps = everything()
    maps = [map if there else None for map, there in zip(maps, (gamma, residual), strict=True)]
    check_norm(input, weight, None, *maps, 1e-5, 0, False, 1.0, CODES["relu"], 0.0)
    check_affine(input, None, weight, None, *maps, CODES["relu"], 0.0)
    check_affine(input, bias, None, bias, *maps, CODES[None], 0.0)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("residual", [False, True])
def test_parts_of_the_layer_norm_may_be_absent(residual, activation):
    input, weight, bias, _, map = everything()
    settings = map if residual else None, 1e-5, 0, CODES[activation], 0.0
    check_layer(input, bias, weight, None, *settings)
    check_layer(input, bias, None, weight, *settings)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 3)], ids=str)
def test_parameters_shared_or_per_sample(shape):
    weight, bias = make(*shape, seed=1), make(*shape, seed=2)
    check_norm(make(*SHAPE), weight, bias, None, None, 1e-5, 0, False, 1.0, CODES[None], 0.0)
    check_affine(make(*SHAPE), bias, weight, bias, None, None, CODES[None], 0.0, extra=(weight, bias))
    check_layer(make(*SHAPE), bias, weight, bias, None, 1e-5, 0, CODES["silu"], 0.0)


@every_way
def test_what_is_not_needed_comes_back_empty(go, way):
    go(way)
    input, weight, bias, _, residual = everything()
    arguments = make(*SHAPE, seed=9), input, bias, weight, bias, None, residual, None, None, CODES["relu"], 0.0
    expected = scale_shift.backward(*arguments, True, True)
    for need_input, need_sums in ((False, True), (True, False), (False, False)):
        found = scale_shift.backward(*arguments, need_input, need_sums)
        needed = need_input, need_sums, need_sums, False, True
        for actual, gradient, wanted in zip(found, expected, needed, strict=True):
            assert torch.equal(actual, gradient) if wanted else actual.numel() == 0


# Shapes.


@pytest.mark.parametrize(
    "shape",
    [(3, 2, 1, 1), (1, 1, 2, 1), (2, 37, 2, 3), (1, 3, 70), (2, 3, 4, 3, 5), (7, 1, 3, 2), (1, 2, 50, 60)],
    ids=str,
)
@every_layout
def test_shapes(shape, layout):
    input, weight, bias, gamma, residual = everything(layout, shape=shape)
    check_stats(input, 1e-2, 0, False)
    check_norm(input, weight, bias, gamma, residual, 1e-2, 0, False, 1.0, CODES["relu"], 0.0)
    check_affine(input, bias, weight, bias, None, residual, CODES["silu"], 0.0)
    check_layer(input, bias, weight, bias, residual, 1e-2, 0, CODES["silu"], 0.0)


def test_channels_last_3d():
    input, residual = (make(2, 5, 3, 4, 6, seed=seed).to(memory_format=torch.channels_last_3d) for seed in (0, 1))
    check_norm(input, make(5), None, None, residual, 1e-5, 0, False, 1.0, CODES["relu"], 0.0)
    output, *_ = instance_norm.forward(input, None, None, None, None, 1e-5, 0, False, 1.0, 0, 0.0)
    assert output.stride() == input.stride()


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)], ids=str)
def test_empty(shape):
    input = torch.empty(shape)
    output, mean, rstd = instance_norm.forward(input, None, None, None, None, 1e-5, 0, False, 1.0, 0, 0.0)
    assert output.shape == shape and mean.shape == rstd.shape == shape[:2]
    gradients = instance_norm.backward(input, input, mean, rstd, None, None, None, None, 1e-5, 0, False, 1.0, 0, 0.0)
    assert gradients[0].shape == shape and gradients[1].shape == shape[:2]
    assert torch.equal(gradients[2], torch.zeros(shape[:2]))
    # The mean of no numbers is not a number.
    for statistic in (mean, rstd, *instance_stats.forward(input, 1e-5, 0, False)):
        assert statistic.isnan().all()
    assert scale_shift.forward(input, None, None, None, None, None, 1, 0.0).shape == shape
    sums = scale_shift.backward(input, input, None, None, None, None, None, None, None, 1, 0.0, True, True)[1:3]
    assert all(torch.equal(total, torch.zeros(shape[:2])) for total in sums)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)], ids=str)
def test_empty_layer_norm(shape):
    input, rho = torch.empty(shape), torch.ones(shape[1])
    for code in (CODES[None], CODES["relu"]):
        output, mean, var = layer_instance_norm.forward(input, rho, rho, None, input, 1e-5, 0, code, 0.0)
        assert output.shape == shape and mean.shape == var.shape == shape[:2]
        assert mean.isnan().all() and var.isnan().all()
        gradients = layer_instance_norm.backward(input, input, mean, var, rho, rho, None, input, 1e-5, 0, code, 0.0)
        assert gradients[0].shape == shape
        assert all(gradient.shape == shape[:2] for gradient in gradients[1:4])
        assert torch.equal(gradients[3], torch.zeros(shape[:2]))


# Memory.


@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
def test_strides(how):
    input, weight, bias, gamma, residual = everything()
    maps = [laid_out(map, how) for map in (input, gamma, residual)]
    grad = laid_out(make(*SHAPE, seed=9), how)
    check_norm(maps[0], weight, bias.repeat_interleave(2)[::2], *maps[1:], 1e-5, 0, False, 1.0, 3, 0.0, grad=grad)
    check_affine(maps[0], bias, weight.mT.contiguous().mT, bias, *maps[1:], 3, 0.0, grad=grad)
    parameters = bias.repeat_interleave(2)[::2], weight.mT.contiguous().mT, bias
    check_layer(maps[0], *parameters, maps[2], 1e-5, 0, 3, 0.0, grad=grad)


def test_maps_are_brought_to_the_layout_of_the_input():
    input, weight, bias, gamma, residual = everything("channels_last")
    grad = make(*SHAPE, seed=9)
    check_norm(input, weight, bias, gamma.contiguous(), residual.contiguous(), 1e-5, 0, False, 1.0, 3, 0.0, grad=grad)
    check_layer(input, bias, weight, bias, residual.contiguous(), 1e-5, 0, 3, 0.0, grad=grad)


@pytest.mark.parametrize("layout", ["nchw", "channels_last", "every other"])
def test_outputs_are_what_the_operators_promise(layout):
    """Shape, type and strides, as the fake implementation has them."""
    input, weight, bias, gamma, residual = everything("nchw" if layout == "every other" else layout)
    input = laid_out(input, layout) if layout == "every other" else input
    grad = make(*SHAPE, seed=9)
    settings = 1e-5, 0, False, 1.0, 3, 0.0
    _, mean, rstd = instance_norm.forward(input, weight, bias, gamma, residual, *settings)
    backward = grad, input, mean, rstd, weight, bias, gamma, residual, *settings
    affine = input, bias, weight, bias, gamma, residual, 3, 0.0
    affine_backward = grad, *affine[:6], None, None, 3, 0.0, True, True
    layer = input, bias, weight, bias, residual
    _, *statistics = layer_instance_norm.forward(*layer, 1e-5, 0, 3, 0.0)
    layer_backward = grad, input, *statistics, *layer[1:]
    for name, function, arguments in (
        ("instance_stats", instance_stats.forward, (input, 1e-5, 0, False)),
        ("instance_norm", instance_norm.forward, (input, weight, bias, gamma, residual, *settings)),
        ("instance_norm_backward", instance_norm.backward, backward),
        ("instance_norm_backward", instance_norm.backward, (*backward[:6], None, None, *settings)),
        ("scale_shift", scale_shift.forward, affine),
        ("scale_shift_backward", scale_shift.backward, affine_backward),
        ("scale_shift_backward", scale_shift.backward, (*affine_backward[:-2], False, False)),
        ("layer_instance_norm", layer_instance_norm.forward, (*layer, 1e-5, 0, 3, 0.0)),
        ("layer_instance_norm_backward", layer_instance_norm.backward, (*layer_backward, 1e-5, 0, 3, 0.0)),
        ("layer_instance_norm_backward", layer_instance_norm.backward, (*layer_backward, 1e-5, 0, 0, 0.0)),
    ):
        metas = [value.to("meta") if isinstance(value, torch.Tensor) else value for value in arguments]
        found, promised = function(*arguments), getattr(torch.ops.fastnorm, name)(*metas)
        found, promised = ((x,) if isinstance(x, torch.Tensor) else x for x in (found, promised))
        for actual, fake in zip(found, promised, strict=True):
            assert (actual.shape, actual.dtype, actual.stride()) == (fake.shape, fake.dtype, fake.stride()), name


# Hard numbers.


@every_layout
@every_way
def test_a_mean_far_from_zero_costs_no_digits(go, way, layout):
    go(way)
    input = make(*SHAPE, layout=layout) + 1e4
    mean, rstd = instance_stats.forward(input, 0.0, 0, False)
    expected_mean, expected_rstd = stats_reference.formula(input.double(), 0.0, 0, False)
    # The nearest float32 to 1e4 is at most 2^-11 away.
    torch.testing.assert_close(mean.double(), expected_mean, rtol=0, atol=2**-11 * 1.01)
    torch.testing.assert_close(rstd.double(), expected_rstd, rtol=1e-6, atol=0)
    # With the mean as it was rounded, the rest is exact.
    output, mean, rstd = instance_norm.forward(input, None, None, None, None, 0.0, 0, False, 1.0, 0, 0.0)
    expected = (input.double() - mean.double()[..., None, None]) * expected_rstd[..., None, None]
    torch.testing.assert_close(output.double(), expected, rtol=2e-6, atol=1e-6)


@every_layout
@every_way
def test_planes_far_from_zero_cost_the_layer_no_digits(go, way, layout):
    go(way)
    input = make(*SHAPE, layout=layout) + 1e4 + torch.tensor([-2.0, 0.0, 1.0])[:, None, None]
    rho = torch.tensor([0.0, 0.5, 1.0])[:, None, None]
    output, mean, _ = layer_instance_norm.forward(input, rho.flatten(), None, None, None, 0.0, 0, 0, 0.0)
    # With the means as they were rounded, the rest is exact.
    mean = mean.double()[..., None, None]
    layer_mean = mean.mean(1, keepdim=True)
    var = input.double().var((2, 3), correction=0, keepdim=True)
    layer_var = (var + (mean - layer_mean).square()).mean(1, keepdim=True)
    expected = rho * (input - mean) * var.rsqrt() + (1 - rho) * (input - layer_mean) * layer_var.rsqrt()
    torch.testing.assert_close(output.double(), expected, rtol=2e-6, atol=1e-6)


@held_and_split
def test_a_first_element_far_from_the_others_costs_no_digits(go, way):
    """It is the pivot."""
    go(way)
    input = make(*SHAPE)
    input[:, :, 0, 0] = 1e4
    check_stats(input, 0.0, 0, False)
    check_norm(input, None, None, None, None, 0.0, 0, False, 1.0, CODES[None], 0.0)


@held_and_split
def test_large_float16_does_not_overflow(go, way):
    go(way)
    input = (make(*SHAPE) * 2e4).half()
    assert input.abs().max() > 5e4 and input.isfinite().all()
    check_norm(input, None, None, None, None, 1e-5, 0, False, 1.0, CODES[None], 0.0)


@pytest.mark.parametrize("eps_on_std", [False, True])
@held_and_split
def test_a_constant_plane_has_a_gradient(go, way, eps_on_std):
    """Its deviations are zero, and its root has no derivative."""
    go(way)
    input = torch.full(SHAPE, 3.0)
    settings = 1e-5, 0, eps_on_std, 1.0, CODES[None], 0.0
    output, mean, rstd = instance_norm.forward(input, None, None, None, None, *settings)
    assert torch.equal(output, torch.zeros(SHAPE)) and torch.equal(mean, torch.full((2, 3), 3.0))
    grad = make(*SHAPE, seed=9)
    grad_input, *_ = instance_norm.backward(grad, input, mean, rstd, None, None, None, None, *settings)
    expected = (grad - grad.mean((2, 3), keepdim=True)).double() * rstd.double()[..., None, None]
    torch.testing.assert_close(grad_input.double(), expected, rtol=1e-5, atol=1e-5 * rstd.max().item())


@every_way
def test_constant_planes_have_no_variance_in_a_layer_that_has(go, way):
    go(way)
    input = torch.tensor([0.1, 3.7, 1e4])[:, None, None].expand(SHAPE).contiguous()
    _, mean, var = layer_instance_norm.forward(input, torch.ones(3), None, None, None, 1e-5, 0, 0, 0.0)
    assert torch.equal(mean, input[..., 0, 0]) and torch.equal(var, torch.zeros(2, 3))
    check_layer(input / 1e4, make(3, seed=5), None, None, None, 1e-1, 0, CODES[None], 0.0)
