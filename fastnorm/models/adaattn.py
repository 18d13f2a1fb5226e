"""AdaAttN: the content's features, given for each position the mean and deviation that attention finds in the style's.

Liu, Lin, He, Li, Deng, Li, Sun, Zhang, Ding, "AdaAttN: Revisit Attention Mechanism in Arbitrary Neural Style Transfer",
ICCV 2021, arXiv:2108.03647.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .. import nn as layers
from ..functional import instance_norm
from ..nn import Chain
from .adain import conv
from .attending import Attending
from .vgg import VGG19

LAYERS = "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"
STAGES = 3, 4, 5  # Of which features attend, relu3_1 to relu5_1, by keys of all layers up to theirs.


class AdaAttN(Attending):
    """Figure 2 of the paper: VGG-19 to relu5_1, attention at relu3_1, relu4_1 and relu5_1, a decoder.

    The decoder, which mirrors the encoder, takes what was attended at relu4_1 and, upsampled, at relu5_1, merged by a 3x3
    convolution; and past its first layer, beside that, what was attended at relu3_1. Every key counts: nothing is drawn.

    Args:
        widths: channels of the encoder's first four stages, the decoder's in reverse; the fifth is as wide as the fourth.
        eps: added to variances, which are unbiased.
        min_var: the least variance of attended values that has a gradient.
    """

    multiple, least = 16, 32

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512), eps: float = 1e-5, min_var: float = 0.0) -> None:
        super().__init__()
        self.eps = eps
        widths = (*widths, widths[-1])
        self.encoder = VGG19(LAYERS, widths)
        self.attention = nn.ModuleDict({
            str(stage): layers.AdaAttN(widths[stage - 1], key_planes=sum(widths[:stage]), eps=eps, min_var=min_var)
            for stage in STAGES
        })  # fmt: skip
        self.deep, self.shallow = decoder(widths)

    def kept(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys (N, K, ...) and values (N, C, ...) of relu3_1 to relu5_1: at 512x512 pixels 46, 24 and 8 MB of float32."""
        kept = {}
        for stage in STAGES:
            attention, key = self.attention[str(stage)], self.key(features, stage)
            kept[f"key{stage}"], kept[f"value{stage}"] = attention.encode(features[f"relu{stage}_1"], key)
        return kept

    def names_of_one(self) -> set[str]:
        return {f"{kind}{stage}" for kind in ("key", "value") for stage in STAGES}

    def attended(self, features: dict[str, Tensor], style: dict[str, Tensor]) -> list[Tensor]:
        maps = []
        for stage in STAGES:
            attention, key = self.attention[str(stage)], self.key(features, stage)
            maps.append(attention.attend(features[f"relu{stage}_1"], key, style[f"key{stage}"], style[f"value{stage}"]))
        return maps

    def key(self, features: dict[str, Tensor], stage: int) -> Tensor:
        """Features of all layers up to that of a stage, at its positions, normalised and stacked."""
        steps = (2**depth for depth in reversed(range(stage)))
        stacked = torch.cat([features[layer][..., ::step, ::step] for layer, step in zip(LAYERS, steps)], 1)
        return instance_norm(stacked, eps=self.eps, correction=1)

    def decoded(self, maps: list[Tensor]) -> Tensor:
        third, fourth, fifth = maps
        return self.shallow(torch.cat([self.deep(fourth + interpolate(fifth, scale_factor=2)), third], 1))


def decoder(widths: tuple[int, ...]) -> tuple[Chain, Chain]:
    """AdaIN's decoder with a convolution before it, in two parts: between them relu3_1 comes beside."""
    first, second, third, fourth, _ = widths
    up, relu = nn.UpsamplingNearest2d(scale_factor=2), nn.ReLU()
    deep = Chain(conv(fourth, fourth), conv(fourth, third), relu, up)
    shallow = Chain(
        conv(2 * third, third), relu, conv(third, third), relu, conv(third, third), relu, conv(third, second), relu,
        up, conv(second, second), relu, conv(second, first), relu,
        up, conv(first, first), relu, conv(first, 3),
    )  # fmt: skip
    return deep, shallow
