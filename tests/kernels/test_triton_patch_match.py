"""What the Triton kernels of patch_match find, in Triton's interpreter, against the formula in float64.

`test_triton_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import pytest
import torch
from interpreted import every_layout, laid_out, make

from fastnorm.kernels import patch_match
from fastnorm.ops import patch_match as reference

# All at once; and one sample and one row of patches at a time, in blocks and parts of the style.
WAYS = {
    "whole": patch_match.Heuristics(busy=0, content=64),
    "pieces": patch_match.Heuristics(
        products=tuple((size, (32, 16, 16, 32)) for size in (2, 4, 8)), content=16, style=8, scratch=0, busy=4, chosen=4
    ),
}
NAN, INF = float("nan"), float("inf")

pytestmark = pytest.mark.usefixtures("poisoned_memory", "products_of_bfloat16")
every_way = pytest.mark.parametrize("way", WAYS)
every_penalty = pytest.mark.parametrize("penalty", [0.0, 0.3])


@pytest.fixture(autouse=True)
def go(monkeypatch):
    """go(way) makes the patches of this test go that way."""

    def choose(way):
        monkeypatch.setattr(patch_match, "HEURISTICS", WAYS[way])
        patch_match._plan.cache_clear()

    choose("whole")
    yield choose
    patch_match._plan.cache_clear()


def check(content, style, patch_size=3, stride=1, penalty=0.0):
    index, score = patch_match.forward(content, style, patch_size, stride, penalty)
    expected_index, expected = reference.formula(content.double(), style.double(), patch_size, stride, penalty)
    assert torch.equal(index, expected_index)
    assert score.dtype == (torch.float64 if content.dtype == torch.float64 else torch.float32)
    bound = 1e-13 if content.dtype == torch.float64 else 2e-6
    torch.testing.assert_close(score.double(), expected, rtol=bound, atol=bound, equal_nan=True)
    return index, score


def maps(channels=5, size=(5, 6), style=(6, 4), samples=1, dtype=torch.float32, layout="nchw"):
    return [make(samples, channels, *side, dtype=dtype, layout=layout, seed=seed) for seed, side in enumerate((size, style))]


# Every way, layout and type.


@every_penalty
@every_layout
@every_way
def test_patches(go, way, layout, penalty):
    go(way)
    check(*maps(samples=2, layout=layout), penalty=penalty)


@every_penalty
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_types(dtype, penalty):
    check(*maps(19, dtype=dtype), penalty=penalty)


@pytest.mark.parametrize("patch_size, stride", [(1, 1), (3, 2), (2, 3), (5, 2), (4, 3)], ids=str)
def test_strides_of_patches(go, patch_size, stride):
    """Above the stride, below it, and no multiple of it."""
    go("pieces")
    check(*maps(size=(8, 9), style=(10, 7)), patch_size, stride)


@pytest.mark.parametrize(
    "channels, size, style", [(1, (3, 3), (3, 3)), (33, (3, 20), (16, 3)), (16, (9, 3), (3, 7))], ids=str
)
def test_sizes(go, channels, size, style):
    go("pieces")
    check(*maps(channels, size, style))


@every_penalty
def test_a_style_for_all_samples(go, penalty):
    go("pieces")
    content, style = maps(samples=2)
    check(content, style[:1], penalty=penalty)


@pytest.mark.parametrize("how", ["every other", "transposed", "misaligned", "expanded"])
def test_strided_maps(how):
    check(*(laid_out(map, how) for map in maps(samples=2)))


@pytest.mark.parametrize("samples, channels", [(0, 3), (2, 0)])
@every_penalty
def test_empty(samples, channels, penalty):
    """Patches without channels have no length."""
    index, score = check(*maps(channels, samples=samples))
    assert not index.any() and not score.any()


def test_a_second_run_has_the_same_bits(go):
    go("pieces")
    for one, other in zip(*(patch_match.forward(*maps(), 3, 1, 0.0) for _ in range(2)), strict=True):
        assert torch.equal(one, other)


# Who is chosen.


@every_way
def test_of_several_that_are_alike_the_first(go, way):
    """In whole numbers: the interpreter's products of others have last places of their own in each column."""
    go(way)
    content, style = (map.mul(4).round() for map in maps(channels=3, style=(3, 5)))
    style = torch.cat([style, style, style[:, :, :2]], 2).repeat(1, 1, 1, 2)
    index, _ = check(content, style)
    # Of the second copy, which is five columns to the right, none is the first; nor of the lower one.
    assert (index % 8 < 5).all() and (index // 8 < 3).all()


@every_penalty
@every_way
def test_patches_without_length(go, way, penalty):
    go(way)
    content, style = maps()
    content[..., :4], style[..., :3, :4] = 0.0, 0.0
    index, score = check(content, style, penalty=penalty)
    assert (score[..., 0] == 0).all()
    _, score = check(content, torch.zeros_like(style), penalty=penalty)
    assert (score == 0).all()


@every_penalty
@every_way
def test_what_is_no_number_is_not_chosen(go, way, penalty):
    go(way)
    content, style = maps()
    style[:, 2, 1, 1] = NAN
    _, score = check(content, style, penalty=penalty)
    assert score.isfinite().all()
    content[:, 0, 4, 4] = NAN
    index, score = check(content, style, penalty=penalty)
    assert score.isnan().any() and not index[score.isnan()].any()


@every_way
def test_infinities(go, way):
    """They have no direction: 0, or no number."""
    go(way)
    content, style = maps(channels=1)
    style[:, :, 2, 2], content[:, :, 0, 0] = INF, -INF
    check(content, style)


def test_small_and_large_numbers():
    content, style = maps()
    for scale in (1e-18, 1e17):
        index, _ = patch_match.forward(scale * content, style / scale, 3, 1, 0.0)
        assert torch.equal(index, patch_match.forward(content, style, 3, 1, 0.0)[0])


@every_way
def test_a_large_penalty_uses_all_alike(go, way):
    go(way)
    index, _ = check(*maps(size=(7, 8), style=(5, 6)), penalty=1e9)
    times = index.flatten().bincount(minlength=12)
    assert times.max() - times.min() <= 1
