"""StyleBank: an auto-encoder, and between its halves a bank of filters for each style.

Chen, Yuan, Liao, Yu, Hua, "StyleBank: An Explicit Representation for Neural Image Style Transfer", CVPR 2017,
arXiv:1703.09210.
"""

from __future__ import annotations

from functools import reduce
from operator import add

from torch import Tensor, nn

from ..nn import Chain, InstanceNorm2d
from .johnson import layer
from .numbered import weights_of
from .pictures import between, composed
from .system import System


class StyleBank(System):
    """Encoder, bank, decoder; without a bank the picture itself comes out.

    A style is a number, the index of a sample each, (N,) int64, or the weights of a mixture, (S,) or (N, S). What is kept of
    it are the weights of the banks that it takes, {"3": (N,)}: banks that it does not take do not run. Blends, regions, and
    `alpha`, between the auto-encoded content and the style, are those of the banks' features, as in the paper.

    Args:
        styles: number of banks, S.
        widths: channels of the encoder's two layers, 9x9 and 3x3 of stride 2; the decoder is their mirror image, of
            transposed convolutions.
    """

    multiple, least = 4, 12
    styles_regardless_of = ("styles",)

    def __init__(self, styles: int = 50, widths: tuple[int, int] = (128, 256)) -> None:
        super().__init__()
        first, second = widths
        self.encoder = Chain(*layer(3, first, 9, stride=2), *layer(first, second, 3, stride=2))
        self.banks = nn.ModuleList(bank(second) for _ in range(styles))
        self.decoder = Chain(
            nn.ConvTranspose2d(second, first, 3, 2, 1, output_padding=1, bias=False),
            InstanceNorm2d(first, affine=True), nn.ReLU(),
            nn.ConvTranspose2d(first, 3, 9, 2, 4, output_padding=1),
        )  # fmt: skip

    @property
    def styles(self) -> int:
        return len(self.banks)

    def add_style(self) -> int:
        """The number of a new bank, of fresh weights. Trained alone, `model.banks[number]`, it leaves the others alone."""
        self.banks.append(bank(self.config["widths"][1]).to(next(self.parameters())))
        self.config["styles"] = len(self.banks)
        return len(self.banks) - 1

    def encode(self, style: int | Tensor) -> dict[str, Tensor]:
        """The weights, (1,) or (N,), of each bank that a style of any form takes."""
        own = next(self.parameters())
        # On the CPU, for which they are is a matter of Python.
        weights = weights_of("StyleBank", style, self.styles, own.new_empty(0, device="cpu"))
        taken = (weights != 0).any(0).nonzero().flatten().tolist()
        if not taken:
            raise ValueError(f"StyleBank: style: expected a weight other than 0, got {weights.tolist()}")
        return {str(number): weights[:, number].to(own.device) for number in taken}

    def encoded(self, style, samples: int | None = None) -> dict[str, Tensor]:
        if isinstance(style, dict):
            self.check_kept(style)
        else:
            style = self.encode(style)
        self._check_rows(style, samples)
        return style

    def names_kept(self, style: dict) -> set[str]:
        """Of any of the banks."""
        return style.keys() & {str(number) for number in range(self.styles)} or {"0"}

    def mixed(self, styles: list[dict[str, Tensor]], weights: list[float]) -> dict[str, Tensor]:
        numbers = dict.fromkeys(number for style in styles for number in style)
        return {
            number: sum(weight * style[number] for style, weight in zip(styles, weights) if number in style)
            for number in numbers
        }

    def paint(self, content: Tensor, style: dict[str, Tensor], alpha: float) -> Tensor:
        return self.decoder(self.transferred(self.encoder(content), style, alpha))

    def paint_regions(self, content: Tensor, styles: list[dict[str, Tensor]], mask: Tensor, alpha: float) -> Tensor:
        features = self.encoder(content)
        return self.decoder(composed((self.transferred(features, style, alpha) for style in styles), mask))

    def transferred(self, features: Tensor, style: dict[str, Tensor], alpha: float = 1.0) -> Tensor:
        """Of the encoder's features the banks', as much as the style says of each, and the rest to `alpha` as they were."""
        banks = (weight.view(-1, 1, 1, 1) * self.banks[int(number)](features) for number, weight in style.items())
        stylized = reduce(add, banks)
        return between(features, stylized, alpha)


def bank(channels: int) -> Chain:
    return Chain(*layer(channels, channels, 3), *layer(channels, channels, 3))
