"""What systems share that attend to a style: styles do not blend, what attention finds in them does."""

from __future__ import annotations

import torch
from torch import Tensor

from .pictures import between, composed, mirror_to_multiple
from .system import System


class Attending(System):
    """A subclass has an `encoder` and three methods: `kept`, `attended` and `decoded`.

    What is kept of a style is keys and values of every position of its painting, so it is not small: of 512x512 pixels
    many megabytes. A mixture is its styles side by side, each name behind a number, with a weight for each; it takes the
    time of as many pictures' attention. Attended features are blended, of a mixture, by regions, and by `alpha`: between
    those of the style and those of the content picture as its own style.
    """

    def kept(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys and values of a style's features, by names of any kind."""
        raise NotImplementedError

    def names_of_one(self) -> set[str]:
        """Those names."""
        raise NotImplementedError

    def attended(self, features: dict[str, Tensor], style: dict[str, Tensor]) -> list[Tensor]:
        """The content's features by what `kept` made of one style: a map for each layer of attention."""
        raise NotImplementedError

    def decoded(self, maps: list[Tensor]) -> Tensor:
        """A picture."""
        raise NotImplementedError

    def encode(self, style: Tensor) -> dict[str, Tensor]:
        """Of paintings (N, 3, h, w) keys and values, with the number 0 before their names, and 0.weight, (N,) ones."""
        self.check_content(style, "style")
        return self.alone(self.encoder.features(mirror_to_multiple(style, 1, self.least)))

    def alone(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """A mixture of one style, of its features."""
        kept = self.kept(features)
        return numbered(0, kept | dict(weight=torch.ones_like(next(iter(kept.values()))[:, 0, 0, 0])))

    def names_kept(self, style: dict) -> set[str]:
        numbers = {name.split(".")[0] for name in style} or {"0"}
        return {f"{number}.{name}" for number in numbers for name in {*self.names_of_one(), "weight"}}

    def paint(self, content: Tensor, style: dict[str, Tensor], alpha: float) -> Tensor:
        features = self.encoder.features(content)
        maps = self.between(features, self.transferred(features, style), alpha)
        del features  # As large as what the decoder holds at most.
        return self.decoded(maps)

    def paint_regions(self, content: Tensor, styles: list[dict[str, Tensor]], mask: Tensor, alpha: float) -> Tensor:
        """Features are composed, at each layer of attention."""
        features = self.encoder.features(content)
        layers = zip(*(self.transferred(features, style) for style in styles))
        maps = self.between(features, [composed(maps, mask) for maps in layers], alpha)
        del features
        return self.decoded(maps)

    def transferred(self, features: dict[str, Tensor], style: dict[str, Tensor]) -> list[Tensor]:
        """The content's features by a mixture of styles."""
        parts = []
        for one in styles_of(style):
            weight = one.pop("weight").view(-1, 1, 1, 1)
            parts.append([weight.to(map.dtype) * map for map in self.attended(features, one)])
        return [sum(maps) for maps in zip(*parts)]

    def between(self, features: dict[str, Tensor], transferred: list[Tensor], alpha: float) -> list[Tensor]:
        """From the content as its own style, at 0, to what a style made of it."""
        if alpha == 1:
            return transferred
        own = self.transferred(features, self.alone(features))
        return [between(*maps, alpha) for maps in zip(own, transferred)]

    def mixed(self, styles: list[dict[str, Tensor]], weights: list[float]) -> dict[str, Tensor]:
        """Of mixtures, too: all their styles, side by side."""
        kept, number = {}, 0
        for style, weight in zip(styles, weights):
            for one in styles_of(style):
                kept |= numbered(number, one | dict(weight=weight * one["weight"]))
                number += 1
        return kept


def numbered(number: int, style: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{number}.{name}": tensor for name, tensor in style.items()}


def styles_of(mixture: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Each style's tensors, under their names without the number."""
    styles = {}
    for name, tensor in mixture.items():
        number, name = name.split(".", 1)
        styles.setdefault(number, {})[name] = tensor
    return list(styles.values())
