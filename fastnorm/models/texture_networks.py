"""Texture Networks: noise of many sizes, from the coarsest to the finest, becomes a texture, or a picture in its style.

Ulyanov, Lebedev, Vedaldi, Lempitsky, "Texture Networks: Feed-forward Synthesis of Textures and Stylized Images", ICML 2016,
arXiv:1603.03417.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from .._checks import check_flag, check_integer
from ..nn import Chain, InstanceNorm2d
from .noise import uniform
from .pictures import between
from .system import System

NORMS = {"instance": lambda channels: InstanceNorm2d(channels, affine=True), "batch": nn.BatchNorm2d}


class TextureNetworks(System):
    """Figure 2 of the paper: at each scale a block sees the noise, and joins what comes from the scale below.

    With a content, each scale has its mean over squares beside the noise, and `stylize` takes it; without,
    `synthesize` makes textures of any size. `alpha` blends with the content picture itself.

    Args:
        content: whether it is made for pictures, not for textures.
        scales: of the noise, each of twice the size of the one below.
        channels: that each scale adds.
        noise: channels of it at each scale.
        norm: "instance", which the authors found to be better (arXiv:1607.08022), or "batch", as in this paper.
        seed: of the noise that `stylize` takes, the same for every picture.
    """

    def __init__(
        self,
        content: bool = True,
        scales: int = 6,
        channels: int = 8,
        noise: int = 3,
        norm: str = "instance",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_flag("TextureNetworks", "content", content)
        check_integer("TextureNetworks", "scales", scales, 2)
        if norm not in NORMS:
            raise ValueError(f"TextureNetworks: norm: expected one of {', '.join(NORMS)}, got {norm!r}")
        self.content, self.scales, self.noise, self.seed = content, scales, noise, seed
        # Two pixels at least at the coarsest scale, for an instance norm makes nothing of one.
        self.multiple, self.least = 2 ** (scales - 1), 2**scales
        depth = noise + 3 if content else noise
        # The paper's norm before a concatenation; of an upsampled map it is the same as before the upsampling.
        self.entering = nn.ModuleList(Chain(block(depth, channels, norm), NORMS[norm](channels)) for _ in range(scales))
        widths = range(2 * channels, scales * channels, channels)
        self.joining = nn.ModuleList(Chain(block(width, width, norm), NORMS[norm](width)) for width in widths)
        self.last = Chain(block(scales * channels, scales * channels, norm), nn.Conv2d(scales * channels, 3, 1))

    def synthesize(self, height: int, width: int, samples: int = 1, seed: int = 0) -> Tensor:
        """Textures (samples, 3, height, width), each of noise of its own, the same for the same seed.

        Sides that are multiples of `multiple`, and no shorter than `least`, can be laid edge to edge without a seam.
        """
        if self.content:
            raise TypeError("TextureNetworks: it stylises pictures: synthesize is of one with content=False")
        for name, size, least in (("height", height, 1), ("width", width, 1), ("samples", samples, 0)):
            check_integer("TextureNetworks", name, size, least)
        sides = (max(self.least, -(-size // self.multiple) * self.multiple) for size in (height, width))
        coarsest = tuple(side // self.multiple for side in sides)
        return self.generate(self.noises(samples, coarsest, seed))[..., :height, :width]

    def paint(self, content: Tensor, style: None, alpha: float) -> Tensor:
        if not self.content:
            raise TypeError("TextureNetworks: it makes textures, by synthesize: stylize is of one with content=True")
        stylized = self.generate(self.beside(content, 1, self.seed))
        return between(content, stylized, alpha)

    def beside(self, content: Tensor, samples: int, seed: int) -> list[Tensor]:
        """The content and noise of so many samples, or one for all, at each scale, the coarsest first."""
        contents = [content]
        for _ in range(self.scales - 1):
            contents.insert(0, avg_pool2d(contents[0], 2))
        noises = self.noises(samples, contents[0].shape[2:], seed)
        return [torch.cat([map, noise.expand(map.shape[0], -1, -1, -1)], 1) for map, noise in zip(contents, noises)]

    def noises(self, samples: int, coarsest: tuple[int, int], seed: int) -> list[Tensor]:
        """The noise of each scale, the coarsest first."""
        height, width = coarsest
        like = self.last[-1].weight
        return [
            uniform(like, (samples, self.noise, height * 2**scale, width * 2**scale), seed, scale)
            for scale in range(self.scales)
        ]

    def generate(self, maps: list[Tensor]) -> Tensor:
        """A picture of what there is at each scale, the coarsest first."""
        x = self.entering[0](maps[0])
        for enter, join, map in zip(self.entering[1:], (*self.joining, self.last), maps[1:]):
            x = join(torch.cat([interpolate(x, scale_factor=2), enter(map)], 1))
        return x


def block(in_channels: int, out_channels: int, norm: str) -> Chain:
    """3x3, 3x3 and 1x1 convolutions, which read the opposite side beyond a border; each with a norm and a LeakyReLU."""
    layers = []
    for kernel_size in (3, 3, 1):
        padding = kernel_size // 2
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, padding_mode="circular", bias=False)
        layers += conv, NORMS[norm](out_channels), nn.LeakyReLU()
        in_channels = out_channels
    return Chain(*layers)
