from torch import Tensor, nn

from .. import functional
from .._checks import check_bins


class MatchHistogram(nn.Module):
    """Histogram matching (Risser, Wilmot and Barnes 2017, arXiv:1701.08893): `functional.match_histogram` as a module.

    Args:
        bins: None for sorting, which is exact, or how many bins a histogram has.
    """

    def __init__(self, bins: int | None = None) -> None:
        super().__init__()
        if bins is not None:
            check_bins(type(self).__name__, bins)
        self.bins = bins

    def forward(
        self, input: Tensor, target: Tensor, input_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """input (N, C, *); target (N or 1, C, *); masks bool, without channels."""
        return functional.match_histogram(input, target, self.bins, input_mask, target_mask)

    def extra_repr(self) -> str:
        return f"bins={self.bins}"
