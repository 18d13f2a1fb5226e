"""Super-resolution's training (Johnson et al., ECCV 2016): the features of the picture that was made smaller."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..losses import ContentLoss
from ..models.johnson import SuperResolution
from ..models.vgg import VGG19
from . import recipe
from .recipe import Batch, Settings

LAYER = "relu2_2"


class Recipe(recipe.Recipe):
    """The content is what should come out; what goes in is made of it by antialiased bicubic interpolation.

    The paper blurs it before a plain one; its eye is VGG-16, whose layer of this name VGG-19 has, too.
    """

    settings = Settings(steps=200_000, batch_size=4, resize=512, crop=288, lr=1e-3)
    layers = (LAYER,)

    def __init__(self, model: SuperResolution, vgg: VGG19, styles=(), content_weight: float = 1.0) -> None:
        super().__init__(model, vgg)
        self.content = ContentLoss({LAYER: content_weight})

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            goal = self.vgg.features(batch.content)
        return dict(content=self.content(self.vgg.features(self.model.enlarge(self.smaller(batch.content))), goal))

    def smaller(self, picture: Tensor) -> Tensor:
        sides = [side // self.model.enlarges for side in picture.shape[2:]]
        return interpolate(picture, sides, mode="bicubic", antialias=True).clamp(0, 1)

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        return self.model.enlarge(self.smaller(batch.content))
