"""AdaConv's training (Chandran et al., CVPR 2021): style encoder, kernel predictors and decoder learn together."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses import ContentLoss, MeanStdLoss
from ..models.adaconv import LAYERS, AdaConv
from . import recipe
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """Content: features of the output against the content's own. Style: mean and deviation at four layers, as AdaIN's.

    The encoder is VGG, and frozen; it is the eye of the losses as well. Published style weights go from 10 to 100.
    There is no public code of the authors; steps and rates are AdaIN's.
    """

    settings = Settings(steps=160_000, batch_size=8, lr=1e-4, lr_decay=5e-5)
    layers = LAYERS

    def __init__(self, model: AdaConv, vgg=None, styles=(), content_weight: float = 1.0, style_weight: float = 10.0) -> None:
        super().__init__(model, model.encoder)
        self.content = ContentLoss({LAYERS[-1]: content_weight})
        self.style = MeanStdLoss(dict.fromkeys(LAYERS, style_weight))

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        encoder = self.model.encoder
        with torch.no_grad():
            goal, style = encoder(batch.content), encoder.features(batch.style)
        output = encoder.features(self.model.decoded(goal, self.model.encode(batch.style)))
        return dict(content=self.content(output, {LAYERS[-1]: goal}), style=self.style(output, style))
