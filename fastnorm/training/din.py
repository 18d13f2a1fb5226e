"""DIN's training (Jing et al., AAAI 2020): all learns but VGG-19.

The losses are perceptual ones; what the paper does not say is AdaIN's: layers, weights, steps and rates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses import ContentLoss, MeanStdLoss
from ..models.din import DIN, LAYERS
from . import recipe
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """Content: the output's features at relu4_1 against the picture's. Style: mean and deviation at four layers.

    The style encoder is VGG, and frozen; it is the eye of the losses as well.
    """

    settings = Settings(steps=160_000, batch_size=8, lr=1e-4, lr_decay=5e-5)
    layers = LAYERS

    def __init__(self, model: DIN, vgg=None, styles=(), content_weight: float = 1.0, style_weight: float = 10.0) -> None:
        super().__init__(model, model.style_encoder)
        self.content = ContentLoss({LAYERS[-1]: content_weight})
        self.style = MeanStdLoss(dict.fromkeys(LAYERS, style_weight))

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            content, style = (self.vgg.features(picture) for picture in (batch.content, batch.style))
        filters = self.model.filters(style[LAYERS[-1]])
        output = self.vgg.features(self.model.stylize(batch.content, filters))
        return dict(content=self.content(output, content), style=self.style(output, style))
