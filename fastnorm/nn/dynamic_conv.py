from torch import Tensor, nn

from .. import functional
from ._batch import to_batch
from ._filters import filter_shape, per_sample


class _DynamicConv(nn.Module):
    """What the three share: the settings of a convolution, without its filter."""

    _spatial_dims: int

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"
    ) -> None:
        super().__init__()
        name, dims = type(self).__name__, self._spatial_dims
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.filter_shape = filter_shape(name, in_channels, out_channels, kernel_size, groups, dims)
        self.stride, self.padding, self.dilation, self.padding_mode = stride, padding, dilation, padding_mode

    def forward(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        name = type(self).__name__
        input, _, unbatched = to_batch(self, input, None, self._spatial_dims, self.in_channels)
        weight = per_sample(name, "weight", weight, self.filter_shape, input)
        if bias is not None:
            bias = per_sample(name, "bias", bias, self.filter_shape[:1], input)
        output = self._function(
            input, weight, bias, self.stride, self.padding, self.dilation, self.groups, self.padding_mode
        )
        return output.squeeze(0) if unbatched else output

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.filter_shape[2:]}, stride={self.stride},"
            f" padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, padding_mode={self.padding_mode!r}"
        )


class DynamicConv1d(_DynamicConv):
    """`DynamicConv2d` of lines: input (N, C_in, L), weight (N or 1, C_out, C_in / groups, k)."""

    _spatial_dims, _function = 1, staticmethod(functional.dynamic_conv1d)


class DynamicConv2d(_DynamicConv):
    """A convolution whose filter comes with the call, one for each sample: `functional.dynamic_conv2d` as a module.

    `forward(input, weight, bias=None)` takes input (N, C_in, H, W) or (C_in, H, W), weight (N, C_out, C_in / groups, kH, kW)
    and bias (N, C_out), each of one sample for all. It has no parameters of its own.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups: as of torch.nn.Conv2d.
        padding: as of torch.nn.Conv2d; "same" at any stride.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
    """

    _spatial_dims, _function = 2, staticmethod(functional.dynamic_conv2d)


class DynamicConv3d(_DynamicConv):
    """`DynamicConv2d` of volumes: input (N, C_in, D, H, W), weight (N or 1, C_out, C_in / groups, kD, kH, kW)."""

    _spatial_dims, _function = 3, staticmethod(functional.dynamic_conv3d)
