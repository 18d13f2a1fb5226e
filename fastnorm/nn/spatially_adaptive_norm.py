from torch import Tensor, nn

from .. import functional
from .._checks import autocasts, check_activation, check_tensor
from ._batch import to_batch


class SpatiallyAdaptiveNorm2d(nn.Module):
    """Instance normalisation with a scale and a shift per pixel (SPADE, Park et al. 2019, arXiv:1903.07291).

    A 3x3 convolution with ReLU reads the map of conditions, resized to the input; two more give gamma and beta.

    Args:
        num_features: channels of the input, C.
        condition_channels: channels of the condition, K: the classes of a segmentation, say.
        hidden_channels: channels between the two layers of convolutions; 128 in the paper.
        kernel_size: of the convolutions; an odd number.
        correction: 0 for the biased variance, 1 for the unbiased.
    """

    def __init__(
        self,
        num_features: int,
        condition_channels: int,
        hidden_channels: int = 128,
        kernel_size: int = 3,
        eps: float = 1e-5,
        correction: int = 0,
        activation: str | None = None,
        negative_slope: float = 0.01,
        device=None,
        dtype=None,
    ) -> None:
        check_activation(type(self).__name__, activation, negative_slope)
        if not isinstance(kernel_size, int) or kernel_size % 2 == 0:
            raise ValueError(f"{type(self).__name__}: kernel_size: expected an odd number, got {kernel_size!r}")
        super().__init__()
        self.num_features, self.condition_channels = num_features, condition_channels
        self.eps, self.correction = eps, correction
        self.activation, self.negative_slope = activation, negative_slope
        options = dict(padding=kernel_size // 2, device=device, dtype=dtype)
        self.shared = nn.Sequential(nn.Conv2d(condition_channels, hidden_channels, kernel_size, **options), nn.ReLU())
        self.gamma = nn.Conv2d(hidden_channels, num_features, kernel_size, **options)
        self.beta = nn.Conv2d(hidden_channels, num_features, kernel_size, **options)

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:
        """input (N, C, H, W); condition (N, K, h, w) of any size, of the weights' type. Both may come without N."""
        input, _, unbatched = to_batch(self, input, None, 2, self.num_features)
        self._check_condition(condition, () if unbatched else (input.shape[0],))
        if unbatched:
            condition = condition.unsqueeze(0)
        hidden = self.shared(nn.functional.interpolate(condition, size=input.shape[2:], mode="nearest"))
        output = functional.spatially_adaptive_norm(
            input,
            self.gamma(hidden),
            self.beta(hidden),
            self.eps,
            correction=self.correction,
            activation=self.activation,
            negative_slope=self.negative_slope,
        )
        return output.squeeze(0) if unbatched else output

    def _check_condition(self, condition: Tensor, batch: tuple[int, ...]) -> None:
        name, dtype = type(self).__name__, self.gamma.bias.dtype
        check_tensor(name, "condition", condition, expected=f"{dtype} (of a map of classes, one plane for each, one-hot)")
        shape, expected = tuple(condition.shape), (*batch, self.condition_channels)
        if shape[:-2] != expected or 0 in shape[-2:]:
            sizes = ", ".join(map(str, expected))
            raise ValueError(f"{name}: condition: expected shape ({sizes}, h, w), got {shape}")
        if condition.dtype != dtype and not autocasts(condition):
            raise TypeError(f"{name}: condition: expected the weights' type {dtype}, got {condition.dtype}")

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, activation={self.activation!r}"
