from torch import Tensor, nn

from .. import functional
from .._checks import check_activation


class SpatiallyAdaptiveNorm2d(nn.Module):
    """Instance normalisation with a scale and a shift per pixel (SPADE, Park et al. 2019, arXiv:1903.07291).

    A 3x3 convolution with ReLU reads the map of conditions, resized to the input; two more give gamma and beta.

    Args:
        num_features: channels of the input, C.
        condition_channels: channels of the condition: the classes of a segmentation, say.
        hidden_channels: channels between the two layers of convolutions; 128 in the paper.
    """

    def __init__(
        self,
        num_features: int,
        condition_channels: int,
        hidden_channels: int = 128,
        kernel_size: int = 3,
        eps: float = 1e-5,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        check_activation(type(self).__name__, activation)
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.activation, self.negative_slope = activation, negative_slope
        padding = kernel_size // 2
        self.shared = nn.Sequential(nn.Conv2d(condition_channels, hidden_channels, kernel_size, padding=padding), nn.ReLU())
        self.gamma = nn.Conv2d(hidden_channels, num_features, kernel_size, padding=padding)
        self.beta = nn.Conv2d(hidden_channels, num_features, kernel_size, padding=padding)

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:
        """input (N, C, H, W); condition (N, K, h, w) of any size."""
        hidden = self.shared(nn.functional.interpolate(condition, size=input.shape[2:], mode="nearest"))
        return functional.spatially_adaptive_norm(
            input,
            self.gamma(hidden),
            self.beta(hidden),
            self.eps,
            activation=self.activation,
            negative_slope=self.negative_slope,
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, activation={self.activation!r}"
