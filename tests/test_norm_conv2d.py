"""norm_conv2d against its formula in torch's operators: values, statistics, what entered, in every layout and type."""

import pytest
import torch
from torch.nn import functional as torchs

from fastnorm import functional as F
from fastnorm.ops import dynamic_conv2d
from fastnorm.ops._window import PADDING_MODES

ACTIVATIONS = {
    None: lambda x, slope: x,
    "relu": lambda x, slope: x.relu(),
    "leaky_relu": torchs.leaky_relu,
    "silu": lambda x, slope: torchs.silu(x),
    "gelu": lambda x, slope: torchs.gelu(x),
    "sigmoid": lambda x, slope: x.sigmoid(),
    "tanh": lambda x, slope: x.tanh(),
}
MODES = {"reflect": "reflect", "replicate": "replicate", "zeros": "constant", "circular": "circular"}

# Where torch's path happens to hit the number: in units in the last place of the largest. In float64 that path is the
# formula itself, and all error ours.
ULPS = {torch.float64: 512, torch.float32: 8, torch.bfloat16: 0.5, torch.float16: 0.5}

every_layout = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def over_planes(numbers):
    return numbers.reshape(-1, numbers.shape[-1], 1, 1)


def formula(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", *, mean=None, scale=None,
    shift=None, residual=None, activation=None, negative_slope=0.01, scale_factor=1, output_activation=None,
    output_negative_slope=0.01, eps=1e-5, correction=0, eps_mode="var",
):  # fmt: skip
    """(output, mean, rstd, entered), each step in the input's type."""
    entered = input if mean is None else input - over_planes(mean)
    entered = entered if scale is None else entered * over_planes(scale)
    entered = entered if shift is None else entered + over_planes(shift)
    entered = entered if residual is None else entered + residual
    entered = ACTIVATIONS[activation](entered, negative_slope)
    map = torchs.interpolate(entered, scale_factor=scale_factor, mode="nearest")
    map = torchs.pad(map, [padding] * 4, MODES[padding_mode])
    filters = weight if weight.dim() == 5 else weight.expand(len(input), *weight.shape)
    biases = [None] * len(input) if bias is None else bias.expand(len(input), filters.shape[1])
    settings = dict(stride=stride, dilation=dilation, groups=groups)
    samples = zip(map.split(1), filters, biases, strict=True)
    output = torch.cat([torchs.conv2d(sample, filter, bias, **settings) for sample, filter, bias in samples])
    output = ACTIVATIONS[output_activation](output, output_negative_slope)
    var, mean = torch.var_mean(output.flatten(2), 2, correction=correction)
    return output, mean, (var + eps).rsqrt() if eps_mode == "var" else 1 / (var.sqrt() + eps), entered


def changed(change, value):
    return change(value) if isinstance(value, torch.Tensor) else value


def assert_follows(input, weight, bias=None, **settings):
    """In float64 nearly the formula; in another type at most twice as far from that as torch's own steps in the type."""
    arguments = dict(input=input, weight=weight, bias=bias, **settings)
    expected = formula(**{name: changed(torch.Tensor.double, value) for name, value in arguments.items()})
    own = formula(**{name: changed(lambda tensor: tensor.to(input.dtype), value) for name, value in arguments.items()})
    actual = F.norm_conv2d(**arguments, return_stats=True, return_entered=True)
    for index, (found, exact, theirs) in enumerate(zip(actual, expected, own, strict=True)):
        assert found.shape == exact.shape and (found.dtype == input.dtype or index in (1, 2))
        error, own_error = ((tensor.double() - exact).abs().max() for tensor in (found, theirs))
        room = ULPS[found.dtype] * torch.finfo(found.dtype).eps * exact.abs().max()
        assert error <= 2 * own_error + room, f"output {index}: off by {error:.3g}, torch by {own_error:.3g}"
    return actual


