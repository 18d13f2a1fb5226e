"""AdaIN's training (Huang and Belongie, ICCV 2017): the decoder alone learns."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses import ContentLoss, MeanStdLoss
from ..models.adain import LAYERS, AdaIN
from . import recipe
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """Content: features of the output against those that were decoded. Style: mean and deviation at four layers.

    The encoder is VGG, and frozen; it is the eye of the losses as well. Deviations are biased, as in the authors' code;
    other public code has unbiased ones.
    """

    settings = Settings(steps=160_000, batch_size=8, lr=1e-4, lr_decay=5e-5)
    layers = LAYERS

    def __init__(self, model: AdaIN, vgg=None, styles=(), content_weight: float = 1.0, style_weight: float = 10.0) -> None:
        super().__init__(model, model.encoder)
        self.content = ContentLoss({LAYERS[-1]: content_weight})
        self.style = MeanStdLoss(dict.fromkeys(LAYERS, style_weight))

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        encoder, decoder = self.model.encoder, self.model.decoder
        with torch.no_grad():
            style = encoder.features(batch.style)
            goal = self.model.transferred(encoder(batch.content), self.model.statistics(style[LAYERS[-1]]))
        output = encoder.features(decoder(goal))
        return dict(content=self.content(output, {LAYERS[-1]: goal}), style=self.style(output, style))
