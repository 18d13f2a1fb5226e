"""StyleBank's training (Chen et al., CVPR 2017): T stylising steps to one that auto-encodes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..losses import ContentLoss
from ..models.style_bank import StyleBank
from ..models.vgg import VGG19
from . import johnson
from .recipe import Batch, Settings


class Recipe(johnson.Recipe):
    """A stylising step changes all, an auto-encoding one encoder and decoder, so that styles stay in the banks.

    T is 2. The losses are Johnson's, and of the auto-encoder the squared difference of pictures. Steps and rates are the
    paper's, of which there is no public code.
    """

    settings = Settings(steps=300_000, batch_size=4, lr=1e-2, lr_factor=0.8, lr_every=30_000)
    phases = ("style", "style", "identity")

    def __init__(
        self,
        model: StyleBank,
        vgg: VGG19,
        styles: Sequence[Tensor],
        content_weight: float = 1e5,
        style_weight: float = 1e10,
        variation_weight: float = 1e-5,
        identity_weight: float = 1.0,
    ) -> None:
        super().__init__(model, vgg, styles, content_weight, style_weight, variation_weight)
        self.identity = ContentLoss(identity_weight)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        if phase == "style":
            return super().forward(phase, batch)
        decoded = self.model.decoder(self.model.encoder(batch.content))
        return dict(identity=self.identity(decoded, batch.content))

    def trained(self, phase: str) -> list[nn.Parameter]:
        halves = [*self.model.encoder.parameters(), *self.model.decoder.parameters()]
        return halves if phase == "identity" else super().trained(phase)
