from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import functional
from ._batch import to_batch
from ._filters import filter_shape, mix, per_sample, to
from ._style_net import average_pool, check_style_map


class AdaConvFilter(NamedTuple):
    """What a style is to `AdaConv2d`: spatial (N, C_in, C_in / groups, kH, kW), pointwise (N, C_out, C_in / groups, 1, 1)
    and bias (N, C_out). It is saved, moved by `to` and mixed by `mix` as a `DynamicFilter` is.

    The output is linear in each of the two filters, so the mixture of two styles is not that of their outputs.
    """

    spatial: Tensor
    pointwise: Tensor
    bias: Tensor | None = None

    to = to
    mix = classmethod(mix)


torch.serialization.add_safe_globals([AdaConvFilter])


class KernelPredictor(nn.Module):
    """The filters of an `AdaConv2d`, from a style's descriptor (AdaConv, Chandran et al., CVPR 2021).

    A convolution with the kernel's own size, reflected at the border, makes the spatial filter: a map of the descriptor's
    size, which is the kernel's in the paper (512 channels of 3x3) and is averaged to it from a larger one. The mean of the
    descriptor and a 1x1 convolution each make the pointwise filter and the bias. Weights start as torch's do.

    Args:
        style_channels: channels of the descriptor.
        in_channels, out_channels, kernel_size, groups: of the `AdaConv2d`.
    """

    def __init__(
        self,
        style_channels: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        groups: int = 1,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        name, options = type(self).__name__, dict(device=device, dtype=dtype)
        self.style_channels = style_channels
        self.spatial_shape, self.pointwise_shape = _shapes(name, in_channels, out_channels, kernel_size, groups)
        self.kernel_size = self.spatial_shape[2:]
        numbers = in_channels * in_channels // groups, out_channels * in_channels // groups
        window = dict(padding="same", padding_mode="reflect")
        self.spatial = nn.Conv2d(style_channels, numbers[0], self.kernel_size, **window, **options)
        self.pointwise = nn.Conv2d(style_channels, numbers[1], 1, **options)
        self.bias = nn.Conv2d(style_channels, out_channels, 1, **options)

    def forward(self, style: Tensor) -> AdaConvFilter:
        """style (N, C_style, h, w) or (C_style, h, w), no smaller than the kernel, of the weights' type."""
        style = check_style_map(self, style, self.style_channels, self.kernel_size, self.bias.weight.dtype)
        mean = average_pool(style, (1, 1))
        return AdaConvFilter(
            average_pool(self.spatial(style), self.kernel_size).reshape(-1, *self.spatial_shape),
            self.pointwise(mean).reshape(-1, *self.pointwise_shape),
            self.bias(mean).flatten(1),
        )


class AdaConv2d(nn.Module):
    """Instance normalisation, then a spatial and a pointwise filter of a style: `functional.adaconv2d` as a module.

    AdaConv, Chandran et al., CVPR 2021. It has no parameters of its own; a `KernelPredictor` makes its filters.

    Args:
        groups: of both filters; the paper has 512, 128, 32 and 8 at 512, 256, 128 and 64 channels.
        padding_mode: "reflect", "zeros", "replicate" or "circular".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        kernel_size: int | tuple[int, int] = 3,
        padding_mode: str = "reflect",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.spatial_shape, self.pointwise_shape = _shapes(
            type(self).__name__, in_channels, out_channels, kernel_size, groups
        )
        self.padding_mode, self.eps = padding_mode, eps

    def forward(self, content: Tensor, style: AdaConvFilter) -> Tensor:
        """content (N, C_in, H, W) or (C_in, H, W); style (spatial, pointwise, bias), for each sample or one for all."""
        name = type(self).__name__
        content, _, unbatched = to_batch(self, content, None, 2, self.in_channels, "content")
        if not isinstance(style, (tuple, list)) or len(style) != 3:
            raise TypeError(f"{name}: style: expected (spatial, pointwise, bias), got {type(style).__name__}")
        spatial, pointwise, bias = style
        spatial = per_sample(name, "style spatial", spatial, self.spatial_shape, content)
        pointwise = per_sample(name, "style pointwise", pointwise, self.pointwise_shape, content)
        if bias is not None:
            bias = per_sample(name, "style bias", bias, self.pointwise_shape[:1], content)
        output = functional.adaconv2d(
            content, spatial, pointwise, bias, groups=self.groups, padding_mode=self.padding_mode, eps=self.eps
        )
        return output.squeeze(0) if unbatched else output

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, groups={self.groups}, kernel_size={self.spatial_shape[2:]},"
            f" padding_mode={self.padding_mode!r}, eps={self.eps}"
        )


def _shapes(name: str, in_channels: int, out_channels: int, kernel_size, groups: int) -> tuple[tuple, tuple]:
    """Of the spatial and of the pointwise filter of one sample."""
    return (
        filter_shape(name, in_channels, in_channels, kernel_size, groups),
        filter_shape(name, in_channels, out_channels, 1, groups),
    )
