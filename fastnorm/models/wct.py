"""WCT: the content's features, whitened and given the covariance of the style's, at five depths of VGG-19 in turn.

Li, Fang, Yang, Wang, Lu, Yang, "Universal Style Transfer via Feature Transforms", NIPS 2017, arXiv:1705.08086.
"""

from __future__ import annotations

from torch import Tensor, nn

from .._checks import check_roots
from ..functional import color_stats, whiten_color
from ..nn import Chain
from .adain import conv
from .pictures import composed, mirror_to_multiple
from .system import System
from .vgg import CONVOLUTIONS, VGG19


class WCT(System):
    """Figure 1 (c) of the paper: for each level VGG-19 to relu5_1 ... relu1_1, the transform, a decoder that mirrors it.

    What a level paints is the next one's content. Styles are taken from their paintings, at each level. There is one VGG-19
    for all, and no training on styles: decoders learn to invert it.

    Args:
        widths: channels of the encoder's five stages, the decoders' in reverse.
        levels: in the order in which they paint, of 5 (coarse) to 1 (fine).
        eps, method: how roots of covariances are taken, as in `functional.whiten_color`. Only "newton_schulz" has an ONNX
            form; the same weights serve both.
    """

    styles_regardless_of = ("method",)

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        levels: tuple[int, ...] = (5, 4, 3, 2, 1),
        eps: float = 1e-5,
        method: str = "eigh",
    ) -> None:
        super().__init__()
        if not levels or not {*levels} <= {1, 2, 3, 4, 5} or len({*levels}) < len(levels):
            raise ValueError(f"WCT: levels: expected some of 5, 4, 3, 2, 1, each once, got {levels}")
        check_roots("WCT", eps, method)
        self.levels, self.eps, self.method = tuple(levels), eps, method
        self.multiple = 2 ** (max(levels) - 1)
        self.least = 2 * self.multiple
        self.encoder = VGG19(tuple(map(layer_of, sorted(levels))), widths)
        self.decoders = nn.ModuleDict({str(level): decoder(widths[:level]) for level in levels})

    def encode(self, style: Tensor) -> dict[str, Tensor]:
        """Of paintings (N, 3, h, w), at each level: the features' mean (N, C), the root of their covariance (N, C, C)."""
        self.check_content(style, "style")
        features = self.encoder.features(mirror_to_multiple(style, 1, self.least))
        kept = {}
        for level in self.levels:
            kept[f"mean{level}"], kept[f"root{level}"] = color_stats(features[layer_of(level)], self.eps, self.method)
        return kept

    def names_kept(self, style: dict) -> set[str]:
        return {f"{kind}{level}" for level in self.levels for kind in ("mean", "root")}

    def paint(self, content: Tensor, style: dict[str, Tensor], alpha: float) -> Tensor:
        for level in self.levels:
            features = self.encoder(content, layer_of(level))
            features = self.transferred(features, style, level, alpha)
            content = self.decoders[str(level)](features)
        return content

    def paint_regions(self, content: Tensor, styles: list[dict], mask: Tensor, alpha: float) -> Tensor:
        """Features are composed, at each level."""
        for level in self.levels:
            features = self.encoder(content, layer_of(level))
            transferred = (self.transferred(features, style, level, alpha) for style in styles)
            content = self.decoders[str(level)](composed(transferred, mask))
        return content

    def transferred(self, features: Tensor, style: dict[str, Tensor], level: int, alpha: float) -> Tensor:
        return whiten_color(features, (style[f"mean{level}"], style[f"root{level}"]), alpha, self.eps, self.method)

    def export_onnx(self, path, style: Tensor | dict[str, Tensor] | None = None) -> None:
        check_exports("WCT", self.method)
        super().export_onnx(path, style)


def layer_of(level: int) -> str:
    return f"relu{level}_1"


def decoder(widths: tuple[int, ...]) -> Chain:
    """From the first layer of the last of these stages to a picture."""
    return Chain(*(stage_back(stage, widths) for stage in range(len(widths), 1, -1)), conv(widths[0], 3))


def stage_back(stage: int, widths: tuple[int, ...]) -> Chain:
    """From a stage's first layer to that of the stage before, VGG-19 in reverse: 3x3 convolutions with ReLU, upsampling for
    the maximum; no norm.
    """
    width, narrower = widths[stage - 1], widths[stage - 2]
    modules = [conv(width, narrower), nn.ReLU(), nn.UpsamplingNearest2d(scale_factor=2)]
    for _ in range(CONVOLUTIONS[stage - 2] - 1):
        modules += conv(narrower, narrower), nn.ReLU()
    return Chain(*modules)


def check_exports(system: str, method: str) -> None:
    if method != "newton_schulz":
        expected = "'newton_schulz' for ONNX, which has no eigenvalues (load the weights with that method)"
        raise ValueError(f"{system}: method: expected {expected}, got {method!r}")
