"""SANet: what attention finds in the style's features, added to the content's at two depths, decoded to a picture.

Park, Lee, "Arbitrary Style Transfer with Style-Attentional Networks", CVPR 2019, arXiv:1812.02342.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from .. import nn as layers
from ..nn import Chain
from .adain import conv, decoder
from .attending import Attending
from .vgg import VGG19

LAYERS = "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"  # Of the losses; of the last two is what attends.


class SANet(Attending):
    """Figure 2 of the paper: VGG-19 to relu5_1, two SANets, a 3x3 convolution that merges them, AdaIN's decoder.

    `alpha` blends with the content picture as its own style, as in the paper.

    Args:
        widths: channels of the encoder's first four stages, the decoder's in reverse; the fifth is as wide as the fourth.
        eps: added to variances, which are unbiased.
    """

    multiple, least = 16, 32

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512), eps: float = 1e-5) -> None:
        super().__init__()
        width = widths[-1]
        self.encoder = VGG19(LAYERS, (*widths, width))
        self.sanet4, self.sanet5 = layers.SANet(width, eps), layers.SANet(width, eps)
        self.decoder = Chain(conv(width, width), *decoder(widths))  # Merged, then decoded.

    def kept(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys and values of relu4_1, (N, C, h / 8, w / 8), and of relu5_1, (N, C, h / 16, w / 16)."""
        (key4, value4), (key5, value5) = self.sanet4.encode(features["relu4_1"]), self.sanet5.encode(features["relu5_1"])
        return dict(key4=key4, value4=value4, key5=key5, value5=value5)

    def names_of_one(self) -> set[str]:
        return {"key4", "value4", "key5", "value5"}

    def attended(self, features: dict[str, Tensor], style: dict[str, Tensor]) -> list[Tensor]:
        return [
            self.sanet4.attend(features["relu4_1"], style["key4"], style["value4"]),
            self.sanet5.attend(features["relu5_1"], style["key5"], style["value5"]),
        ]

    def decoded(self, maps: list[Tensor]) -> Tensor:
        fourth, fifth = maps
        return self.decoder(fourth + interpolate(fifth, scale_factor=2))
