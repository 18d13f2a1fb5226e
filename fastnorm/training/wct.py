"""WCT's training (Li et al., NIPS 2017): each decoder learns to invert VGG-19, on contents alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..losses import ContentLoss
from ..models.wct import WCT, layer_of
from . import recipe
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """Equation 1 of the paper: the picture that a decoder makes of features against the picture that they are of, and its
    features against them.

    The encoder is VGG, and frozen; it is the eye of the losses as well. Decoders take turns, a phase for each.
    Of steps and rates the paper says nothing.
    """

    settings = Settings(lr=1e-4)
    layers = tuple(map(layer_of, range(1, 6)))

    def __init__(self, model: WCT, vgg=None, styles=(), pixel_weight: float = 1.0, feature_weight: float = 1.0) -> None:
        super().__init__(model, model.encoder)
        self.phases = tuple(map(layer_of, model.levels))
        self.pixels, self.features = ContentLoss(pixel_weight), ContentLoss(feature_weight)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            features = self.model.encoder(batch.content, phase)
        output = self._decoder(phase)(features)
        return dict(
            pixels=self.pixels(output, batch.content), features=self.features(self.model.encoder(output, phase), features)
        )

    def trained(self, phase: str) -> list[nn.Parameter]:
        return list(self._decoder(phase).parameters())

    def _decoder(self, phase: str) -> nn.Module:
        return self.model.decoders[str(self.model.levels[self.phases.index(phase)])]
