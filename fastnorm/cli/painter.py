"""What turns pictures and frames into stylised ones: a system, its styles encoded once, masks, colours, types."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..models import cost
from ..models.pictures import keep_colors
from .errors import UserError
from .masks import Masks
from .style import Style
from .system import Chosen

DTYPES = ("float32", "bfloat16")
# What comes to the tensors of a system: the picture in its types, and what kernels take for themselves. From 1024x1024 to
# 2048x2048 the process of CIN grew by 193 for each pixel, that of Ghiasi by 136; their tensors take 160 and 48.
BYTES_PER_PIXEL = 100


@dataclass
class Painter:
    """`painter.prepare()`, then `painter(content)` as often as wanted.

    masks: of regions, none where there is one style or none; longest: the side to which pictures are resized, and masks.
    """

    chosen: Chosen
    styles: list[Style]
    masks: list[Path] = field(default_factory=list)
    device: str = "cpu"
    dtype: str = "float32"
    alpha: float = 1.0
    preserve_color: bool = False
    longest: int | None = None

    def __post_init__(self):
        self.regions = Masks(self.masks, len(self.styles), self.longest)

    @property
    def files(self) -> list[Path]:
        """What is read, and must not be written over."""
        of_styles = [path for style in self.styles for path in style.files]
        return of_styles + self.masks + ([self.chosen.weights] if self.chosen.weights else [])

    def prepare(self) -> None:
        """Load the weights, and encode the styles: in float32, whatever the type of the pictures will be."""
        self.model = self.chosen.load(self.device).float()
        with torch.inference_mode():
            encoded = [style.encode(self.model) for style in self.styles]
            self.model = self.model.to(getattr(torch, self.dtype))
            self.encoded = [self.model.placed(style) for style in encoded]

    @torch.inference_mode()
    def __call__(self, content: Tensor) -> Tensor:
        """content (N, 3, H, W) in 0..1, float32; the result is so, too, on the CPU, and `scale` times as large."""
        content = content.to(self.device)
        typed = content.to(getattr(torch, self.dtype))
        try:
            if self.regions:
                mask = self.regions.at(*content.shape[2:]).to(self.device)
                stylized = self.model.stylize_regions(typed, self.encoded, mask, self.alpha)
            else:
                stylized = self.model.stylize(typed, next(iter(self.encoded), None), self.alpha)
        except (TypeError, ValueError) as error:  # In one line, in the words of the system.
            raise UserError(error) from None
        stylized = stylized.float()
        if self.preserve_color:
            if self.scale != 1:
                content = interpolate(content, scale_factor=self.scale, mode="bicubic")
            stylized = keep_colors(content, stylized)
        return stylized.cpu()

    @property
    def scale(self) -> int:
        """How much larger the result is."""
        return self.model.enlarges

    def memory(self, height: int, width: int, samples: int = 1) -> int | None:
        """Bytes that it takes to stylise at once; None where that cannot be told before."""
        if self._on_meta is None:
            return None
        picture = torch.empty(samples, 3, height, width, device="meta", dtype=getattr(torch, self.dtype))
        try:
            needed = cost.peak_bytes(cost.stylizing(self._on_meta, picture, max(1, len(self.styles))))
        except (NotImplementedError, RuntimeError):
            return None
        return needed + samples * height * width * BYTES_PER_PIXEL

    @cached_property
    def _on_meta(self):
        # Weights that come with sizes of their own are of a constructor's arguments; those that do not fit show on loading.
        with contextlib.suppress(TypeError, ValueError):
            return cost.on_meta(self.chosen.name, getattr(torch, self.dtype), **self.chosen.config)
