"""Johnson et al.: one pass of a network in place of an optimisation; one network for one style, or for super-resolution.

Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016,
arXiv:1603.08155; the networks are the tables of its supplement.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..nn import Chain, InstanceNorm2d, Residual
from .pictures import between
from .system import System


class Johnson(System):
    """Two layers of stride 2, residual blocks, two layers after an upsampling; it has one style, that of its weights.

    Norms are instance norms (Ulyanov et al. 2017, arXiv:1701.02096), upsampling is by the nearest pixel, borders are
    mirrored. The picture comes of a sigmoid; the paper's scaled tanh is that of twice the number. `alpha` blends with the
    content picture itself.

    Args:
        widths: channels of the 9x9 layer and of the two 3x3 layers of stride 2.
        residual_blocks: of two 3x3 layers, at a quarter of the picture's size.
    """

    multiple, least = 4, 8

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 128), residual_blocks: int = 5) -> None:
        super().__init__()
        first, second, third = widths
        up = nn.UpsamplingNearest2d(scale_factor=2)
        self.network = Chain(
            *layer(3, first, 9), *layer(first, second, 3, stride=2), *layer(second, third, 3, stride=2),
            *(Residual(*layer(third, third, 3), *layer(third, third, 3)[:-1]) for _ in range(residual_blocks)),
            up, *layer(third, second, 3), up, *layer(second, first, 3),
            conv(first, 3, 9), nn.Sigmoid(),
        )  # fmt: skip

    def paint(self, content: Tensor, style: None, alpha: float) -> Tensor:
        stylized = self.network(content)
        return between(content, stylized, alpha)


def layer(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """Without the convolution's bias, which the norm would take out again."""
    norm = InstanceNorm2d(out_channels, affine=True)
    return conv(in_channels, out_channels, kernel_size, stride, bias=False), norm, nn.ReLU()


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias, padding_mode="reflect")


class SuperResolution(System):
    """The paper's other task: a picture of more pixels, sharper than an interpolated one. It takes no style.

    Residual blocks at the picture's own size, then layers after an upsampling by 2. Norms are batch norms, as in the paper:
    an instance norm would take out the picture's contrast. `alpha` blends with the bicubic interpolation.

    Args:
        scale: 4 and 8 in the paper, a power of 2.
        width: channels of all layers.
        residual_blocks: of two 3x3 layers.
    """

    least = 8

    def __init__(self, scale: int = 4, width: int = 64, residual_blocks: int = 4) -> None:
        super().__init__()
        if scale < 2 or scale & (scale - 1):
            raise ValueError(f"SuperResolution: scale: expected a power of 2 from 2 up, got {scale}")
        self.enlarges = scale
        up = nn.UpsamplingNearest2d(scale_factor=2)

        def layer(in_channels, kernel_size):
            return conv(in_channels, width, kernel_size, bias=False), nn.BatchNorm2d(width), nn.ReLU()

        self.network = Chain(
            *layer(3, 9),
            *(Residual(*layer(width, 3), *layer(width, 3)[:-1]) for _ in range(residual_blocks)),
            *(part for _ in range(scale.bit_length() - 1) for part in (up, *layer(width, 3))),
            conv(width, 3, 9), nn.Sigmoid(),
        )  # fmt: skip

    def enlarge(self, picture: Tensor) -> Tensor:
        """(N, 3, scale * H, scale * W) of a picture (N, 3, H, W); `stylize` by the name of what it does."""
        return self.stylize(picture)

    def paint(self, content: Tensor, style: None, alpha: float) -> Tensor:
        sharp = self.network(content)
        if alpha == 1:
            return sharp
        return between(interpolate(content, scale_factor=self.enlarges, mode="bicubic"), sharp, alpha)
