"""norm_conv_transpose2d, and both layers of volumes, against torch's own convolutions in float64."""

import pytest
import torch
from torch.nn import functional as torchs

from fastnorm import functional as F

every_dims = pytest.mark.parametrize("dims", [2, 3])
every_layout = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
SIZES = {2: (5, 7), 3: (3, 4, 5)}
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
TRANSPOSED = {2: torchs.conv_transpose2d, 3: torchs.conv_transpose3d}
LAYERS = {2: F.norm_conv_transpose2d, 3: F.norm_conv_transpose3d}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_planes(numbers, dims):
    return numbers.reshape(-1, numbers.shape[-1], *[1] * dims)


def formula(
    convolve, input, weight, bias=None, *, mean=None, scale=None, shift=None, residual=None, activation=None,
    output_activation=None, eps=1e-5, correction=0, eps_mode="var", **window,
):  # fmt: skip
    """(output, mean, rstd, entered); `convolve` takes one sample and its filters."""
    dims = input.dim() - 2
    entered = input if mean is None else input - on_planes(mean, dims)
    entered = entered if scale is None else entered * on_planes(scale, dims)
    entered = entered if shift is None else entered + on_planes(shift, dims)
    entered = entered if residual is None else entered + residual
    entered = entered if activation is None else getattr(torchs, activation)(entered)
    filters = weight if weight.dim() > input.dim() else weight.expand(len(input), *weight.shape)
    biases = [None] * len(input) if bias is None else bias.expand(len(input), bias.shape[-1])
    samples = zip(entered.split(1), filters, biases, strict=True)
    output = torch.cat([convolve(sample, filter, bias, **window) for sample, filter, bias in samples])
    output = output if output_activation is None else getattr(torchs, output_activation)(output)
    var, mean = torch.var_mean(output.flatten(2), 2, correction=correction)
    return output, mean, (var + eps).rsqrt() if eps_mode == "var" else 1 / (var.sqrt() + eps), entered


def assert_close(found, expected, dtype=torch.float64):
    for index, (one, exact) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == exact.shape, index
        room = (1e-12 if one.dtype == torch.float64 else 8 * torch.finfo(one.dtype).eps) * max(1, exact.abs().max())
        assert (one.double() - exact).abs().max() <= room, index


# Everything that decides how the elements lie apart, and what of the borders is written.
WINDOWS = {
    "stride 1": dict(width=3),
    "as generators have it": dict(width=3, stride=2, padding=1, output_padding=1),
    "4x4": dict(width=4, stride=2, padding=1),
    "as wide as the stride": dict(width=2, stride=2),
    "narrower than the stride": dict(width=2, stride=3),
    "a point": dict(width=1, stride=2, output_padding=1),
    "borders cut off": dict(width=3, stride=2, padding=3),
    "borders cut off, none of a point left": dict(width=1, stride=2, padding=1),
    "output padding beyond the stride": dict(width=3, stride=2, output_padding=2, dilation=3),
    "dilated": dict(width=3, stride=3, dilation=2, padding=1),
    "even, dilated": dict(width=2, stride=2, dilation=3, padding=1, output_padding=1),
    "grouped": dict(width=3, stride=2, padding=1, groups=2),
    "depthwise": dict(width=5, stride=2, padding=2, output_padding=1, groups=4),
}


def make_layer(dims, width, groups=1, per_sample=False, **window):
    """(input, weight, bias) and the window, of two samples of four channels."""
    out = 6 // 2 if groups == 2 else 2 if groups == 4 else 3
    filters = random(*([2] if per_sample else []), 4, out, *[width] * dims, seed=1) / width
    bias = random(*([2] if per_sample else []), out * groups, seed=2)
    return (random(2, 4, *SIZES[dims]), filters, bias), dict(groups=groups, **window)


@every_dims
@every_layout
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
@pytest.mark.parametrize("name", WINDOWS)
def test_transposed(name, per_sample, channels_last, dims):
    (input, weight, bias), window = make_layer(dims, per_sample=per_sample, **WINDOWS[name])
    input = input.contiguous(memory_format=LAYOUTS[dims]) if channels_last else input
    changes = dict(mean=random(2, 4, seed=3), scale=random(4, seed=4), shift=random(2, 4, seed=5), activation="silu")
    rule = dict(eps=0.1, correction=1, eps_mode="std")
    expected = formula(TRANSPOSED[dims], input, weight, bias, **changes, **rule, **window)
    found = LAYERS[dims](input, weight, bias, **changes, **rule, **window, return_stats=True, return_entered=True)
    assert_close(found, expected)
    layout = LAYOUTS[dims] if channels_last else torch.contiguous_format
    assert found[0].is_contiguous(memory_format=layout)


