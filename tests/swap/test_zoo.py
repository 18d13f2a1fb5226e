"""The public generators: swapped, they compute the same, and a kernel a layer is left of them."""

import pytest
import torch
from checks import assert_right, assert_verified, captured, graphs, same_tensors, words
from zoo import ZOO

import fastnorm


LONG = ("spade",)  # spade-spectral is another like it.


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in ZOO])
def test_it_computes_the_same(name):
    system = ZOO[name]
    model = system.make_tiny()
    tensors, keys = same_tensors(model), list(model.state_dict())
    assert_verified(fastnorm.verify(system.make_tiny(), captured(model), system.tiny_inputs(torch.float32)))
    assert same_tensors(model) == tensors and list(model.state_dict()) == keys


# Of the first map, and one sample in place of two.
OTHER_SIZES = {"cyclegan": (24, 20), "adaconv-block": (9, 12), "adaattn": (8, 10)}
FURTHER_SIZES = {
    "johnson": (24, 20), "munit": (24, 20), "stargan": (24, 20), "ugatit": (24, 20), "spade": (24, 40),
    "adaconv-decoder": (4, 6), "stylegan2": 20, "nnunet-3d": (16, 12, 12),
}  # fmt: skip


@pytest.mark.parametrize(
    "name, size",
    [*OTHER_SIZES.items(), *(pytest.param(*item, marks=pytest.mark.long) for item in FURTHER_SIZES.items())],
)
def test_other_sizes_come_later(name, size):
    system = ZOO[name]
    model = captured(system.make_tiny())
    other = system.inputs(1, size, torch.float32, **system.tiny)
    for inputs in (system.tiny_inputs(torch.float32), other):
        assert_right(model, system.make_tiny, inputs)


DOWN = ["norm, relu, reflect 1, conv 3x3, stride 2"] * 2
BLOCKS = ["norm, relu, reflect 1, conv 3x3", "norm, relu, reflect 1, conv 3x3", "norm, add, reflect 1, conv 3x3"]
BLOCKS += ["norm, relu, reflect 1, conv 3x3"]
KERNELS = {
    "johnson": [
        "reflect 4, conv 9x9", *DOWN, *BLOCKS, "norm, add, upsample 2, reflect 1, conv 3x3",
        "norm, relu, upsample 2, reflect 1, conv 3x3", "norm, relu, reflect 4, conv 9x9",
    ],
    "cyclegan": [
        "reflect 3, conv 7x7", *["norm, relu, zeros 1, conv 3x3, stride 2"] * 2, *BLOCKS,
        "norm, add, conv_transpose 3x3, stride 2", "norm, relu, conv_transpose 3x3, stride 2",
        "norm, relu, reflect 3, conv 7x7, tanh",
    ],
    "munit": [
        "reflect 3, conv 7x7, relu", *["reflect 1, conv 4x4, stride 2, relu"] * 3, "adaptive_avg_pool2d", "conv 1x1",
        "reflect 3, conv 7x7", *["norm, relu, reflect 1, conv 4x4, stride 2"] * 2, *BLOCKS,
        "linear", "relu", "linear", "relu", "linear",
        "norm, add, reflect 1, conv 3x3", *BLOCKS[1:], "norm, add, upsample 2, reflect 2, conv 5x5",
        "layer norm, relu, upsample 2, reflect 2, conv 5x5", "layer norm, relu, reflect 3, conv 7x7, tanh",
    ],
    "adaattn": [
        *["norm, conv 1x1"] * 2, "conv 1x1", "attention_stats", *["transpose"] * 2, *["permute"] * 2, "norm", "mul", "add",
    ],
    "ugatit": [
        "reflect 3, conv 7x7", *DOWN, *BLOCKS, "norm, add", "adaptive_avg_pool2d", "linear", "mul", "adaptive_max_pool2d",
        "linear", "mul", "conv 1x1, relu", "sum", "adaptive_avg_pool2d", "linear", "relu", "linear", "relu", "linear",
        "linear", "reflect 1, conv 3x3", "layer-instance norm, relu, reflect 1, conv 3x3",
        "layer-instance norm, add, reflect 1, conv 3x3", "layer-instance norm, relu, reflect 1, conv 3x3",
        "layer-instance norm, add, upsample 2, reflect 1, conv 3x3",
        "layer-instance norm, relu, upsample 2, reflect 1, conv 3x3", "layer-instance norm, relu, reflect 3, conv 7x7, tanh",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_a_layer_is_left_of_it(name):
    system = ZOO[name]
    (calls,) = graphs(system.make_tiny(), *system.tiny_inputs(torch.float32))
    assert words(*calls) == KERNELS[name]
