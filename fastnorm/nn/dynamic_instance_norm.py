import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import functional
from ._batch import to_batch
from ._filters import filter_shape, mix, per_sample, to
from ._style_net import StyleNet, check_style_map


class DynamicFilter(NamedTuple):
    """What a style is to `DynamicInstanceNorm`: weight (N, C_out, C_in / groups, kH, kW) and bias (N, C_out) or None.

    It can be saved (torch.load takes it with weights_only=True; safetensors takes its `_asdict()`), moved by
    `to(device_or_dtype)`, and used again, with contents of any size and number. A convolution is linear in its filter:
    `DynamicFilter.mix([a, b], [0.3, 0.7])` does what a and b do, in these parts.
    """

    weight: Tensor
    bias: Tensor | None = None

    to = to
    mix = classmethod(mix)


torch.serialization.add_safe_globals([DynamicFilter])


class DynamicInstanceNorm(nn.Module):
    """Instance normalisation, then a convolution whose filter is made from a style.

        output = dynamic_conv2d((content - mean) / sqrt(var + eps), weight + weight_net(style), bias_net(style))

    DIN, Jing et al. 2020, arXiv:1911.06953. Each net is two convolutions, 3x3 with ReLU and 1x1, and an adaptive average
    pool: to the kernel's size for the weight, so that a tap sees its part of the style, and to one number for the bias.
    `weight` is what all styles share; it stands for the bias of the last convolution, which cannot tell taps apart.

    A fresh module is nearly instance normalisation: `weight` passes each channel on, from the tap in the middle, and what
    the nets add to it starts at a tenth of torch's usual scale.

    Args:
        kernel_size: a number or two; 1 and 3 in the paper.
        style_channels: channels of the style's feature map.
        groups: of the convolution. The weight net makes C_out * C_in / groups * kH * kW numbers for a style, so the default
            is the most groups that the channels allow: depthwise where C_out is C_in, with kH * kW numbers for a channel.
            With 1, all channels mix, for C_in times as many.
        stride, padding, dilation, padding_mode: as in `functional.dynamic_conv2d`.
        bias: whether there is a bias net.
        hidden_channels: channels between the two convolutions of a net.
    """

    _filter_type = DynamicFilter

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        style_channels: int,
        groups: int | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = "same",
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "reflect",
        bias: bool = True,
        eps: float = 1e-5,
        hidden_channels: int = 128,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        groups = math.gcd(in_channels, out_channels) if groups is None else groups
        name = type(self).__name__
        shape = filter_shape(name, in_channels, out_channels, kernel_size, groups)
        self.in_channels, self.out_channels, self.style_channels = in_channels, out_channels, style_channels
        self.kernel_size, self.groups, self.stride, self.eps = shape[2:], groups, stride, eps
        self.padding, self.dilation, self.padding_mode = padding, dilation, padding_mode
        self._filter_shapes = shape, shape[:1]
        options = dict(device=device, dtype=dtype)
        self.weight = nn.Parameter(torch.empty(shape, **options))
        widths = name, style_channels, hidden_channels
        self.weight_net = StyleNet(*widths, math.prod(shape[:2]), self.kernel_size, bias=False, **options)
        self.bias_net = StyleNet(*widths, out_channels, (1, 1), bias=True, **options) if bias else None
        self._reset_parameters()

    @torch.no_grad()
    def _reset_parameters(self) -> None:
        self.weight_net.reset_parameters(scale=0.1)
        if self.bias_net is not None:
            self.bias_net.reset_parameters(scale=0.1)
        per_group, in_channels, height, width = self.out_channels // self.groups, *self.weight.shape[1:]
        output = torch.arange(self.out_channels, device=self.weight.device)
        self.weight.zero_()
        self.weight[output, output % per_group % in_channels, (height - 1) // 2, (width - 1) // 2] = 1

    def encode(self, style: Tensor) -> DynamicFilter:
        """style (N, C_style, h, w) or (C_style, h, w), no smaller than the kernel, of the weights' type."""
        return self._encode(check_style_map(self, style, self.style_channels, self.kernel_size, self.weight.dtype))

    def _encode(self, style: Tensor) -> DynamicFilter:
        weight = self.weight + self.weight_net(style).reshape(-1, *self.weight.shape)
        return DynamicFilter(weight, None if self.bias_net is None else self.bias_net(style).flatten(1))

    def forward(self, content: Tensor, style: Tensor | DynamicFilter) -> Tensor:
        """content (N, C_in, H, W) or (C_in, H, W); style a map or what `encode` makes of it, N or one for all."""
        content, _, unbatched = to_batch(self, content, None, 2, self.in_channels, "content")
        output = self._apply_filter(content, self._filter_for(content, style))
        return output.squeeze(0) if unbatched else output

    def _filter_for(self, content: Tensor, style) -> DynamicFilter:
        """The filter of a style, or the filter that it is, for each sample of the content."""
        if not isinstance(style, (Tensor, self._filter_type)):
            kinds = f"a map or a {self._filter_type.__name__}"
            raise TypeError(f"{type(self).__name__}: style: expected {kinds}, got {type(style).__name__}")
        style_filter = self.encode(style) if isinstance(style, Tensor) else style
        return self._filter_type(**{
            field: tensor if tensor is None else per_sample(type(self).__name__, f"style {field}", tensor, shape, content)
            for (field, tensor), shape in zip(style_filter._asdict().items(), self._filter_shapes)
        })  # fmt: skip

    def _apply_filter(self, content: Tensor, style_filter: DynamicFilter) -> Tensor:
        return functional.dynamic_instance_norm(
            content,
            style_filter.weight,
            style_filter.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            padding_mode=self.padding_mode,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, style_channels={self.style_channels},"
            f" groups={self.groups}, stride={self.stride}, padding={self.padding!r}, dilation={self.dilation},"
            f" padding_mode={self.padding_mode!r}, eps={self.eps}"
        )
