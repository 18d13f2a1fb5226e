"""Convolutions of groups so wide that channels fill vectors and tiles, by the kernels here."""

import pytest
import torch
from accuracy import assert_gradients, assert_values
from calls import DEVICE, cotangents, differentiate
from layouts import every_layout

from fastnorm.ops import OPERATORS
from fastnorm.ops._operator import Sample

every_operator = pytest.mark.parametrize("name", ["dynamic_conv2d", "dynamic_instance_norm"])


def sample(shape, out_channels, kernel, dtype=torch.float32, **settings):
    n, c = shape[:2]
    generator = torch.Generator().manual_seed(len(shape))

    def make(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)

    filters = make(n, out_channels, c // settings.get("groups", 1), *kernel)
    return Sample("many", (make(*shape), filters, make(n, out_channels)), settings)


CALLS = {
    "reflect": sample((2, 23, 9, 8), 37, (3, 3), padding=1, padding_mode="reflect"),
    "zeros, stride 2": sample((1, 13, 11, 12), 70, (3, 2), stride=2, padding=1),
    "dilated, circular": sample((1, 50, 9, 10), 16, (2, 3), padding=2, dilation=2, padding_mode="circular"),
    "groups, replicate": sample((2, 24, 7, 6), 40, (3, 3), padding=1, groups=2, padding_mode="replicate"),
    "a long row": sample((1, 9, 1, 1100), 17, (1, 3), padding="same", padding_mode="reflect"),
    "volume": sample((1, 12, 4, 5, 6), 18, (3, 2, 3), padding=1),
    "bfloat16": sample((1, 23, 9, 8), 37, (3, 3), torch.bfloat16, padding=1),
    "float64": sample((1, 23, 9, 8), 37, (3, 3), torch.float64, padding=1),
}  # fmt: skip
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_layout
@every_call
@every_operator
def test_values_and_gradients(name, call, layout):
    call = call.map(layout)
    assert_values(OPERATORS[name], call)
    assert_gradients(OPERATORS[name], call, layout)


@every_call
def test_the_same_gradient_for_any_number_of_threads(call):
    function = OPERATORS["dynamic_conv2d"].run
    given = cotangents([function(*call.args, **call.kwargs)])
    expected = differentiate(function, call, given)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        found = differentiate(function, call, given)
        assert all(map(torch.equal, found, expected)), f"{threads} threads"
