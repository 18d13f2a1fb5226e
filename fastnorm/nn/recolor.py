from torch import Tensor, nn

from .. import functional
from .._checks import check_roots


class Recolor(nn.Module):
    """Colouring of a whitened map (WCT, Li et al. 2017, arXiv:1705.08086): `functional.recolor` as a module.

    Args:
        eps, method: how the root of a covariance is taken.
    """

    def __init__(self, eps: float = 1e-5, method: str = "eigh") -> None:
        super().__init__()
        check_roots(type(self).__name__, eps, method)
        self.eps, self.method = eps, method

    def forward(self, input: Tensor, style: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """input (N, C, *), whitened; style (N or 1, C, *) or its (mean, root)."""
        return functional.recolor(input, style, self.eps, self.method)

    def extra_repr(self) -> str:
        return f"eps={self.eps}, method={self.method!r}"
