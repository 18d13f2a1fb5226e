"""swap_patches against unfold and fold in float64."""

import re

import pytest
import torch
import torch.nn.functional as F

from fastnorm.functional import swap_patches
from fastnorm.ops import backends


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def by_hand(style, index, size, patch_size=3, stride=1):
    style = style.expand(len(index), -1, -1, -1)
    patches = F.unfold(style, patch_size, stride=stride)
    patches = patches.gather(2, index.flatten(1)[:, None].expand(-1, patches.shape[1], -1))
    covered = F.fold(torch.ones_like(patches), size, patch_size, stride=stride)
    return F.fold(patches, size, patch_size, stride=stride) / covered.clamp(min=1)


def some_index(style, samples, size, patch_size, stride, seed=0):
    of_style, places = ([(length - patch_size) // stride + 1 for length in side] for side in (style.shape[2:], size))
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(of_style[0] * of_style[1], (samples, *places), generator=generator)


# Vectors of 2 to 16 channels.
CASES = [
    ((2, 5, 6, 7), (8, 9), 3, 1), ((1, 17, 9, 4), (5, 12), 2, 2), ((2, 33, 5, 5), (5, 5), 5, 1),
    ((1, 3, 9, 9), (11, 8), 2, 3), ((1, 8, 1, 40), (30, 1), 1, 1), ((1, 1, 10, 10), (12, 9), 4, 3),
]  # fmt: skip


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape, size, patch_size, stride", CASES, ids=str)
def test_values_and_gradients(randn, shape, size, patch_size, stride, layout):
    style = randn(*shape).contiguous(memory_format=layout).requires_grad_()
    index = some_index(style, shape[0], size, patch_size, stride)
    expected, found = by_hand(style, index, size, patch_size, stride), swap_patches(style, index, size, patch_size, stride)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    given = randn(*found.shape).contiguous(memory_format=layout).requires_grad_()
    ours, theirs = (torch.autograd.grad(each, style, given, create_graph=True)[0] for each in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    again = randn(*shape)
    torch.testing.assert_close(*(torch.autograd.grad(each, given, again)[0] for each in (ours, theirs)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_types_are_added_up_in_float32(randn, dtype):
    style = randn(1, 9, 8, 9).to(dtype)
    index = some_index(style, 1, (12, 13), 3, 1)
    expected = by_hand(style.double(), index, (12, 13))
    found = swap_patches(style, index, (12, 13))
    torch.testing.assert_close(found.double(), expected, rtol=torch.finfo(dtype).eps * 0.6, atol=1e-6)


def test_a_style_for_all_samples(randn):
    style = randn(1, 5, 6, 7).requires_grad_()
    index = some_index(style, 3, (5, 9), 3, 1)
    expected, found = by_hand(style, index, (5, 9)), swap_patches(style, index, (5, 9))
    torch.testing.assert_close(found, expected)
    given = randn(*found.shape)
    torch.testing.assert_close(torch.autograd.grad(found, style, given), torch.autograd.grad(expected, style, given))


def test_one_size_for_both_sides_and_an_index_that_lies_apart(randn):
    style = randn(2, 5, 6, 7)
    index = some_index(style, 2, (8, 8), 3, 1)
    found = swap_patches(style, index.mT.contiguous().mT, 8)
    assert torch.equal(found, swap_patches(style, index, (8, 8)))


def test_a_pixel_that_no_patch_covers_is_zero(randn):
    found = swap_patches(randn(1, 2, 8, 8), torch.zeros(1, 2, 2, dtype=torch.int64), (7, 8), 2, 4)
    covered = torch.zeros(7, 8, dtype=torch.bool)
    covered[:2, :2] = covered[:2, 4:6] = covered[4:6, :2] = covered[4:6, 4:6] = True
    assert torch.equal(found[0, 0] != 0, covered)


def test_many_times_the_same_patch(randn):
    """All that is sent back arrives at one place: in float32, and in the same order with any number of threads."""
    style = randn(1, 40, 9, 9).float().requires_grad_()
    index = torch.full((1, 60, 60), 10)
    given = randn(1, 40, 62, 62).float()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(torch.autograd.grad(swap_patches(style, index, (62, 62)), style, given)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    wide = style.detach().double().requires_grad_()
    expected = torch.autograd.grad(by_hand(wide, index, (62, 62)), wide, given.double())[0]
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=1e-4)


STYLE, INDEX = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((STYLE[0], INDEX, (6, 7)), ValueError, "style: expected shape (N, C, H, W), got (3, 4, 5)"),
        ((STYLE, INDEX.int(), (6, 7)), TypeError, "index: expected int64, got torch.int32"),
        ((STYLE, INDEX[0], (6, 7)), ValueError, "index: expected a patch for each place, (2, 4, 5), got (4, 5)"),
        ((STYLE, INDEX, (6, 8)), ValueError, "index: expected a patch for each place, (2, 4, 6), got (2, 4, 5)"),
        ((STYLE, INDEX[:1], (6, 7)), ValueError, "index: expected a patch for each place, (2, 4, 5), got (1, 4, 5)"),
        ((STYLE[:1], INDEX, (5, 7)), ValueError, "index: expected a patch for each place, (N, 3, 5), got (2, 4, 5)"),
        ((STYLE, INDEX, (6, 7, 8)), ValueError, "size: expected an integer of at least 1, or 2 of them, got (6, 7, 8)"),
        ((STYLE, INDEX, (2, 7)), ValueError, "patch_size: expected patches that fit into the output, (2, 7), got 3"),
        ((STYLE, INDEX, (6, 7), 5), ValueError, "patch_size: expected patches that fit into the style, (4, 5), got 5"),
        ((STYLE, INDEX, (6, 7), 3, 0), ValueError, "stride: expected an integer of at least 1, got 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_errors(arguments, error, words):
    with pytest.raises(error, match=f"^{re.escape(f'swap_patches: {words}')}$"):
        swap_patches(*arguments)


@pytest.mark.parametrize("wrong", [-1, 6, 1 << 40])
def test_an_index_that_is_no_patch(wrong):
    index = INDEX.clone()
    index[1, 2, 3] = wrong
    says = f"swap_patches: index: expected patches in 0..5, got {wrong}"
    with pytest.raises(RuntimeError, match="^" + re.escape(says) if backends.which("swap_patches", "cpu") == "cpu" else "index"):
        swap_patches(STYLE, index, (6, 7))
