"""The training of Texture Networks (Ulyanov et al., ICML 2016): one texture, or one style."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses import ContentLoss, GramLoss
from ..models.pictures import mirror_to_multiple
from ..models.texture_networks import TextureNetworks
from . import recipe
from .goals import StyleGoals
from .recipe import Batch, Settings

STYLE = "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"
CONTENT = "relu4_2"


class Recipe(recipe.Recipe):
    """Gram matrices at five layers against the picture's, and features against the content's; each step on new noise.

    Where the network makes textures, a batch's content says how many and of what size, and no more. Steps and rates are
    those of the authors' code; in the paper 2000 steps begin at a rate of 0.1.
    """

    settings = Settings(steps=50_000, batch_size=16, lr=1e-3, lr_factor=0.8, lr_every=2000)
    layers = *STYLE[:4], CONTENT, STYLE[4]

    def __init__(
        self, model: TextureNetworks, vgg=None, styles=(), content_weight: float = 1.0, style_weight: float = 1e5
    ) -> None:
        super().__init__(model, vgg)
        self.content = ContentLoss({CONTENT: content_weight})
        self.style = GramLoss(dict.fromkeys(STYLE, style_weight))
        self.goals = StyleGoals(self.style, vgg, styles)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        content = mirror_to_multiple(batch.content, self.model.multiple, self.model.least)
        seed = torch.randint(2**31 - 1, (), device=content.device)
        samples, _, height, width = content.shape
        if not self.model.content:
            coarsest = height // self.model.multiple, width // self.model.multiple
            output = self.vgg.features(self.model.generate(self.model.noises(samples, coarsest, seed)))
            return dict(style=self.style(output, self.goals()))
        with torch.no_grad():
            goal = self.content.prepare(self.vgg.features(content))
        output = self.vgg.features(self.model.generate(self.model.beside(content, samples, seed)))
        return dict(content=self.content(output, goal), style=self.style(output, self.goals()))

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        if self.model.content:
            return super().sample(batch)
        samples, _, height, width = batch.content.shape
        return self.model.synthesize(height, width, samples)
