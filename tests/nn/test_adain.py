"""AdaIN the module: the function, with its rule kept."""

import copy

import pytest
import torch

from fastnorm import functional, nn

CONTENT, STYLE = (torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double() for size in [(5, 7), (6, 4)])


def by_hand(content, style, correction, eps):
    (content_var, content_mean), (style_var, style_mean) = (
        torch.var_mean(map, dim=(2, 3), correction=correction, keepdim=True) for map in (content, style)
    )
    return (content - content_mean) / (content_var + eps).sqrt() * (style_var + eps).sqrt() + style_mean


@pytest.mark.parametrize("correction, eps", [(0, 1e-5), (1, 1e-2)])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_is_the_formula(correction, eps, alpha):
    expected = alpha * by_hand(CONTENT, STYLE, correction, eps) + (1 - alpha) * CONTENT
    torch.testing.assert_close(nn.AdaIN(eps, correction)(CONTENT, STYLE, alpha), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "rule",
    [dict(eps_mode="std", eps=0.1), dict(style_eps=0.0, style_correction=1), dict(style_eps=0.2, correction=1)],
    ids=str,
)
def test_every_argument_reaches_the_function(rule):
    actual = nn.AdaIN(**rule)(CONTENT, STYLE)
    assert torch.equal(actual, functional.adain(CONTENT, STYLE, **rule))
    assert not torch.allclose(actual, nn.AdaIN()(CONTENT, STYLE), rtol=1e-3)


def test_statistics_for_a_style():
    mean, std = STYLE.mean((2, 3)), STYLE.std((2, 3))
    expected = torch.nn.functional.instance_norm(CONTENT) * std[..., None, None] + mean[..., None, None]
    torch.testing.assert_close(nn.AdaIN()(CONTENT, (mean, std)), expected, rtol=1e-10, atol=1e-10)


def test_has_no_state_and_says_its_rule():
    module = copy.deepcopy(nn.AdaIN(1e-4, 1, eps_mode="std"))
    assert module.state_dict() == {}
    assert repr(module) == "AdaIN(eps=0.0001, correction=1, eps_mode='std')"
