"""What the Triton kernels of swap_patches compute, in Triton's interpreter, against the formula in float64.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
from interpreted import every_layout, laid_out, make

from fastnorm.kernels import swap_patches
from fastnorm.ops import swap_patches as reference

# All channels and pixels in one block, and both in pieces, with lists that end inside and beyond a block.
WAYS = {
    "whole": swap_patches.Heuristics(),
    "pieces": swap_patches.Heuristics(channels=2, numbers=32, gradients=4),
}
NAN = float("nan")

pytestmark = pytest.mark.usefixtures("poisoned_memory")
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def go(monkeypatch):
    """go(way) makes the patches of this test go that way."""
    return lambda way: monkeypatch.setattr(swap_patches, "HEURISTICS", WAYS[way])


# In float32 a few roundings; in float16 one more, of half a unit in the last place; in bfloat16 of a whole one, as the
# interpreter cuts digits off.
ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-11}


def assert_near(actual, expected):
    bound = ROUNDING[actual.dtype] * 1.01
    torch.testing.assert_close(actual.double(), expected, rtol=bound, atol=min(bound, 2e-6), equal_nan=True)


def places(size, patch_size, stride):
    return [(length - patch_size) // stride + 1 for length in size]


def some_index(samples, size, style, patch_size, stride, seed=3):
    rows, columns = places(style, patch_size, stride)
    shape = samples, *places(size, patch_size, stride)
    return torch.randint(rows * columns, shape, generator=torch.Generator().manual_seed(seed))


def check_forward(style, index, size, patch_size=3, stride=1):
    output = swap_patches.forward(style, index, size, patch_size, stride)
    assert_near(output, reference.formula(style.double(), index, size, patch_size, stride))
    fake = torch.ops.fastnorm.swap_patches(style.to("meta"), index.to("meta"), size, patch_size, stride)
    assert (output.shape, output.dtype, output.stride()) == (fake.shape, fake.dtype, fake.stride())
    return output


def check_backward(grad, index, style_size, patch_size=3, stride=1):
    output = swap_patches.backward(grad, index, style_size, patch_size, stride)
    assert_near(output, reference.backward_formula(grad.double(), index, style_size, patch_size, stride))
    fake = torch.ops.fastnorm.swap_patches_backward(grad.to("meta"), index.to("meta"), style_size, patch_size, stride)
    assert (output.shape, output.dtype, output.stride()) == (fake.shape, fake.dtype, fake.stride())
    return output


@every_layout
@every_way
def test_forward(go, way, layout):
    go(way)
    check_forward(make(2, 3, 7, 5, layout=layout), some_index(2, (5, 7), (7, 5), 3, 1), (5, 7))


@every_layout
@every_way
def test_backward(go, way, layout):
    go(way)
    check_backward(make(2, 3, 5, 6, layout=layout), some_index(2, (5, 6), (4, 3), 3, 1), (4, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_types(dtype):
    index = some_index(1, (6, 7), (4, 4), 3, 1)
    check_forward(make(1, 5, 4, 4, dtype=dtype), index, (6, 7))
    check_backward(make(1, 5, 6, 7, dtype=dtype), index, (4, 4))


@pytest.mark.parametrize("patch_size, stride", [(1, 1), (3, 2), (2, 3), (5, 2)], ids=str)
def test_strides_of_patches(patch_size, stride):
    """Below the stride, where pixels between patches are zero; above it, and no multiple of it."""
    size, style = (8, 10), (6, 7)
    index = some_index(1, size, style, patch_size, stride)
    output = check_forward(make(1, 3, *style), index, size, patch_size, stride)
    if stride > patch_size:
        assert not output[:, :, 2].any() and not output[..., 2].any()
    check_backward(make(1, 3, *size), index, style, patch_size, stride)


@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
def test_strided_maps(how):
    index = laid_out(some_index(2, (5, 6), (4, 4), 3, 1), "every other")
    check_forward(laid_out(make(2, 3, 4, 4), how), index, (5, 6))
    check_backward(laid_out(make(2, 3, 5, 6), how), index, (4, 4))


@pytest.mark.parametrize("samples, channels", [(0, 3), (2, 0)])
def test_empty(samples, channels):
    index = some_index(samples, (5, 6), (4, 4), 3, 1)
    check_forward(make(samples, channels, 4, 4), index, (5, 6))
    check_backward(make(samples, channels, 5, 6), index, (4, 4))


@every_way
def test_all_choose_one_patch(go, way):
    go(way)
    check_backward(make(1, 2, 8, 9), torch.full((1, 6, 7), 1), (3, 4))


def test_of_a_patch_that_nobody_chose_nothing_is_asked():
    """Nor read: what is no number there stays there."""
    style, index = make(1, 3, 3, 6), torch.zeros(1, 3, 4, dtype=torch.int64)
    style[..., 3:] = NAN
    assert check_forward(style, index, (5, 6)).isfinite().all()
    grad = check_backward(make(1, 3, 5, 6), index, (3, 6))
    assert grad[..., :3].all() and not grad[..., 3:].any()


def test_a_gradient_that_is_no_number_goes_where_its_pixel_came_from():
    index, grad = some_index(1, (5, 6), (4, 4), 3, 1), make(1, 3, 5, 6)
    grad[0, 1, 2, 2] = NAN
    found = check_backward(grad, index, (4, 4))
    assert found[:, 1].isnan().any() and found[:, 0].isfinite().all()


def test_a_patch_that_is_none_is_no_number():
    """No memory but the style's is read."""
    index = torch.tensor([[[0, 1]], [[4, -1]]])
    output = swap_patches.forward(make(2, 3, 4, 4), index, (2, 4), 2, 2)
    assert output[0].isfinite().all() and output[1].isnan().all()


def test_a_second_run_has_the_same_bits(go):
    go("pieces")
    index = some_index(1, (6, 7), (3, 4), 3, 1)
    one, other = (swap_patches.backward(make(1, 2, 6, 7), index, (3, 4), 3, 1) for _ in range(2))
    assert torch.equal(one, other)
