"""How a picture is found: level by level, step by step, from where it starts to where its losses hardly fall."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._checks import check_integer, check_number
from . import tiles
from .pictures import check_mask, check_picture, keep_colors, match_colors, resize_masks, resized
from .terms import COARSEST

OPTIMIZERS = {"lbfgs": 1.0, "adam": 0.02}  # With their rates: of pixels in 0..1.
STARTS = "content", "noise", "style"
COLORS = "luminance", "histogram"
WINDOW = 20  # Steps over which a loss has to fall.
# How many times a level's first loss one may be. Steps of L-BFGS are as long as its model says, and that may be wrong.
MOST = 1e6


class Step(NamedTuple):
    """What was found at a step: level and step from 1, of how many, and each sample's losses by name, with their sum."""

    level: int
    levels: int
    step: int
    steps: int
    size: tuple[int, int]
    losses: dict[str, list[float]]
    total: list[float]


class Diverged(ArithmeticError):
    """The losses are no numbers any more, or beyond all bounds. `picture` is the last one of which they were."""

    def __init__(self, words: str, picture: Tensor) -> None:
        super().__init__(words)
        self.picture = picture


class Descent:
    """One optimisation, to be walked through: `for step in descent: ...`, and then `descent.result()`.

    The samples of a batch share nothing but the walk through the encoder: each has an optimiser, and comes out as alone.

    Args:
        system: a `synthesis.Synthesis`.
        content: (N, 3, H, W), of the full size; None for textures.
        styles: each (1 or N, 3, h, w), of the full size.
        weights: of styles, from 0 up, of which each has its share; equal ones for None.
        mask: (1, S, H, W), the share of each style at each pixel, or (1, H, W), the style's number there, of the full size.
        style_scale: the size of styles' pictures, in parts of what they are: larger ones give larger strokes.
        size: (H, W), and samples how many, of textures; the first style's size, and one, for None.
        start: "content", "noise" or "style", or a picture (N, 3, h, w); None for the content, or noise where there is none.
        seed: of noise; sample n's is drawn from seed + n.
        optimizer: "lbfgs" or "adam".
        lr: its rate; None for 1 with L-BFGS, whose steps find their own length, and 0.02 with Adam.
        history: steps that L-BFGS remembers; each takes the memory of two pictures. Public code has 100, which found losses
            1% lower than 20 in 200 steps.
        steps: of each level, or one number for all; None for the system's.
        tolerance: a level ends for a sample whose loss has fallen by a smaller part within 20 steps.
        preserve_color: "luminance" takes nothing but light and dark of the result, "histogram" gives the styles the colours
            of the content before.
        tile: pixels along a side of squares in which the encoder runs; None for the whole picture at once.
    """

    def __init__(
        self,
        system: nn.Module,
        content: Tensor | None = None,
        styles: Sequence[Tensor] = (),
        *,
        weights: Sequence[float] | None = None,
        mask: Tensor | None = None,
        style_scale: float = 1.0,
        size: tuple[int, int] | None = None,
        samples: int = 1,
        start: str | Tensor | None = None,
        seed: int = 0,
        optimizer: str = "lbfgs",
        lr: float | None = None,
        history: int = 20,
        steps: int | Sequence[int] | None = None,
        tolerance: float = 0.0,
        preserve_color: str | None = None,
        tile: int | None = None,
    ) -> None:
        self.system, self._name = system, type(system).__name__
        self.content, self.styles = content, list(styles)
        self._check_pictures()
        self.size = self._full_size(size)
        self.samples = samples if content is None else len(content)
        self.mask = self._checked_mask(mask)
        self.weights = self._checked_weights(weights)
        self._check("optimizer", optimizer, OPTIMIZERS)
        self._check("preserve_color", preserve_color, (None, *COLORS))
        check_integer(self._name, "samples", samples, 1)
        check_integer(self._name, "history", history, 1)
        check_number(self._name, "tolerance", tolerance, 0)
        check_number(self._name, "style_scale", style_scale, 0.01)
        if lr is not None:
            check_number(self._name, "lr", lr, 0)
        if tile is not None:
            check_integer(self._name, "tile", tile, 1)
        self.style_scale, self.seed, self.history, self.tolerance, self.tile = style_scale, seed, history, tolerance, tile
        self.optimizer, self.lr = optimizer, OPTIMIZERS[optimizer] if lr is None else lr
        self.start = self._checked_start(start)
        self.preserve_color = preserve_color
        if preserve_color is not None and content is None:
            raise ValueError(f"{self._name}: preserve_color: expected None, for there is no content")
        if preserve_color == "histogram":
            self.styles = [match_colors(style, content) for style in self.styles]
        self.levels = self._levels(steps)
        self.level = self.step = 0
        self._enter(None)

    # Walking.

    def __iter__(self) -> Iterator[Step]:
        while not self.finished:
            yield self.advance()

    @property
    def finished(self) -> bool:
        return self.level == len(self.levels)

    def advance(self) -> Step:
        """One step of each sample that has not ended: its losses where it was, and on from there."""
        where = torch.cat(self.pictures)
        losses, gradient = self._evaluate(where)
        totals = [math.fsum(values) for values in zip(*losses.values())]
        self._check_finite(where, totals, gradient)
        for number, (picture, optimizer, total) in enumerate(zip(self.pictures, self.optimizers, totals)):
            self.fallen[number].append(total)
            if self._has_ended(number):
                continue
            picture.grad = gradient[number : number + 1].contiguous()
            optimizer.step(lambda total=total: torch.tensor(total))
        self.before = where
        self.step += 1
        level, count = self.level, len(self.levels)
        told = Step(level + 1, count, self.step, self.levels[level].steps, tuple(where.shape[2:]), losses, totals)
        if self.step >= self.levels[level].steps or all(map(self._has_ended, range(self.samples))):
            self._next_level()
        return told

    def result(self) -> Tensor:
        """The pictures as they are by now, of the full size, (N, 3, H, W) in 0..1."""
        return self._finished(torch.cat(self.pictures))

    # Where it stands, to go on from exactly there.

    def state(self) -> dict:
        """Of tensors, numbers and words alone. What else a descent was made of is not in it."""
        return {
            "level": self.level,
            "step": self.step,
            "pictures": [picture.detach().clone() for picture in self.pictures],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "fallen": [list(losses) for losses in self.fallen],
        }

    def load(self, state: dict) -> None:
        """Go on from a state of a descent that was made with the same arguments."""
        if not 0 <= state["level"] <= len(self.levels) or len(state["pictures"]) != self.samples:
            raise ValueError(f"{self._name}: state: expected one of {self.samples} pictures and {len(self.levels)} levels")
        self.level, self.step = state["level"], state["step"]
        self._enter(torch.cat(list(state["pictures"])).to(self._like()))
        for optimizer, own in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(own)
        self.fallen = [list(losses) for losses in state["fallen"]]

    # Levels.

    def _enter(self, pictures: Tensor | None) -> None:
        """Make ready for the level, from pictures of the level before, of this one, or of none."""
        level = self.levels[min(self.level, len(self.levels) - 1)]
        height, width = self._size_at(level)
        pictures = self._started(height, width) if pictures is None else resized(pictures, height, width)
        self.pictures = [picture.clone().requires_grad_() for picture in pictures.split(1)]
        self.optimizers = [self._optimizer(picture) for picture in self.pictures]
        self.fallen = [[] for _ in self.pictures]
        self.before = pictures
        if self.finished:
            return
        content = None if self.content is None else resized(self.content, height, width)
        styles = [self._resized_style(style, level) for style in self.styles]
        masks = None if self.mask is None else resize_masks(self.mask, height, width)
        self.aim = self.system.aim(level, content, styles, self.weights, masks, self.tile)

    def _next_level(self) -> None:
        self.level, self.step = self.level + 1, 0
        self._enter(torch.cat(self.pictures).detach())

    def _started(self, height: int, width: int) -> Tensor:
        if isinstance(self.start, Tensor):
            picture = resized(self.start, height, width)
        elif self.start == "content":
            picture = resized(self.content, height, width)
        elif self.start == "style":
            picture = resized(self.styles[0], height, width)
        else:
            generators = [torch.Generator().manual_seed(self.seed + number) for number in range(self.samples)]
            noise = [torch.rand(1, 3, height, width, generator=generator) for generator in generators]
            picture = torch.cat(noise).to(self._like())
        return picture.expand(self.samples, -1, -1, -1)

    def _optimizer(self, picture: Tensor) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam([picture], self.lr)
        # One evaluation a step; it is for us to say when to stop.
        return torch.optim.LBFGS([picture], self.lr, 1, tolerance_grad=0, tolerance_change=0, history_size=self.history)

    def _levels(self, steps) -> list:
        levels = list(self.system.levels(*self.size))
        if steps is None:
            return levels
        counts = [steps] * len(levels) if isinstance(steps, int) else list(steps)
        if len(counts) != len(levels):
            raise ValueError(f"{self._name}: steps: expected one number, or {len(levels)} for as many levels, got {steps}")
        for count in counts:
            check_integer(self._name, "steps", count, 1)
        return [level._replace(steps=count) for level, count in zip(levels, counts)]

    def _size_at(self, level) -> tuple[int, int]:
        size = max(level.size, min(1.0, COARSEST / min(self.size)))
        return tuple(round(size * side) for side in self.size)

    def _resized_style(self, style: Tensor, level) -> Tensor:
        scale = max(level.size * self.style_scale, min(1.0, COARSEST / min(style.shape[2:])))
        return resized(style, *(round(scale * side) for side in style.shape[2:]))

    # Steps.

    def _evaluate(self, where: Tensor) -> tuple[dict[str, list[float]], Tensor]:
        """Each sample's losses by name, and the gradient of their sum."""
        if self.tile is not None:
            losses, gradient = tiles.evaluate(self.system, where, self.aim, self.tile)
        else:
            picture = where.detach().requires_grad_()
            losses = self.system.losses(picture, self.aim)
            (gradient,) = torch.autograd.grad(sum(losses.values()).sum(), picture)
        # At once, for on a GPU each question waits.
        numbers = torch.stack([values.detach() for values in losses.values()]).tolist()
        return dict(zip(losses, numbers)), gradient

    def _has_ended(self, number: int) -> bool:
        fallen = self.fallen[number]
        if not self.tolerance or len(fallen) <= WINDOW:
            return False
        before = fallen[-1 - WINDOW]
        return before - fallen[-1] < self.tolerance * abs(before)

    def _check_finite(self, where: Tensor, totals: list[float], gradient: Tensor) -> None:
        finite = gradient.isfinite().flatten(1).all(1).tolist()
        for number, (total, each) in enumerate(zip(totals, finite)):
            first = self.fallen[number][0] if self.fallen[number] else total
            if not (each and math.isfinite(total)) or abs(total) > MOST * max(abs(first), 1e-30):
                which = f" of picture {number + 1}" if self.samples > 1 else ""
                said = f"level {self.level + 1}, step {self.step + 1}: the loss{which} is {total:g}"
                raise Diverged(f"{said}: try a smaller lr, or optimizer adam", self._finished(self.before))

    def _finished(self, pictures: Tensor) -> Tensor:
        picture = resized(pictures.detach(), *self.size).clamp(0, 1)
        return keep_colors(self.content, picture) if self.preserve_color == "luminance" else picture

    # Arguments.

    def _like(self) -> Tensor:
        return next(self.system.parameters())

    def _check_pictures(self) -> None:
        for name, picture in [("content", self.content), *(("styles", style) for style in self.styles)]:
            if picture is None:
                continue
            check_picture(self._name, name, picture)
            if picture.dtype != self._like().dtype:
                expected = f"the weights' type {self._like().dtype}"
                raise TypeError(f"{self._name}: {name}: expected {expected}, got {picture.dtype}")
            self._check_sides(name, picture.shape[2:])
        if not self.styles and (self.content is None or any(term.target == "styles" for term in self.system.terms)):
            raise ValueError(f"{self._name}: styles: expected one at least, got none")
        samples = {len(style) for style in self.styles} - {1}
        if self.content is not None and samples - {len(self.content)}:
            expected = f"a painting for all, or for each of {len(self.content)} samples"
            raise ValueError(f"{self._name}: styles: expected {expected}, got {samples.pop()}")

    def _full_size(self, size) -> tuple[int, int]:
        if self.content is not None:
            own = tuple(self.content.shape[2:])
            if size is not None and tuple(size) != own:
                raise ValueError(f"{self._name}: size: expected that of the content, {own}, got {size}")
            return own
        size = tuple(self.styles[0].shape[2:]) if size is None else tuple(size)
        self._check_sides("size", size)
        return size

    def _check_sides(self, name: str, size) -> None:
        least, (height, width) = self.system.least, size
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
        like = self._like().new_empty(1, 3, *self.size)
        return check_mask(self._name, mask, len(self.styles), like)[0]

    def _checked_start(self, start):
        if isinstance(start, Tensor):
            check_picture(self._name, "start", start)
            return start.to(self._like())
        start = start or ("noise" if self.content is None else "content")
        self._check("start", start, STARTS)
        if start == "content" and self.content is None:
            raise ValueError(f"{self._name}: start: expected noise, style or a picture, for there is no content")
        if start == "style" and not self.styles:
            raise ValueError(f"{self._name}: start: expected content, noise or a picture, for there is no style")
        return start

    def _check(self, name: str, value, choices) -> None:
        if value not in choices:
            expected = ", ".join(str(choice) for choice in choices)
            raise ValueError(f"{self._name}: {name}: expected one of {expected}, got {value!r}")
