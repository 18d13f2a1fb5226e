"""AdaAttN's training (Liu et al., ICCV 2021): attention and decoder learn, the encoder does not."""

from __future__ import annotations

import torch
from torch import Tensor

from ..functional import attention_stats, instance_norm
from ..losses import ContentLoss, MeanStdLoss
from ..models.adaattn import LAYERS, STAGES, AdaAttN
from . import recipe
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """Global style: mean and deviation at relu2_1 to relu5_1. Local: features at relu3_1 to relu5_1 against what attention
    without learned maps makes of the content's; the authors' code has relu2_1 there, too, of keys drawn by chance. Variances
    are unbiased, as there.

    The encoder is VGG, and frozen; it is the eye of the losses as well.
    """

    settings = Settings(steps=50_000, batch_size=8, lr=1e-4)
    layers = LAYERS

    def __init__(self, model: AdaAttN, vgg=None, styles=(), style_weight: float = 10.0, local_weight: float = 3.0) -> None:
        super().__init__(model, model.encoder)
        self.style = MeanStdLoss(dict.fromkeys(LAYERS[1:], style_weight), correction=1)
        self.local = ContentLoss({f"relu{stage}_1": local_weight for stage in STAGES})

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        model, encoder = self.model, self.model.encoder
        with torch.no_grad():
            content, style = encoder.features(batch.content), encoder.features(batch.style)
            goal = {f"relu{stage}_1": self.goal(content, style, stage) for stage in STAGES}
        output = encoder.features(model.decoded(model.attended(content, model.kept(style))))
        return {"global": self.style(output, style), "local": self.local(output, goal)}

    def goal(self, content: dict[str, Tensor], style: dict[str, Tensor], stage: int) -> Tensor:
        """AdaAttN with features as they are for its queries, keys and values."""
        model, layer = self.model, f"relu{stage}_1"
        mean, std = attention_stats(model.key(content, stage), model.key(style, stage), style[layer])
        return std * instance_norm(content[layer], eps=model.eps, correction=1) + mean
