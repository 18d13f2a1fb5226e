"""Pictures beyond memory: the encoder runs tile by tile, and the losses are those of the whole picture.

Statistics are shared. A first walk, without gradients, adds up the Gram matrices of all tiles, and lays other features side
by side; losses are taken of these, with their gradients. A second walk gives each tile's pixels the gradient: with the
matrices' in hand it is that of the tile's own part. A tile is encoded with as much around it as its features see, so that
nothing differs from the whole picture but rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..losses import Goal, GramLoss
from .vgg import LAYERS, reach


class Tile(NamedTuple):
    """own: its rows and columns of the picture; seen: those that it is encoded with, both from and up to."""

    own: tuple[tuple[int, int], tuple[int, int]]
    seen: tuple[tuple[int, int], tuple[int, int]]

    def crop(self, picture: Tensor) -> Tensor:
        (top, bottom), (left, right) = self.seen
        return picture[..., top:bottom, left:right]

    def place(self, layer: str, size: torch.Size) -> tuple[slice, slice]:
        """Where its own positions of a layer lie, in a map of that size of the whole picture."""
        stride, _ = reach(layer)
        return tuple(
            slice(first // stride, length if end > length * stride - stride else end // stride)
            for (first, end), length in zip(self.own, size)
        )

    def part(self, layer: str, map: Tensor, size: torch.Size) -> Tensor:
        """Its own positions, of the map of what it is encoded with."""
        stride, _ = reach(layer)
        rows, columns = (
            slice(place.start - first // stride, place.stop - first // stride)
            for place, (first, _) in zip(self.place(layer, size), self.seen)
        )
        return map[..., rows, columns]


def tiles(height: int, width: int, side: int, last: str) -> list[Tile]:
    """Tiles of about this side, which features of layers up to `last` are encoded in."""
    stride, around = reach(last)
    rows, columns = (_cut(length, side, stride) for length in (height, width))
    margin = -(-around // stride) * stride

    def seen(own, length):
        return max(0, own[0] - margin), min(length, own[1] + margin)

    return [Tile((own, beside), (seen(own, height), seen(beside, width))) for own in rows for beside in columns]


def _cut(length: int, side: int, stride: int) -> list[tuple[int, int]]:
    """Into parts that begin where a position of the deepest layer does, and have one at least."""
    begins = range(0, max(length - stride, 0) + 1, max(1, side // stride) * stride)
    return list(zip(begins, [*begins[1:], length]))


def map_size(picture: Tensor, layer: str) -> torch.Size:
    """Of a layer's map of the whole picture."""
    stride, _ = reach(layer)
    return torch.Size(length // stride for length in picture.shape[2:])


class Seen(NamedTuple):
    """What losses are taken of. sums: of a GramLoss's place, for each mask one; maps: of layers of other losses, whole."""

    sums: dict[int, list[Tensor]]
    maps: dict[str, Tensor]


def goals(system, side: int, pictures: list[Tensor], aim, target: str) -> Iterator[tuple[int, list[Goal]]]:
    """As `Synthesis.goals`."""
    places = [place for place, term in enumerate(aim.terms) if term.target == target]
    found = [_seen(system, picture, aim, places, side, None) for picture in pictures]
    for place in places:
        term = aim.terms[place]
        if place in found[0].sums:
            positions = map_size(pictures[0], term.layer).numel()
            sums = found[0].sums[place][0]
            yield place, [term.loss.goal_of_parts(each, positions) for each in sums.split(1)]
        else:
            yield place, term.goals([_map(each, term.layer, picture) for each, picture in zip(found, pictures)])


def evaluate(system, picture: Tensor, aim, side: int) -> tuple[dict[str, Tensor], Tensor]:
    """Each sample's losses by name, (N,), and the gradient of their sum."""
    masks = _masks(picture, aim)
    picture = picture.detach().requires_grad_()
    seen = _seen(system, picture.detach(), aim, range(len(aim.terms)), side, masks)
    leaves = [picture, *seen.maps.values(), *(sums for place in seen.sums.values() for sums in place)]
    for leaf in leaves:
        leaf.requires_grad_()
    found: dict[str, list] = {}
    for place, term in enumerate(aim.terms):
        values = [_value(seen, aim, masks, picture, place, number) for number in range(len(picture))]
        found.setdefault(term.name, []).append(torch.stack(values))
    losses = {name: sum(values) for name, values in found.items()}
    gradients = torch.autograd.grad(sum(losses.values()).sum(), leaves, allow_unused=True, materialize_grads=True)
    gradient, *others = (each.detach() for each in gradients)
    others = iter(others)
    of_maps = {layer: next(others) for layer in seen.maps}
    of_sums = {place: [next(others) for _ in sums] for place, sums in seen.sums.items()}
    del seen, leaves
    if aim.last is not None:
        for tile in tiles(*picture.shape[2:], side, aim.last):
            crop = tile.crop(picture.detach()).clone().requires_grad_()
            of_tile = sum(_shares(system, aim, masks, tile, crop, picture, of_maps, of_sums))
            tile.crop(gradient).add_(torch.autograd.grad(of_tile, crop)[0])
    return losses, gradient


def _shares(system, aim, masks, tile, crop, picture, of_maps, of_sums):
    """Numbers whose gradient is that of the losses, by what this tile has a part in."""
    for layer, map in system.vgg.walk(crop, aim.last):
        size = map_size(picture, layer)
        part = tile.part(layer, map, size)
        if layer in of_maps:
            rows, columns = tile.place(layer, size)
            yield (part * of_maps[layer][..., rows, columns]).sum()
        for place in aim.at(layer):
            for number, gradient in enumerate(of_sums.get(place, ())):
                yield (aim.terms[place].loss.of_part(part, _cut_mask(masks, layer, number, tile, size)) * gradient).sum()


@torch.no_grad()
def _seen(system, picture: Tensor, aim, places, side: int, masks) -> Seen:
    seen, layers = Seen({}, {}), [aim.terms[place].layer for place in places]
    last = max(filter(None, layers), key=LAYERS.index, default=None)
    if last is None:
        return seen
    for tile in tiles(*picture.shape[2:], side, last):
        for layer, map in system.vgg.walk(tile.crop(picture), last):
            size = map_size(picture, layer)
            part = tile.part(layer, map, size)
            here = [place for place in aim.at(layer) if place in places]
            for place in here:
                loss = aim.terms[place].loss
                if isinstance(loss, GramLoss):
                    count = 1 if masks is None else len(masks[layer])
                    found = [loss.of_part(part, _cut_mask(masks, layer, i, tile, size)) for i in range(count)]
                    before = seen.sums.get(place, [0] * count)
                    seen.sums[place] = [total + own for total, own in zip(before, found)]
            if any(place not in seen.sums for place in here):
                if layer not in seen.maps:
                    seen.maps[layer] = map.new_empty(*map.shape[:2], *size)
                seen.maps[layer][(..., *tile.place(layer, size))] = part
    return seen


def _value(seen: Seen, aim, masks, picture: Tensor, place: int, number: int) -> Tensor:
    """A term's loss of one sample."""
    term, total = aim.terms[place], 0
    if place not in seen.sums:
        return aim.loss(place, number, _map(seen, term.layer, picture)[number : number + 1])
    for weight, goal, style in aim.compared(place, number):
        if masks is None:
            sums, positions = seen.sums[place][0], map_size(picture, term.layer).numel()
        else:
            sums, positions = seen.sums[place][style], masks[term.layer][style].sum().reshape(1, 1)
        total = total + weight * term.loss.of_parts(sums[number : number + 1], positions, goal)
    return total


def _map(seen: Seen, layer: str | None, picture: Tensor) -> Tensor:
    return picture if layer is None else seen.maps[layer]


def _masks(picture: Tensor, aim) -> dict[str, Tensor] | None:
    """The styles' masks as large as each layer's map, (S, 1, h, w)."""
    if aim.masks is None:
        return None
    layers = {term.layer for term in aim.terms if term.layer}
    return {layer: adaptive_avg_pool2d(aim.masks, map_size(picture, layer)) for layer in layers}


def _cut_mask(masks, layer, style, tile, size):
    if masks is None:
        return None
    rows, columns = tile.place(layer, size)
    return masks[layer][style : style + 1, :, rows, columns]