# The layers of a style network, on small maps: channels in and out, width of the kernel, settings.
LAYERS = {
    "9x9 of a picture": (3, 32, 9, dict(padding=4)),
    "9x9 of four channels": (4, 4, 9, dict(padding=4)),
    "9x9 to a picture": (32, 3, 9, dict(padding=4, output_activation="sigmoid")),
    "down": (32, 64, 3, dict(padding=1, stride=2)),
    "a residual block": (64, 64, 3, dict(padding=1)),
    "a residual block of many channels": (130, 132, 3, dict(padding=1)),
    "up": (64, 32, 3, dict(padding=1, scale_factor=2)),
    "up by 3, 5x5": (8, 16, 5, dict(padding=2, scale_factor=3)),
    "few channels": (8, 8, 3, dict(padding=1)),
    "a point": (16, 24, 1, dict()),
    "a point of many channels": (150, 67, 1, dict()),
    "groups, dilated": (12, 18, 3, dict(padding=2, dilation=2, groups=3)),
}  # fmt: skip


@every_layout
@every_dtype
@pytest.mark.parametrize("channels, out_channels, width, settings", LAYERS.values(), ids=LAYERS)
def test_a_layer(channels, out_channels, width, settings, dtype, layout):
    input = random(2, channels, 13, 17).to(dtype, memory_format=layout)
    per_group = channels // settings.get("groups", 1)
    weight = (random(out_channels, per_group, width, width, seed=1) / (per_group**0.5 * width)).to(dtype)
    mean, rstd = F.instance_stats(input)
    output, _, _, entered = assert_follows(
        input, weight, random(out_channels, seed=2).to(dtype), padding_mode="reflect", mean=mean,
        scale=rstd * random(channels, seed=3).to(rstd), shift=random(channels, seed=4).to(rstd), activation="relu", **settings,
    )  # fmt: skip
    assert output.is_contiguous(memory_format=layout) and entered.is_contiguous(memory_format=layout)


# Wide enough for rows of tiles: by fewer multiplications on CPU, by tiles that reach beyond the last row and column, too.
# Channels, width of the kernel, rows and columns, settings.
FILTERED = {
    "3x3": (17, 3, 9, 31, dict(padding=1)),
    "3x3 of few rows": (17, 3, 5, 31, dict(padding=1)),
    "3x3 of many channels": (130, 3, 9, 61, dict(padding=1)),
    "6x6": (17, 6, 9, 31, dict(padding=3)),
    "3x3, stride 2": (17, 3, 9, 62, dict(padding=1, stride=2)),
    "3x3, stride 2, none around": (17, 3, 9, 61, dict(stride=2)),
    "4x4, stride 2": (17, 4, 9, 63, dict(padding=1, stride=2)),
    "6x6, stride 2": (17, 6, 9, 63, dict(padding=2, stride=2)),
    "3x3 up": (17, 3, 9, 31, dict(padding=1, scale_factor=2)),
    "5x5 up": (17, 5, 9, 31, dict(padding=2, scale_factor=2)),
    "5x5 up of few rows": (17, 5, 5, 31, dict(padding=2, scale_factor=2)),
}


@every_layout
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels, width, rows, columns, settings", FILTERED.values(), ids=FILTERED)
def test_by_fewer_multiplications(channels, width, rows, columns, settings, mode, layout):
    input = random(2, channels, rows, columns).float().contiguous(memory_format=layout)
    weight = (random(channels + 2, channels, width, width, seed=1) / (channels**0.5 * width)).float()
    changes = {name: random(channels, seed=seed).float() for seed, name in enumerate(("mean", "scale", "shift"), 2)}
    assert_follows(
        input, weight, random(channels + 2, seed=5).float(), padding_mode=mode, **changes, activation="leaky_relu", **settings
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["3x3", "3x3 of many channels", "4x4, stride 2", "5x5 up"])
def test_by_fewer_multiplications_in_low_precision(name, dtype):
    channels, width, rows, columns, settings = FILTERED[name]
    weight = random(channels + 2, channels, width, width, seed=1) / (channels**0.5 * width)
    assert_follows(random(2, channels, rows, columns).to(dtype), weight.to(dtype), **settings)


