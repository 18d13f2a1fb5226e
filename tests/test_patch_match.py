"""patch_match and style_swap against the convolution form in float64, around the edges of panels, and where numbers end."""

import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from fastnorm import nn
from fastnorm.functional import patch_match, style_swap, swap_patches
from fastnorm.ops import backends
from fastnorm.ops import patch_match as room

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def published(content, style, size=3, stride=1):
    """Chen and Schmidt's code: all patches of a style are filters. Index, score and swapped map, 0 where nothing is."""
    found = []
    for each, own in zip(content, style.expand(len(content), -1, -1, -1)):
        filters = F.unfold(own[None], size, stride=stride)[0].T.reshape(-1, len(own), size, size)
        length = filters.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        scores = F.conv2d(each[None], filters / length, stride=stride)
        best, index = scores.max(1)
        one_hot = torch.zeros_like(scores).scatter_(1, index[:, None], 1.0)
        overlaps = F.conv_transpose2d(one_hot, torch.ones_like(filters[:, :1]), stride=stride)
        swapped = F.conv_transpose2d(one_hot, filters, stride=stride) / overlaps.clamp(min=1)
        of_content = F.unfold(each[None], size, stride=stride).norm(dim=1).view_as(best)
        behind = [content.shape[3] - swapped.shape[3], content.shape[2] - swapped.shape[2]]
        found.append((index[0], (best / of_content)[0], F.pad(swapped[0], (0, behind[0], 0, behind[1]))))
    return map(torch.stack, zip(*found))


