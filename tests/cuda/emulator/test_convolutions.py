"""Every way in which the CUDA kernels deal a convolution to threads: images in tiles, borders, groups, all else."""

import itertools

import pytest
import torch
from test_plans import FORWARD, SHUFFLED, Maps, assert_close, emulate, every_layout, wide

from fastnorm.ops import dynamic_conv2d, dynamic_instance_norm
from fastnorm.ops._window import CIRCULAR, REFLECT, REPLICATE, ZEROS

# Input, filters of a sample, groups, padding on all sides.
CONVOLUTIONS = {
    "depthwise": ((2, 8, 12, 16), (8, 1, 3, 3), 8, 1),
    "depthwise, odd": ((2, 5, 7, 9), (5, 1, 3, 3), 5, 1),
    "depthwise, larger than a tile": ((1, 1, 66, 140), (1, 1, 3, 3), 1, 1),
    "depthwise, smallest": ((2, 3, 2, 2), (3, 1, 3, 3), 3, 1),
    "two of a group": ((2, 8, 9, 20), (8, 2, 3, 3), 4, 1),
    "four of a group": ((1, 8, 20, 36), (8, 4, 3, 3), 2, 1),
    "three to seven": ((2, 6, 8, 8), (14, 3, 3, 3), 2, 1),
    "seven to three": ((2, 14, 8, 8), (6, 7, 3, 3), 2, 1),
    "dense": ((1, 12, 8, 8), (37, 12, 3, 3), 1, 1),
    "dense, channels_last in vectors": ((1, 16, 6, 8), (40, 16, 3, 3), 1, 1),
    "no padding": ((2, 8, 8, 12), (8, 2, 3, 3), 4, 0),
    "wide padding": ((1, 4, 8, 12), (4, 1, 3, 3), 4, 2),
    "1 x 1": ((2, 8, 9, 12), (8, 2, 1, 1), 4, 0),
    "1 x 1, to one channel": ((2, 7, 9, 11), (1, 7, 1, 1), 1, 0),
    "1 x 1, padded": ((2, 4, 5, 8), (4, 1, 1, 1), 4, 1),
    "5 x 5": ((2, 4, 9, 11), (4, 2, 5, 5), 2, 2),
    "2 x 4": ((2, 4, 9, 11), (4, 1, 2, 4), 4, 1),
}  # fmt: skip
SOME = "depthwise", "depthwise, odd", "four of a group", "seven to three"

every_border = pytest.mark.parametrize(
    "border", [ZEROS, REFLECT, REPLICATE, CIRCULAR], ids=["zeros", "reflect", "replicate", "circular"]
)
every_convolution = pytest.mark.parametrize("name", CONVOLUTIONS)


def call(name, dtype, format, border, offset=0):
    """Arguments of dynamic_conv2d, and a gradient."""
    shape, filters, groups, padding = CONVOLUTIONS[name]
    input = Maps(shape, dtype, format, offset)(mean=0.5)
    numbers = torch.Generator().manual_seed(1)
    weight = torch.randn(shape[0], *filters, generator=numbers).to(dtype)
    bias = torch.randn(shape[0], filters[0], generator=numbers)
    settings = [1, 1], [padding] * 4, [1, 1], groups, border
    output = dynamic_conv2d.formula(input, weight, bias, *settings)
    return (input, weight, bias, *settings), Maps(output.shape, dtype, format, offset)()


def run(arguments, grad):
    input, weight, _, *settings = arguments
    output = torch.ops.fastnorm.dynamic_conv2d(*arguments)
    return output, *torch.ops.fastnorm.dynamic_conv2d_backward(grad, input, weight, *settings, True, True, True)


def expected(arguments, grad):
    input, weight, bias, *settings = map(wide, arguments)
    output = dynamic_conv2d.formula(input, weight, bias, *settings)
    return output, *dynamic_conv2d.backward_formula(wide(grad), input, weight, *settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_border
@every_layout
@every_convolution
def test_dynamic_conv2d(name, format, border, dtype):
    emulate("hopper")
    arguments, grad = call(name, dtype, format, border)
    assert_close(run(arguments, grad), expected(arguments, grad))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
@every_border
@every_layout
@pytest.mark.parametrize("name", SOME)
def test_misaligned_on_hopper(name, format, border, dtype):
    """One element past a boundary of 16 bytes."""
    emulate("hopper")
    arguments, grad = call(name, dtype, format, border, offset=1)
    assert_close(run(arguments, grad), expected(arguments, grad))


@pytest.mark.parametrize("stride, dilation", [([2, 1], [1, 3]), ([3, 2], [2, 1])])
@every_border
@every_layout
def test_strides_and_dilations_on_hopper(format, border, stride, dilation):
    emulate("hopper")
    input = Maps((2, 6, 9, 11), torch.float32, format)()
    weight = torch.randn(2, 4, 3, 3, 2, generator=torch.Generator().manual_seed(1))
    settings = stride, [2, 1, 3, 2], dilation, 2, border
    output = dynamic_conv2d.formula(input, weight, None, *settings)
    grad = Maps(output.shape, torch.float32, format)()
    arguments = input, weight, None, *settings
    assert_close(run(arguments, grad), expected(arguments, grad))


@every_border
@every_layout
@pytest.mark.parametrize("name", ["depthwise", "seven to three"])
def test_filters_that_samples_share_on_hopper(name, format, border):
    emulate("hopper")
    (input, weight, *rest), grad = call(name, torch.float32, format, border)
    arguments = input, weight[:1].expand_as(weight), *rest
    assert_close(run(arguments, grad), expected(arguments, grad))


@every_border
@every_layout
@pytest.mark.parametrize("name", SOME)
def test_dynamic_instance_norm_on_hopper(name, format, border):
    emulate("hopper")
    (input, weight, bias, *settings), grad = call(name, torch.float32, format, border)
    rule = 1e-3, 1, True
    results = torch.ops.fastnorm.dynamic_instance_norm(input, weight, bias, *rule, *settings)
    exact = dynamic_instance_norm.formula(*map(wide, (input, weight, bias)), *rule, *settings)
    assert_close(results, exact)
    backward = torch.ops.fastnorm.dynamic_instance_norm_backward
    gradients = backward(grad, input, *results[1:], weight, *rule, *settings, True, True, True)
    wide_inputs = wide(grad), wide(input), *exact[1:], wide(weight)
    assert_close(gradients, dynamic_instance_norm.backward_formula(*wide_inputs, *rule, *settings))


@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3))[1:-1], ids=str)
@every_layout
def test_only_what_is_wanted_on_hopper(format, wanted):
    emulate("hopper")
    arguments, grad = call("two of a group", torch.float32, format, REFLECT)
    input, weight, _, *settings = arguments
    results = torch.ops.fastnorm.dynamic_conv2d_backward(grad, input, weight, *settings, *wanted)
    assert [result.numel() > 0 for result in results] == list(wanted)
    assert_close(results, expected(arguments, grad)[1:])


@pytest.mark.long
@every_layout
@pytest.mark.parametrize("name", SOME)
def test_the_order_of_turns_changes_no_bit(name, format):
    """A result that depends on which thread goes first lacks a barrier."""
    arguments, grad = call(name, torch.float32, format, REFLECT)
    emulate("hopper", FORWARD)
    first = run(arguments, grad)
    emulate("hopper", SHUFFLED)
    assert all(map(torch.equal, run(arguments, grad), first))
