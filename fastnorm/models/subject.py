"""Of what a picture is to be found: a content, styles, their shares and regions, sizes, colours, and where it starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._checks import check_integer, check_number
from .pictures import check_mask, check_picture, keep_colors, match_colors, resize_masks, resized
from .terms import COARSEST, Level

STARTS = "content", "noise", "style"
COLORS = "luminance", "histogram"


class Subject:
    """What does not change from level to level; arguments are those of `descent.Descent`, and are checked here."""

    def __init__(
        self,
        system: nn.Module,
        content: Tensor | None,
        styles: Sequence[Tensor],
        weights: Sequence[float] | None,
        mask: Tensor | None,
        style_scale: float,
        size: tuple[int, int] | None,
        samples: int,
        start: str | Tensor | None,
        seed: int,
        preserve_color: str | None,
    ) -> None:
        self._system, self._name = system, type(system).__name__
        self.content, self.styles = content, list(styles)
        self._check_pictures()
        self.size = self._full_size(size)
        check_integer(self._name, "samples", samples, 1)
        self.samples = samples if content is None else len(content)
        for name, pictures in [("styles", style) for style in self.styles] + [("start", start)]:
            if isinstance(pictures, Tensor) and len(pictures) not in (1, self.samples):
                expected = f"a picture for all, or for each of {self.samples} samples"
                raise ValueError(f"{self._name}: {name}: expected {expected}, got {len(pictures)}")
        self.mask = self._checked_mask(mask)
        self.weights = self._checked_weights(weights)
        check_number(self._name, "style_scale", style_scale, 0.01)
        self.style_scale, self.seed, self.start = style_scale, seed, self._checked_start(start)
        check_choice(self._name, "preserve_color", preserve_color, (None, *COLORS))
        if preserve_color is not None and content is None:
            raise ValueError(f"{self._name}: preserve_color: expected None, for there is no content")
        self.preserve_color = preserve_color
        if preserve_color == "histogram":
            self.styles = [match_colors(style, content) for style in self.styles]

    # At a level.

    def size_at(self, level: Level) -> tuple[int, int]:
        size = self._no_smaller(level.size, self.size)
        return tuple(round(size * side) for side in self.size)

    def at(self, level: Level) -> tuple[Tensor | None, list[Tensor], Tensor | None]:
        """Content, styles and masks (S, H, W), of the level's size."""
        size = self.size_at(level)
        content = None if self.content is None else resized(self.content, *size)
        masks = None if self.mask is None else resize_masks(self.mask, *size)
        return content, [self._resized_style(style, level) for style in self.styles], masks

    def _resized_style(self, style: Tensor, level: Level) -> Tensor:
        scale = self._no_smaller(level.size * self.style_scale, style.shape[2:])
        return resized(style, *(round(scale * side) for side in style.shape[2:]))

    def _no_smaller(self, scale: float, size: Sequence[int]) -> float:
        """The scale, or that at which the shorter side has what losses need, if it has as much."""
        return max(scale, min(1.0, max(COARSEST, self._system.least) / min(size)))

    # From beginning to end.

    def started(self, height: int, width: int) -> Tensor:
        """The pictures that are optimised first, (N, 3, H, W)."""
        if isinstance(self.start, Tensor):
            picture = resized(self.start, height, width)
        elif self.start == "content":
            picture = resized(self.content, height, width)
        elif self.start == "style":
            picture = resized(self.styles[0], height, width)
        else:
            generators = [torch.Generator().manual_seed(self.seed + number) for number in range(self.samples)]
            noise = [torch.rand(1, 3, height, width, generator=generator) for generator in generators]
            picture = torch.cat(noise).to(self.like())
        return picture.expand(self.samples, -1, -1, -1)

    def finished(self, pictures: Tensor) -> Tensor:
        """Of the full size, in 0..1, with the content's colours where they are kept."""
        picture = resized(pictures.detach(), *self.size).clamp(0, 1)
        return keep_colors(self.content, picture) if self.preserve_color == "luminance" else picture

    def like(self) -> Tensor:
        """A tensor of the pictures' type, on their device."""
        return next(self._system.parameters())

    # Arguments.

    def _check_pictures(self) -> None:
        for name, picture in [("content", self.content), *(("styles", style) for style in self.styles)]:
            if picture is None:
                continue
            check_picture(self._name, name, picture)
            if picture.dtype != self.like().dtype:
                expected = f"the weights' type {self.like().dtype}"
                raise TypeError(f"{self._name}: {name}: expected {expected}, got {picture.dtype}")
            self._check_sides(name, picture.shape[2:])
            if not len(picture):
                raise ValueError(f"{self._name}: {name}: expected one sample at least, got none")
        if not self.styles and (self.content is None or any(term.target == "styles" for term in self._system.terms)):
            raise ValueError(f"{self._name}: styles: expected one at least, got none")

    def _full_size(self, size) -> tuple[int, int]:
        if self.content is not None:
            own = tuple(self.content.shape[2:])
            if size is not None and tuple(size) != own:
                raise ValueError(f"{self._name}: size: expected that of the content, {own}, got {size}")
            return own
        if size is None:
            return tuple(self.styles[0].shape[2:])
        if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(side, int) for side in size):
            raise TypeError(f"{self._name}: size: expected (height, width), got {size!r}")
        size = tuple(size)
        self._check_sides("size", size)
        return size

    def _check_sides(self, name: str, size) -> None:
        least, (height, width) = self._system.least, size
        if min(size) < least:
            raise ValueError(f"{self._name}: {name}: expected sides of {least} pixels at least, got {width}x{height}")

    def _checked_weights(self, weights) -> list[float]:
        """Without a mask they add up to one style's; with one, each has a region of its own, and counts in full."""
        weights = [1.0] * len(self.styles) if weights is None else list(weights)
        if len(weights) != len(self.styles):
            expected = f"one for each of {len(self.styles)} styles"
            raise ValueError(f"{self._name}: weights: expected {expected}, got {len(weights)}")
        for weight in weights:
            check_number(self._name, "weights", weight, 0)
        if weights and not any(weights):
            raise ValueError(f"{self._name}: weights: expected one above 0 at least, got {weights}")
        return weights if self.mask is not None else [weight / sum(weights) for weight in weights]

    def _checked_mask(self, mask) -> Tensor | None:
        if mask is None:
            return None
        like = self.like().new_empty(1, 3, *self.size)
        mask = check_mask(self._name, mask, len(self.styles), like)
        if len(mask) > 1:
            raise ValueError(f"{self._name}: mask: expected one for all samples, got {len(mask)}")
        if not (mask.isfinite().all() and (mask >= 0).all()):
            raise ValueError(f"{self._name}: mask: expected numbers from 0 up, got others, or NaN")
        return mask[0]

    def _checked_start(self, start):
        if isinstance(start, Tensor):
            check_picture(self._name, "start", start)
            return start.to(self.like())
        start = start or ("noise" if self.content is None else "content")
        check_choice(self._name, "start", start, STARTS)
        if start == "content" and self.content is None:
            raise ValueError(f"{self._name}: start: expected noise, style or a picture, for there is no content")
        if start == "style" and not self.styles:
            raise ValueError(f"{self._name}: start: expected content, noise or a picture, for there is no style")
        return start


def check_choice(system: str, name: str, value, choices) -> None:
    if value not in choices:
        expected = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"{system}: {name}: expected one of {expected}, got {value!r}")