# Panels of up to 12, 24 or 48 positions, tiles of up to 8 patches, pieces of 96 channels, diagonals by fours.
@pytest.mark.parametrize(
    "content, style, size, stride",
    [
        ((2, 5, 9, 11), (2, 5, 8, 13), 3, 1), ((1, 100, 7, 75), (1, 100, 6, 9), 3, 1), ((2, 19, 5, 5), (1, 19, 5, 33), 2, 1),
        ((1, 97, 12, 50), (1, 97, 20, 16), 3, 2), ((3, 8, 17, 10), (1, 8, 11, 12), 5, 3),
        ((1, 9, 9, 30), (1, 9, 10, 9), 2, 4), ((1, 8, 1, 130), (1, 8, 70, 1), 1, 1), ((1, 12, 3, 3), (1, 12, 3, 3), 3, 7),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_blocks(randn, content, style, size, stride, dtype):
    content, style = randn(*content).to(dtype), randn(*style).to(dtype)
    expected, best, _ = published(content.double(), style.double(), size, stride)
    index, score = patch_match(content, style, size, stride, return_score=True)
    assert torch.equal(index, expected)
    torch.testing.assert_close(score.double(), best, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)
    assert score.dtype == dtype


def test_narrow_types_are_matched_in_float32(randn):
    for dtype in (torch.bfloat16, torch.float16):
        content, style = randn(1, 33, 9, 26).to(dtype), randn(1, 33, 7, 9).to(dtype)
        index, score = patch_match(content, style, return_score=True)
        expected, best, _ = published(content.double(), style.double())
        assert torch.equal(index, expected) and score.dtype == torch.float32
        torch.testing.assert_close(score.double(), best, rtol=0, atol=1e-6)


def test_a_few_rows_at_a_time(randn, monkeypatch):
    content, style = randn(2, 6, 9, 8), randn(2, 6, 7, 6)
    settings = [dict(stride=stride, usage_penalty=penalty) for stride in (1, 2) for penalty in (0.0, 0.3)]
    expected = [room.reference(content, style, **each) for each in settings]
    monkeypatch.setattr(room, "SCORES_AT_A_TIME", 1)
    for each, index in zip(settings, expected):
        assert torch.equal(room.reference(content, style, **each), index)


# Of equal correlations the first.


@pytest.mark.parametrize("usage_penalty", [0.0, 1e-3])
@pytest.mark.parametrize("channels", [3, 97])
def test_equal_patches(randn, channels, usage_penalty):
    """A style of tiles: every patch is there many times, wherever a panel, a tile or a thread begins."""
    tile = randn(1, channels, 4, 4)
    content = tile.repeat(1, 1, 8, 8).float()
    index = patch_match(content, content, usage_penalty=usage_penalty)
    if not usage_penalty:
        phase = torch.arange(30) % 4
        assert torch.equal(index[0], phase[:, None] * 30 + phase)
    else:
        assert torch.equal(index, room.reference(content.double(), content.double(), usage_penalty=usage_penalty))


def test_a_style_of_one_patch_and_a_patch_of_a_whole_map(randn):
    assert (patch_match(randn(2, 3, 9, 8), randn(1, 3, 3, 3)) == 0).all()
    assert patch_match(randn(2, 3, 5, 5), randn(2, 3, 5, 5), 5).shape == (2, 1, 1)


# In turn.


def reshuffled(content, style, penalty, size=3):
    """By the definition of Gu et al., one after the other."""
    patches = [F.normalize(F.unfold(map, size)[0].T, dim=1) for map in (content, style)]
    correlation, used, found = patches[0] @ patches[1].T, torch.zeros(len(patches[1]), dtype=torch.float64), []
    for row in correlation:
        found.append((row - penalty * used).argmax().item())
        used[found[-1]] += 1
    return found, used


@pytest.mark.parametrize("penalty", [0.05, 1.0, 1e6])
def test_in_turn(randn, penalty):
    for content, style in [((1, 5, 9, 30), (1, 5, 8, 13)), ((1, 7, 10, 10), (1, 7, 10, 10))]:
        content, style = randn(*content), randn(*style)
        expected, used = reshuffled(content, style, penalty)
        for dtype in (torch.float32, torch.float64):
            assert patch_match(content.to(dtype), style.to(dtype), usage_penalty=penalty).flatten().tolist() == expected
        if penalty > 2:
            assert used.max() - used.min() <= 1


def test_samples_are_used_up_apart(randn):
    content, style = randn(3, 5, 8, 9), randn(1, 5, 7, 8)
    together = patch_match(content, style, usage_penalty=0.5)
    alone = [patch_match(one[None], style, usage_penalty=0.5)[0] for one in content]
    assert torch.equal(torch.stack(alone), together)


def test_the_score_is_without_the_penalty(randn):
    content, style = randn(1, 5, 6, 7), randn(1, 5, 5, 8)
    index, score = patch_match(content, style, usage_penalty=1e4, return_score=True)
    ours, theirs = (F.normalize(F.unfold(map, 3)[0].T, dim=1) for map in (content, style))
    torch.testing.assert_close(score.flatten(), (ours * theirs[index.flatten()]).sum(1))


# Where numbers end.


@pytest.mark.parametrize("penalty", [0.0, 1e-9])
def test_patches_without_length(randn, penalty):
    content, style = randn(1, 4, 6, 12), randn(1, 4, 5, 6)
    style[0, :, :3, :3] = 0
    content[0, :, 3:, :3] = 0
    index, score = patch_match(content, style, usage_penalty=penalty, return_score=True)
    assert index[0, 3, 0] == 0 and score[0, 3, 0] == 0
    # 0 is more than what is left to a content that points away from all other patches.
    away = -style.clamp(min=0.1)
    index, score = patch_match(away, style.abs(), usage_penalty=penalty, return_score=True)
    assert index[0, 0, 0] == 0 and score[0, 0, 0] == 0


@pytest.mark.parametrize("penalty", [0.0, 1e-9])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_no_number_is_chosen_before_a_number(randn, value, penalty):
    content, style = randn(1, 4, 6, 12), randn(1, 4, 5, 6)
    settings = dict(usage_penalty=penalty, return_score=True)
    clean, clean_score = patch_match(content, style, **settings)
    spoilt = style.clone()
    spoilt[0, 1, 0, 0] = value
    index, score = patch_match(content, spoilt, **settings)
    assert (index != 0).all() and score.isfinite().all()
    assert torch.equal(index[clean != 0], clean[clean != 0])
    index, score = patch_match(content, torch.full_like(style, NAN), **settings)
    assert (index == 0).all() and score.isnan().all()
    content[0, 2, 1, 1] = NAN
    index, score = patch_match(content, style, **settings)
    assert (index[0, :2, :2] == 0).all() and score[0, :2, :2].isnan().all()
    assert torch.equal(index[0, 2:], clean[0, 2:]) or penalty
    torch.testing.assert_close(score[0, 2:], clean_score[0, 2:])


def test_the_end_of_float16(randn):
    content, style = (torch.full((1, 300, 5, 6), 6e4) * randn(1, 300, 5, 6).sign() for _ in range(2))
    index, score = patch_match(content.half(), style.half(), return_score=True)
    expected, best, _ = published(content.half().double(), style.half().double())
    torch.testing.assert_close(score.double(), best, rtol=1e-5, atol=0)
    assert torch.equal(index, expected)


# What is promised beside values.


def test_neither_result_has_a_gradient(randn):
    content, style = randn(1, 4, 6, 6).requires_grad_(), randn(1, 4, 5, 5).requires_grad_()
    for found in (*patch_match(content, style, return_score=True), *room.reference(content, style, return_score=True)):
        assert not found.requires_grad
    _, (_, tangent) = torch.func.jvp(
        lambda map: patch_match(map, style.detach(), return_score=True), (content.detach(),), (content.detach(),)
    )
    assert not tangent.any()


@pytest.mark.parametrize("penalty", [0.0, 0.2])
def test_the_same_for_any_number_of_threads(randn, penalty):
    content, style = randn(2, 70, 21, 30).float(), randn(2, 70, 19, 23).float()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(patch_match(content, style, usage_penalty=penalty, return_score=True))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, sum(found[1:], ()), found[0] * 3))


