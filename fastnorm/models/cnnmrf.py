"""Li and Wand, "Combining Markov Random Fields and Convolutional Neural Networks for Image Synthesis", CVPR 2016,
arXiv:1601.04589.

Each 3x3 patch of the features at relu3_1 and relu4_1 is drawn to the style's patch that correlates best with it, of the
style as it is, turned and scaled. From coarse to fine: from a longer side of 64 pixels on, 100 steps at each size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from .._checks import check_integer, check_number
from ..losses import MRFLoss
from .pictures import resized, turned
from .synthesis import Synthesis
from .terms import COARSEST, CONTENT, Level, Term, check_layers, check_weights, content_terms, halved, variation_terms


class CNNMRF(Synthesis):
    """Weights are those of the authors' code: a patch's loss is half its squared distance, divided by how many patches there
    are at a pixel.

    Args:
        style_weight: of each layer of patches, summed over the map.
        content_weight: of each layer's squared difference, averaged; 0 for an unguided picture.
        variation_weight: of neighbouring pixels' squared differences, summed.
        patch_size: pixels of a map along each side.
        turns, turn: how many copies are turned to either side, and each by how many degrees more.
        scales: of further copies.
        longest, steps: pixels of the coarsest level's longer side, at least, and steps of each level.
        padding_mode, pooling, widths: of VGG, as of `vgg.VGG19`.
    """

    def __init__(
        self,
        style_weight: float = 1e-4,
        content_weight: float = 20.0,
        variation_weight: float = 1e-3,
        style_layers: Sequence[str] = ("relu3_1", "relu4_1"),
        content_layers: Sequence[str] = (CONTENT,),
        patch_size: int = 3,
        turns: int = 2,
        turn: float = 7.5,
        scales: Sequence[float] = (0.85, 1.15),
        longest: int = 64,
        steps: int = 100,
        padding_mode: str = "zeros",
        pooling: str = "max",
        widths: Sequence[int] = (64, 128, 256, 512, 512),
    ) -> None:
        name = "CNNMRF"
        check_weights(name, style_weight=style_weight)
        check_layers(name, style_layers=style_layers)
        check_integer(name, "patch_size", patch_size, 1)
        check_integer(name, "turns", turns, 0)
        check_integer(name, "longest", longest, 1)
        check_integer(name, "steps", steps, 1)
        check_number(name, "turn", turn)
        for scale in scales:
            check_number(name, "scales", scale, 0.1)
        self._pyramid = longest, steps
        self._angles = [turn * number for number in range(-turns, turns + 1) if number]
        self._scales = tuple(scales)
        weight = style_weight / (2 * patch_size**2)
        patches = style_layers if style_weight else ()
        terms = [
            *content_terms(name, content_layers, content_weight),
            *(Term("style", MRFLoss(weight, "sum", patch_size=patch_size), layer, "styles") for layer in patches),
            *variation_terms(name, variation_weight),
        ]
        super().__init__(terms, (), widths, padding_mode, pooling)

    def levels(self, height: int, width: int) -> Sequence[Level]:
        return halved(height, width, *self._pyramid)

    def copies(self, style: Tensor) -> list[Tensor]:
        """First the style as it is, for of patches that are as much alike the first is taken."""
        height, width = style.shape[2:]
        turned_ones = [style, *(turned(style, math.radians(angle)) for angle in self._angles)]
        copies = list(turned_ones)
        for scale in self._scales:
            copies += [
                resized(copy, round(scale * copy.shape[2]), round(scale * copy.shape[3])) for copy in turned_ones
            ]
        shortest = min(max(COARSEST, self.least), height, width)
        return [style, *(copy for copy in copies[1:] if min(copy.shape[2:]) >= shortest)]
