"""How a picture is found: level by level, step by step, from where it starts to where its losses hardly fall."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._checks import check_integer, check_number
from . import tiles
from .pictures import resized
from .subject import Subject, check_choice

OPTIMIZERS = {"lbfgs": 1.0, "adam": 0.02}  # With their rates: of pixels in 0..1.
WINDOW = 20  # Steps over which a loss has to fall.
# Pixels beyond this are on their way to no number: steps of L-BFGS are as long as its model says, and that may be wrong.
FARTHEST = 1e3


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
    """The losses are no numbers any more, or pixels beyond all bounds. `picture` is the last one of which all were."""

    def __init__(self, words: str, picture: Tensor) -> None:
        super().__init__(words)
        self.picture = picture


class Descent:
    """One optimisation, to be walked through: `for step in descent: ...`, and then `descent.result()`.

    The samples of a batch share nothing but the walk through the encoder: each has an optimiser, and comes out as alone;
    but where one diverges, all stop.

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
        self.subject = Subject(
            system, content, styles, weights, mask, style_scale, size, samples, start, seed, preserve_color
        )
        self.samples = self.subject.samples
        check_choice(self._name, "optimizer", optimizer, OPTIMIZERS)
        check_integer(self._name, "history", history, 1)
        check_number(self._name, "tolerance", tolerance, 0)
        if lr is not None:
            check_number(self._name, "lr", lr, 0)
        if tile is not None:
            check_integer(self._name, "tile", tile, 1)
        self.history, self.tolerance, self.tile = history, tolerance, tile
        self.optimizer, self.lr = optimizer, OPTIMIZERS[optimizer] if lr is None else lr
        self.levels = self._levels(steps)
        self.level = self.step = self.taken = 0
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
        if self.finished:
            raise RuntimeError(f"{self._name}: there is no further step: take the result")
        where = torch.cat(self.pictures).detach()
        losses, gradient = self._evaluate(where)
        totals = [math.fsum(values) for values in zip(*losses.values())]
        self._check_finite(totals, gradient)
        for number, (picture, optimizer, total) in enumerate(zip(self.pictures, self.optimizers, totals)):
            self.fallen[number].append(total)
            self.ended[number] = self.ended[number] or self._falls_no_more(number)
            if self.ended[number]:
                continue
            picture.grad = gradient[number : number + 1].contiguous()
            optimizer.step(lambda total=total: torch.tensor(total))
        self._check_pictures(where)
        self.before = where
        self.step += 1
        self.taken += 1
        level, count = self.level, len(self.levels)
        told = Step(level + 1, count, self.step, self.levels[level].steps, tuple(where.shape[2:]), losses, totals)
        if self.step >= self.levels[level].steps or all(self.ended):
            self._next_level()
        return told

    def result(self) -> Tensor:
        """The pictures as they are by now, of the full size, (N, 3, H, W) in 0..1."""
        return self.subject.finished(torch.cat(self.pictures).detach())

    # Where it stands, to go on from exactly there.

    def state(self) -> dict:
        """Of tensors, numbers and words alone. What else a descent was made of is not in it."""
        return {
            "level": self.level,
            "step": self.step,
            "taken": self.taken,
            "pictures": [picture.detach().clone() for picture in self.pictures],
            "optimizers": [deepcopy(optimizer.state_dict()) for optimizer in self.optimizers],
            "fallen": [list(losses) for losses in self.fallen],
            "ended": list(self.ended),
        }

    def load(self, state: dict) -> None:
        """Go on from a state of a descent that was made with the same arguments."""
        counts = {len(state[part]) for part in ("pictures", "optimizers", "fallen", "ended")}
        if not 0 <= state["level"] <= len(self.levels) or counts != {self.samples}:
            raise ValueError(f"{self._name}: state: expected one of {self.samples} pictures and {len(self.levels)} levels")
        size = (1, 3, *self.subject.size_at(self.levels[min(state["level"], len(self.levels) - 1)]))
        if wrong := [tuple(each.shape) for each in state["pictures"] if tuple(each.shape) != size]:
            raise ValueError(f"{self._name}: state: expected pictures {size}, got {wrong[0]}")
        self.level, self.step, self.taken = state["level"], state["step"], state["taken"]
        self._enter(torch.cat(list(state["pictures"])).to(self.subject.like()))
        for optimizer, own in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(deepcopy(own))
        self.fallen, self.ended = [list(losses) for losses in state["fallen"]], list(state["ended"])

    # Levels.

    def _enter(self, pictures: Tensor | None) -> None:
        """Make ready for the level, from pictures of the level before, of this one, or of none."""
        level = self.levels[min(self.level, len(self.levels) - 1)]
        size = self.subject.size_at(level)
        pictures = self.subject.started(*size) if pictures is None else resized(pictures, *size)
        self.pictures = [picture.clone().requires_grad_() for picture in pictures.split(1)]
        self.optimizers = [self._optimizer(picture) for picture in self.pictures]
        self.fallen, self.ended = [[] for _ in self.pictures], [False] * len(self.pictures)
        self.before, self.aim = pictures, None
        if not self.finished:
            content, styles, masks = self.subject.at(level)
            self.aim = self.system.aim(level, content, styles, self.subject.weights, masks, self.tile)

    def _next_level(self) -> None:
        self.level, self.step = self.level + 1, 0
        self._enter(torch.cat(self.pictures).detach())

    def _optimizer(self, picture: Tensor) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam([picture], self.lr)
        # One evaluation a step; it is for us to say when to stop.
        return torch.optim.LBFGS([picture], self.lr, 1, tolerance_grad=0, tolerance_change=0, history_size=self.history)

    def _levels(self, steps) -> list:
        levels = list(self.system.levels(*self.subject.size))
        if steps is None:
            return levels
        if isinstance(steps, str) or not isinstance(steps, (int, Sequence)):
            raise TypeError(f"{self._name}: steps: expected a whole number, or one for each level, got {steps!r}")
        counts = [steps] * len(levels) if isinstance(steps, int) else list(steps)
        if len(counts) != len(levels):
            raise ValueError(f"{self._name}: steps: expected one number, or {len(levels)} for as many levels, got {steps}")
        for count in counts:
            check_integer(self._name, "steps", count, 1)
        return [level._replace(steps=count) for level, count in zip(levels, counts)]

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

    def _falls_no_more(self, number: int) -> bool:
        fallen = self.fallen[number]
        if not self.tolerance or len(fallen) <= WINDOW:
            return False
        before = fallen[-1 - WINDOW]
        return before - fallen[-1] <= self.tolerance * abs(before)

    def _check_finite(self, totals: list[float], gradient: Tensor) -> None:
        finite = gradient.isfinite().flatten(1).all(1).tolist()
        for number, (total, each) in enumerate(zip(totals, finite)):
            if not (each and math.isfinite(total)):
                self._diverged(f"the loss{self._of(number)} is {total:g}", self.before)

    def _check_pictures(self, before: Tensor) -> None:
        farthest = torch.stack([picture.detach().abs().max() for picture in self.pictures]).tolist()
        for number, pixel in enumerate(farthest):
            if not pixel <= FARTHEST:
                self._diverged(f"a pixel{self._of(number)} is {pixel:g}", before)

    def _of(self, number: int) -> str:
        return f" of sample {number + 1}" if self.samples > 1 else ""

    def _diverged(self, what: str, picture: Tensor) -> None:
        words = f"level {self.level + 1}, step {self.step + 1}: {what}: try a smaller lr, or optimizer adam"
        raise Diverged(words, self.subject.finished(picture))
