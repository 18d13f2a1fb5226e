import torch
from torch import Tensor, nn

from .. import functional
from .._checks import check_activation, check_style
from ..ops.conditional_instance_norm import of_style
from ._batch import to_batch


class ConditionalInstanceNorm2d(nn.Module):
    """Instance normalisation with an affine map per style (Dumoulin et al. 2017, arXiv:1610.07629).

    Args:
        num_features: channels, C.
        num_styles: rows, S, of `weight` and `bias`, each (S, C).
    """

    def __init__(
        self,
        num_features: int,
        num_styles: int,
        eps: float = 1e-5,
        activation: str | None = None,
        negative_slope: float = 0.01,
        device=None,
        dtype=None,
    ) -> None:
        check_activation(type(self).__name__, activation, negative_slope)
        super().__init__()
        self.num_features, self.num_styles, self.eps = num_features, num_styles, eps
        self.activation, self.negative_slope = activation, negative_slope
        self.weight = nn.Parameter(torch.ones(num_styles, num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_styles, num_features, device=device, dtype=dtype))

    def forward(self, input: Tensor, style: Tensor, residual: Tensor | None = None) -> Tensor:
        """input (N, C, H, W); style (N,) int64 or int32, or (N, S) weights of a mixture. All may come without N."""
        input, residual, unbatched = to_batch(self, input, residual, 2, self.num_features)
        if unbatched:
            check_style(type(self).__name__, style, (), self.num_styles)
            style = style.unsqueeze(0)
        output = functional.conditional_instance_norm(
            input,
            self.weight,
            self.bias,
            style,
            self.eps,
            activation=self.activation,
            residual=residual,
            negative_slope=self.negative_slope,
        )
        return output.squeeze(0) if unbatched else output

    def affine_of(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """weight and bias, each (N, C), of a style as `forward` takes it; without N, or with an N of 1, for all samples."""
        if getattr(style, "dtype", None) != torch.int64:  # Indices, whatever their shape, are right.
            mixture = isinstance(style, Tensor) and style.is_floating_point()
            batch = style.shape[:-1] if mixture else getattr(style, "shape", ())
            check_style(type(self).__name__, style, tuple(batch), self.num_styles)
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        try:
            return of_style(self.weight, style, dtype), of_style(self.bias, style, dtype)
        except IndexError:
            expected = f"indices in 0..{self.num_styles - 1}"
            raise IndexError(f"style: expected {expected}, got {style.tolist()}") from None

    def extra_repr(self) -> str:
        return f"{self.num_features}, num_styles={self.num_styles}, eps={self.eps}, activation={self.activation!r}"
