"""Every way in which the CUDA kernels deal a map to threads: on four devices, in both layouts, with edges and without."""

import ctypes
import itertools
import os

import pytest
import torch
from torch import Tensor

from fastnorm.ops import instance_norm, instance_stats, layer_instance_norm, scale_shift

EMULATOR = ctypes.CDLL(os.environ["FASTNORM_EMULATOR"])

# Processors, bytes of shared memory on each, and largest cluster.
DEVICES = {
    "hopper": (132, 228 * 1024, 16),
    "ampere": (108, 164 * 1024, 1),
    "small clusters": (2, 40 * 1024, 4),
    "no room": (4, 40 * 1024, 1),
}
FORWARD, BACKWARD, SHUFFLED = ORDERS = range(3)

# In NCHW:              in channels_last:
SHAPES = [
    (2, 3, 1, 1),  # less than a vector                   three channels: single elements
    (3, 5, 2, 3),  # edges, with and without a vector
    (33, 7, 4, 4),  # teams of a few lanes, some of them idle
    (2, 16, 9, 11),  # a warp, edges                       two to four vectors side by side
    (1, 40, 8, 20),  # whole vectors                       more vectors than a group has columns
    (2, 8, 33, 31),  # a block, edges
    (1, 8, 64, 64),  # a block; a cluster where planes are few
    (1, 2, 121, 123),  # a cluster, edges; two passes where nothing holds a plane
    (1, 16, 90, 90),  # channels_last in several chunks
]

every_device = pytest.mark.parametrize("device", DEVICES)
every_layout = pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last], ids=str)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def emulate(device, order=FORWARD):
    EMULATOR.emulate(*DEVICES[device], order)


class Maps:
    """Random maps, each amid numbers that are none: what is read beside it spoils the result."""

    def __init__(self, shape, dtype, format, offset=0):
        self.shape, self.dtype, self.format, self.offset = shape, dtype, format, offset
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, mean=0.0):
        n, c, h, w = self.shape
        size = n * c * h * w
        around = torch.full((size + 64,), float("nan"), dtype=self.dtype)
        inside = around[32 + self.offset :][:size]
        inside.copy_(torch.randn(size, generator=self.generator) + mean)
        return inside.view(self.shape) if self.format == torch.contiguous_format else inside.view(n, h, w, c).permute(0, 3, 1, 2)

    def per_plane(self, *shape):
        return torch.randn(shape, generator=self.generator)


def wide(value):
    return value.double() if isinstance(value, Tensor) else value


def assert_close(actual, expected, scale=1.0):
    """Sums of some ten thousand terms in float32; a result in low precision is rounded once more."""
    for index, (found, exact) in enumerate(zip(actual, expected, strict=True)):
        if exact is None or found.numel() == 0:
            continue
        info = torch.finfo(found.dtype)
        size = max(exact.abs().max().item(), scale)
        error = (found.double() - exact.reshape(found.shape)).abs().max().item()
        limit = size * (32 * torch.finfo(torch.float32).eps + (0.51 * info.eps if info.bits < 32 else 0))
        assert error <= limit, f"result {index}: off by {error:.3g}, at most {limit:.3g}"


# Without the rectifiers: where they bend, float32 and float64 see different sides.
NORM_SETTINGS = {
    "affine": (1e-5, 0, False, 1.0, 0, 0.01),
    "everything, gelu": (1e-3, 1, True, 0.7, 4, 0.01),
}


def norm_call(maps, settings):
    """Arguments of instance_norm, and a gradient."""
    n, c = maps.shape[:2]
    everything = settings == "everything, gelu"
    input = maps(mean=3.0)
    weight, bias = (maps.per_plane(n, c), maps.per_plane(n, c)) if everything else (maps.per_plane(c), maps.per_plane(1, c))
    gamma, residual = (maps(), maps()) if everything else (None, None)
    return (input, weight, bias, gamma, residual, *NORM_SETTINGS[settings]), maps()


def run_norm(arguments, grad):
    """Outputs of the forward and of the backward, by the kernels."""
    outputs = torch.ops.fastnorm.instance_norm(*arguments)
    return *outputs, *torch.ops.fastnorm.instance_norm_backward(grad, arguments[0], *outputs[1:], *arguments[1:])


def expected_norm(arguments, grad):
    input, *rest = map(wide, arguments)
    output, mean, rstd = instance_norm.formula(input, *rest)
    return output, mean, rstd, *instance_norm.backward_formula(wide(grad), input, mean, rstd, *rest)


@pytest.mark.parametrize("settings", NORM_SETTINGS)
@every_dtype
@every_layout
@every_shape
@every_device
def test_instance_norm(device, shape, format, dtype, settings):
    if shape[2] * shape[3] == 1:
        settings = "affine"
    emulate(device)
    arguments, grad = norm_call(Maps(shape, dtype, format), settings)
    results = run_norm(arguments, grad)
    expected = list(expected_norm(arguments, grad))
    if results[-1].numel() == 0:
        expected[-1] = None
    # Sums over a plane are of size sqrt(n), and so is what follows from them.
    assert_close(results, expected, scale=(shape[2] * shape[3]) ** 0.5)


