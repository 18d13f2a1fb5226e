from torch import Tensor, nn

from .. import functional
from .._checks import check_number, check_sizes
from ._attention import as_batches, for_each, mean_variance_norm


class AdaAttN(nn.Module):
    """Adaptive attention normalisation (Liu et al., ICCV 2021, arXiv:2108.03647).

        mean, std = attention_stats(f(content_key), g(style_key), h(style))
        output = std * (content - its mean) / sqrt(its unbiased variance + eps) + mean

    `f`, `g` and `h` are 1x1 convolutions, as in the authors' code, whose checkpoints it loads. Every key counts, however
    many: where that code draws `max_sample` of them at random, here nothing is drawn. For a style with many contents,
    `attend` takes what `encode` made of it once.

    Args:
        in_planes: channels of content and style.
        max_sample: not used; it stands where the authors' code has it.
        key_planes: channels of the keys; None for `in_planes`.
        eps: added to the content's variance.
        min_var: the least variance of values, as in `functional.attention_stats`: less has no gradient, and 0 never any.
    """

    def __init__(
        self,
        in_planes: int,
        max_sample: int = 256 * 256,
        key_planes: int | None = None,
        eps: float = 1e-5,
        min_var: float = 0.0,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        name, options = type(self).__name__, dict(device=device, dtype=dtype)
        key_planes = in_planes if key_planes is None else key_planes
        check_sizes(name, "in_planes", in_planes, 1, 1)
        check_sizes(name, "key_planes", key_planes, 1, 1)
        check_number(name, "eps", eps, 0)
        check_number(name, "min_var", min_var, 0)
        self.in_planes, self.key_planes, self.eps, self.min_var = in_planes, key_planes, eps, min_var
        self.f = nn.Conv2d(key_planes, key_planes, 1, **options)
        self.g = nn.Conv2d(key_planes, key_planes, 1, **options)
        self.h = nn.Conv2d(in_planes, in_planes, 1, **options)

    def forward(
        self, content: Tensor, style: Tensor, content_key: Tensor, style_key: Tensor, seed: int | None = None
    ) -> Tensor:
        """content (N, C, H, W) with its key (N, K, H, W), style (N, C, h, w) with its key (N, K, h, w).

        Keys come normalised: in the paper, features of this layer and of those before it, resized and stacked. All may come
        without N, and are of the weights' type, float32, float64, bfloat16 or float16. `seed` is not used.
        """
        unbatched = isinstance(content, Tensor) and content.dim() == 3
        content, style, content_key, style_key = as_batches(
            self,
            content=(content, self.in_planes),
            style=(style, self.in_planes),
            content_key=(content_key, self.key_planes),
            style_key=(style_key, self.key_planes),
        )
        self._check_positions("content", content, content_key)
        self._check_positions("style", style, style_key)
        output = self._attend(content, content_key, self.g(style_key), self.h(style))
        return output.squeeze(0) if unbatched else output

    def encode(self, style: Tensor, style_key: Tensor) -> tuple[Tensor, Tensor]:
        """What `attend` needs of a style (N, C, h, w) and its key (N, K, h, w): keys and values, of these shapes."""
        style, style_key = as_batches(self, style=(style, self.in_planes), style_key=(style_key, self.key_planes))
        self._check_positions("style", style, style_key)
        return self.g(style_key), self.h(style)

    def attend(self, content: Tensor, content_key: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`forward` of content and content_key, as there, and what `encode` made of a style: of N, or of one for all."""
        unbatched = isinstance(content, Tensor) and content.dim() == 3
        content, content_key = as_batches(
            self, content=(content, self.in_planes), content_key=(content_key, self.key_planes)
        )
        self._check_positions("content", content, content_key)
        key, value = for_each(self, content, key=(key, self.key_planes), value=(value, self.in_planes))
        output = self._attend(content, content_key, key, value)
        return output.squeeze(0) if unbatched else output

    def _attend(self, content, content_key, key, value):
        normed = mean_variance_norm(self, content, "content")
        mean, std = functional.attention_stats(self.f(content_key), key, value, min_var=self.min_var)
        return std * normed + mean

    def _check_positions(self, argument, map, key):
        if key.shape[2:] != map.shape[2:]:
            size, got = (" x ".join(str(size) for size in found.shape[2:]) for found in (map, key))
            raise ValueError(f"{type(self).__name__}: {argument}_key: expected the size of {argument}, {size}, got {got}")

    def extra_repr(self) -> str:
        return f"{self.in_planes}, key_planes={self.key_planes}, eps={self.eps}, min_var={self.min_var}"
