"""AdaConv against its formulas."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models.adaconv import AdaConv

CHANNELS, GROUPS = (10, 8, 6, 4), (10, 4, 2, 2)
EPS = 1e-3


def small(convs=(1, 4, 2, 2)):
    return literal.randomize(AdaConv(CHANNELS[::-1], GROUPS, convs, style_size=64, eps=EPS))


def style_descriptor(state, style):
    """Of a painting (3, 64, 64)."""
    x = literal.vgg19(state, style, "relu4_1")["relu4_1"]
    for place in (0, 3, 6):
        x = literal.mirrored_conv(x, state, f"style_encoder.convolutions.{place}")
        x = np.where(x > 0, x, 0.01 * x)
        x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    x = state["style_encoder.linear.weight"] @ x.ravel() + state["style_encoder.linear.bias"]
    return x.reshape(-1, 3, 3)


def filters(state, descriptor):
    """spatial (C, C / groups, 3, 3), pointwise (C, C / groups) and bias (C,) of each stage."""
    mean = descriptor.mean((1, 2))
    found = []
    for stage, (channels, groups) in enumerate(zip(CHANNELS, GROUPS)):
        spatial = literal.mirrored_conv(descriptor, state, f"predictors.{stage}.spatial")
        pointwise, bias = (
            state[f"predictors.{stage}.{kind}.weight"][..., 0, 0] @ mean + state[f"predictors.{stage}.{kind}.bias"]
            for kind in ("pointwise", "bias")
        )
        per_group = channels // groups
        found.append((spatial.reshape(channels, per_group, 3, 3), pointwise.reshape(channels, per_group), bias))
    return found


def adaconv(x, spatial, pointwise, bias, groups):
    centred = x - x.mean((1, 2), keepdims=True)
    x = centred / np.sqrt((centred**2).mean((1, 2), keepdims=True) + EPS)
    x = literal.conv(literal.mirror(x, 1), spatial, groups=groups)
    return literal.conv(x, pointwise[..., None, None], groups=groups) + bias[:, None, None]


def decoded(state, x, stages, convs):
    for stage, (of_style, groups, count) in enumerate(zip(stages, GROUPS, convs)):
        x = literal.upsample(x) if stage else x
        x = adaconv(x, *of_style, groups)
        for i in range(1, count + 1):
            x = literal.mirrored_conv(x, state, f"decoder.{stage}.conv{i}")
            x = x if (stage, i) == (3, count) else literal.relu(x)
    return x


@pytest.mark.parametrize("convs", [(1, 4, 2, 2), (1, 2, 2, 4)], ids=str)
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_is_the_formulas(convs, alpha):
    model = small(convs)
    content, style = picture(1, 3, 64, 64).double(), picture(1, 3, 64, 64, seed=1).double()
    state = literal.arrays(model)
    descriptor, own = (style_descriptor(state, x[0].numpy()) for x in (style, content))
    stages = filters(state, alpha * descriptor + (1 - alpha) * own)
    features = literal.vgg19(state, content[0].numpy(), "relu4_1")["relu4_1"]
    expected = decoded(state, features, stages, convs)
    with torch.no_grad():
        output = model.stylize(content, style, alpha)[0]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * abs(expected).max())


@torch.no_grad()
def test_a_mixture_of_filters_is_that_of_descriptors():
    model = small()
    first, second = (model.encode(picture(1, 3, 64, 64, seed=seed).double()) for seed in (1, 2))
    state = literal.arrays(model)
    descriptors = [style_descriptor(state, picture(1, 3, 64, 64, seed=seed)[0].double().numpy()) for seed in (1, 2)]
    mixed = model.mix([first, second], [0.3, 0.7])
    assert list(mixed) == [f"{stage}.{kind}" for stage in range(4) for kind in ("spatial", "pointwise", "bias")]
    for stage, of_stage in enumerate(filters(state, 0.3 * descriptors[0] + 0.7 * descriptors[1])):
        for kind, expected in zip(("spatial", "pointwise", "bias"), of_stage):
            found = mixed[f"{stage}.{kind}"][0].reshape(expected.shape)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * abs(expected).max())


@torch.no_grad()
def test_a_painting_of_any_size_is_its_middle_square():
    model, wide, tall = small(), picture(1, 3, 64, 101, seed=3).double(), picture(1, 3, 173, 130, seed=4).double()
    resized = torch.nn.functional.interpolate(tall[..., 21:151, :], (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    for painting, square in ((wide, wide[..., 18:82]), (tall, resized)):
        torch.testing.assert_close(model.encode(painting), model.encode(square), rtol=0, atol=0)


@pytest.mark.parametrize("size", [0, 32, 65, 100])
def test_sizes_that_the_style_encoder_cannot_halve(size):
    with pytest.raises(ValueError, match=f"^AdaConv: style_size: expected a multiple of 64, got {size}$"):
        AdaConv(CHANNELS[::-1], GROUPS, style_size=size)