@pytest.mark.parametrize("channels", [17, 35, 64, 128, 130, 256])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_by_fewer_multiplications_where_most_is_zero(share, channels):
    """A direct sum gets more exact there, and of maps with less than a tenth would be the better. No more room than
    `swap.verify` leaves; but oneDNN's with AVX-512 has a sixth of the error where a tenth is not zero.
    """
    given = torch.special.ndtr(random(1, channels, 13, 62, seed=1)) < share
    input = (random(1, channels, 13, 62).abs() * given).float()
    weight = (random(channels, channels, 3, 3, seed=2) / (channels**0.5 * 3)).float()
    exact = torchs.conv2d(input.double(), weight.double(), padding=1)
    found, theirs = F.norm_conv2d(input, weight, padding=1), torchs.conv2d(input, weight, padding=1)
    error, own_error = ((tensor.double() - exact).abs().max() for tensor in (found, theirs))
    room = 8 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 2
    assert error <= 2 * own_error + room * torch.finfo(torch.float32).eps * exact.abs().max()


@pytest.mark.parametrize("after", [4, 5, 6])
def test_by_fewer_multiplications_at_one_border_alone(after):
    """Tiles reach no further than a circular border goes."""
    input, weight = random(1, 16, 6, 64).float(), random(16, 16, 3, 3, seed=1).float() / 12
    found = dynamic_conv2d.forward(input, weight[None], None, [1, 1], [0, after, 1, 1], [1, 1], 1, PADDING_MODES["circular"])
    padded = torchs.pad(input.double(), (1, 1, 0, after), mode="circular")
    torch.testing.assert_close(found.double(), torchs.conv2d(padded, weight.double()), rtol=0, atol=1e-5)


