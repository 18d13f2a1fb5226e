"""AdaIN: the content's features, given the mean and deviation of the style's, decoded to a picture.

Huang, Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", ICCV 2017,
arXiv:1703.06868.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..functional import adain, instance_stats
from ..nn import Chain
from .pictures import composed, mirror_to_multiple
from .system import System
from .vgg import VGG19

LAYERS = "relu1_1", "relu2_1", "relu3_1", "relu4_1"  # Of the style loss; the last is where styles are transferred.


class AdaIN(System):
    """Figure 2 of the paper: VGG-19 to relu4_1, adaptive instance normalisation, a decoder that mirrors the encoder.

    Args:
        widths: channels of the encoder's four stages, the decoder's in reverse.
        eps: added to the content's variance, which is biased; the style's is unbiased and has none, as in the first
            published code.
    """

    multiple, least = 8, 16

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512), eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.encoder = VGG19(LAYERS, (*widths, widths[-1]))
        self.decoder = decoder(widths)

    def encode(self, style: Tensor) -> dict[str, Tensor]:
        """mean and std of the features of paintings (N, 3, h, w), each (N, C)."""
        self.check_content(style, "style")
        return self.statistics(self.encoder(mirror_to_multiple(style, 1, self.least)))

    def names_kept(self, style: dict) -> set[str]:
        return {"mean", "std"}

    def statistics(self, features: Tensor) -> dict[str, Tensor]:
        mean, rstd = instance_stats(features, eps=0.0, correction=1)
        return dict(mean=mean, std=1 / rstd)

    def paint(self, content: Tensor, style: dict[str, Tensor], alpha: float) -> Tensor:
        return self.decoder(self.transferred(self.encoder(content), style, alpha))

    def paint_regions(self, content: Tensor, styles: list[dict[str, Tensor]], mask: Tensor, alpha: float) -> Tensor:
        """Features are composed, as in section 7.4 of the paper."""
        features = self.encoder(content)
        return self.decoder(composed((self.transferred(features, style, alpha) for style in styles), mask))

    def transferred(self, features: Tensor, style: dict[str, Tensor], alpha: float = 1.0) -> Tensor:
        return adain(features, (style["mean"], style["std"]), alpha, self.eps)


def decoder(widths: tuple[int, ...]) -> Chain:
    """512-256, up, three of 256 and 256-128, up, 128-128-64, up, 64-64-3: mirrored 3x3 convolutions with ReLU, no norm."""
    first, second, third, fourth = widths
    up, relu = nn.UpsamplingNearest2d(scale_factor=2), nn.ReLU()
    return Chain(
        conv(fourth, third), relu,
        up, conv(third, third), relu, conv(third, third), relu, conv(third, third), relu, conv(third, second), relu,
        up, conv(second, second), relu, conv(second, first), relu,
        up, conv(first, first), relu, conv(first, 3),
    )  # fmt: skip


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect")
