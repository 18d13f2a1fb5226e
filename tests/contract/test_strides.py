"""Convolutions that jump: what lies between their steps, or behind the last, has no gradient, or that of a border."""

import pytest
import torch
from accuracy import assert_gradients, assert_values
from calls import DEVICE
from layouts import every_layout

from fastnorm.ops import OPERATORS
from fastnorm.ops._operator import Sample

# Widths around whole vectors of every instruction set. Kernels smaller than the step leave columns that no tap sees.
CASES = {
    f"{kernel}, step {stride}, width {width}": (kernel, stride, width)
    for kernel, stride in [(1, 2), (2, 2), (4, 4), (1, 3), (2, 5), (3, 2)]
    for width in (9, 33, 67)
}


def sample(shape, kernel, **settings):
    generator = torch.Generator().manual_seed(0)

    def make(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, torch.float32)

    n, c = shape[:2]
    return Sample("strided", (make(*shape), make(n, 3, c, *kernel), make(n, 3)), settings)


@every_layout
@pytest.mark.parametrize("kernel, stride, width", CASES.values(), ids=CASES)
def test_gradients_of_what_no_tap_sees(kernel, stride, width, layout):
    call = sample((1, 4, 5, width), (2, kernel), stride=(1, stride)).map(layout)
    assert_values(OPERATORS["dynamic_conv2d"], call)
    assert_gradients(OPERATORS["dynamic_conv2d"], call)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_gradients_of_what_only_a_border_sees(mode):
    for width, kernel, stride in [(4, 1, 3), (5, 1, 4), (19, 2, 6)]:
        call = sample((1, 2, 3, width), (1, kernel), stride=stride, padding=(0, 1), padding_mode=mode)
        assert_gradients(OPERATORS["dynamic_conv2d"], call)
