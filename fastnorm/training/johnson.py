"""Johnson et al.'s training (ECCV 2016): features of the content, Gram matrices of the only style."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import ContentLoss, GramLoss, TotalVariationLoss
from ..models.johnson import Johnson
from ..models.vgg import VGG19
from . import recipe
from .goals import StyleGoals
from .recipe import Batch, Settings

CONTENT, STYLE = "relu2_2", ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


class Recipe(recipe.Recipe):
    """Weights are those of features in VGG's own range, and of Gram matrices divided by channels and positions.

    The paper's eye is VGG-16, whose layers of these names VGG-19 has, too. Its total variation, of a weight from 1e-6 to
    1e-4, is off unless told.
    """

    settings = Settings(steps=40_000, batch_size=4, resize=256, lr=1e-3)
    layers = STYLE

    def __init__(
        self,
        model: Johnson,
        vgg: VGG19,
        styles: Sequence[Tensor],
        content_weight: float = 1e5,
        style_weight: float = 1e10,
        variation_weight: float = 0.0,
    ) -> None:
        super().__init__(model, vgg)
        self.content, self.style = ContentLoss({CONTENT: content_weight}), GramLoss(dict.fromkeys(STYLE, style_weight))
        self.variation = TotalVariationLoss(variation_weight)
        self.goals = StyleGoals(self.style, vgg, styles)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        output = self.model.stylize(batch.content, batch.index)
        with torch.no_grad():
            content = self.vgg.features(batch.content)
        features = self.vgg.features(output)
        return dict(
            content=self.content(features, content),
            style=self.style(features, self.goals(batch.index)),
            variation=self.variation(output),
        )
