from torch import Tensor, nn

from .. import functional
from .._checks import check_number, check_roots


class WhitenColor(nn.Module):
    """Whitening and colouring (WCT, Li et al. 2017, arXiv:1705.08086): `functional.whiten_color` as a module.

    Args:
        alpha: 1 for the style in full, 0 for the content.
        eps, method: how roots of covariances are taken.
    """

    def __init__(self, alpha: float = 1.0, eps: float = 1e-5, method: str = "eigh") -> None:
        super().__init__()
        check_number(type(self).__name__, "alpha", alpha)
        check_roots(type(self).__name__, eps, method)
        self.alpha, self.eps, self.method = alpha, eps, method

    def forward(self, content: Tensor, style: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """content (N, C, *); style (N or 1, C, *) or its (mean, root)."""
        return functional.whiten_color(content, style, self.alpha, self.eps, self.method)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, eps={self.eps}, method={self.method!r}"
