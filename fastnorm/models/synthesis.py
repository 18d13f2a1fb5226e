"""What every system is that finds pictures by optimisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..losses import Goal
from . import tiles
from .descent import Descent
from .terms import Aim, Level, Term
from .vgg import LAYERS, VGG19, reach


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
        if padding_mode == "circular":
            raise ValueError(f"{type(self).__name__}: padding_mode: expected zeros, reflect or replicate, got circular")
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
        last = aim.last_of(target)
        for layer, maps in _side_by_side([_walked(self.vgg.walk, picture, last) for picture in pictures]):
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
