import math

import torch
from torch import Tensor, nn

from .. import functional
from .._checks import check_padding_mode, check_sizes
from ._batch import to_batch
from ._filters import filter_shape


class UpsampleConv2d(nn.Module):
    """Nearest upsampling, padding, a convolution: torch.nn.Upsample, ReflectionPad2d and Conv2d, neither map ever made.

    Parameters are those of torch.nn.Conv2d, with the same initialisation from the same seed, and its state_dict loads.
    `forward(input)` takes (N, C_in, H, W) or (C_in, H, W).

    Args:
        in_channels, out_channels, kernel_size, groups, bias: as of torch.nn.Conv2d.
        scale_factor: an integer, or one for each dimension.
        padding: of the upsampled map; kernel_size // 2 unless told, which keeps its size where the kernel is odd.
        padding_mode: "reflect", "replicate", "circular" or "zeros".
    """

    # As of a torch.nn.Conv2d that moves in single steps.
    stride = dilation = (1, 1)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        scale_factor: int | tuple[int, int] = 2,
        padding: int | tuple[int, int] | None = None,
        padding_mode: str = "reflect",
        groups: int = 1,
        bias: bool = True,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        shape = filter_shape(name, in_channels, out_channels, kernel_size, groups)
        check_sizes(name, "scale_factor", scale_factor, 2, 1)
        check_padding_mode(name, padding_mode)
        if padding is not None:
            check_sizes(name, "padding", padding, 2, 0)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, shape[2:]
        self.scale_factor, self.padding_mode, self.groups = scale_factor, padding_mode, groups
        self.padding = tuple(width // 2 for width in self.kernel_size) if padding is None else padding
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As torch.nn.Conv2d's: uniform in +-1 / sqrt(fan_in), the weight first."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        input, _, unbatched = to_batch(self, input, None, 2, self.in_channels)
        output = functional.upsample_conv2d(
            input, self.weight, self.bias, self.scale_factor, self.padding, self.padding_mode, self.groups
        )
        return output.squeeze(0) if unbatched else output

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, scale_factor={self.scale_factor},"
            f" padding={self.padding}, padding_mode={self.padding_mode!r}, groups={self.groups}, bias={self.bias is not None}"
        )
