"""Diversified texture synthesis: one network for many textures or styles; of which, a selection unit says.

Li, Fang, Yang, Wang, Lu, Yang, "Diversified Texture Synthesis with Feed-forward Networks", CVPR 2017, arXiv:1703.01664.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .._checks import check_flag, check_integer
from ..functional import dynamic_conv2d
from ..nn import Chain, InstanceNorm2d
from .noise import uniform
from .numbered import weights_of
from .pictures import between
from .system import System

TILE = 256  # The side of a texture that the paper's generator makes: 8 doubled five times.


class Diversified(System):
    """The two networks of the paper: for pictures, which `stylize` makes, or for textures, by `synthesize`.

    Args:
        styles: number of them, S.
        content: whether it is made for pictures, not for textures.
        channels: of the widest map of textures, a multiple of 8; that of pictures has twice as many.
        noise: numbers that each 256x256 pixels of a texture are made of.
        seed: of the noise that `stylize` takes, the same for every picture.

    A style is a number for all samples, an index per sample (N,) int64, or the weights of a mixture, (S,) or (N, S) floating
    point; a blend mixes selection units. `alpha` blends with the content picture itself. Convolutions read the opposite side
    beyond a border. Norms are of instances, for textures too, where the authors' code has those of batches.
    """

    def __init__(
        self, styles: int = 1000, content: bool = True, channels: int = 256, noise: int = 2, seed: int = 0
    ) -> None:
        super().__init__()
        check_integer("Diversified", "styles", styles, 1)
        if channels < 8 or channels % 8:
            raise ValueError(f"Diversified: channels: expected a multiple of 8, got {channels!r}")
        check_flag("Diversified", "content", content)
        check_integer("Diversified", "noise", noise, 2)  # Of a single one a norm leaves nothing.
        self.styles, self.content, self.noise, self.seed = styles, content, noise, seed
        self.multiple, self.least = (4, 8) if content else (TILE, TILE)
        self.generator = Pictures(styles, channels) if content else Textures(styles, channels, noise)

    def encode(self, style: int | Tensor) -> Tensor:
        """A style of any form as a selection unit, (1, S) or (N, S): the weights of a mixture."""
        return weights_of("Diversified", style, self.styles, next(self.parameters()))

    def encoded(self, style: int | Tensor, samples: int | None = None) -> Tensor:
        style = self.encode(style)
        self._check_rows(style, samples)
        return style

    def paint(self, content: Tensor, style: Tensor, alpha: float) -> Tensor:
        if not self.content:
            raise TypeError("Diversified: it makes textures, by synthesize: stylize is of one with content=True")
        stylized = self.generate(content, style, 1, self.seed)
        return between(content, stylized, alpha)

    def synthesize(self, style: int | Tensor, height: int, width: int, samples: int = 1, seed: int = 0) -> Tensor:
        """Textures (samples, 3, height, width), each of noise of its own, the same for the same seed.

        Sides that are multiples of 256 can be laid edge to edge without a seam.
        """
        if self.content:
            raise TypeError("Diversified: it stylises pictures: synthesize is of one with content=False")
        for name, size, least in (("height", height, 1), ("width", width, 1), ("samples", samples, 0)):
            check_integer("Diversified", name, size, least)
        return self.generate_textures(self.encoded(style, samples), height, width, samples, seed)

    def generate(self, content: Tensor, unit: Tensor, samples: int, seed: int) -> Tensor:
        """Stylised pictures, of the noise of so many samples, or of one for all."""
        height, width = content.shape[2:]
        return self.generator(content, unit, uniform(content, (samples, 1, height // 4, width // 4), seed))

    def generate_textures(self, unit: Tensor, height: int, width: int, samples: int, seed: int) -> Tensor:
        tiles = -(-height // TILE), -(-width // TILE)
        return self.generator(unit, uniform(unit, (samples, self.noise, *tiles), seed))[..., :height, :width]


class Pictures(nn.Module):
    """The content at a quarter of its size, beside maps that the selector makes of noise.

    The selection unit says into which of S channels noise goes. As the others are 0, it picks, or mixes, the filters of one.
    """

    def __init__(self, styles: int, channels: int) -> None:
        super().__init__()
        quarter, half, twice = channels // 4, channels // 2, 2 * channels
        pool = nn.MaxPool2d(2)
        self.encoder = Chain(
            layer(3, quarter), layer(quarter, quarter), pool,
            layer(quarter, half), layer(half, half), pool,
        )  # fmt: skip
        self.selector = circular(styles, twice, bias=False)
        self.selected = norm(twice, activation="relu")
        self.decoder = Chain(
            layer(half + twice, twice), layer(twice, channels), layer(channels, half),
            layer(half, half), layer(half, half), layer(half, half),
            doubled(half), layer(half, quarter), layer(quarter, quarter),
            doubled(quarter), circular(quarter, 3),
        )  # fmt: skip

    def forward(self, content: Tensor, unit: Tensor, noise: Tensor) -> Tensor:
        """noise (N or 1, 1, H / 4, W / 4), unit (N or 1, S)."""
        # No name holds the parts of what the decoder takes while it runs.
        return self.decoder(beside(self.encoder(content), self.maps(unit, noise)))

    def maps(self, unit: Tensor, noise: Tensor) -> Tensor:
        filters = torch.einsum("ns,osyx->noyx", unit, self.selector.weight).unsqueeze(2)
        samples = max(len(noise), len(unit))
        filters, noise = filters.expand(samples, -1, -1, -1, -1), noise.expand(samples, -1, -1, -1)
        return self.selected(dynamic_conv2d(noise, filters, padding=1, padding_mode="circular"))


class Textures(nn.Module):
    """Two numbers of noise become 8x8 maps, doubled five times, at each size beside maps of the selector."""

    def __init__(self, styles: int, channels: int, noise: int) -> None:
        super().__init__()
        whole, half, quarter, eighth = (channels // part for part in (1, 2, 4, 8))
        self.first = Chain(first(styles * noise, whole), norm(whole), nn.LeakyReLU())
        self.first_selector = Chain(first(styles, eighth), norm(eighth), nn.LeakyReLU())
        widths = whole, whole, half, half, quarter, eighth
        self.generator = nn.ModuleList(
            Chain(doubled(width + eighth), leaky(width + eighth, out), leaky(out, out), leaky(out, out, 1))
            for width, out in pairwise(widths)
        )
        self.selector = nn.ModuleList(
            Chain(doubled(eighth), leaky(eighth, eighth), leaky(eighth, eighth)) for _ in widths[1:]
        )
        self.last = Chain(leaky(quarter, quarter), leaky(quarter, eighth), circular(eighth, 3))

    def forward(self, unit: Tensor, noise: Tensor) -> Tensor:
        """noise (N, D, H / 256, W / 256), unit (N or 1, S)."""
        noise, unit = noise / noise.sum(1, keepdim=True), unit[..., None, None]
        x = self.first((noise.unsqueeze(2) * unit.unsqueeze(1)).flatten(1, 2))
        selected = self.first_selector(unit.expand(-1, -1, *noise.shape[2:]))
        for generate, select in zip(self.generator, self.selector):
            x, selected = generate(beside(x, selected)), select(selected)
        return self.last(beside(x, selected))


def beside(x: Tensor, selected: Tensor) -> Tensor:
    return torch.cat([x, selected.expand(x.shape[0], -1, -1, -1)], 1)


def layer(in_channels: int, out_channels: int) -> Chain:
    return Chain(circular(in_channels, out_channels, bias=False), norm(out_channels), nn.ReLU())


def leaky(in_channels: int, out_channels: int, kernel_size: int = 3) -> Chain:
    return Chain(circular(in_channels, out_channels, kernel_size, bias=False), norm(out_channels), nn.LeakyReLU())


def circular(in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True) -> nn.Conv2d:
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, padding_mode="circular", bias=bias)


def first(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """A map of 8x8 for each position."""
    return nn.ConvTranspose2d(in_channels, out_channels, 8, stride=8, bias=False)


def doubled(channels: int) -> Chain:
    """The paper's norm of an upsampled map, which is the same before the upsampling."""
    return Chain(norm(channels), nn.UpsamplingNearest2d(scale_factor=2))


def norm(channels: int, activation: str | None = None) -> InstanceNorm2d:
    return InstanceNorm2d(channels, affine=True, activation=activation)
