"""What style losses compare with, for systems that learn a fixed set of styles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..losses import Goal, GramLoss
from ..models.vgg import VGG19


class StyleGoals(nn.Module):
    """The Gram matrices of a set of styles, computed once, when they are first asked for: by then all is on its device.

    Args:
        loss: what compares with them.
        vgg: of the loss's layers.
        styles: pictures (1, 3, h, w), each of its own size.
    """

    def __init__(self, loss: GramLoss, vgg: VGG19, styles: Sequence[Tensor]) -> None:
        super().__init__()
        if not styles:
            raise ValueError("a system that learns fixed styles: expected a picture of each, got none")
        self.loss, self.vgg, self.styles = loss, vgg, list(styles)
        self._goals = None

    def forward(self, index: Tensor | None = None) -> Goal:
        """Of each sample's style, (N,); None for the only style there is."""
        if self._goals is None:
            self._goals = [self._goal(style.to(self.vgg.preprocess.weight)) for style in self.styles]
        if index is None:
            return self._goals[0]
        matrices = {layer: torch.cat([goal[layer] for goal in self._goals])[index] for layer in self._goals[0]}
        return Goal(matrices, self._goals[0].of)

    @torch.no_grad()
    def _goal(self, style: Tensor) -> Goal:
        return self.loss.prepare(self.vgg.features(style))
