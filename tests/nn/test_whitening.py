"""WhitenColor, ZCAWhiten and Recolor are their functions, with their settings."""

import torch

from fastnorm import functional
from fastnorm.nn import Recolor, WhitenColor, ZCAWhiten

SETTINGS = dict(eps=0.1, method="newton_schulz")


def test_modules_are_their_functions():
    content, style = torch.randn(2, 5, 6, 7), torch.randn(1, 5, 8, 9)
    for settings in ({}, SETTINGS):
        assert torch.equal(WhitenColor(**settings)(content, style), functional.whiten_color(content, style, **settings))
        assert torch.equal(ZCAWhiten(**settings)(content), functional.zca_whiten(content, **settings))
        assert torch.equal(Recolor(**settings)(content, style), functional.recolor(content, style, **settings))
        kept = functional.color_stats(style)
        assert torch.equal(WhitenColor(**settings)(content, kept), functional.whiten_color(content, kept, **settings))
        assert torch.equal(Recolor(**settings)(content, kept), functional.recolor(content, kept, **settings))
    found = WhitenColor(0.3, **SETTINGS)(content, style)
    assert torch.equal(found, functional.whiten_color(content, style, 0.3, **SETTINGS))


def test_they_say_what_they_are():
    assert repr(WhitenColor(0.5)) == "WhitenColor(alpha=0.5, eps=1e-05, method='eigh')"
    assert repr(ZCAWhiten(**SETTINGS)) == "ZCAWhiten(eps=0.1, method='newton_schulz')"
    assert repr(Recolor()) == "Recolor(eps=1e-05, method='eigh')"
