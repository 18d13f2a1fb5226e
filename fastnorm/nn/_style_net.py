"""What is learned from a style's feature map, whatever its size."""

import torch
from torch import Tensor, nn

from .._checks import autocasts, check_sizes, check_tensor
from ._batch import to_batch


class StyleNet(nn.Module):
    """Two convolutions and an adaptive average pool: (N, C_style, h, w) to (N, C_out, *size).

    The second convolution has one tap, so it may follow the pool: the same numbers for less arithmetic.
    """

    def __init__(
        self, name: str, style_channels: int, hidden_channels: int, out_channels: int, size: tuple, bias: bool, **options
    ) -> None:
        check_sizes(name, "style_channels", style_channels, 1, 1)
        check_sizes(name, "hidden_channels", hidden_channels, 1, 1)
        super().__init__()
        self.size = size
        self.first = nn.Conv2d(style_channels, hidden_channels, 3, padding=1, padding_mode="replicate", **options)
        self.last = nn.Conv2d(hidden_channels, out_channels, 1, bias=bias, **options)

    @torch.no_grad()
    def reset_parameters(self, scale: float) -> None:
        """torch's, with the last weight at a part of its usual scale and the last bias 0."""
        self.first.reset_parameters()
        self.last.reset_parameters()
        self.last.weight.mul_(scale)
        if self.last.bias is not None:
            self.last.bias.zero_()

    def forward(self, style: Tensor) -> Tensor:
        return self.last(average_pool(self.first(style).relu(), self.size))


def check_style_map(
    module: nn.Module, style: Tensor, channels: int, size: tuple, dtype: torch.dtype, argument: str = "style"
) -> Tensor:
    """A style (N, C, h, w) or (C, h, w), of the weights' type and no smaller than `size`; with its batch."""
    name = type(module).__name__
    style, _, _ = to_batch(module, style, None, 2, channels, argument)
    check_tensor(name, argument, style)
    if style.shape[2] < size[0] or style.shape[3] < size[1]:
        at_least, got = (" x ".join(map(str, sizes)) for sizes in (size, style.shape[2:]))
        raise ValueError(f"{name}: {argument}: expected a map of at least {at_least}, got {got}")
    if style.dtype != dtype and not autocasts(style):
        raise TypeError(f"{name}: {argument}: expected the weights' type {dtype}, got {style.dtype}")
    return style


def average_pool(map: Tensor, size: tuple) -> Tensor:
    """torch.nn.functional.adaptive_avg_pool2d, whose gradient is not deterministic on a GPU, and which exports to ONNX
    only for maps of a fixed size."""
    rows, columns = (_averages(length, cells, map) for length, cells in zip(map.shape[2:], size))
    return ((map @ columns).transpose(2, 3) @ rows).transpose(2, 3)


def _averages(length, cells, map):
    """(length, cells): a column averages what lies in its cell. Where cells do not divide the length, they overlap."""
    cell = torch.arange(cells, device=map.device)
    first, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    position = torch.arange(length, device=map.device).unsqueeze(1)
    return ((position >= first) & (position < end)).to(map.dtype) / (end - first).to(map.dtype)
