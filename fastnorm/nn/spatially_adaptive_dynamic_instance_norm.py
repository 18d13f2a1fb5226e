from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import embedding, interpolate

from .. import functional
from .._checks import check_same_device, check_tensor
from ._batch import to_batch
from .dynamic_instance_norm import DynamicFilter, DynamicInstanceNorm

_INDICES = {torch.int64, torch.int32}
_WEIGHTS = {torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.bool}


class SpatiallyAdaptiveDynamicInstanceNorm(DynamicInstanceNorm):
    """`DynamicInstanceNorm` with several styles, chosen or blended at each position (Jing et al. 2020, arXiv:1911.06953).

        output[p] = sum over styles s of  mask[s, p] * DIN(content, styles[s])[p]

    The content is normalised once. Arguments are those of `DynamicInstanceNorm`.
    """

    def forward(self, content: Tensor, styles: Sequence[Tensor | DynamicFilter], mask: Tensor) -> Tensor:
        """content (N, C_in, H, W) or (C_in, H, W); styles a list of S maps or filters, each for each sample or one for all.

        mask: (N, S, h, w), weights in floating point or bool, or (N, h, w), the style at each position as an int64 or int32
            index; of one sample for all, and without N for a content without. The nearest of its pixels is taken.

        Raises:
            IndexError: an index that is no style. On a GPU the look-up itself fails, later.
        """
        content, _, unbatched = to_batch(self, content, None, 2, self.in_channels, "content")
        if isinstance(styles, self._filter_type) or not isinstance(styles, Sequence) or not styles:
            got = "an empty one" if isinstance(styles, Sequence) and not styles else type(styles).__name__
            raise TypeError(f"{type(self).__name__}: styles: expected a list of maps or filters, got {got}")
        filters = [self._filter_for(content, style) for style in styles]
        mask = self._mask_of_weights(mask, len(filters), content, unbatched)
        normalised = functional.instance_norm(content, eps=self.eps)
        parts = (self._part(normalised, *each, mask[:, s : s + 1]) for s, each in enumerate(filters))
        output = reduce(torch.add, parts)
        return output.squeeze(0) if unbatched else output

    def _mask_of_weights(self, mask: Tensor, styles: int, content: Tensor, unbatched: bool) -> Tensor:
        """(N or 1, S, h, w), in the content's type."""
        name, n = type(self).__name__, content.shape[0]
        check_tensor(name, "mask", mask, _INDICES | _WEIGHTS, "int64 or int32 indices, or weights in floating point or bool")
        check_same_device(name, "mask", mask, content)
        by_index = mask.dtype in _INDICES
        batch, inner = () if unbatched else (n,), () if by_index else (styles,)
        shape = tuple(mask.shape)
        if shape[:-2] != (*batch, *inner) and (unbatched or shape[:-2] != (1, *inner)) or 0 in shape[-2:]:
            kind = "indices" if by_index else "weights"
            sizes = ", ".join([*(f"{n} or 1" for n in batch), *map(str, inner), "h", "w"])
            raise ValueError(f"{name}: mask: expected {kind} ({sizes}), got shape {shape}")
        mask = mask.unsqueeze(0) if unbatched else mask
        if not by_index:
            return mask.to(content.dtype)
        try:
            return embedding(mask, torch.eye(styles, dtype=content.dtype, device=mask.device)).movedim(3, 1)
        except IndexError:
            least, most = mask.min().item(), mask.max().item()
            raise IndexError(f"{name}: mask: expected indices in 0..{styles - 1}, got {least}..{most}") from None

    def _part(self, normalised: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor) -> Tensor:
        """What one style has of the output, by its plane of the mask, (N or 1, 1, h, w)."""
        output = functional.dynamic_conv2d(
            normalised, weight, bias, self.stride, self.padding, self.dilation, self.groups, self.padding_mode
        )
        return output * interpolate(mask, size=output.shape[2:], mode="nearest")
