import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from .. import functional
from .._checks import as_type_of, check_window
from ..ops._layout import widen
from ..ops._window import CIRCULAR, PADDING_MODES, REFLECT, ZEROS, both_sides, output_size, pad, per_dimension
from ._filters import mix, to
from ._style_net import StyleNet
from .dynamic_instance_norm import DynamicFilter, DynamicInstanceNorm


class DeformableFilter(NamedTuple):
    """A `DynamicFilter` with an offset for each tap, (N, 2 * kH * kW): down and right by turns, in pixels."""

    weight: Tensor
    bias: Tensor | None
    offset: Tensor

    to = to
    mix = classmethod(mix)


torch.serialization.add_safe_globals([DeformableFilter])


class DeformableDynamicInstanceNorm(DynamicInstanceNorm):
    """`DynamicInstanceNorm` whose taps are moved, each by an offset: the deformable DIN of Jing et al. 2020.

        output[p] = bias + sum over taps k of  weight[k] * normalised(p * stride + k * dilation + offset[k, p])

    Deformable convolution, Dai et al. 2017, arXiv:1703.06211. The normalised content is read between its pixels by bilinear
    interpolation, and beyond its border by `padding_mode`. Offsets start at 0, where this is `DynamicInstanceNorm`. The
    output cannot be differentiated twice, for torch's grid_sample cannot.

    Arguments are those of `DynamicInstanceNorm`, and

    Args:
        offsets_from: "content" for an offset at each position, predicted from the normalised content by a convolution with
            the kernel, stride, dilation and padding of the filter itself, as in the paper; "style" for one that all
            positions share, predicted as the filter is and stored with it: `encode` then returns a `DeformableFilter`.
    """

    def __init__(self, *arguments, offsets_from: str = "content", **settings) -> None:
        name = type(self).__name__
        if offsets_from not in ("content", "style"):
            raise ValueError(f"{name}: offsets_from: expected 'content' or 'style', got {offsets_from!r}")
        super().__init__(*arguments, **settings)
        self.offsets_from = offsets_from
        offsets, options = 2 * math.prod(self.kernel_size), dict(device=self.weight.device, dtype=self.weight.dtype)
        if offsets_from == "style":
            self._filter_type, self._filter_shapes = DeformableFilter, (*self._filter_shapes, (offsets,))
            hidden_channels = self.weight_net.first.out_channels
            self.offset_net = StyleNet(name, self.style_channels, hidden_channels, offsets, (1, 1), bias=True, **options)
            self.offset_net.reset_parameters(scale=0)
        else:
            window = self.kernel_size, self.stride, 0, self.dilation
            self.offset_net = nn.Conv2d(self.in_channels, offsets, *window, **options)
            nn.init.zeros_(self.offset_net.weight)
            nn.init.zeros_(self.offset_net.bias)

    def _encode(self, style: Tensor) -> DynamicFilter | DeformableFilter:
        plain = super()._encode(style)
        return plain if self.offsets_from == "content" else DeformableFilter(*plain, self.offset_net(style).flatten(1))

    def _apply_filter(self, content: Tensor, style_filter: DynamicFilter | DeformableFilter) -> Tensor:
        name, (weight, bias, *offset) = type(self).__name__, style_filter
        weight = as_type_of(name, "style weight", weight, content).flatten(2)[..., None, None]
        check_window(name, style_filter.weight, content, self.stride, self.padding, self.dilation, self.padding_mode)
        around = both_sides(self.padding, self.kernel_size, per_dimension(self.dilation, 2))
        mode = PADDING_MODES[self.padding_mode]
        normalised = functional.instance_norm(content, eps=self.eps)
        offset = offset[0][..., None, None] if offset else self.offset_net(pad(normalised, around, mode))
        by_tap = widen(offset).reshape(content.shape[0], math.prod(self.kernel_size), 2, *offset.shape[2:])
        read = self._read(normalised, by_tap, around, mode)
        return functional.dynamic_conv2d(read.to(content.dtype), weight, bias, groups=self.groups)

    def _read(self, map: Tensor, offset: Tensor, around: list[int], mode: int) -> Tensor:
        """What each tap reads, (N, C * K, H_out, W_out), by offsets (N, K, 2, H_out or 1, W_out or 1)."""
        stride, dilation = per_dimension(self.stride, 2), per_dimension(self.dilation, 2)
        lengths = map.shape[2:]
        size = output_size(lengths, self.kernel_size, stride, around, dilation)
        # Between the last pixel and the first lies a round map too.
        map = pad(widen(map), [0, 1, 0, 1], mode) if mode == CIRCULAR else widen(map)
        tap = torch.arange(offset.shape[1], device=map.device)
        grid = []
        for dim, at in enumerate((tap // self.kernel_size[1], tap % self.kernel_size[1])):
            start = torch.arange(size[dim], device=map.device) * stride[dim] - around[2 * dim]
            position = start.unsqueeze(1 - dim) + (at * dilation[dim])[:, None, None] + offset[:, :, dim]
            # grid_sample's -1 and 1 are the outer edges of the first and the last pixel.
            grid.append((2 * _inside(position, lengths[dim], mode) + 1) / map.shape[2 + dim] - 1)
        grid = torch.stack(torch.broadcast_tensors(*reversed(grid)), -1).flatten(1, 2)
        read = grid_sample(map, grid, padding_mode="zeros" if mode == ZEROS else "border", align_corners=False)
        return read.reshape(map.shape[0], map.shape[1] * offset.shape[1], *size)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, offsets_from={self.offsets_from!r}"


def _inside(position: Tensor, length: int, mode: int) -> Tensor:
    """The position of the map that is read for one anywhere; grid_sample itself knows zeros and the nearest pixel."""
    if mode == REFLECT:
        last = length - 1
        return last - (last - position.abs().remainder(max(2 * last, 1))).abs()
    return position.remainder(length) if mode == CIRCULAR else position
