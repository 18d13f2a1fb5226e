"""Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016.

The picture whose features at relu4_2 are the content's, and whose Gram matrices at relu1_1 ... relu5_1 are the style's:
500 steps of L-BFGS, and 200 more at a larger size. Without a content it is a texture ("Texture Synthesis Using
Convolutional Neural Networks", NIPS 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

from .synthesis import Synthesis
from .terms import CONTENT, STYLE, checked_levels, content_terms, gram_terms, variation_terms


class Gatys(Synthesis):
    """Weights are those of the authors' code, where 1e3 is divided by C^2 and Gram matrices by positions alone.

    Args:
        content_weight, style_weight: of each of their layers.
        variation_weight: of neighbouring pixels' squared differences, summed; the paper has none.
        sizes, steps: of levels: parts of the full size, and how many steps each has. 0.64 is from 512 to 800 pixels.
        padding_mode, pooling, widths: of VGG, as of `vgg.VGG19`.
    """

    def __init__(
        self,
        content_weight: float = 1.0,
        style_weight: float = 1e3,
        variation_weight: float = 0.0,
        content_layers: Sequence[str] = (CONTENT,),
        style_layers: Sequence[str] = STYLE,
        sizes: Sequence[float] = (0.64, 1.0),
        steps: Sequence[int] = (500, 200),
        padding_mode: str = "zeros",
        pooling: str = "max",
        widths: Sequence[int] = (64, 128, 256, 512, 512),
    ) -> None:
        terms = [
            *content_terms("Gatys", content_layers, content_weight),
            *gram_terms("Gatys", style_layers, style_weight),
            *variation_terms("Gatys", variation_weight),
        ]
        super().__init__(terms, checked_levels("Gatys", sizes, steps), widths, padding_mode, pooling)
