from torch import Tensor, nn

from .. import functional
from .._checks import check_roots


class ZCAWhiten(nn.Module):
    """Whitening (Avatar-Net, Sheng et al. 2018, arXiv:1805.03857): `functional.zca_whiten` as a module.

    Args:
        eps, method: how the root of a covariance is taken.
    """

    def __init__(self, eps: float = 1e-5, method: str = "eigh") -> None:
        super().__init__()
        check_roots(type(self).__name__, eps, method)
        self.eps, self.method = eps, method

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *)."""
        return functional.zca_whiten(input, self.eps, self.method)

    def extra_repr(self) -> str:
        return f"eps={self.eps}, method={self.method!r}"
