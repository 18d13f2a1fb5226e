import torch
from torch import Tensor, nn

from .. import functional
from .._checks import check_activation, check_number
from ..ops._library import differentiable
from ._batch import to_batch


class LayerInstanceNorm2d(nn.Module):
    """A blend of instance and layer normalisation, learned per channel (U-GAT-IT, Kim et al. 2020, arXiv:1907.10830).

    With `affine` it holds its own weight and bias (the paper's LIN); without, `forward` takes those of a style (AdaLIN).

    rho is kept in 0..1. The paper clips it after each step of the optimiser; here a step may take it out, where it counts
    as the bound it passed and its gradient is only what leads a descent back. So it moves again when the loss asks for it,
    and no step needs a hook.

    Args:
        num_features: channels, C.
        rho: where the blend starts; 1 is instance, 0 is layer normalisation. The paper: 0.9 for AdaLIN, 0 for LIN.
        correction: 0 for the biased variance, 1 for the unbiased one of the paper's code.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        rho: float = 0.0,
        correction: int = 0,
        activation: str | None = None,
        negative_slope: float = 0.01,
        device=None,
        dtype=None,
    ) -> None:
        check_activation(type(self).__name__, activation, negative_slope)
        check_number(type(self).__name__, "rho", rho)
        super().__init__()
        self.num_features, self.eps, self.correction = num_features, eps, correction
        self.activation, self.negative_slope = activation, negative_slope
        options = dict(device=device, dtype=dtype)
        self.rho = nn.Parameter(torch.full((num_features,), float(rho), **options))
        self.weight = nn.Parameter(torch.ones(num_features, **options)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, **options)) if affine else None

    def forward(
        self, input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """input (N, C, H, W) or (C, H, W); weight and bias (C,) or (N, C), in place of the module's own."""
        input, residual, unbatched = to_batch(self, input, residual, 2, self.num_features)
        output = functional.layer_instance_norm(
            input,
            _bounded(self.rho, 0, 1),
            self.weight if weight is None else weight,
            self.bias if bias is None else bias,
            self.eps,
            correction=self.correction,
            activation=self.activation,
            residual=residual,
            negative_slope=self.negative_slope,
        )
        return output.squeeze(0) if unbatched else output

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.weight is not None}, activation={self.activation!r}"


# The gradient of a clamp is 0 outside, where a parameter that a step took there would stay. A clamp of the parameter itself
# would change it under the graph of another call.


def _save(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])


def _back_inside(ctx, grad):
    (rho,) = ctx.saved_tensors
    outwards = ((rho < 0) & (grad > 0)) | ((rho > 1) & (grad < 0))
    return grad.masked_fill(outwards, 0), None, None


_bounded = differentiable(torch.ops.aten.clamp.default, torch.clamp, _save, _back_inside)
