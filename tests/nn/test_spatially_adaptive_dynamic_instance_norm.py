"""SpatiallyAdaptiveDynamicInstanceNorm: several styles in one map."""

import pytest
import torch
from dynamic_by_hand import convolved, normalised
from torch.nn.functional import interpolate, one_hot

from fastnorm import nn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


CONTENT = random(2, 4, 7, 9)
STYLES = [random(2, 5, 6, 4, seed=1), random(1, 5, 3, 8, seed=2), random(5, 4, 4, seed=3)]


def make(**settings):
    torch.manual_seed(0)
    settings = dict(groups=2, eps=1e-3, hidden_channels=6) | settings
    return nn.SpatiallyAdaptiveDynamicInstanceNorm(4, 6, 3, 5, **settings, dtype=torch.float64)


def part(module, content, style, stride=1):
    """What one style alone makes of the content."""
    weight, bias = (tensor.expand(len(content), *tensor.shape[1:]) for tensor in module.encode(style))
    return convolved(normalised(content, 1e-3), weight, bias, stride, groups=2)


def by_hand(module, content, weights, stride=1):
    parts = [part(module, content, style, stride) for style in STYLES]
    weights = interpolate(weights, size=parts[0].shape[2:], mode="nearest")
    return sum(weights[:, s : s + 1] * parts[s] for s in range(3))


@pytest.mark.parametrize("size", [(7, 9), (3, 4), (13, 20)], ids=str)
@pytest.mark.parametrize("n, stride", [(2, 1), (1, 2)], ids=str)
def test_is_the_weighted_sum(size, n, stride):
    module, weights = make(stride=stride), random(n, 3, *size, seed=4)
    expected = by_hand(module, CONTENT, weights, stride)
    torch.testing.assert_close(module(CONTENT, STYLES, weights), expected, rtol=1e-10, atol=1e-10)
    # Filters that are there already, and weights of another type.
    filters = [STYLES[0], module.encode(STYLES[1]), module.encode(STYLES[2])]
    actual = module(CONTENT, filters, weights.float())
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.float64], ids=str)
def test_each_style_in_its_region(dtype):
    module = make()
    chosen = torch.randint(0, 3, (2, 7, 9), generator=torch.Generator().manual_seed(0))
    by_index = dtype in (torch.int64, torch.int32)
    mask = chosen.to(dtype) if by_index else one_hot(chosen, 3).movedim(3, 1).to(dtype)
    actual = module(CONTENT, STYLES, mask).movedim(1, 3)
    for s, style in enumerate(STYLES):
        alone = part(module, CONTENT, style).movedim(1, 3)
        torch.testing.assert_close(actual[chosen == s], alone[chosen == s], rtol=1e-10, atol=1e-10)


def test_a_small_index_map_is_resized():
    module, chosen = make(), torch.tensor([[[0, 1], [2, 0]]])
    large = interpolate(chosen[None].double(), size=(7, 9), mode="nearest")[0].long()
    assert torch.equal(module(CONTENT, STYLES, chosen), module(CONTENT, STYLES, large.expand(2, -1, -1)))


def test_one_map_without_a_batch():
    module, chosen, weights = make(), torch.randint(0, 2, (7, 9)), random(2, 7, 9)
    for mask in (chosen, weights):
        expected = module(CONTENT[:1], STYLES[1:], mask[None])[0]
        torch.testing.assert_close(module(CONTENT[0], STYLES[1:], mask), expected, rtol=1e-12, atol=1e-12)


def test_nets_content_and_mask_learn():
    module = make()
    content, weights = CONTENT[:1, :, :4, :3].clone().requires_grad_(), random(1, 2, 2, 2).requires_grad_()
    blend = lambda content, weights: module(content, STYLES[1:], weights)  # noqa: E731
    assert torch.autograd.gradcheck(blend, (content, weights), fast_mode=True)
    module(CONTENT, STYLES, random(2, 3, 7, 9)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


def test_compiles_whole():
    module = make()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    content, mask = random(2, 4, 5, 9), torch.randint(0, 2, (2, 3, 4))
    filters = [module.encode(style) for style in STYLES[:2]]
    torch.testing.assert_close(compiled(content, filters, mask), module(content, filters, mask))


@pytest.mark.parametrize(
    "styles, mask, error, words",
    [
        (STYLES[0], random(2, 1, 7, 9), TypeError, "styles: expected a list of maps or filters, got Tensor"),
        (
            nn.DynamicFilter(random(1)), random(2, 1, 7, 9), TypeError,
            "styles: expected a list of maps or filters, got DynamicFilter",
        ),
        ([], random(2, 1, 7, 9), TypeError, "styles: expected a list of maps or filters, got an empty one"),
        ([None], random(2, 1, 7, 9), TypeError, "style: expected a map or a DynamicFilter, got NoneType"),
        (STYLES, None, TypeError, "mask: expected a tensor, got None"),
        (
            STYLES, torch.zeros(2, 7, 9, dtype=torch.uint8), TypeError,
            "mask: expected int64 or int32 indices, or weights in floating point or bool, got torch.uint8",
        ),
        (STYLES, random(2, 2, 7, 9), ValueError, r"mask: expected weights \(2 or 1, 3, h, w\), got shape \(2, 2, 7, 9\)"),
        (STYLES, random(2, 3, 0, 9), ValueError, r"mask: expected weights \(2 or 1, 3, h, w\), got shape \(2, 3, 0, 9\)"),
        (STYLES, torch.zeros(3, 7, 9).long(), ValueError, r"mask: expected indices \(2 or 1, h, w\), got shape \(3, 7, 9\)"),
        (STYLES, torch.full((2, 7, 9), 3), IndexError, "mask: expected indices in 0..2, got 3..3"),
        (STYLES, torch.full((2, 7, 9), -1), IndexError, "mask: expected indices in 0..2, got -1..-1"),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_call(styles, mask, error, words):
    with pytest.raises(error, match=f"^SpatiallyAdaptiveDynamicInstanceNorm: {words}$"):
        make()(CONTENT, styles, mask)


def test_masks_of_one_map():
    words = "^SpatiallyAdaptiveDynamicInstanceNorm: mask: expected {} {}, got shape {}$"
    for mask, kind, shape, got in [
        (random(1, 3, 7, 9), "weights", r"\(3, h, w\)", r"\(1, 3, 7, 9\)"),
        (torch.zeros(1, 7, 9).long(), "indices", r"\(h, w\)", r"\(1, 7, 9\)"),
    ]:
        with pytest.raises(ValueError, match=words.format(kind, shape, got)):
            make()(CONTENT[0], [style[:1] if style.dim() == 4 else style for style in STYLES], mask)
