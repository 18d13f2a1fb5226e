from torch import Tensor, nn

from .. import functional
from .._checks import check_sizes
from ._attention import as_batches, mean_variance_norm


class SANet(nn.Module):
    """Style-attentional network (Park and Lee, CVPR 2019, arXiv:1812.02342).

        output = out_conv(mean of h(style), weighted by the attention of f(norm(content)) to g(norm(style))) + content

    norm is instance normalisation by the unbiased variance. `f`, `g`, `h` and `out_conv` are 1x1 convolutions, as in the
    authors' code, whose checkpoints it loads.

    Args:
        in_planes: channels of content and style.
        eps: added to a variance.
    """

    def __init__(self, in_planes: int, eps: float = 1e-5, device=None, dtype=None) -> None:
        super().__init__()
        check_sizes(type(self).__name__, "in_planes", in_planes, 1, 1)
        self.in_planes, self.eps = in_planes, eps
        options = dict(device=device, dtype=dtype)
        self.f, self.g, self.h, self.out_conv = (nn.Conv2d(in_planes, in_planes, 1, **options) for _ in range(4))

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """content (N, C, H, W) and style (N, C, h, w), each of more than one position; each may come without N.

        Both are of the weights' type, float32, float64, bfloat16 or float16.
        """
        unbatched = isinstance(content, Tensor) and content.dim() == 3
        content, style = as_batches(self, content=(content, self.in_planes), style=(style, self.in_planes))
        query = self.f(mean_variance_norm(self, content, "content"))
        key = self.g(mean_variance_norm(self, style, "style"))
        attended = functional.attention_stats(query, key, self.h(style), return_std=False)
        output = self.out_conv(attended) + content
        return output.squeeze(0) if unbatched else output

    def extra_repr(self) -> str:
        return f"{self.in_planes}, eps={self.eps}"
