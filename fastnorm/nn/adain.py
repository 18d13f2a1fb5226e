from torch import Tensor, nn

from .. import functional


class AdaIN(nn.Module):
    """Adaptive instance normalisation (Huang and Belongie 2017, arXiv:1703.06868): `functional.adain` as a module.

    Args:
        eps, correction, eps_mode: how a standard deviation is taken, as in `functional.instance_stats`.
        style_eps, style_correction: the same for the style, where it differs.
    """

    def __init__(
        self,
        eps: float = 1e-5,
        correction: int = 0,
        *,
        eps_mode: str = "var",
        style_eps: float | None = None,
        style_correction: int | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.correction, self.eps_mode = eps, correction, eps_mode
        self.style_eps, self.style_correction = style_eps, style_correction

    def forward(self, content: Tensor, style: Tensor | tuple[Tensor, Tensor], alpha: float = 1.0) -> Tensor:
        """content (N, C, *); style (N or 1, C, *) or its (mean, std); alpha 1 for the style in full."""
        return functional.adain(
            content,
            style,
            alpha,
            self.eps,
            self.correction,
            eps_mode=self.eps_mode,
            style_eps=self.style_eps,
            style_correction=self.style_correction,
        )

    def affine_of(self, style: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """weight and bias of the norm that this is: deviation and mean of the style, each (C,), (1, C) or (N, C)."""
        if not isinstance(style, Tensor):
            mean, std = style
            return std, mean
        eps = self.eps if self.style_eps is None else self.style_eps
        correction = self.correction if self.style_correction is None else self.style_correction
        mean, rstd = functional.instance_stats(style, eps, correction, self.eps_mode)
        return 1 / rstd, mean

    def extra_repr(self) -> str:
        return f"eps={self.eps}, correction={self.correction}, eps_mode={self.eps_mode!r}"
