"""DIN against its formulas, and what it costs beside AdaIN."""

import literal
import numpy as np
import pytest
import torch
from literal import picture, relu
from small import SIZES
from torch.utils.flop_counter import FlopCounterMode

from fastnorm import models
from fastnorm.models.din import DIN
from fastnorm.nn import DynamicFilter
from fastnorm.ops import backends


def make(seed=0, **settings):
    return literal.randomize(DIN(**SIZES["din"] | settings), seed)


def filtered(x, weight, bias=None, stride=1, groups=None):
    """A mirrored convolution, depthwise where nothing is said of groups."""
    y = literal.conv(literal.mirror(x, weight.shape[-1] // 2), weight, stride, groups or len(x))
    return y if bias is None else y + bias[:, None, None]


def layer(x, state, name, stride=1, groups=1):
    return filtered(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, groups)


def normed(x):
    return literal.instance_norm(x, np.ones(len(x)), np.zeros(len(x)))


def separable(x, state, name, place, stride=1):
    x = layer(x, state, f"{name}.{place}", stride, len(x))
    return layer(relu(normed(x)), state, f"{name}.{place + 3}")


def predicted(net, state, name, cells):
    """Two convolutions, then the mean over each of cells x cells parts of the map."""
    x = np.pad(net, ((0, 0), (1, 1), (1, 1)), mode="edge")
    x = relu(literal.conv(x, state[f"{name}.first.weight"]) + state[f"{name}.first.bias"][:, None, None])
    x = literal.conv(x, state[f"{name}.last.weight"])
    x = x + state[f"{name}.last.bias"][:, None, None] if f"{name}.last.bias" in state else x
    spans = [[slice(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)] for side in x.shape[1:]]
    return np.stack([np.stack([x[:, down, along].mean((1, 2)) for along in spans[1]], -1) for down in spans[0]], -2)


def filters(state, features, level):
    name = f"din.{level}"
    shared = state[f"{name}.weight"]
    weight = shared + predicted(features, state, f"{name}.weight_net", shared.shape[-1]).reshape(shared.shape)
    return weight, predicted(features, state, f"{name}.bias_net", 1)[:, 0, 0]


def formulas(model, content, style_features, masks, alpha=1.0, groups=None):
    """The figure of the paper for one picture, of styles each in its part of the mask (S, H, W)."""
    state = literal.arrays(model)
    carried = []

    def carry(x, level):
        size = 2**level
        y = 0
        for features, mask in zip(style_features, masks):
            part = mask.reshape(x.shape[1], size, x.shape[2], size).mean((1, 3))
            y = y + part * filtered(normed(x), *filters(state, features, level), groups=groups)
        carried.append(alpha * y + (1 - alpha) * x)
        return x

    x = carry(relu(layer(content, state, "encoder.0.0")), 0)
    x = carry(relu(separable(x, state, "encoder.1", 0, stride=2)), 1)
    x = relu(separable(x, state, "encoder.2", 0, stride=2))
    for block in (5, 6):
        x = x + separable(x, state, f"encoder.2.{block}", 0)
    carry(x, 2)

    x = carried[2]
    for block in (0, 1):
        y = relu(layer(x, state, f"decoder.0.{block}.0", groups=len(x)))
        x = x + layer(y, state, f"decoder.0.{block}.2")
    x = literal.upsample(relu(layer(x, state, "decoder.0.2")))
    x = relu(layer(x, state, "decoder.0.5", groups=len(x)) + carried[1])
    x = literal.upsample(relu(layer(x, state, "decoder.1.1")))
    x = relu(layer(x, state, "decoder.1.4", groups=len(x)) + carried[0])
    return layer(x, state, "decoder.2.1")


def features_of(model, style):
    with torch.no_grad():
        return model.style_encoder(style)[0].numpy()


def close(output, expected):
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * abs(expected).max())


CONTENT, STYLE = picture(1, 3, 32, 24).double(), picture(1, 3, 41, 58, seed=1).double()


@pytest.mark.parametrize("kernel_size, groups", [(3, None), (1, None), (3, 1)])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
@torch.no_grad()
def test_is_the_formulas(kernel_size, groups, alpha):
    model = make(kernel_size=kernel_size, groups=groups)
    everywhere = np.ones((1, 32, 24))
    expected = formulas(model, CONTENT[0].numpy(), [features_of(model, STYLE)], everywhere, alpha, groups)
    close(model.stylize(CONTENT, STYLE, alpha)[0], expected)


@torch.no_grad()
def test_regions_meet_at_every_level():
    model = make()
    other = picture(1, 3, 30, 25, seed=2).double()
    mask = torch.rand(1, 2, 32, 24, generator=torch.Generator().manual_seed(3)).double()
    both = [features_of(model, style) for style in (STYLE, other)]
    expected = formulas(model, CONTENT[0].numpy(), both, mask[0].numpy(), alpha=0.6)
    close(model.stylize_regions(CONTENT, [STYLE, other], mask, alpha=0.6)[0], expected)


@torch.no_grad()
def test_without_style_it_is_the_content_encoded_and_decoded():
    model = make()
    expected = formulas(model, CONTENT[0].numpy(), [], [], alpha=0.0)
    close(model.stylize(CONTENT, STYLE, alpha=0.0)[0], expected)


@torch.no_grad()
def test_a_small_painting_is_mirrored():
    model = make()
    mirrored = np.pad(STYLE[..., :5, :30], ((0, 0), (0, 0), (0, 19), (0, 0)), mode="reflect")
    expected = model.encode(torch.from_numpy(mirrored))
    for name, tensor in model.encode(STYLE[..., :5, :30]).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=0)


@torch.no_grad()
def test_deformable_ones_begin_as_plain_ones():
    plain, deformable = make(), DIN(**SIZES["din"], deformable=True).double()
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and {name.split(".")[2] for name in missing} == {"offset_net"}
    begun = deformable.stylize(CONTENT, STYLE)
    close(begun, plain.stylize(CONTENT, STYLE).numpy())
    for each in deformable.din:
        each.offset_net.bias.fill_(1.0)
    # All taps one pixel further down and right: away from borders, what a layer carries over is shifted.
    features = picture(1, 4, 12, 10, seed=4).double()
    style = deformable.encode(STYLE)
    style_filter = DynamicFilter(style["level1.weight"], style["level1.bias"])
    moved, still = (model.din[1](features, style_filter) for model in (deformable, plain))
    close(moved[..., 1:-2, 1:-2], still[..., 2:-1, 2:-1].numpy())
    assert (deformable.stylize(CONTENT, STYLE) - begun).abs().max() > 1e-3


@torch.no_grad()
def operations(name, **settings):
    """A pixel's, of a picture of 512x512 in a style that is encoded."""
    with torch.device("meta"), backends.by_reference(), FlopCounterMode(display=False) as counter:
        model, content = models.build(name, **settings), torch.empty(1, 3, 512, 512)
        style = model.encode(torch.empty(1, 3, 256, 256))
        before = counter.get_total_flops()
        assert model.stylize(content, style).shape == content.shape
    return (counter.get_total_flops() - before) / 512**2


def test_takes_few_operations():
    """The paper's claim: over 20 times fewer than arbitrary-style networks before."""
    adain = operations("adain")
    assert adain == pytest.approx(2 * 482_688, rel=1e-3)
    assert operations("din") < adain / 50
    assert operations("din", deformable=True) < adain / 20