@every_dims
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
@pytest.mark.parametrize("name", WINDOWS)
def test_gradients_of_transposed(name, per_sample, dims):
    (input, weight, bias), window = make_layer(dims, per_sample=per_sample, **WINDOWS[name])
    parameters = random(2, 4, seed=3), random(4, seed=4), random(2, 4, seed=5), random(*input.shape, seed=6)
    leaves = [tensor.requires_grad_() for tensor in (input, weight, bias, *parameters)]
    changes = dict(zip(("mean", "scale", "shift", "residual"), parameters), activation="silu", output_activation="tanh", eps=0.5)
    expected = formula(TRANSPOSED[dims], *leaves[:3], **changes, **window)
    found = LAYERS[dims](*leaves[:3], **changes, **window, return_stats=True, return_entered=True)
    cotangents = [random(*output.shape, seed=7) for output in expected]
    gradients = [torch.autograd.grad(outputs, leaves, cotangents) for outputs in (found, expected)]
    for ours, exact in zip(*gradients):
        assert (ours - exact).abs().max() <= 1e-11 * max(1, exact.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_dims
@pytest.mark.parametrize("name", ["as generators have it", "borders cut off", "depthwise"])
def test_transposed_in_other_types(name, dims, dtype):
    (input, weight, bias), window = make_layer(dims, **WINDOWS[name])
    input, weight, bias = (tensor.to(dtype) for tensor in (input, weight, bias))
    exact = formula(TRANSPOSED[dims], input.double(), weight.double(), bias.double(), activation="relu", **window)[0]
    found = LAYERS[dims](input, weight, bias, activation="relu", **window)
    assert found.dtype == dtype
    assert_close([found], [exact])


@every_layout
@pytest.mark.parametrize("output_padding", [0, 1])
@pytest.mark.parametrize("width", [3, 4])
def test_transposed_by_fewer_multiplications(width, output_padding, channels_last):
    """Of maps wide enough for rows of tiles, on CPU: an error of twice torch's at most."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input = random(2, 17, 9, 31).float().contiguous(memory_format=layout)
    weight, bias = (random(17, 19, width, width, seed=1) / (17**0.5 * width)).float(), random(19, seed=2).float()
    window = dict(stride=2, padding=1, output_padding=output_padding)
    exact = formula(torchs.conv_transpose2d, input.double(), weight.double(), bias.double(), activation="relu", **window)
    own = formula(torchs.conv_transpose2d, input, weight, bias, activation="relu", **window)
    found = F.norm_conv_transpose2d(input, weight, bias, activation="relu", **window, return_stats=True, return_entered=True)
    assert_errors_like(found, own, exact)


def assert_errors_like(found, own, exact):
    for ours, theirs, right in zip(found, own, exact, strict=True):
        room = 8 * torch.finfo(torch.float32).eps * right.abs().max()
        assert (ours.double() - right).abs().max() <= 2 * (theirs.double() - right).abs().max() + room


@every_dims
def test_window_of_a_side_each(dims):
    (input, weight, bias), _ = make_layer(dims, width=3)
    window = dict(stride=[2, 1, 3][:dims], padding=[0, 1, 2][:dims], output_padding=[1, 0, 2][:dims])
    window["dilation"] = [1, 2, 1][:dims]
    assert_close([LAYERS[dims](input, weight, bias, **window)], [TRANSPOSED[dims](input, weight, bias, **window)])


PADS = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


@every_layout
@pytest.mark.parametrize("mode", PADS)
@pytest.mark.parametrize(
    "factor, width, stride, dilation, groups",
    [(1, 3, 1, 1, 1), (1, 3, 2, 1, 2), (1, 2, 1, 2, 1), (2, 3, 1, 1, 1), (1, 1, 1, 1, 1)],
    ids=["3x3x3", "stride 2, grouped", "2x2x2 dilated", "upsampled", "a point"],
)
def test_volumes(factor, width, stride, dilation, groups, mode, channels_last):
    input, weight, bias = random(2, 4, 3, 4, 5), random(6, 4 // groups, *[width] * 3, seed=1) / width, random(6, seed=2)
    input = input.contiguous(memory_format=torch.channels_last_3d) if channels_last else input
    padding = width // 2

    def convolve(map, *filters, **settings):
        map = torchs.interpolate(map, scale_factor=factor, mode="nearest")
        return torchs.conv3d(torchs.pad(map, [padding] * 6, PADS[mode]), *filters, **settings)

    changes = dict(mean=random(4, seed=3), scale=random(2, 4, seed=4), shift=random(4, seed=5), activation="gelu")
    window = dict(stride=stride, dilation=dilation, groups=groups)
    leaves = [tensor.requires_grad_() for tensor in (input, weight, bias, *list(changes.values())[:3])]
    layer = dict(padding=padding, padding_mode=mode, scale_factor=factor, return_stats=True, return_entered=True)
    expected = formula(convolve, *leaves[:3], **changes, **window, correction=1)
    with torch.no_grad():
        assert_close(F.norm_conv3d(*leaves[:3], **changes, **window, **layer, correction=1), expected)
    found = F.norm_conv3d(*leaves[:3], **changes, **window, **layer, correction=1)
    assert_close(found, expected)
    cotangents = [random(*output.shape, seed=7) for output in expected]
    gradients = [torch.autograd.grad(outputs, leaves, cotangents) for outputs in (found, expected)]
    for ours, exact in zip(*gradients):
        assert (ours - exact).abs().max() <= 1e-10 * max(1, exact.abs().max())


@every_layout
@pytest.mark.parametrize("mode", PADS)
@pytest.mark.parametrize("stride", [1, (2, 1, 1), 2], ids=str)
@pytest.mark.parametrize("size", [(3, 5, 31), (4, 9, 62)], ids=str)
def test_volumes_by_fewer_multiplications(size, stride, mode, channels_last):
    """Of rows wide enough for tiles, on CPU: an error of twice torch's at most."""
    input, weight, bias = random(2, 17, *size), random(19, 17, 3, 3, 3, seed=1) / 17**0.5 / 5, random(19, seed=2)
    changes = dict(mean=random(17, seed=3), scale=random(17, seed=4), shift=random(17, seed=5))

    def convolve(map, *filters, **settings):
        return torchs.conv3d(torchs.pad(map, [1] * 6, PADS[mode]), *filters, **settings)

    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    wide, narrow = ([*map(change, (input, weight, bias))] for change in (torch.Tensor.double, torch.Tensor.float))
    exact = formula(convolve, *wide, **changes, activation="relu", stride=stride)
    changes = {name: value.float() for name, value in changes.items()}
    own = formula(convolve, *narrow, **changes, activation="relu", stride=stride)
    settings = dict(stride=stride, padding=1, padding_mode=mode, return_stats=True, return_entered=True)
    narrow[0] = narrow[0].contiguous(memory_format=layout)
    found = F.norm_conv3d(*narrow, **changes, activation="relu", **settings)
    assert_errors_like(found, own, exact)


WRONG = {
    "weight: expected shape": dict(weight=random(5, 3, 3, 3)),
    "bias: expected shape": dict(bias=random(4)),
    "stride: ": dict(stride=0),
    "padding: ": dict(padding=-1),
    "padding: expected one that leaves an output": dict(padding=9),
    "output_padding: expected less than stride or dilation, got 2": dict(output_padding=2, stride=2),
    "dilation: ": dict(dilation=0),
    "groups: ": dict(groups=3),
    "mean: ": dict(mean=random(5)),
    "residual: ": dict(residual=random(2, 4, 5, 8)),
    "activation: ": dict(activation="swish"),
    "output_activation: ": dict(output_activation="swish"),
    "eps: ": dict(eps=-1.0, return_stats=True),
    "correction: ": dict(correction=2, return_stats=True),
    "eps_mode: ": dict(eps_mode="sum", return_stats=True),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_said(message):
    with pytest.raises(ValueError, match=f"^norm_conv_transpose2d: {message}"):
        F.norm_conv_transpose2d(**dict(input=random(2, 4, 5, 7), weight=random(4, 3, 3, 3)) | WRONG[message])


def test_maps_of_another_number_of_dimensions_are_said():
    with pytest.raises(ValueError, match="^norm_conv_transpose3d: input: "):
        F.norm_conv_transpose3d(random(2, 4, 5, 7), random(4, 3, 3, 3))
    with pytest.raises(ValueError, match="^norm_conv3d: input: "):
        F.norm_conv3d(random(2, 4, 5, 7), random(4, 3, 3, 3))
