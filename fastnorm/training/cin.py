"""CIN's training (Dumoulin et al., ICLR 2017): Johnson's losses, of many styles at once, a style a sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import ContentLoss, GramLoss
from ..models.cin import CIN
from ..models.vgg import VGG19
from . import recipe
from .goals import StyleGoals
from .recipe import Batch, Settings

CONTENT, STYLE = "relu3_3", ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
# The paper's weights are of features of pictures in 0..255, by VGG's preprocessing about so many times ours.
RANGE = 255 * 0.226


def content_loss(weight: float) -> ContentLoss:
    return ContentLoss({CONTENT: weight * RANGE**2})


def style_loss(weight: float, vgg: VGG19) -> GramLoss:
    """Of Gram matrices divided by positions alone: GramLoss divides by channels, too."""
    channels = {layer: vgg.widths[int(layer[4]) - 1] for layer in STYLE}
    return GramLoss({layer: weight * RANGE**4 * channels[layer] ** 2 for layer in STYLE})


class Recipe(recipe.Recipe):
    """The paper's eye is VGG-16, whose layers of these names VGG-19 has, too."""

    settings = Settings(steps=40_000, batch_size=16, resize=256, lr=1e-3)
    layers = STYLE

    def __init__(
        self,
        model: CIN,
        vgg: VGG19,
        styles: Sequence[Tensor],
        content_weight: float = 1.0,
        style_weight: float = 1e-4,
    ) -> None:
        super().__init__(model, vgg)
        self.content, self.style = content_loss(content_weight), style_loss(style_weight, vgg)
        self.goals = StyleGoals(self.style, vgg, styles)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            content = self.vgg.features(batch.content)
        features = self.vgg.features(self.model.stylize(batch.content, batch.index))
        return dict(content=self.content(features, content), style=self.style(features, self.goals(batch.index)))
