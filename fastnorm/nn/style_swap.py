from torch import Tensor, nn

from .. import functional
from .._checks import check_integer, check_number


class StyleSwap(nn.Module):
    """The style swap (Chen and Schmidt 2016, arXiv:1612.04337): `functional.style_swap` as a module.

    Args:
        patch_size, stride: of the patches, and how far apart they begin.
        usage_penalty: by how much a patch of the style loses each time that it is chosen; 0 for the published swap, above
            it for the deep feature reshuffle (Gu et al., CVPR 2018).
    """

    def __init__(self, patch_size: int = 3, stride: int = 1, usage_penalty: float = 0.0) -> None:
        super().__init__()
        check_integer(type(self).__name__, "patch_size", patch_size, 1)
        check_integer(type(self).__name__, "stride", stride, 1)
        check_number(type(self).__name__, "usage_penalty", usage_penalty, 0)
        self.patch_size, self.stride, self.usage_penalty = patch_size, stride, usage_penalty

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """content (N, C, H, W); style (N or 1, C, H', W')."""
        return functional.style_swap(content, style, self.patch_size, self.stride, self.usage_penalty)

    def extra_repr(self) -> str:
        return f"patch_size={self.patch_size}, stride={self.stride}, usage_penalty={self.usage_penalty}"
