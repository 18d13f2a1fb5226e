"""The training of diversified texture synthesis (Li et al., CVPR 2017): textures or styles come one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses import ContentLoss, DiversityLoss, GramLoss
from ..models.diversified import Diversified
from ..models.pictures import mirror_to_multiple
from . import recipe
from .goals import StyleGoals
from .recipe import Batch, Settings

STYLE = "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"
CONTENT = "relu4_2"
STEPS = 1000  # With so many styles as there are, before the next one joins.


class Recipe(recipe.Recipe):
    """Gram matrices of centred features at five layers; for textures, how unlike those of one batch are; for pictures,
    features against the content's, and no more, for what is of unlike contents is unlike by itself.

    Each step on new noise. Where the network makes textures, a batch's content says how many and of what size, and no more.
    So many steps are for 100 styles at most: of more, take 1000 for each, and as many again.

    The authors' code normalises the gradient of each loss, with a rate of 0.1 for pictures, one a batch, and of 0.01 for
    textures, four a batch, of absolute differences; here gradients are as they are, and the rate is lower.
    """

    settings = Settings(steps=100_000, batch_size=4, lr=1e-3)
    layers = *STYLE[:4], CONTENT, STYLE[4]

    def __init__(
        self,
        model: Diversified,
        vgg=None,
        styles=(),
        style_weight: float = 1e5,
        content_weight: float = 1.0,
        diversity_weight: float = 1.0,
    ) -> None:
        super().__init__(model, vgg)
        self.style = GramLoss(dict.fromkeys(STYLE, style_weight), centered=True)
        self.goals = StyleGoals(self.style, vgg, styles)
        self.content = ContentLoss({CONTENT: content_weight})
        self.diversity = DiversityLoss({CONTENT: diversity_weight})

    @staticmethod
    def chosen(step: int, samples: int, styles: int) -> list[int]:
        """The first style for 1000 steps, then the first two in turn for 1000, ... then all: one for the whole batch."""
        return [step % min(step // STEPS + 1, styles)] * samples

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        picture, goal = self._picture(batch)
        output = self.vgg.features(picture)
        losses = dict(style=self.style(output, self.goals(batch.index)))
        if goal is not None:
            return losses | dict(content=self.content(output, goal))
        return losses | dict(diversity=self._diversity(output, batch.index))

    def _diversity(self, output: dict[str, Tensor], index: Tensor) -> Tensor:
        """Of samples of one style, each style as much as it has samples."""
        parts = [index == number for number in index.unique()]
        return sum(
            (rows.sum() / len(rows) * self.diversity({layer: map[rows] for layer, map in output.items()})
            for rows in parts if rows.sum() > 1),
            start=output[CONTENT].new_zeros(()),
        )  # fmt: skip

    def _picture(self, batch: Batch):
        """What the network makes on new noise, and the goal of its content."""
        seed = torch.randint(2**31 - 1, (), device=batch.content.device)
        unit, (samples, _, height, width) = self.model.encode(batch.index), batch.content.shape
        if not self.model.content:
            return self.model.generate_textures(unit, height, width, samples, seed), None
        content = mirror_to_multiple(batch.content, self.model.multiple, self.model.least)
        with torch.no_grad():
            goal = self.content.prepare(self.vgg.features(content))
        return self.model.generate(content, unit, samples, seed), goal

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        if self.model.content:
            return super().sample(batch)
        samples, _, height, width = batch.content.shape
        return self.model.synthesize(batch.index, height, width, samples)
