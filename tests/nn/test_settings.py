"""What a module cannot work with it refuses when it is made."""

import pytest

from fastnorm import nn


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: nn.StyleSwap(0), ValueError, "StyleSwap: patch_size: expected an integer of at least 1, got 0"),
        (lambda: nn.StyleSwap(stride=1.5), ValueError, "StyleSwap: stride: expected an integer of at least 1, got 1.5"),
        (lambda: nn.StyleSwap(usage_penalty="no"), TypeError, "StyleSwap: usage_penalty: expected a number, got str"),
        (lambda: nn.WhitenColor(alpha=None), TypeError, "WhitenColor: alpha: expected a number, got None"),
        (lambda: nn.WhitenColor(method="svd"), ValueError, "WhitenColor: method: expected 'eigh' or 'newton_schulz', got 'svd'"),
        (lambda: nn.ZCAWhiten(-1), ValueError, "ZCAWhiten: eps: expected a finite number of at least 0, got -1"),
        (lambda: nn.Recolor(0, "newton_schulz"), ValueError, "Recolor: eps: newton_schulz needs one of more than 0, got 0"),
        (lambda: nn.MatchHistogram(0), ValueError, "MatchHistogram: bins: expected None or an integer from 1 to 65536, got 0"),
    ],
)
def test_what_is_no_setting(make, error, words):
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == words
