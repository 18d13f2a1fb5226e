from torch import Tensor, nn

from .. import functional
from ._batch import to_batch


class _ReflectionPad:
    """What the three share: torch's module, by the kernels here."""

    _spatial_dims: int

    def forward(self, input: Tensor) -> Tensor:
        input, _, unbatched = to_batch(self, input, None, self._spatial_dims, None)
        output = functional.reflection_pad(input, self.padding)
        return output.squeeze(0) if unbatched else output


class ReflectionPad1d(_ReflectionPad, nn.ReflectionPad1d):
    """torch.nn.ReflectionPad1d: (N, C, L) or (C, L)."""

    _spatial_dims = 1


class ReflectionPad2d(_ReflectionPad, nn.ReflectionPad2d):
    """torch.nn.ReflectionPad2d, with the same gradient from every run on a GPU, too: (N, C, H, W) or (C, H, W)."""

    _spatial_dims = 2


class ReflectionPad3d(_ReflectionPad, nn.ReflectionPad3d):
    """torch.nn.ReflectionPad3d: (N, C, D, H, W) or (C, D, H, W)."""

    _spatial_dims = 3
