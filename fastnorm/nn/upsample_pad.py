from torch import Tensor, nn

from .. import functional
from .._checks import check_padding_mode, check_sizes
from ._batch import to_batch


class UpsamplePad2d(nn.Module):
    """Nearest upsampling, then padding: torch.nn.Upsample and torch.nn.ReflectionPad2d in one pass.

    `forward(input)` takes (N, C, H, W) or (C, H, W).

    Args:
        scale_factor: 1 or more, of both sides or of (height, width).
        padding: 0 or more, of all sides or of (left, right, top, bottom).
        padding_mode: "reflect", "replicate", "zeros" or "circular".
    """

    def __init__(
        self,
        scale_factor: int | tuple[int, int] = 2,
        padding: int | tuple[int, int, int, int] = 1,
        padding_mode: str = "reflect",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sizes(name, "scale_factor", scale_factor, 2, 1)
        check_sizes(name, "padding", padding, 4, 0)
        check_padding_mode(name, padding_mode)
        self.scale_factor, self.padding, self.padding_mode = scale_factor, padding, padding_mode

    def forward(self, input: Tensor) -> Tensor:
        input, _, unbatched = to_batch(self, input, None, 2, None)
        output = functional.upsample_pad2d(input, self.scale_factor, self.padding, self.padding_mode)
        return output.squeeze(0) if unbatched else output

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, padding={self.padding}, padding_mode={self.padding_mode!r}"
