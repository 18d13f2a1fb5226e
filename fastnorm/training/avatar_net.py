"""Avatar-Net's training (Sheng et al., CVPR 2018): the decoder learns to invert VGG-19, on contents alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses import ContentLoss, TotalVariationLoss
from ..models.adain import LAYERS
from ..models.avatar_net import AvatarNet, by_scale
from . import recipe
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """Reconstruction: pixels of the output against the content's. Content: features at four layers. Total variation.

    No style is transferred: what the decoder takes at its scales is the content's own. The encoder is VGG, and frozen; it
    is the eye of the losses as well. The weights are the authors', whose pictures are in 0..255, and whose total variation
    is of absolute differences; here pictures are in 0..1, and differences are squared.
    """

    settings = Settings(steps=120_000, lr=1e-3)
    layers = LAYERS

    def __init__(
        self,
        model: AvatarNet,
        vgg=None,
        styles=(),
        reconstruction_weight: float = 10.0,
        content_weight: float = 1.0,
        variation_weight: float = 10.0,
    ) -> None:
        super().__init__(model, model.encoder)
        self.reconstruction = ContentLoss(reconstruction_weight)
        self.content = ContentLoss(dict.fromkeys(LAYERS, content_weight))
        self.variation = TotalVariationLoss(variation_weight)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        encoder = self.model.encoder
        with torch.no_grad():
            content = encoder.features(batch.content)
            own = by_scale(self.model.statistics(content))
        output = self.model.decoder(content[LAYERS[-1]], own)
        return dict(
            reconstruction=self.reconstruction(output, batch.content),
            content=self.content(encoder.features(output), content),
            variation=self.variation(output),
        )
