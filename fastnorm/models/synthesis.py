"""What every picture found by optimisation is: losses of its features, and sizes at which they fall one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._checks import check_integer, check_number
from ..losses import ContentLoss, Goal, GramLoss, TotalVariationLoss
from . import tiles
from .vgg import LAYERS, VGG19, reach

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
        return max((term.layer for term in self.terms if term.layer), key=LAYERS.index, default=None)

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


class Synthesis(nn.Module):
    """A way to find pictures by optimisation.

    Pictures are (N, 3, H, W), RGB in 0..1, of the weights' type. A subclass has the weights and layers of its losses as its
    constructor's arguments, with the paper's for defaults, and says by `terms` and `levels` what they come to.

        system = models.load("gatys", "vgg19-dcbb9e9d.pth")
        picture = system.synthesize(photo, [painting])

    Losses of features are averages over a map, of weights for features in the range of public files; losses of pixels are of
    pixels in 0..1.
    """

    def __init__(self, terms: Sequence[Term], levels: Sequence[Level], widths, padding_mode: str, pooling: str) -> None:
        super().__init__()
        self.terms, self._levels = tuple(terms), tuple(levels)
        if not self.terms:
            raise ValueError(f"{type(self).__name__}: expected a weight above 0 at least, got none")
        layers = sorted({term.layer for term in terms if term.layer}, key=LAYERS.index)
        self.vgg = VGG19(tuple(layers) or LAYERS[:1], widths, padding_mode, ceil_mode=False, pooling=pooling)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path=None, **sizes) -> Synthesis:
        """With the weights of a public file of VGG-19, as `VGG19.load_public` takes it."""
        system = cls(**sizes)
        system.vgg.load_public(path)
        return system

    # What a subclass may change.

    def levels(self, height: int, width: int) -> Sequence[Level]:
        """Of a picture of that full size, the last one of size 1."""
        return self._levels

    def copies(self, style: Tensor) -> list[Tensor]:
        """Pictures of a style of which patches are taken: itself, and those turned and scaled."""
        return [style]

    # What all have.

    @property
    def least(self) -> int:
        """Pixels that sides have, at least: of a position of the deepest layer, of a patch, of three squares of edges."""
        sides = [1]
        for term in self.terms:
            stride = reach(term.layer)[0] if term.layer else 1
            sides.append(stride * getattr(term.loss, "patch_size", 1))
            sides += [3 * side for side in getattr(term.loss, "squares", ())]
        return max(sides)

    def synthesize(self, content: Tensor | None = None, styles: Sequence[Tensor] = (), **settings) -> Tensor:
        """The picture whose losses are least, (N, 3, H, W) in 0..1: the content in the styles, or a texture without content.

        Args:
            content: (N, 3, H, W), any height and width: N pictures are found side by side, each as if it were alone.
            styles: each a painting for all samples or for each, (1 or N, 3, h, w).
            settings: further arguments of `descent.Descent`, and `on_step`, a function that is told of each step.

        Raises Diverged, which holds the last picture, where the losses are no numbers any more.
        """
        from .descent import Descent

        on_step = settings.pop("on_step", None)
        descent = Descent(self, content, styles, **settings)
        for step in descent:
            if on_step is not None:
                on_step(step)
        return descent.result()

    @torch.no_grad()
    def aim(
        self,
        level: Level,
        content: Tensor | None,
        styles: Sequence[Tensor],
        weights: Sequence[float],
        masks: Tensor | None = None,
        tile: int | None = None,
    ) -> Aim:
        """What a picture is compared with, content and styles being of this level's size.

        Args:
            masks: (S, H, W), the share of each style at each pixel.
            tile: pixels along a side of squares in which the encoder runs; None for whole pictures.
        """
        aim = Aim(self._terms_of(level, content is not None), weights=list(weights))
        if masks is not None:
            aim.masks = masks.unsqueeze(1)
        find = self.goals if tile is None else partial(tiles.goals, self, tile)
        if content is not None:
            aim.goals.update(find([content], aim, "content"))
        for style in styles:
            for place, goals in find(self.copies(style), aim, "styles"):
                aim.goals.setdefault(place, []).append(goals)
        return aim

    def goals(self, pictures: list[Tensor], aim: Aim, target: str) -> Iterator[tuple[int, list[Goal]]]:
        """Of each term with that target its place, and a goal for each sample of pictures, which are one and its copies."""
        for layer, maps in _side_by_side([_walked(self.vgg.walk, picture, aim.last) for picture in pictures]):
            for place in aim.at(layer):
                if aim.terms[place].target == target:
                    yield place, aim.terms[place].goals(maps)

    def losses(self, picture: Tensor, aim: Aim) -> dict[str, Tensor]:
        """Each sample's losses by name, (N,), with their weights in them."""
        found: dict[str, list] = {}
        for layer, map in _walked(self.vgg.walk, picture, aim.last):
            samples = map.split(1) if len(map) > 1 else [map]  # Split, each has its own gradient, and none is full of zeros.
            for place in aim.at(layer):
                values = [aim.loss(place, number, sample) for number, sample in enumerate(samples)]
                found.setdefault(aim.terms[place].name, []).append(torch.stack(values))
        return {name: sum(values) for name, values in found.items()}

    def _terms_of(self, level: Level, has_content: bool) -> list[Term]:
        def counts(term):
            if term.target == "content":
                return has_content
            return term.target is None or level.layers is None or term.layer in level.layers

        terms = [term for term in self.terms if counts(term)]
        if not any(term.target for term in terms):
            raise ValueError(f"{type(self).__name__}: content: expected one, for no loss of a style has a weight")
        return terms

    def extra_repr(self) -> str:
        return "\n".join(f"{term.name} of {term.layer or 'pixels'}: {term.loss}" for term in self.terms)


def _walked(walk, picture, last):
    """The picture itself, then its features."""
    yield None, picture
    if last is not None:
        yield from walk(picture, last)


def _side_by_side(walks):
    """Several walks at once: each layer, and the maps of all."""
    for steps in zip(*walks):
        yield steps[0][0], [map for _, map in steps]


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
