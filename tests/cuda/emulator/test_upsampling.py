"""Every way in which the CUDA kernels deal an upsampled map to threads: rows in vectors, their ends, pixels of channels."""

import pytest
import torch
from test_plans import FORWARD, SHUFFLED, Maps, assert_close, emulate, every_layout

from fastnorm.ops import upsample_pad2d
from fastnorm.ops._window import PADDING_MODES

# Input, factors, padding before and after each dimension.
MAPS = {
    "twice": ((2, 3, 5, 7), (2, 2), (1, 1, 1, 1)),
    "thrice and once": ((1, 5, 4, 9), (3, 1), (2, 0, 1, 3)),
    "padding alone": ((2, 4, 6, 5), (1, 1), (4, 3, 0, 2)),
    "vectors of channels": ((1, 16, 3, 4), (2, 3), (1, 2, 3, 1)),
    "a row longer than a block": ((1, 1, 2, 700), (1, 2), (0, 1, 2, 2)),
    "as it is": ((2, 8, 3, 3), (1, 1), (0, 0, 0, 0)),
    "all that there is": ((1, 2, 3, 2), (2, 2), (5, 5, 3, 3)),
}  # fmt: skip

every_map = pytest.mark.parametrize("name", MAPS)
every_mode = pytest.mark.parametrize("mode", PADDING_MODES)


def check(name, dtype, format, mode, offset=0):
    shape, scale, padding = MAPS[name]
    settings = list(scale), list(padding), PADDING_MODES[mode]
    input = Maps(shape, dtype, format, offset)()
    expected = upsample_pad2d.formula(input, *settings)
    assert torch.equal(torch.ops.fastnorm.upsample_pad2d(input, *settings), expected)
    grad = Maps(expected.shape, dtype, format, offset)()
    found = torch.ops.fastnorm.upsample_pad2d_backward(grad, *settings)
    assert_close([found], [upsample_pad2d.backward_formula(grad.double(), *settings)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@every_mode
@every_layout
@every_map
def test_upsample_pad2d_on_hopper(name, format, mode, dtype):
    emulate("hopper", FORWARD)
    check(name, dtype, format, mode)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@every_layout
@every_map
def test_misaligned_on_hopper(name, format, dtype):
    """One element past a boundary of 16 bytes."""
    emulate("hopper", SHUFFLED)
    check(name, dtype, format, "reflect", offset=1)
