"""What `--style` may say: a style's number, a mixture of numbered styles, or a painting."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import pictures
from .errors import UserError

FORMS = "a style's number (7), a mixture (3:0.5,12:0.5) or the path of a painting"


@dataclass(frozen=True)
class Mixture:
    """Numbered styles, with weights that sum to 1: conditional instance normalisation."""

    weights: dict[int, float]
    system = "cin"
    files = ()

    def encode(self, model, device):
        """The mixture as `model.stylize` takes it."""
        mixture = torch.zeros(model.styles, device=device)
        for number, weight in self.weights.items():
            if not 0 <= number < model.styles:
                raise UserError(f"--style {number}: there is no such style, choose from 0 to {model.styles - 1}")
            mixture[number] = weight
        return model.encode(mixture)

    def describe(self):
        return {"system": self.system, "weights": self.weights}


@dataclass(frozen=True)
class Painting:
    """The style of any picture: the networks of Ghiasi et al."""

    path: Path
    system = "ghiasi"

    @property
    def files(self):
        return (self.path,)

    def encode(self, model, device):
        """The painting as `model.stylize` takes it."""
        pictures.measure(self.path)
        return model.encode(pictures.read(self.path).rgb.to(device))

    def describe(self):
        return {"system": self.system, "painting": str(self.path)}


def parse(spec: str) -> Mixture | Painting:
    """The style that `spec` names; whether the model has the number shows on encoding."""
    if re.fullmatch(r"[-+]?\d+", spec):
        return Mixture({int(spec): 1.0})
    if re.match(r"[-+]?\d+\s*:", spec):
        return Mixture(_weights(spec))
    if not os.path.exists(spec):
        raise UserError(f"--style {spec}: there is no such file; --style takes {FORMS}")
    return Painting(Path(spec))


def _weights(spec):
    weights = {}
    for part in spec.split(","):
        number, weight = _part(part, spec)
        weights[number] = weights.get(number, 0.0) + weight
    total = sum(weights.values())
    if total == 0:
        raise UserError(f"--style {spec}: the weights sum to 0, give one above 0")
    return {number: weight / total for number, weight in weights.items()}


def _part(part, spec):
    number, _, weight = part.partition(":")
    try:
        number, weight = int(number), float(weight)
    except ValueError:
        raise UserError(f"--style {spec}: cannot read {part!r}; --style takes {FORMS}") from None
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"--style {spec}: the weight {weight:g} has to be a number from 0 up")
    return number, weight
