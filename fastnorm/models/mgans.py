"""MGANs: VGG's features of a picture, decoded in the way that a discriminator of the style's patches taught.

Li, Wand, "Precomputed Real-Time Texture Synthesis with Markovian Generative Adversarial Networks", ECCV 2016,
arXiv:1604.04382.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..nn import Chain
from .pictures import between
from .system import System
from .vgg import VGG19

LAYERS = "relu3_1", "relu4_1"  # Of the discriminator; of the generator.


class MGANs(System):
    """Figure 4 of the paper: VGG-19 to relu4_1, a convolution, and three transposed ones that double a side each.

    `alpha` blends with the content picture itself.

    Args:
        encoder_widths: channels of the encoder's four stages.
        widths: of the decoder's maps, at an eighth, a quarter and a half of the picture's size.
    """

    multiple, least = 8, 16

    def __init__(
        self, encoder_widths: tuple[int, ...] = (64, 128, 256, 512), widths: tuple[int, ...] = (512, 256, 128)
    ) -> None:
        super().__init__()
        self.encoder = VGG19(LAYERS, (*encoder_widths, encoder_widths[-1]))
        self.decoder = decoder(encoder_widths[-1], *widths)

    def paint(self, content: Tensor, style: None, alpha: float) -> Tensor:
        stylized = self.decoder(self.encoder(content))
        return between(content, stylized, alpha)


def decoder(features: int, eighth: int, quarter: int, half: int) -> Chain:
    """Its pictures are of 0..1; the authors' code has the same by a tanh, of -1..1."""
    return Chain(
        nn.Conv2d(features, eighth, 3, padding=1, bias=False), nn.BatchNorm2d(eighth), nn.ReLU(),
        doubled(eighth, quarter, bias=False), nn.BatchNorm2d(quarter), nn.ReLU(),
        doubled(quarter, half, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
        doubled(half, 3), nn.Sigmoid(),
    )  # fmt: skip


def doubled(in_channels: int, out_channels: int, bias: bool = True) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)


def discriminator(features: int) -> Chain:
    """Scores (N, 1, h / 4, w / 4) of patches of a feature map: above 0 is the style, below is the generator's."""
    return Chain(
        halved(features, features), nn.BatchNorm2d(features), nn.LeakyReLU(0.2),
        halved(features, 2 * features), nn.BatchNorm2d(2 * features), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * features, 1, 1),
    )  # fmt: skip


def halved(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