GROWTH = """
import torch
from fastnorm.functional import patch_match
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
content, style = torch.randn(2, 1, 8, 96, 96)
patch_match(content[..., :9, :9], style[..., :9, :9])
before = peak()
patch_match(content, style)
between = peak()
patch_match(content, style, usage_penalty=0.1)
print(between - before, peak() - between)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the most that a process held")
@pytest.mark.skipif(backends.which("patch_match", "cpu") != "cpu", reason="a property of the CPU's kernel")
def test_the_scores_are_never_there():
    """94^2 patches against as many: 312 MB. In turn, those of four rows."""
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    all_at_once, in_turn = (int(kilobytes) / 1000 for kilobytes in done.stdout.split())
    assert all_at_once < 8 and in_turn < 32, f"{all_at_once} MB, in turn {in_turn} MB"


# The style swap.


@pytest.mark.parametrize("size, stride", [(3, 1), (3, 2), (2, 3), (1, 1)])
def test_style_swap(randn, size, stride):
    content, style = randn(2, 9, 9, 12).requires_grad_(), randn(2, 9, 8, 10).requires_grad_()
    _, _, expected = published(content.detach(), style, size, stride)
    covered = F.fold(torch.ones_like(F.unfold(content[:1, :1], size, stride=stride)), (9, 12), size, stride=stride) > 0
    assert covered.all() == (stride == 1)
    expected = torch.where(covered, expected, content)
    swapped = nn.StyleSwap(size, stride)(content, style)
    torch.testing.assert_close(swapped, expected)
    given = randn(2, 9, 9, 12)
    wanted = (style, content) if stride > 1 else style
    torch.testing.assert_close(torch.autograd.grad(swapped, wanted, given), torch.autograd.grad(expected, wanted, given))


def test_a_map_swapped_for_itself(randn):
    content = randn(1, 5, 9, 9).float()
    torch.testing.assert_close(style_swap(content, content), content)


def test_style_swap_in_turn(randn):
    content, style = randn(1, 9, 7, 8), randn(1, 9, 6, 9)
    index = patch_match(content, style, usage_penalty=0.3)
    assert not torch.equal(index, patch_match(content, style))
    swapped = nn.StyleSwap(usage_penalty=0.3)(content, style)
    assert torch.equal(swapped, swap_patches(style, index, (7, 8)))
    assert repr(nn.StyleSwap(2)) == "StyleSwap(patch_size=2, stride=1, usage_penalty=0.0)"


# Errors.

MAP = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize("function", [patch_match, style_swap], ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((MAP[0], MAP), ValueError, "content: expected shape (N, C, H, W), got (3, 4, 5)"),
        ((MAP, MAP[0]), ValueError, "style: expected shape (N, C, H, W), got (3, 4, 5)"),
        ((MAP, MAP[:, :2]), ValueError, "style: expected 3 channels and 2 samples or 1, got (2, 2, 4, 5)"),
        ((MAP, MAP.repeat(2, 1, 1, 1)), ValueError, "style: expected 3 channels and 2 samples or 1, got (4, 3, 4, 5)"),
        ((MAP, MAP.double()), TypeError, "style: expected the input's type torch.float32, got torch.float64"),
        ((MAP, MAP.long()), TypeError, "style: expected float32, float64, bfloat16 or float16, got torch.int64"),
        ((MAP, MAP, 5), ValueError, "patch_size: expected patches that fit into the content, (4, 5), got 5"),
        ((MAP, MAP[..., :2]), ValueError, "patch_size: expected patches that fit into the style, (4, 2), got 3"),
        ((MAP, MAP, 0), ValueError, "patch_size: expected an integer of at least 1, got 0"),
        ((MAP, MAP, (3, 3)), ValueError, "patch_size: expected an integer of at least 1, got (3, 3)"),
        ((MAP, MAP, 3, 0), ValueError, "stride: expected an integer of at least 1, got 0"),
        ((MAP, MAP, 3, 1.5), ValueError, "stride: expected an integer of at least 1, got 1.5"),
        ((MAP, MAP, 3, 1, -1), ValueError, "usage_penalty: expected a finite number of at least 0, got -1"),
        ((MAP, MAP, 3, 1, INF), ValueError, "usage_penalty: expected a finite number of at least 0, got inf"),
        ((MAP, MAP, 3, 1, MAP), TypeError, "usage_penalty: expected a number, got Tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(function, arguments, error, words):
    with pytest.raises(error, match=f"^{re.escape(f'{function.__name__}: {words}')}$"):
        function(*arguments)
