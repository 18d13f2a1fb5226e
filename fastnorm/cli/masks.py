"""Where each of several styles goes: `--mask`, one picture that numbers regions, or one for each style."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from .. import pictures
from ..models.pictures import masks_of_levels, masks_that_sum_to_1, resize_masks
from .errors import UserError


@dataclass
class Masks:
    """files: none where there is one style or none; longest: the side to which pictures are resized, and these."""

    files: list[Path]
    styles: int
    longest: int | None = None

    def __post_init__(self):
        if self.files and self.styles < 2:
            raise UserError("--mask: it says where each of several styles goes: repeat --style")
        if self.styles > 1 and not self.files:
            raise UserError("--style is repeated: say by --mask where each goes, or mix them: a.jpg:0.5,b.jpg:0.5")
        if len(self.files) not in (0, 1, self.styles):
            raise UserError(f"--mask: expected one for all, or one for each of {self.styles} styles, got {len(self.files)}")

    def __bool__(self):
        return bool(self.files)

    def check(self, height: int, width: int, multiple: int = 1, whose: str = "the picture") -> None:
        """Raise unless the masks are of a picture's size, or become so by --size, cut to sides that are such multiples."""
        for mask in self.files:
            try:
                size = pictures.measure(mask, self.longest)
            except UserError as error:
                raise UserError(f"--mask {error}") from None
            if tuple(side // multiple * multiple for side in size) != (width, height):
                at = f" at --size {self.longest}" if self.longest else ""
                raise UserError(
                    f"--mask {mask} is {size[0]}x{size[1]} pixels{at}, {whose} {width}x{height}: make a mask of that size"
                )

    def at(self, height: int, width: int) -> Tensor:
        """The share of each style at each pixel, (1, S, H, W)."""
        # Without --size, frames of a video may be cut by a pixel.
        masks = self._as_they_are if self.longest else self._as_they_are[:, :height, :width]
        return resize_masks(masks, height, width)[None]

    @cached_property
    def _as_they_are(self) -> Tensor:
        """(S, H, W), as they are on disk; the sizes are the same, as they are checked."""
        read = [pictures.read(mask).rgb for mask in self.files]
        gray = torch.stack([(rgb[0] * rgb.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0) for rgb in read])
        try:
            return masks_of_levels(gray[0], self.styles) if len(gray) == 1 else masks_that_sum_to_1(gray)
        except ValueError as error:
            raise UserError(f"--mask: {error}") from None
