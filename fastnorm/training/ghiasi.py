"""Ghiasi et al.'s training (BMVC 2017): CIN's losses, of any painting; both networks learn."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.ghiasi import Ghiasi
from ..models.vgg import VGG19
from . import recipe
from .cin import STYLE, content_loss, style_loss
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """The paper trains on 80 thousand paintings, or 6 thousand textures, for 4 million steps.

    Its Inception begins with public weights, `model.style_network.load_public()`, and learns with the rest.
    """

    settings = Settings(steps=4_000_000, batch_size=8, resize=256, lr=1e-5)
    layers = STYLE

    def __init__(
        self, model: Ghiasi, vgg: VGG19, styles=(), content_weight: float = 1.0, style_weight: float = 1e-4
    ) -> None:
        super().__init__(model, vgg)
        self.content, self.style = content_loss(content_weight), style_loss(style_weight, vgg)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            content, style = self.vgg.features(batch.content), self.vgg.features(batch.style)
        features = self.vgg.features(self.model.stylize(batch.content, batch.style))
        return dict(content=self.content(features, content), style=self.style(features, style))