@every_layout
@every_shape
@every_device
def test_instance_stats(device, shape, format):
    emulate(device)
    input = Maps(shape, torch.float32, format)(mean=1e4)
    mean, rstd = torch.ops.fastnorm.instance_stats(input, 1e-5, 0, False)
    expected_mean, expected_rstd = instance_stats.formula(wide(input), 1e-5, 0, False)
    assert_close([rstd], [expected_rstd])
    # Rounded once: to half the distance of floats around 1e4.
    assert (mean - expected_mean).abs().max() < 0.51 * 2**-10


@pytest.mark.parametrize("need_input, need_sums", [(True, True), (False, True), (True, False)])
@every_layout
@every_shape
@every_device
def test_scale_shift(device, shape, format, need_input, need_sums):
    emulate(device)
    maps = Maps(shape, torch.float32, format)
    n, c = shape[:2]
    grad, input, gamma = maps(), maps(), maps()
    residual = maps() if need_sums else None
    mean, scale, input_scale = maps.per_plane(c), maps.per_plane(n, c), maps.per_plane(c)
    shift, input_shift = maps.per_plane(c).half(), maps.per_plane(2, n, c).double()[1]
    forward = input, mean, scale, shift, gamma, residual, 3, 0.2
    assert_close([torch.ops.fastnorm.scale_shift(*forward)], [scale_shift.formula(*map(wide, forward))])

    backward = grad, *forward[:6], input_scale, input_shift, 3, 0.2
    results = torch.ops.fastnorm.scale_shift_backward(*backward, need_input, need_sums)
    expected = scale_shift.full_backward_formula(*map(wide, backward))
    assert_close(results, expected, scale=(shape[2] * shape[3]) ** 0.5)
    wanted = need_input, need_sums, need_sums, True, residual is not None
    assert [result.numel() > 0 for result in results] == list(wanted)


# More channels than a block of the blending kernels has threads; fewer; and one.
@pytest.mark.parametrize("shape", [(2, 300, 3, 3), (3, 40, 8, 20), (2, 1, 9, 11)], ids=str)
@every_dtype
@every_layout
@pytest.mark.parametrize("activation", [0, 3])
@every_device
def test_layer_instance_norm(device, activation, format, dtype, shape):
    emulate(device)
    maps = Maps(shape, dtype, format)
    n, c = shape[:2]
    input, grad, residual = maps(mean=3.0), maps(), maps()
    parameters = maps.per_plane(c), maps.per_plane(n, c), maps.per_plane(1, c), residual
    settings = 1e-3, activation % 2, activation, 0.2
    output, mean, var = torch.ops.fastnorm.layer_instance_norm(input, *parameters, *settings)
    gradients = torch.ops.fastnorm.layer_instance_norm_backward(grad, input, mean, var, *parameters, *settings)
    wide_parameters = [wide(parameter) for parameter in parameters]
    expected = layer_instance_norm.formula(wide(input), *wide_parameters, *settings)
    expected_var, expected_mean = torch.var_mean(wide(input).flatten(2), 2, correction=0)
    assert_close([output, mean, var], [expected, expected_mean, expected_var], scale=4.0)
    expected = layer_instance_norm.backward_formula(wide(grad), wide(input), *wide_parameters, *settings)
    assert_close(gradients, expected, scale=(shape[2] * shape[3]) ** 0.5)
    assert (gradients[-1].numel() > 0) == (activation != 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@every_layout
@pytest.mark.parametrize("shape", [(3, 5, 2, 3), (1, 8, 33, 31), (1, 8, 64, 64)], ids=str)
def test_misaligned_on_hopper(shape, format, dtype):
    """One element past a boundary of 16 bytes."""
    emulate("hopper")
    arguments, grad = norm_call(Maps(shape, dtype, format, offset=1), "everything, gelu")
    assert_close(run_norm(arguments, grad), expected_norm(arguments, grad), scale=(shape[2] * shape[3]) ** 0.5)


@pytest.mark.long
@pytest.mark.parametrize("device, order", list(itertools.product(DEVICES, (BACKWARD, SHUFFLED))))
@every_layout
@every_shape
def test_the_order_of_turns_changes_no_bit(device, order, shape, format):
    """A result that depends on which thread goes first lacks a barrier."""
    arguments, grad = norm_call(Maps(shape, torch.float32, format), "affine")
    emulate(device)
    expected = run_norm(arguments, grad)
    emulate(device, order)
    assert all(map(torch.equal, run_norm(arguments, grad), expected))


def test_a_wrong_result_is_seen_on_hopper():
    """Of these tests themselves."""
    arguments, grad = norm_call(Maps((1, 2, 8, 8), torch.float32, torch.contiguous_format), "affine")
    emulate("hopper")
    results = run_norm(arguments, grad)
    results[0][0, 0, 3, 4] += 1e-3
    with pytest.raises(AssertionError, match="result 0"):
        assert_close(results[:3], expected_norm(arguments, grad)[:3])
