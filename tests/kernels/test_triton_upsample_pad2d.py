"""What the Triton kernels of upsample_pad2d compute, in Triton's interpreter, against the formula in float64.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
from interpreted import double, every_layout, laid_out, make

from fastnorm.kernels import _launch, upsample_pad2d
from fastnorm.ops import upsample_pad2d as reference
from fastnorm.ops._window import PADDING_MODES

pytestmark = pytest.mark.usefixtures("poisoned_memory")
every_mode = pytest.mark.parametrize("mode", PADDING_MODES)
# The interpreter takes its time for every image: one mode stands for all.
reflect_first = pytest.mark.parametrize(
    "mode", [mode if mode == "reflect" else pytest.param(mode, marks=pytest.mark.long) for mode in PADDING_MODES]
)


@pytest.fixture
def small_tiles(monkeypatch):
    """Of which some lie inside the map, and of planes a part each."""
    monkeypatch.setattr(_launch, "HEURISTICS", _launch.Heuristics(map_tile=64, map_rows=16, small=16))
    _launch.plan_map.cache_clear()
    yield
    _launch.plan_map.cache_clear()


def check(input, scale, padding, mode, grad=None):
    settings = list(scale), list(padding), PADDING_MODES[mode]
    expected = reference.formula(input, *settings)
    output = upsample_pad2d.forward(input, *settings)
    assert torch.equal(output, expected) and output.dtype == input.dtype
    if grad is None:
        grad = torch.empty_like(output).copy_(make(*output.shape, seed=1))
    gradient = upsample_pad2d.backward(grad, *settings)
    assert gradient.shape == input.shape
    # In bfloat16 the interpreter cuts digits off.
    rounding = {torch.float64: 1e-13, torch.float32: 4e-6, torch.bfloat16: 2**-7, torch.float16: 2**-11}[input.dtype]
    expected = reference.backward_formula(*double([grad]), *settings)
    torch.testing.assert_close(gradient.double(), expected, rtol=rounding * 1.01, atol=min(rounding, 4e-6))
    return output, gradient


@pytest.mark.parametrize("scale, padding", [((3, 1), (2, 0, 1, 3)), ((2, 3), (5, 4, 1, 0))], ids=str)
@every_mode
def test_images(mode, scale, padding):
    check(make(1, 2, 3, 4), scale, padding, mode)


@every_layout
@reflect_first
@pytest.mark.parametrize("scale, padding", [((2, 2), (1, 1, 1, 1)), ((1, 1), (2, 1, 3, 2))], ids=str)
def test_layouts(scale, padding, mode, layout):
    check(make(2, 3, 3, 5, layout=layout), scale, padding, mode)


@reflect_first
def test_lines_and_volumes(mode):
    check(make(2, 3, 7), (3,), (2, 4), mode)
    check(make(1, 2, 2, 3, 2), (2, 1, 3), (1, 2, 0, 1, 2, 1), mode)


@every_layout
@reflect_first
@pytest.mark.usefixtures("small_tiles")
def test_small_tiles(mode, layout):
    """A tile within the map has no images of its numbers; at a border it has."""
    check(make(1, 3, 5, 8, layout=layout), (2, 2), (2, 1, 1, 2), mode)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@every_layout
def test_types(dtype, layout):
    check(make(2, 3, 4, 5, dtype=dtype, layout=layout), (2, 2), (1, 1, 1, 1), "reflect")


@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
def test_strides(how):
    input, grad = laid_out(make(2, 3, 4, 5), how), laid_out(make(2, 3, 10, 12, seed=1), how)
    check(input, (2, 2), (1, 1, 1, 1), "reflect", grad)


@every_layout
def test_a_plane_of_one(layout):
    """A map of which the planes are numbers lies in both layouts at once; its gradient, of more, in one."""
    input = make(2, 3, 1, 1)
    grad = make(2, 3, 4, 4, layout=layout, seed=1)
    check(input, (2, 2), (1, 1, 1, 1), "reflect", grad)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)], ids=str)
def test_empty(shape):
    check(torch.empty(shape), (2, 2), (1, 1, 1, 1), "reflect")
