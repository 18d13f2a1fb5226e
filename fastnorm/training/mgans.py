"""The training of MGANs (Li and Wand, ECCV 2016): the decoder against a discriminator of patches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu

from ..losses import ContentLoss, TotalVariationLoss
from ..models.mgans import LAYERS, MGANs, discriminator
from . import recipe
from .recipe import Batch, Settings


class Recipe(recipe.Recipe):
    """In turn: the discriminator learns to tell patches of the style's features from those of the output, by a hinge; the
    decoder to be taken for the style, to keep the content's features, and to be smooth.

    The encoder is VGG, and frozen; it is the eye of the losses as well. A batch is of pictures of 128x128, 64 in the paper.

    In the authors' code the decoder keeps pixels, of pictures that a slow optimisation has made before, and a style weighs
    0.01; here it learns of photos alone.
    """

    settings = Settings(batch_size=64, crop=128, lr=0.02, betas=(0.5, 0.999))
    phases = "discriminator", "generator"
    layers = LAYERS

    def __init__(
        self,
        model: MGANs,
        vgg=None,
        styles=(),
        style_weight: float = 1.0,
        content_weight: float = 1.0,
        variation_weight: float = 1e-4,
    ) -> None:
        super().__init__(model, model.encoder)
        self.discriminator = discriminator(model.encoder.widths[2])
        self.picture, self._real = styles[0], None
        self.style_weight = style_weight
        self.content = ContentLoss({LAYERS[1]: content_weight})
        self.variation = TotalVariationLoss(variation_weight)

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        encoder, decoder = self.model.encoder, self.model.decoder
        with torch.no_grad():
            content = encoder(batch.content)
        if phase == "discriminator":
            with torch.no_grad():
                fake = encoder.features(decoder(content))[LAYERS[0]]
                real = squares(self._features_of_style(), fake.shape)
            return dict(real=relu(1 - self.discriminator(real)).mean(), fake=relu(1 + self.discriminator(fake)).mean())
        picture = decoder(content)
        output = encoder.features(picture)
        return dict(
            style=self.style_weight * relu(1 - self.discriminator(output[LAYERS[0]])).mean(),
            content=self.content(output, {LAYERS[1]: content}),
            variation=self.variation(picture),
        )

    def _features_of_style(self) -> Tensor:
        """Computed once, when they are first asked for: by then all is on its device."""
        if self._real is None:
            encoder = self.model.encoder
            self._real = encoder(self.picture.to(encoder.preprocess.weight), LAYERS[0])
        return self._real

    def trained(self, phase: str) -> list[torch.nn.Parameter]:
        return list((self.discriminator if phase == "discriminator" else self.model.decoder).parameters())


def squares(features: Tensor, shape: torch.Size) -> Tensor:
    """Parts of a map (1, C, h, w) of at most this shape (N, C, H, W), drawn at random."""
    samples, _, height, width = shape
    rows, columns = (max(own - size, 0) + 1 for own, size in zip(features.shape[2:], (height, width)))
    places = zip(torch.randint(rows, (samples,)).tolist(), torch.randint(columns, (samples,)).tolist())
    return torch.cat([features[..., top : top + height, left : left + width] for top, left in places])
