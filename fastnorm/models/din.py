"""DIN: a light network whose instance norms are followed by convolutions that a style brings along.

Jing, Liu, Ding, Wang, Ding, Song, Wen, "Dynamic Instance Normalization for Arbitrary Style Transfer", AAAI 2020,
arXiv:1911.06953. There is no public code; what the paper leaves open is said to be chosen here.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..nn import Chain, DeformableDynamicInstanceNorm, DynamicFilter, DynamicInstanceNorm, Residual
from .pictures import between, composed, mirror_to_multiple
from .system import System
from .vgg import VGG19

LAYERS = "relu1_1", "relu2_1", "relu3_1", "relu4_1"  # Of the style loss; the last is what filters are made from.


class DIN(System):
    """A MobileNet for the picture, a VGG-19 for the style: only the first runs again for the next picture.

    The encoder is a convolution, two depthwise-separable blocks of stride 2, and residual blocks; the decoder is its mirror
    image. At each of their three levels a DIN layer carries the encoder's map over: it is normalised, filtered by what the
    style's relu4_1 predicts, and added to the decoder's map.

        level 0   (H, W)          conv 3x3 -------------- DIN ------------ + - conv 3x3
        level 1   (H/2, W/2)        dw 3x3 / 2, pw 1x1 -- DIN ---------- + - pw 1x1, up, dw 3x3
        level 2   (H/4, W/4)          dw 3x3 / 2, pw 1x1, residual - DIN - residual, pw 1x1, up, dw 3x3

    Chosen here: instance norms in the encoder alone, between a depthwise convolution and its pointwise one (in the decoder
    they would take the style out again); the pointwise convolution before the upsampling, which a mirror image has, for a
    quarter of its arithmetic; ReLU.

    A style is filters, a few numbers a channel: {"level0.weight": (N, C, 1, k, k), "level0.bias": (N, C), "level1.weight"
    ...}. A convolution is linear in its filter, so the mixture of styles at a level is that of what they make of its map.
    `alpha` blends each DIN layer's output with its input: 0 is the content, encoded and decoded. `stylize_regions` blends by
    region what filters make of each level's map, not pictures: the paper's spatially adaptive DIN.

    Args:
        widths: channels of the levels.
        residual_blocks: of the encoder, and of the decoder.
        kernel_size, groups: of the style's filters, 1 and 3 in the paper; None groups for depthwise ones.
        deformable: the paper's deformable DIN, whose taps are moved by offsets that come from the content.
        style_widths: channels of VGG-19's first four stages.
        hidden_channels: of the nets that predict filters.
    """

    multiple, least = 4, 8

    def __init__(
        self,
        widths: tuple[int, int, int] = (32, 64, 128),
        residual_blocks: int = 2,
        kernel_size: int = 3,
        groups: int | None = None,
        deformable: bool = False,
        style_widths: tuple[int, ...] = (64, 128, 256, 512),
        hidden_channels: int = 128,
    ) -> None:
        super().__init__()
        self.style_encoder = VGG19(LAYERS, (*style_widths, style_widths[-1]))
        self.encoder = encoder(widths, residual_blocks)
        layer = DeformableDynamicInstanceNorm if deformable else DynamicInstanceNorm
        settings = dict(groups=groups, hidden_channels=hidden_channels)
        self.din = nn.ModuleList(layer(width, width, kernel_size, style_widths[-1], **settings) for width in widths)
        self.decoder = decoder(widths, residual_blocks)

    def encode(self, style: Tensor) -> dict[str, Tensor]:
        """The filters of paintings (N, 3, h, w), and their biases, by level."""
        self.check_content(style, "style")
        # Of a painting too small, relu4_1 would be smaller than a filter.
        return self.filters(self.style_encoder(mirror_to_multiple(style, 1, 8 * max(2, *self.din[0].kernel_size))))

    def filters(self, features: Tensor) -> dict[str, Tensor]:
        """What `encode` returns, of relu4_1."""
        by_level = (layer.encode(features)._asdict().items() for layer in self.din)
        return {f"level{level}.{field}": tensor for level, fields in enumerate(by_level) for field, tensor in fields}

    def names_kept(self, style: dict) -> set[str]:
        return {f"level{level}.{field}" for level in range(len(self.din)) for field in DynamicFilter._fields}

    def paint(self, content: Tensor, style: dict[str, Tensor], alpha: float) -> Tensor:
        return self._painted(content, alpha, lambda level, features: self.din[level](features, filter_of(style, level)))

    def paint_regions(self, content: Tensor, styles: list[dict[str, Tensor]], mask: Tensor, alpha: float) -> Tensor:
        def styled(level, features):
            return composed((self.din[level](features, filter_of(style, level)) for style in styles), mask)

        return self._painted(content, alpha, styled)

    def _painted(self, x: Tensor, alpha: float, styled: Callable[[int, Tensor], Tensor]) -> Tensor:
        carried = []
        for level, stage in enumerate(self.encoder):
            x = stage(x)
            # Now, not when it is added: what it is made of is let go.
            carried.append(between(x, styled(level, x), alpha))
        x = carried.pop()
        for stage in self.decoder:
            x = stage(x)
            if carried:
                x = carried.pop().add_(x)  # A map of its own would take longer to get than to fill.
        return x


def filter_of(style: dict[str, Tensor], level: int) -> DynamicFilter:
    return DynamicFilter(style[f"level{level}.weight"], style[f"level{level}.bias"])


def encoder(widths: tuple[int, int, int], residual_blocks: int) -> nn.ModuleList:
    """What makes the map of each level from that of the level before."""
    first, second, third = widths
    return nn.ModuleList([
        Chain(conv(3, first), nn.ReLU()),
        Chain(*separable(first, second, stride=2), nn.ReLU()),
        Chain(
            *separable(second, third, stride=2), nn.ReLU(),
            *(Residual(*separable(third, third)) for _ in range(residual_blocks)),
        ),
    ])  # fmt: skip


def separable(in_channels: int, out_channels: int, stride: int = 1) -> tuple[nn.Module, ...]:
    norm = nn.InstanceNorm2d(in_channels)
    return depthwise(in_channels, stride, bias=False), norm, nn.ReLU(), pointwise(in_channels, out_channels)


def decoder(widths: tuple[int, int, int], residual_blocks: int) -> nn.ModuleList:
    """What makes of each level's map, from the last to the first, that of the next level; then the picture."""
    first, second, third = widths
    relu, up = nn.ReLU(), nn.UpsamplingNearest2d(scale_factor=2)
    return nn.ModuleList([
        Chain(
            *(Residual(depthwise(third), relu, pointwise(third, third)) for _ in range(residual_blocks)),
            pointwise(third, second), relu, up, depthwise(second),
        ),
        Chain(relu, pointwise(second, first), relu, up, depthwise(first)),
        Chain(relu, conv(first, 3)),
    ])  # fmt: skip


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect")


def depthwise(channels: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=bias, padding_mode="reflect")


def pointwise(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1)
