"""What a recipe is: the settings of a training and, of a batch, the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..models.system import System
from ..models.vgg import VGG19


@dataclass(frozen=True)
class Settings:
    """A paper's, where it says them.

    Args:
        steps, batch_size: of the whole training, and of all processes together.
        resize, crop: pixels of a picture's shorter side, and of the square that is cut from it at random.
        lr, betas: of Adam.
        lr_decay, lr_factor, lr_every: in step k the rate is lr / (1 + lr_decay * k) * lr_factor ** (k // lr_every).
        clip: the longest gradient, by its 2-norm.
        ema: decay of the averaged weights; None keeps none.
    """

    steps: int = 40_000
    batch_size: int = 8
    resize: int = 512
    crop: int = 256
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    lr_decay: float = 0.0
    lr_factor: float = 1.0
    lr_every: int = 1
    clip: float | None = None
    ema: float | None = 0.999

    def rate(self, step: int) -> float:
        """The learning rate of a step, of which the first has the number 0."""
        return self.lr / (1 + self.lr_decay * step) * self.lr_factor ** (step // self.lr_every)


class Batch(NamedTuple):
    """content (N, 3, H, W); style (N, 3, H, W), paintings; index (N,), the numbers of styles, where a system has such."""

    content: Tensor
    style: Tensor | None = None
    index: Tensor | None = None


class Recipe(nn.Module):
    """How a system is trained.

    `recipe(phase, batch)` gives the losses by name, each with its weight in it; their sum is minimised. Step k is of the
    phase `phases[k % len(phases)]`, and changes `trained(phase)` alone, by an optimiser of its own.

    Args:
        model: the system.
        vgg: the eye of the losses; of all layers that `layers` names, not trained.
        styles: what it is trained on, for a system whose styles have numbers, or that has one: pictures (1, 3, h, w).
    """

    settings = Settings()
    phases: tuple[str, ...] = ("all",)
    layers: tuple[str, ...] = ()  # Of VGG-19, for the losses; none where it needs no VGG.

    def __init__(self, model: System, vgg: VGG19 | None = None, styles: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.model = model
        self.vgg = None if vgg is None else vgg.requires_grad_(False).eval()

    def forward(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    @staticmethod
    def chosen(step: int, samples: int, styles: int) -> list[int] | None:
        """The numbers of the styles of a step's batch, where they have numbers; None where they are drawn from all."""
        return None

    def trained(self, phase: str) -> list[nn.Parameter]:
        """The parameters that a phase changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        """Pictures (N, 3, H, W) that show how far it is."""
        return self.model.stylize(batch.content, batch.style if batch.index is None else batch.index)
