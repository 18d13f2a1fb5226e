"""Li, Xu, Nie and Chua, "Laplacian-Steered Neural Style Transfer", ACM Multimedia 2017, arXiv:1707.01253.

Gatys et al., and the content's edges: pictures averaged over squares, of which the Laplacian of all colours is added up.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..losses import LaplacianLoss
from .synthesis import Synthesis
from .terms import CONTENT, STYLE, Term, check_weights, checked_levels, content_terms, gram_terms, variation_terms


class Laplacian(Synthesis):
    """1000 steps at one size, as the authors' code, whose weights are for pixels in 0..255 and for larger features.

    Args:
        laplacian_weight: of each square's edges, averaged over the picture.
        squares: their sides, in pixels; the paper has 4, or 4 and 16.
        content_weight, style_weight, variation_weight, and all others: as of `gatys.Gatys`.
    """

    def __init__(
        self,
        laplacian_weight: float = 100.0,
        squares: Sequence[int] = (4,),
        content_weight: float = 1.0,
        style_weight: float = 1e3,
        variation_weight: float = 1e-3,
        content_layers: Sequence[str] = (CONTENT,),
        style_layers: Sequence[str] = STYLE,
        sizes: Sequence[float] = (1.0,),
        steps: Sequence[int] = (1000,),
        padding_mode: str = "zeros",
        pooling: str = "max",
        widths: Sequence[int] = (64, 128, 256, 512, 512),
    ) -> None:
        name = "Laplacian"
        check_weights(name, laplacian_weight=laplacian_weight)
        edges = LaplacianLoss(dict.fromkeys(squares, laplacian_weight))
        terms = [
            *content_terms(name, content_layers, content_weight),
            *gram_terms(name, style_layers, style_weight),
            *([Term("laplacian", edges, None, "content")] if laplacian_weight else []),
            *variation_terms(name, variation_weight),
        ]
        super().__init__(terms, checked_levels(name, sizes, steps), widths, padding_mode, pooling)
