"""What pictures that are optimised are compared with: losses of their features, sizes at which they fall, and goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from .._checks import check_integer, check_number
from ..losses import ContentLoss, Goal, GramLoss, TotalVariationLoss
from .vgg import LAYERS

COARSEST = 32  # Pixels of a shorter side at any level, if it has as many: some positions of the deepest layers.
CONTENT, STYLE = "relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class Term(NamedTuple):
    """A loss of one map.

    name: under which it is reported, together with others of that name.
    layer: whose features the map is; None for the picture itself.
    target: what it is compared with: "content", "styles" or None.
    """

    name: str
    loss: nn.Module
    layer: str | None = None
    target: str | None = None

    def goals(self, maps: list[Tensor]) -> list[Goal]:
        """For each sample, of a map and of its copies'."""
        return [self.loss.prepare(*samples) for samples in zip(*(map.split(1) for map in maps))]

    def value(self, sample: Tensor, goal: Goal | None, mask: Tensor | None) -> Tensor:
        if goal is None:
            return self.loss(sample)
        return self.loss(sample, goal) if mask is None else self.loss(sample, goal, mask)


class Level(NamedTuple):
    """A stretch of the optimisation. size: its part of the picture's full size; layers: of style terms, None for all."""

    size: float
    steps: int
    layers: tuple[str, ...] | None = None


@dataclass
class Aim:
    """What a picture is compared with on one level.

    goals: for each term with a target, by its place in `terms`: of contents a goal for each sample; of styles, for each, as
        many, or one for all.
    weights, masks: of styles; masks (styles, 1, H, W), each for all samples, or None.
    """

    terms: list[Term]
    goals: dict[int, list] = field(default_factory=dict)
    weights: list[float] = field(default_factory=list)
    masks: Tensor | None = None

    @property
    def last(self) -> str | None:
        """The last layer that a term is of; None where none is of a layer."""
        return _last(self.terms)

    def last_of(self, target: str) -> str | None:
        """The last layer that a target is compared in."""
        return _last(term for term in self.terms if term.target == target)

    def at(self, layer: str | None) -> list[int]:
        """The places of the terms of a layer."""
        return [place for place, term in enumerate(self.terms) if term.layer == layer]

    def compared(self, place: int, number: int) -> Iterator[tuple[float, Goal | None, int | None]]:
        """What the sample of that number is compared with in a term: each weight, goal, and number of the style."""
        target = self.terms[place].target
        if target == "styles":
            for style, goals in enumerate(self.goals[place]):
                yield self.weights[style], goals[number % len(goals)], style
        else:
            yield 1.0, self.goals[place][number] if target else None, None

    def loss(self, place: int, number: int, sample: Tensor) -> Tensor:
        """Of a term, its sample of that number."""
        term = self.terms[place]
        return sum(
            weight * term.value(sample, goal, self.mask_of(style)) for weight, goal, style in self.compared(place, number)
        )

    def mask_of(self, style: int | None) -> Tensor | None:
        """(1, 1, H, W)."""
        return None if self.masks is None or style is None else self.masks[style : style + 1]


def _last(terms):
    return max((term.layer for term in terms if term.layer), key=LAYERS.index, default=None)


# What systems are made of.


def content_terms(system: str, content_layers: Sequence[str], content_weight: float) -> list[Term]:
    check_weights(system, content_weight=content_weight)
    check_layers(system, content_layers=content_layers)
    return [Term("content", ContentLoss(content_weight), layer, "content") for layer in content_layers if content_weight]


def gram_terms(system: str, style_layers: Sequence[str], style_weight: float) -> list[Term]:
    check_weights(system, style_weight=style_weight)
    check_layers(system, style_layers=style_layers)
    return [Term("style", GramLoss(style_weight), layer, "styles") for layer in style_layers if style_weight]


def variation_terms(system: str, variation_weight: float) -> list[Term]:
    check_weights(system, variation_weight=variation_weight)
    return [Term("variation", TotalVariationLoss(variation_weight, "sum"))] if variation_weight else []


def halved(height: int, width: int, longest: int, steps: int) -> list[Level]:
    """From coarse to fine by factors of 2, the coarsest of which has a longer side of `longest` at least."""
    halvings = 0
    while max(height, width) >= longest * 2 ** (halvings + 1) and min(height, width) >= COARSEST * 2 ** (halvings + 1):
        halvings += 1
    return [Level(2.0**-halving, steps) for halving in range(halvings, -1, -1)]


def check_weights(system: str, **weights) -> None:
    for name, weight in weights.items():
        check_number(system, name, weight, 0)


def check_layers(system: str, **layers) -> None:
    for name, chosen in layers.items():
        if isinstance(chosen, str) or not isinstance(chosen, Sequence):
            raise TypeError(f"{system}: {name}: expected a list of layers, got {chosen!r}")
        for layer in chosen:
            if layer not in LAYERS:
                raise ValueError(f"{system}: {name}: expected some of {', '.join(LAYERS)}, got {layer}")


def checked_levels(system: str, sizes: Sequence[float], steps: Sequence[int]) -> list[Level]:
    if len(sizes) != len(steps) or not sizes or sizes[-1] != 1:
        raise ValueError(f"{system}: sizes: expected one for each of {len(steps)} numbers of steps, the last 1, got {sizes}")
    for size, count in zip(sizes, steps):
        check_number(system, "sizes", size, 0.01)
        check_integer(system, "steps", count, 1)
    return [Level(float(size), count) for size, count in zip(sizes, steps)]
