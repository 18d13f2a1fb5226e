"""AdaConv: the style predicts filters, which the decoder applies to the content's normalised features.

Chandran, Zoss, Gotardo, Gross, Bradley, "Adaptive Convolutions for Structure-Aware Style Transfer", CVPR 2021.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from ..nn import AdaConv2d, AdaConvFilter, Chain, KernelPredictor
from .adain import LAYERS, conv
from .pictures import middle_square
from .system import System
from .vgg import VGG19

KERNEL = 3  # Side of the descriptor, and of the filters.


class StyleEncoder(nn.Module):
    """Features (N, C, h, w) to the descriptor (N, C, 3, 3): thrice convolution, LeakyReLU, mean of 2x2; a linear map."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        step = conv(channels, channels), nn.LeakyReLU(), nn.AvgPool2d(2)
        self.convolutions = Chain(*step, conv(channels, channels), *step[1:], conv(channels, channels), *step[1:])
        self.linear = nn.Linear(channels * (side // 8) ** 2, channels * KERNEL**2)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.convolutions(features).flatten(1)).unflatten(1, (-1, KERNEL, KERNEL))


class AdaConv(System):
    """Figure 3 of the paper: VGG-19 to relu4_1, and AdaIN's decoder with an adaptive convolution before each stage.

    A style is the filters of all stages, "0.spatial", "0.pointwise", "0.bias", "1.spatial" and so on: 21,440 numbers. They
    are an affine map of the style's descriptor, so `mix` of filters is the mixture of descriptors. The picture's features
    are linear in each of a stage's two filters, not in both, so it is not the mixture of features. `alpha` mixes in this
    way, too: 1 is the given style, 0 the content picture's own.

    Args:
        widths: channels of the encoder's four stages, the decoder's in reverse.
        groups: of the adaptive convolutions, in the decoder's order.
        convs: ordinary convolutions of each stage of the decoder; also published: (1, 2, 2, 4).
        style_size: side of the square at which paintings are looked at, a multiple of 64; it sets the size of a layer.
        eps: added to the variance.
    """

    multiple, least = 8, 16

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        groups: tuple[int, ...] = (512, 128, 32, 8),
        convs: tuple[int, ...] = (1, 4, 2, 2),
        style_size: int = 256,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if style_size < 64 or style_size % 64:
            raise ValueError(f"AdaConv: style_size: expected a multiple of 64, got {style_size}")
        deepest, *_ = channels = widths[::-1]
        self.style_size = style_size
        self.encoder = VGG19(LAYERS, (*widths, deepest))
        self.style_encoder = StyleEncoder(deepest, style_size // 8)
        self.predictors = nn.ModuleList(
            KernelPredictor(deepest, width, width, KERNEL, group) for width, group in zip(channels, groups)
        )
        self.decoder = decoder(channels, groups, convs, eps)

    def encode(self, style: Tensor) -> dict[str, Tensor]:
        """Filters by paintings (N, 3, h, w), of which the middle square is resized to style_size (bicubic, antialiased)."""
        self.check_content(style, "style")
        descriptor = self.style_encoder(self.encoder(middle_square(style, self.style_size)))
        filters = (predictor(descriptor)._asdict() for predictor in self.predictors)
        return {f"{stage}.{kind}": tensor for stage, each in enumerate(filters) for kind, tensor in each.items()}

    def names_kept(self, style: dict) -> set[str]:
        return {f"{stage}.{kind}" for stage in range(len(self.predictors)) for kind in AdaConvFilter._fields}

    def paint(self, content: Tensor, style: dict[str, Tensor], alpha: float) -> Tensor:
        if alpha != 1:
            style = self.mixed([style, self.encode(content)], [alpha, 1 - alpha])
        return self.decoded(self.encoder(content), style)

    def decoded(self, features: Tensor, style: dict[str, Tensor]) -> Tensor:
        """The picture of features (N, C, h, w) and filters."""
        filters = {
            str(stage): AdaConvFilter(*(style[f"{stage}.{kind}"] for kind in AdaConvFilter._fields))
            for stage in range(len(self.predictors))
        }
        return self.decoder(features, filters)


def decoder(channels: tuple[int, ...], groups: tuple[int, ...], convs: tuple[int, ...], eps: float) -> Chain:
    """Stages of up, adaptive convolution, and mirrored 3x3 convolutions with ReLU, of which the last changes the width."""
    stages = []
    for width, after, group, count in zip(channels, (*channels[1:], 3), groups, convs):
        up = nn.UpsamplingNearest2d(scale_factor=2) if stages else nn.Identity()
        parts = OrderedDict(up=up, adaconv=AdaConv2d(width, width, group, KERNEL, eps=eps))
        for i in range(1, count + 1):
            parts[f"conv{i}"] = conv(width, width if i < count else after)
            if (after, i) != (3, count):  # The picture.
                parts[f"relu{i}"] = nn.ReLU()
        stages.append(Chain(parts))
    return Chain(*stages)
