import torch
from torch import Tensor

from .. import functional
from .._checks import check_activation
from ._batch import to_batch


class Fused:
    """What the three share: torch's module, with an activation and a residual in the same pass."""

    _spatial_dims: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device=None,
        dtype=None,
        *,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        check_activation(type(self).__name__, activation, negative_slope)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.activation = activation
        self.negative_slope = negative_slope

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        num_features = self.num_features if self.affine or self.track_running_stats else None
        input, residual, unbatched = to_batch(self, input, residual, self._spatial_dims, num_features)
        output = functional.instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
            activation=self.activation,
            residual=residual,
            negative_slope=self.negative_slope,
        )
        return output.squeeze(0) if unbatched else output

    def extra_repr(self) -> str:
        activation = "" if self.activation is None else f", activation={self.activation!r}"
        return super().extra_repr() + activation


class InstanceNorm1d(Fused, torch.nn.InstanceNorm1d):
    """torch.nn.InstanceNorm1d, with `activation` and `forward(input, residual=None)`: (N, C, L) or (C, L)."""

    _spatial_dims = 1


class InstanceNorm2d(Fused, torch.nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d, with `activation` and `forward(input, residual=None)`: (N, C, H, W) or (C, H, W)."""

    _spatial_dims = 2


class InstanceNorm3d(Fused, torch.nn.InstanceNorm3d):
    """torch.nn.InstanceNorm3d, with `activation` and `forward(input, residual=None)`: (N, C, D, H, W) or (C, D, H, W)."""

    _spatial_dims = 3