@every_layout
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("scale_factor", [1, 2])
def test_a_residual_and_filters_per_sample(scale_factor, stride, layout):
    input, residual = (random(3, 8, 9, 10, seed=seed).float().contiguous(memory_format=layout) for seed in (0, 1))
    assert_follows(
        input, random(3, 6, 4, 3, 3, seed=2).float() / 6, random(3, 6, seed=3).float(), groups=2, stride=stride, padding=1,
        padding_mode="reflect", scale=random(3, 8, seed=4).float(), residual=residual, scale_factor=scale_factor,
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("parameter", ["mean", "scale", "shift"])
def test_each_parameter_alone(parameter, mode):
    settings = {parameter: random(2, 4, seed=2), "padding_mode": mode}
    assert_follows(random(2, 4, 6, 7), random(3, 4, 3, 3, seed=1), padding=2, **settings)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_before_and_after(activation):
    slopes = dict(negative_slope=0.3, output_negative_slope=-0.2)
    assert_follows(random(2, 4, 6, 7), random(3, 4, 3, 3, seed=1) / 6, activation=activation, **slopes)
    assert_follows(random(2, 4, 6, 7), random(3, 4, 3, 3, seed=1) / 6, output_activation=activation, **slopes)


@pytest.mark.parametrize("eps_mode", ["var", "std"])
@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("scale_factor", [1, 2])
def test_rules_of_the_deviation(scale_factor, correction, eps_mode):
    rule = dict(eps=0.1, correction=correction, eps_mode=eps_mode)
    assert_follows(random(2, 4, 6, 7), random(3, 4, 3, 3, seed=1) / 6, scale_factor=scale_factor, padding=1, **rule)


def test_what_comes_back():
    input, weight = random(2, 4, 6, 7), random(3, 4, 3, 3, seed=1)
    output, mean, rstd, entered = formula(input, weight, activation="silu")
    for stats in (False, True):
        for what in (False, True):
            wanted = output, *((mean, rstd) if stats else ()), *((entered,) if what else ())
            found = F.norm_conv2d(input, weight, activation="silu", return_stats=stats, return_entered=what)
            assert isinstance(found, tuple) == (stats or what)
            torch.testing.assert_close(found if stats or what else (found,), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_what_entered_is_new_memory_where_nothing_changed_it(requires_grad):
    input = random(2, 4, 6, 7).requires_grad_(requires_grad)
    _, entered = F.norm_conv2d(input, random(3, 4, 3, 3, seed=1), return_entered=True)
    assert torch.equal(entered, input) and entered.data_ptr() != input.data_ptr()


@pytest.mark.parametrize("scale_factor", [1, 2])
def test_with_gradients_it_gives_what_it_gives_without(scale_factor):
    tensors = [random(2, 4, 7, 6), random(6, 4, 3, 3, seed=1), random(6, seed=2)]
    changes = dict(mean=random(2, 4, seed=3), scale=random(4, seed=4), shift=random(2, 4, seed=5), residual=random(2, 4, 7, 6))
    settings = dict(padding=1, padding_mode="reflect", scale_factor=scale_factor, activation="gelu", output_activation="tanh")
    without = F.norm_conv2d(*tensors, **changes, **settings, return_stats=True, return_entered=True)
    inputs = [tensor.requires_grad_() for tensor in (*tensors, *changes.values())]
    outputs = F.norm_conv2d(*tensors, **changes, **settings, return_stats=True, return_entered=True)
    torch.testing.assert_close(outputs, without, rtol=0, atol=1e-12)
    gradients = [random(*output.shape, seed=6) for output in outputs]
    expected = torch.autograd.grad(formula(*tensors, **changes, **settings), inputs, gradients)
    torch.testing.assert_close(torch.autograd.grad(outputs, inputs, gradients), expected, rtol=0, atol=1e-9)


@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels, out_channels, width, settings", LAYERS.values(), ids=LAYERS)
def test_the_same_bits_for_any_number_of_threads(channels, out_channels, width, settings, dtype, layout):
    input = random(1, channels, 61, 67).to(dtype, memory_format=layout)
    weight = random(out_channels, channels // settings.get("groups", 1), width, width, seed=1).to(dtype)
    changes = dict(scale=random(channels, seed=2).float(), activation="relu", return_stats=True, return_entered=True)

    def run():
        return F.norm_conv2d(input, weight, padding_mode="reflect", **settings, **changes)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = run()
        for threads in (2, 3, 5):
            torch.set_num_threads(threads)
            assert all(map(torch.equal, run(), expected)), f"{threads} threads"
    finally:
        torch.set_num_threads(before)


@every_layout
@pytest.mark.parametrize("mean", [1e4, -1e4])
@pytest.mark.parametrize("shape, width", [((1, 8, 64, 64), 1), ((1, 4, 150, 151), 3), ((2, 32, 33, 31), 3)], ids=str)
def test_statistics_far_from_zero(shape, width, mean, layout):
    """Of the output as it is, whose last place is a thousandth of its deviation: no worse than torch's of the same."""
    input = random(*shape).float().contiguous(memory_format=layout)
    weight = random(shape[1], shape[1], width, width, seed=1).float() / (shape[1] ** 0.5 * width)
    output, *found = F.norm_conv2d(input, weight, torch.full((shape[1],), mean), return_stats=True)
    var, exact_mean = torch.var_mean(output.double().flatten(2), 2, correction=0)
    own_var, own_mean = torch.var_mean(output.contiguous().flatten(2), 2, correction=0)
    exact, own = (exact_mean, (var + 1e-5).rsqrt()), (own_mean, (own_var + 1e-5).rsqrt())
    for statistic, right, theirs in zip(found, exact, own, strict=True):
        error, own_error = ((tensor.double() - right).abs().max() for tensor in (statistic, theirs))
        assert error <= 2 * own_error + 4 * torch.finfo(torch.float32).eps * right.abs().max()
