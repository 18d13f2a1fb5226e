"""Risser, Wilmot and Barnes, "Stable and Controllable Neural Texture Synthesis and Style Transfer Using Histogram Losses",
2017, arXiv:1701.08893.

Gatys et al., and the histograms of features at relu1_1 and relu4_1, for Gram matrices do not tell apart all distributions:
a picture can drift between those of one matrix. From coarse to fine.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..losses import HistogramLoss
from .synthesis import Synthesis
from .terms import (
    CONTENT,
    STYLE,
    Term,
    check_layers,
    check_weights,
    checked_levels,
    content_terms,
    gram_terms,
    variation_terms,
)


class Histogram(Synthesis):
    """The paper leaves weights to a rule that holds down each loss's gradient; these are fixed.

    Args:
        histogram_weight: of each layer's squared difference from its match, averaged over the map.
        histogram_layers, bins: of which features, and how fine their histograms are.
        content_weight, style_weight, variation_weight, and all others: as of `gatys.Gatys`.
    """

    def __init__(
        self,
        histogram_weight: float = 1.0,
        histogram_layers: Sequence[str] = ("relu1_1", "relu4_1"),
        bins: int = 256,
        content_weight: float = 1.0,
        style_weight: float = 1e3,
        variation_weight: float = 1e-3,
        content_layers: Sequence[str] = (CONTENT,),
        style_layers: Sequence[str] = STYLE,
        sizes: Sequence[float] = (0.25, 0.5, 1.0),
        steps: Sequence[int] = (200, 200, 200),
        padding_mode: str = "zeros",
        pooling: str = "max",
        widths: Sequence[int] = (64, 128, 256, 512, 512),
    ) -> None:
        name = "Histogram"
        check_weights(name, histogram_weight=histogram_weight)
        check_layers(name, histogram_layers=histogram_layers)
        matched = histogram_layers if histogram_weight else ()
        terms = [
            *content_terms(name, content_layers, content_weight),
            *gram_terms(name, style_layers, style_weight),
            *(Term("histogram", HistogramLoss(histogram_weight, bins=bins), layer, "styles") for layer in matched),
            *variation_terms(name, variation_weight),
        ]
        super().__init__(terms, checked_levels(name, sizes, steps), widths, padding_mode, pooling)
