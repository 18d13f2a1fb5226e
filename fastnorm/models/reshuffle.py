"""Gu, Chen, Liao and Yuan, "Arbitrary Style Transfer with Deep Feature Reshuffle", CVPR 2018, arXiv:1805.04103.

Patches are drawn to the style's that correlate best, but each of those is to be used about as often: with all of them used
once, features are the style's own in another order, so that their Gram matrix is right, too. From relu4_1 down to relu2_1.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._checks import check_integer, check_number
from ..losses import ReshuffleLoss
from .synthesis import Synthesis
from .terms import CONTENT, Level, Term, check_layers, check_weights, content_terms, variation_terms


class Reshuffle(Synthesis):
    """The picture itself is optimised, where the paper optimises features and decodes them by a trained network. Of weights,
    and of the penalty, no values are published that are known here.

    Args:
        style_weight, content_weight: of each layer's squared distance, averaged.
        variation_weight: of neighbouring pixels' squared differences, summed.
        style_layers: in the order in which they come in, one a level; those before stay.
        usage_penalty: what each use of a patch takes from its correlation the next time.
        patch_size: pixels of a map along each side.
        steps: of each level.
        padding_mode, pooling, widths: of VGG, as of `vgg.VGG19`.
    """

    def __init__(
        self,
        style_weight: float = 1.0,
        content_weight: float = 1.0,
        variation_weight: float = 1e-3,
        style_layers: Sequence[str] = ("relu4_1", "relu3_1", "relu2_1"),
        content_layers: Sequence[str] = (CONTENT,),
        usage_penalty: float = 0.1,
        patch_size: int = 3,
        steps: int = 100,
        padding_mode: str = "zeros",
        pooling: str = "max",
        widths: Sequence[int] = (64, 128, 256, 512, 512),
    ) -> None:
        name = "Reshuffle"
        check_weights(name, style_weight=style_weight)
        check_layers(name, style_layers=style_layers)
        check_number(name, "usage_penalty", usage_penalty, 0)
        check_integer(name, "patch_size", patch_size, 1)
        check_integer(name, "steps", steps, 1)
        patches = dict(patch_size=patch_size, usage_penalty=usage_penalty)
        shuffled = style_layers if style_weight else ()
        terms = [
            *content_terms(name, content_layers, content_weight),
            *(Term("style", ReshuffleLoss(style_weight, **patches), layer, "styles") for layer in shuffled),
            *variation_terms(name, variation_weight),
        ]
        levels = [Level(1.0, steps, tuple(style_layers[: count + 1])) for count in range(max(1, len(style_layers)))]
        super().__init__(terms, levels, widths, padding_mode, pooling)
