"""Avatar-Net: patches of the whitened style in place of the content's, recoloured; a decoder with AdaIN at three scales.

Sheng, Lin, Shao, Wang, "Avatar-Net: Multi-scale Zero-shot Style Transfer by Feature Decoration", CVPR 2018,
arXiv:1805.03857.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from .._checks import check_integer, check_roots
from ..functional import color_stats, instance_stats, recolor, style_swap, zca_whiten
from ..nn import AdaIN, Chain
from .adain import LAYERS, conv
from .pictures import between, composed, mirror_to_multiple
from .system import System
from .vgg import VGG19
from .wct import check_exports, stage_back

SCALES = 3, 2, 1  # Of the decoder, where it takes the style's relu3_1, relu2_1 and relu1_1.


class AvatarNet(System):
    """Figure 3 of the paper: VGG-19 to relu4_1, the style decorator, and a decoder that mirrors the encoder, with AdaIN.

    The decorator whitens the content's features, puts the patches of the whitened style that are most like them in their
    place, and colours these. `alpha` blends what it makes with the content's features; the style that the decoder takes at
    its scales is taken whole, as in the first published code, whose decoder has one 3x3 layer more and ends with 7x7.

    Args:
        widths: channels of the encoder's four stages, the decoder's in reverse.
        patch_size: 3 or 5 in the paper. Patches lie within the map, one at each position.
        eps: added to the variances of AdaIN, and of the whitening, as `functional.whiten_color` takes it.
        method: how roots of covariances are taken, as there. Only "newton_schulz" has an ONNX form.
    """

    multiple = 8
    styles_regardless_of = "patch_size", "method"

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        patch_size: int = 3,
        eps: float = 1e-5,
        method: str = "eigh",
    ) -> None:
        super().__init__()
        check_integer("AvatarNet", "patch_size", patch_size, 1)
        check_roots("AvatarNet", eps, method)
        self.patch_size, self.eps, self.method = patch_size, eps, method
        self.least = 8 * max(patch_size, 2)
        self.encoder = VGG19(LAYERS, (*widths, widths[-1]))
        self.decoder = Chain(OrderedDict(
            stage4=stage_back(4, widths), adain3=AdaIN(eps),
            stage3=stage_back(3, widths), adain2=AdaIN(eps),
            stage2=stage_back(2, widths), adain1=AdaIN(eps),
            stage1=conv(widths[0], 3),
        ))  # fmt: skip

    def encode(self, style: Tensor) -> dict[str, Tensor]:
        """Of paintings (N, 3, h, w): whitened0 (N, C, h / 8, w / 8), mean0 (N, C), root0 (N, C, C) and weight0 (N,), their
        share in a mixture; and for the decoder's scales mean and std, (N, C), by the name of its module.
        """
        self.check_content(style, "style")
        features = self.encoder.features(mirror_to_multiple(style, 1, self.least))
        last = features[LAYERS[-1]]
        mean, root = color_stats(last, self.eps, self.method)
        whitened, weight = zca_whiten(last, self.eps, self.method), mean.new_ones(len(mean))
        return dict(whitened0=whitened, mean0=mean, root0=root, weight0=weight) | self.statistics(features)

    def names_kept(self, style: dict) -> set[str]:
        decorations = {f"{key}{number}" for number in range(max(1, styles_in(style))) for key in DECORATION}
        return decorations | {f"adain{scale}.{kind}" for scale in SCALES for kind in ("mean", "std")}

    def statistics(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the decoder takes of features."""
        kept = {}
        for scale in SCALES:
            mean, rstd = instance_stats(features[f"relu{scale}_1"], self.eps)
            kept[f"adain{scale}.mean"], kept[f"adain{scale}.std"] = mean, 1 / rstd
        return kept

    def paint(self, content: Tensor, style: dict[str, Tensor], alpha: float) -> Tensor:
        return self.decoder(self.decorated(self.encoder(content), style, alpha), by_scale(style))

    def paint_regions(self, content: Tensor, styles: list[dict], mask: Tensor, alpha: float) -> Tensor:
        """Features are composed, of the decorator and at each scale."""
        features = self.encoder(content)
        x = composed((self.decorated(features, style, alpha) for style in styles), mask)
        for name, module in self.decoder.named_children():
            if isinstance(module, AdaIN):
                x = composed((module(x, by_scale(style)[name]) for style in styles), mask)
            else:
                x = module(x)
        return x

    def decorated(self, features: Tensor, style: dict[str, Tensor], alpha: float = 1.0) -> Tensor:
        """The style decorator, figure 4 of the paper; of a mixture the sum of its styles' results."""
        whitened, found = zca_whiten(features, self.eps, self.method), 0
        for number in range(styles_in(style)):
            patches, mean, root, weight = (style[f"{key}{number}"] for key in DECORATION)
            swapped = style_swap(whitened, patches, self.patch_size)
            found = found + recolor(swapped, (mean, root)) * weight.view(-1, 1, 1, 1).to(features.dtype)
        return between(features, found, alpha)

    def mixed(self, styles: list[dict], weights: list[float]) -> dict[str, Tensor]:
        """Side by side for the decorator, whose patches do not blend; the decoder's scales do."""
        kept = {}
        for style, weight in zip(styles, weights):
            first = styles_in(kept)
            for number in range(styles_in(style)):
                for key in DECORATION:
                    kept[f"{key}{first + number}"] = style[f"{key}{number}"] * (weight if key == "weight" else 1)
        of_scales = [{key: tensor for key, tensor in style.items() if key.startswith("adain")} for style in styles]
        return kept | super().mixed(of_scales, weights)

    def export_onnx(self, path, style: Tensor | dict[str, Tensor] | None = None) -> None:
        check_exports("AvatarNet", self.method)
        super().export_onnx(path, style)


DECORATION = "whitened", "mean", "root", "weight"  # What is kept of each style of a mixture, with its number.


def styles_in(style: dict[str, Tensor]) -> int:
    return sum(key.startswith("weight") for key in style)


def by_scale(style: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(mean, std) for each AdaIN of the decoder, by its name."""
    return {f"adain{scale}": (style[f"adain{scale}.mean"], style[f"adain{scale}.std"]) for scale in SCALES}
