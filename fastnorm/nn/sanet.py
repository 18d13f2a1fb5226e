from torch import Tensor, nn

from .. import functional
from .._checks import check_sizes
from ._attention import as_batches, for_each, mean_variance_norm


class SANet(nn.Module):
    """Style-attentional network (Park and Lee, CVPR 2019, arXiv:1812.02342).

        output = out_conv(mean of h(style), weighted by the attention of f(norm(content)) to g(norm(style))) + content

    norm is instance normalisation by the unbiased variance. `f`, `g`, `h` and `out_conv` are 1x1 convolutions, as in the
    authors' code, whose checkpoints it loads. For a style with many contents, `attend` takes what `encode` made of it once.

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
        output = self._attend(content, *self._encode(style))
        return output.squeeze(0) if unbatched else output

    def encode(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """What `attend` needs of a style (N, C, h, w): keys and values, each (N, C, h, w)."""
        return self._encode(*as_batches(self, style=(style, self.in_planes)))

    def attend(self, content: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`forward` of a content, as there, and what `encode` made of a style: of N, or of one for all."""
        unbatched = isinstance(content, Tensor) and content.dim() == 3
        (content,) = as_batches(self, content=(content, self.in_planes))
        key, value = for_each(self, content, key=(key, self.in_planes), value=(value, self.in_planes))
        output = self._attend(content, key, value)
        return output.squeeze(0) if unbatched else output

    def _encode(self, style):
        return self.g(mean_variance_norm(self, style, "style")), self.h(style)

    def _attend(self, content, key, value):
        query = self.f(mean_variance_norm(self, content, "content"))
        attended = functional.attention_stats(query, key, value, return_std=False)
        return self.out_conv(attended) + content

    def extra_repr(self) -> str:
        return f"{self.in_planes}, eps={self.eps}"
