"""What style losses compare with, for systems that learn a fixed set of styles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import Goal, GramLoss
from ..models.vgg import VGG19


class StyleGoals:
    """The Gram matrices of a set of styles, each computed when it is first asked for: by then all is on its device.

    Args:
        loss: what compares with them.
        vgg: of the loss's layers.
        styles: pictures (1, 3, h, w), each of its own size.
    """

    def __init__(self, loss: GramLoss, vgg: VGG19, styles: Sequence[Tensor]) -> None:
        if not styles:
            raise ValueError("a system that learns fixed styles: expected a picture of each, got none")
        self.loss, self.vgg, self.styles = loss, vgg, list(styles)
        self._goals: dict[int, Goal] = {}

    def __call__(self, index: Tensor | None = None) -> Goal:
        """Of each sample's style, (N,); None for the only style there is."""
        goals = [self._goal(number) for number in ([0] if index is None else index.tolist())]
        return Goal({layer: torch.cat([goal[layer] for goal in goals]) for layer in goals[0]}, goals[0].of)

    @torch.no_grad()
    def _goal(self, number: int) -> Goal:
        if number not in self._goals:
            style = self.styles[number].to(self.vgg.preprocess.weight)
            self._goals[number] = self.loss.prepare(self.vgg.features(style))
        return self._goals[number]
