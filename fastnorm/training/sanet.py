"""SANet's training (Park and Lee, CVPR 2019): attention and decoder learn, the encoder does not."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses import ContentLoss, IdentityLoss, MeanStdLoss
from ..models.sanet import LAYERS, SANet
from . import recipe
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """Content: instance-normalised features at relu4_1 and relu5_1, which know no style. Style: mean and deviation at five
    layers. Identity: a picture by its own style, against itself, in pixels and in features. Variances are unbiased, as in
    public code.

    The encoder is VGG, and frozen; it is the eye of the losses as well.
    """

    settings = Settings(steps=160_000, batch_size=5, lr=1e-4, lr_decay=5e-5)
    layers = LAYERS

    def __init__(
        self,
        model: SANet,
        vgg=None,
        styles=(),
        content_weight: float = 1.0,
        style_weight: float = 3.0,
        identity_weights: tuple[float, float] = (50.0, 1.0),
    ) -> None:
        """identity_weights: of pixels and of features."""
        super().__init__(model, model.encoder)
        of_pixels, of_features = identity_weights
        self.content = ContentLoss(dict.fromkeys(LAYERS[3:], content_weight), instance_norm=True, correction=1)
        self.style = MeanStdLoss(dict.fromkeys(LAYERS, style_weight), correction=1)
        self.identity = IdentityLoss(dict.fromkeys(LAYERS, of_features), image_weight=of_pixels)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        encoder = self.model.encoder
        with torch.no_grad():
            content, style = encoder.features(batch.content), encoder.features(batch.style)
        output = encoder.features(self.painted(content, style))
        return dict(
            content=self.content(output, content),
            style=self.style(output, style),
            identity=self.of_itself(batch.content, content) + self.of_itself(batch.style, style),
        )

    def of_itself(self, picture: Tensor, features: dict[str, Tensor]) -> Tensor:
        painted = self.painted(features, features)
        return self.identity(painted, picture, self.model.encoder.features(painted), features)

    def painted(self, content: dict[str, Tensor], style: dict[str, Tensor]) -> Tensor:
        """A picture of the features of a content and a style."""
        return self.model.decoded(self.model.attended(content, self.model.kept(style)))
