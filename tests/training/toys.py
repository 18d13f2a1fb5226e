"""Recipes so small that what they learn can be told in advance."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from fastnorm.models.system import System
from fastnorm.training import recipe
from fastnorm.training.recipe import Settings

SETTINGS = Settings(steps=8, batch_size=4, resize=20, crop=16, lr=1e-2, lr_decay=0.1, clip=1.0, ema=0.9)


class Tint(System):
    """One convolution, and chance: what is learnt depends on every number that is drawn."""

    def __init__(self, size: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, size, padding=size // 2)
        self.drop = nn.Dropout(0.1)

    @classmethod
    def system(cls):
        return "tint"

    def stylize(self, content, style=None, alpha=1.0):
        return self.drop(self.conv(content))


class Negative(recipe.Recipe):
    """The negative of a picture; a second phase learns a gain, which the first one sees."""

    settings = SETTINGS
    phases = "tint", "gain"

    def __init__(self, model, vgg=None, styles=(), weight: float = 1.0):
        super().__init__(model, vgg)
        self.weight = weight
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, phase, batch):
        difference = self.model(batch.content) * self.gain - (1 - batch.content)
        losses = {"square": self.weight * difference.square().mean()}
        return losses if phase == "tint" else {**losses, "gain": 0.1 * self.gain.square()}

    def trained(self, phase):
        return [self.gain] if phase == "gain" else list(self.model.parameters())


def draw(folder, count, seed=0):
    """Pictures of 24 and more pixels a side, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng((seed, i)).integers(0, 256, (24 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder
