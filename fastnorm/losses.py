"""Losses of style transfer, each a module with weights by layer.

    loss = GramLoss({"relu1_1": 1.0, "relu2_1": 0.5})
    with torch.no_grad():
        goal = loss.prepare(features_of(style))  # once; or pass the features themselves, each time
    loss(features_of(picture), goal).backward()

Features are a mapping from names to (N, C, H, W) maps, of which those with a weight are compared; or a sequence of maps with
a sequence of weights; or one map with a number. Losses are scalars in float32, or float64 for float64 maps. "mean" averages
over all that is compared in a layer, samples included, "sum" adds it up.

Losses of style (GramLoss, HistogramLoss, MRFLoss, ReshuffleLoss) take a mask: what they are of is then a region.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import functional
from ._checks import check_bins, check_flag, check_integer, check_number, check_sizes, check_statistics_rule, check_tensor
from .ops._layout import widen
from .ops._patches import grid, times_covered

__all__ = [
    "ContentLoss",
    "DiversityLoss",
    "GramLoss",
    "HistogramLoss",
    "IdentityLoss",
    "LaplacianLoss",
    "MRFLoss",
    "MeanStdLoss",
    "ReshuffleLoss",
    "TotalVariationLoss",
]

Maps = Tensor | Mapping[str, Tensor] | Sequence[Tensor]
Weights = float | Mapping[str, float] | Sequence[float]


class Goal(dict):
    """What a loss compares with, by layer: computed once by its `prepare`."""

    def __init__(self, layers: dict, of: str) -> None:
        super().__init__(layers)
        self.of = of


class _WeightedLoss(nn.Module):
    """A loss with weights by layer. Settings are attributes of the names that its repr shows."""

    _settings: tuple[str, ...] = ("reduction",)

    def __init__(self, weights: Weights = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.weights, self.reduction = _checked_weights(self, weights), _checked_reduction(self, reduction)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _weight(self, layer) -> float:
        return self.weights if isinstance(self.weights, float) else self.weights[layer]

    def _layers(self, name: str, maps: Maps) -> dict:
        """The maps that have a weight, by name or number."""
        if isinstance(maps, Tensor):
            maps = [maps]
        if not isinstance(maps, (Mapping, Sequence)) or isinstance(maps, str):
            raise TypeError(f"{self._name}: {name}: expected a map, or maps by layer, got {type(maps).__name__}")
        found = dict(maps) if isinstance(maps, Mapping) else dict(enumerate(maps))
        if isinstance(self.weights, Mapping):
            if missing := [layer for layer in self.weights if layer not in found]:
                raise ValueError(f"{self._name}: {name}: expected a map of {_names(missing)}, got {_names(found)}")
            found = {layer: found[layer] for layer in self.weights}
        elif not isinstance(self.weights, float) and len(found) != len(self.weights):
            raise ValueError(f"{self._name}: {name}: expected {len(self.weights)} maps, got {len(found)}")
        if not found:
            raise ValueError(f"{self._name}: {name}: expected a map at least, got none")
        for layer, map in found.items():
            check_tensor(self._name, name if len(found) == 1 else f"{name}[{layer!r}]", map)
            if map.dim() != 4:
                raise ValueError(f"{self._name}: {name}: expected maps of shape (N, C, H, W), got {tuple(map.shape)}")
        return found

    def extra_repr(self) -> str:
        weights = dict(self.weights) if isinstance(self.weights, Mapping) else self.weights
        return ", ".join([f"weights={weights}", *(f"{name}={getattr(self, name)!r}" for name in self._settings)])


class _LayerLoss(_WeightedLoss):
    """The sum over layers of weight * distance(map, goal), a goal being what is compared of a target's map: that of the map
    itself, as far as a loss has no other.
    """

    def prepare(self, target: Maps) -> Goal:
        """The goal of a target that is compared with more than once, under torch.no_grad() if the features have a graph."""
        return Goal({layer: self._goal(map) for layer, map in self._layers("target", target).items()}, repr(self))

    def forward(self, input: Maps, target: Maps | Goal) -> Tensor:
        """Features, and those of a target of as many samples, or of one for all; or its goal."""
        compared = self._compared(input, target)
        return sum(self._weight(layer) * self._distance(map, goal) for layer, map, goal in compared)

    def _compared(self, input: Maps, target: Maps | Goal) -> list[tuple]:
        """Each layer's name, map and goal."""
        maps, goals = self._layers("input", input), target if isinstance(target, Goal) else self.prepare(target)
        if goals.of != repr(self):
            raise ValueError(f"{self._name}: target: expected a goal of {repr(self)}, got one of {goals.of}")
        if maps.keys() != goals.keys():
            raise ValueError(f"{self._name}: target: expected the input's layers {_names(maps)}, got {_names(goals)}")
        return [(layer, map, goals[layer]) for layer, map in maps.items()]

    def _goal(self, target: Tensor):
        return target

    def _distance(self, input: Tensor, goal) -> Tensor:
        return self._compare(self._goal(input), goal)

    def _compare(self, input: Tensor, goal: Tensor) -> Tensor:
        """The squared difference."""
        return F.mse_loss(widen(input), widen(self._fitting(input, goal)), reduction=self.reduction)

    def _fitting(self, input: Tensor, goal: Tensor) -> Tensor:
        """A goal of one sample is all samples'."""
        if goal.shape[1:] != input.shape[1:] or len(goal) not in (1, len(input)):
            raise ValueError(f"{self._name}: target: expected shape {tuple(input.shape)} as of the input, got {tuple(goal.shape)}")
        return goal.expand_as(input)


class _StyleLoss(_LayerLoss):
    """A loss that a region can have by itself."""

    def forward(self, input: Maps, target: Maps | Goal, mask: Tensor | None = None) -> Tensor:
        """As other losses; of a region where there is a mask (N or 1, 1, H, W), which says from 0 to 1 how far a pixel
        belongs to it. It may be of any size: it is averaged over what a position of a map covers.
        """
        if mask is None:
            return super().forward(input, target)
        check_tensor(self._name, "mask", mask)
        compared = self._compared(input, target)
        return sum(
            self._weight(layer) * self._distance_within(map, goal, self._resized(mask, map)) for layer, map, goal in compared
        )

    def _distance_within(self, input: Tensor, goal, mask: Tensor) -> Tensor:
        """The distance of a region, whose mask is as large as the map, and wide."""
        raise NotImplementedError

    def _resized(self, mask: Tensor, map: Tensor) -> Tensor:
        if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[0] not in (1, len(map)):
            expected = f"({len(map)} or 1, 1, H, W)"
            raise ValueError(f"{self._name}: mask: expected shape {expected}, got {tuple(mask.shape)}")
        mask = mask.to(widen(map[:0]).dtype)
        return mask if mask.shape[2:] == map.shape[2:] else F.adaptive_avg_pool2d(mask, map.shape[2:])


class ContentLoss(_LayerLoss):
    """Squared difference of features (Gatys et al., CVPR 2016; there a half of the sum).

    Args:
        instance_norm: of instance-normalised features, which know no style (MUNIT, Huang et al., ECCV 2018; SANet).
        eps, correction: what is added to a variance; 1 for the unbiased one.
    """

    _settings = "reduction", "instance_norm", "eps", "correction"

    def __init__(
        self,
        weights: Weights = 1.0,
        reduction: str = "mean",
        *,
        instance_norm: bool = False,
        eps: float = 1e-5,
        correction: int = 0,
    ) -> None:
        super().__init__(weights, reduction)
        check_flag(self._name, "instance_norm", instance_norm)
        check_statistics_rule(self._name, (2,), eps, correction, "var")
        self.instance_norm, self.eps, self.correction = instance_norm, eps, correction

    def _goal(self, target: Tensor) -> Tensor:
        return self._normalised(target) if self.instance_norm else target

    def _distance(self, input: Tensor, goal: Tensor) -> Tensor:
        if not self.instance_norm:
            return super()._distance(input, goal)
        # The difference alone is kept for the backward, not the normalised map.
        goal = self._fitting(input, goal)
        difference = widen(self._normalised(input, residual=-goal)).square()
        return difference.mean() if self.reduction == "mean" else difference.sum()

    def _normalised(self, map: Tensor, residual: Tensor | None = None) -> Tensor:
        return functional.instance_norm(map, eps=self.eps, residual=residual, correction=self.correction)


class MeanStdLoss(_LayerLoss):
    """Squared differences of each plane's mean and standard deviation (AdaIN, Huang and Belongie, ICCV 2017).

    Args:
        eps, correction, eps_mode: how a deviation is taken, as in `functional.instance_stats`; public PyTorch code takes
            the unbiased variance, correction=1, where AdaIN's authors have the biased one.
    """

    _settings = "reduction", "eps", "correction", "eps_mode"

    def __init__(
        self,
        weights: Weights = 1.0,
        reduction: str = "mean",
        *,
        eps: float = 1e-5,
        correction: int = 0,
        eps_mode: str = "var",
    ) -> None:
        super().__init__(weights, reduction)
        check_statistics_rule(self._name, (2,), eps, correction, eps_mode)
        self.eps, self.correction, self.eps_mode = eps, correction, eps_mode

    def _goal(self, target: Tensor) -> tuple[Tensor, Tensor]:
        mean, rstd = functional.instance_stats(target, self.eps, self.correction, self.eps_mode)
        return mean, 1 / rstd

    def _distance(self, input: Tensor, goal: tuple[Tensor, Tensor]) -> Tensor:
        return sum(self._compare(own, other) for own, other in zip(self._goal(input), goal))


class GramLoss(_StyleLoss):
    """Squared difference of Gram matrices (Gatys et al., CVPR 2016).

    With "mean" it is small, for a matrix has C^2 numbers: weights of 1e5 and more are usual. With a mask positions count as
    far as they belong to it (Gatys et al., CVPR 2017, arXiv:1611.07865).

    Args:
        normalized: divided by channels and positions. "sum" is then, of a sample, the loss of Johnson et al. (ECCV 2016), and
            a quarter of it Gatys' own.
        centered: of features less their mean, covariances (Li et al., CVPR 2017).
    """

    _settings = "reduction", "normalized", "centered"

    def __init__(
        self, weights: Weights = 1.0, reduction: str = "mean", *, normalized: bool = True, centered: bool = False
    ) -> None:
        super().__init__(weights, reduction)
        check_flag(self._name, "normalized", normalized)
        check_flag(self._name, "centered", centered)
        self.normalized, self.centered = normalized, centered

    def _goal(self, target: Tensor) -> Tensor:
        # Differences of sums that 16 bits would round.
        return functional.gram_matrix(widen(target), centered=self.centered, normalized=self.normalized)

    def _distance_within(self, input: Tensor, goal: Tensor, mask: Tensor) -> Tensor:
        return self._compare(self._of_sums(self._sums(input, mask), mask.sum((2, 3))), goal)

    # A map in parts: what each adds, and the loss of what they add up to.

    def of_part(self, map: Tensor, mask: Tensor | None = None) -> Tensor:
        """What a part of a map adds to its matrix, (N, C, C): sums, however the loss is normalized."""
        if self.centered:
            raise ValueError(f"{self._name}: centered: expected False, for parts of a map have means of their own")
        return self._sums(map, None if mask is None else self._resized(mask, map))

    def of_parts(self, sums: Tensor, positions: Tensor | int, goal: Goal) -> Tensor:
        """The loss of a map of one layer whose parts add up to `sums`; positions: how many, or a mask's sum, (N or 1, 1)."""
        ((layer, goal),) = goal.items()
        return self._weight(layer) * self._compare(self._of_sums(sums, positions), goal)

    def goal_of_parts(self, sums: Tensor, positions: Tensor | int) -> Goal:
        """The goal of a map of one layer whose parts add up to `sums`."""
        (layer,) = self._layers("target", sums.unsqueeze(3))
        return Goal({layer: self._of_sums(sums, positions)}, repr(self))

    def _sums(self, map: Tensor, mask: Tensor | None) -> Tensor:
        map = widen(map)
        if mask is not None:
            if self.centered:
                map = map - (map * mask).sum((2, 3), keepdim=True) / _some(mask.sum((2, 3), keepdim=True))
            map = map * mask.sqrt()
        return functional.gram_matrix(map)

    def _of_sums(self, sums: Tensor, positions: Tensor | int) -> Tensor:
        if not self.normalized:
            return sums
        if isinstance(positions, Tensor):
            positions = _some(positions).unsqueeze(2)
        return sums / (sums.shape[1] * positions)


class HistogramLoss(_StyleLoss):
    """Squared difference from the features' own match to the target's histograms (Risser et al. 2017, arXiv:1701.08893).

    The match is a constant: it has no gradient. With a mask those positions are matched whose share is half of the largest.

    Args:
        bins: of a histogram, the paper's 256; None matches by sorting, exactly.
    """

    _settings = "reduction", "bins"

    def __init__(self, weights: Weights = 1.0, reduction: str = "mean", *, bins: int | None = 256) -> None:
        super().__init__(weights, reduction)
        if bins is not None:
            check_bins(self._name, bins)
        self.bins = bins

    def _distance(self, input: Tensor, goal: Tensor) -> Tensor:
        return self._compare(input, functional.match_histogram(input.detach(), goal.detach(), self.bins))

    def _distance_within(self, input: Tensor, goal: Tensor, mask: Tensor) -> Tensor:
        largest = mask.amax((2, 3), keepdim=True)
        matched = functional.match_histogram(input.detach(), goal.detach(), self.bins, (mask >= 0.5 * largest) & (mask > 0))
        squares = (widen(input) - widen(matched)).square() * mask
        if self.reduction == "sum":
            return squares.sum()
        return squares.sum() / (_some(mask.expand(len(input), -1, -1, -1).sum()) * input.shape[1])


class MRFLoss(_StyleLoss):
    """Squared distance of each patch to the target's that correlates best (CNNMRF, Li and Wand, CVPR 2016).

    Which patch that is has no gradient; the target's features may be of another size. "sum" is the paper's; "mean" averages
    over samples, patches, channels and pixels of a patch. A pixel that no patch covers, as a stride leaves some, has no
    gradient. With a mask, each patch's pixels count as far as they belong to it.

    Args:
        patch_size, stride: of patches, as in `functional.patch_match`.
        usage_penalty: what each use of a patch takes from its correlation the next time.
    """

    _settings = "reduction", "patch_size", "stride", "usage_penalty"

    def __init__(
        self,
        weights: Weights = 1.0,
        reduction: str = "mean",
        *,
        patch_size: int = 3,
        stride: int = 1,
        usage_penalty: float = 0.0,
    ) -> None:
        super().__init__(weights, reduction)
        check_integer(self._name, "patch_size", patch_size, 1)
        check_integer(self._name, "stride", stride, 1)
        check_number(self._name, "usage_penalty", usage_penalty, 0)
        self.patch_size, self.stride, self.usage_penalty = patch_size, stride, usage_penalty

    def prepare(self, target: Maps, *copies: Maps) -> Goal:
        """The goal of a target; with copies, as of the picture turned and scaled, patches of all of them are chosen from."""
        if copies and self.usage_penalty:
            raise ValueError(f"{self._name}: copies: expected none, for a usage penalty counts the patches of one map")
        targets = [self._layers("target", each) for each in (target, *copies)]
        return Goal({layer: self._patches([each[layer] for each in targets]) for layer in targets[0]}, repr(self))

    def _patches(self, maps: list[Tensor]) -> "_Patches":
        # Small numbers, so that squares keep their digits.
        centre = widen(maps[0]).detach().mean((2, 3), keepdim=True)
        sheet = _sheet([widen(map) for map in maps], centre, self.stride)
        return _Patches(maps, centre, sheet, sheet.square())

    def _distance(self, input: Tensor, goal: "_Patches") -> Tensor:
        return self._distance_within(input, goal, None)

    def _distance_within(self, input: Tensor, goal: "_Patches", mask: Tensor | None) -> Tensor:
        """At each pixel, of the patches that cover it: the distance of their mean, and how far they lie around that."""
        patches, size = (self.patch_size, self.stride), input.shape[2:]
        index = self._match(input, goal)
        input = widen(input)
        mean, square = (functional.swap_patches(map, index, size, *patches) for map in (goal.sheet, goal.squares))
        around = (square - mean.square()).clamp(min=0)
        times = times_covered(size, *patches, input.device)
        times = times if mask is None else times * mask
        total = (times * ((input - goal.centre - mean).square() + around)).sum()
        if self.reduction == "sum":
            return total
        compared = index.numel() * self.patch_size**2 if mask is None else _some(times.expand(len(input), -1, -1, -1).sum())
        return total / (compared * input.shape[1])

    def _match(self, input: Tensor, goal: "_Patches") -> Tensor:
        """The place on the sheet of each patch's best match; of copies that are as much alike, in the first."""
        patches, (first, *copies) = (self.patch_size, self.stride), goal.maps
        input = input.detach()
        if not copies:
            return functional.patch_match(input, first.detach(), *patches, usage_penalty=self.usage_penalty)
        _, columns = grid(goal.sheet.shape[2:], *patches)
        found, best, row = None, None, 0
        for map in goal.maps:
            index, score = functional.patch_match(input, map.detach(), *patches, return_score=True)
            _, own = grid(map.shape[2:], *patches)
            index = (row + index // own) * columns + index % own
            found, best = (index, score) if best is None else (
                torch.where(score > best, index, found), torch.maximum(score, best)
            )  # fmt: skip
            row += -(-map.shape[2] // self.stride)
        return found


class _Patches(NamedTuple):
    """What MRFLoss chooses from: maps; and less their centre, (N, C, 1, 1), all of them on a sheet, one below the other."""

    maps: list[Tensor]
    centre: Tensor
    sheet: Tensor
    squares: Tensor


def _sheet(maps: list[Tensor], centre: Tensor, stride: int) -> Tensor:
    """Each begins where a patch does."""
    if len(maps) == 1:
        return maps[0] - centre
    width = max(map.shape[3] for map in maps)
    return torch.cat([
        F.pad(map - centre, (0, width - map.shape[3], 0, -map.shape[2] % stride)) for map in maps
    ], 2)  # fmt: skip


class ReshuffleLoss(MRFLoss):
    """MRFLoss in which the target's patches are used about equally often (deep feature reshuffle, Gu et al., CVPR 2018).

    Of the penalty no value is published; the larger, the more equally. Uses are counted over the whole map, within a mask
    and beyond it.
    """

    def __init__(
        self,
        weights: Weights = 1.0,
        reduction: str = "mean",
        *,
        patch_size: int = 3,
        stride: int = 1,
        usage_penalty: float = 0.1,
    ) -> None:
        super().__init__(weights, reduction, patch_size=patch_size, stride=stride, usage_penalty=usage_penalty)


class DiversityLoss(_WeightedLoss):
    """Minus the absolute difference of each sample's features from the next one's: minimised, samples become unlike.

    Li et al., CVPR 2017 (arXiv:1703.01664), where the order is drawn; here it is that of the batch, the last beside the
    first, of two samples at least. `loss(features)` takes no target. It has no lower bound.
    """

    def forward(self, input: Maps) -> Tensor:
        return -sum(self._weight(layer) * self._difference(map) for layer, map in self._layers("input", input).items())

    def _difference(self, map: Tensor) -> Tensor:
        if len(map) < 2:
            raise ValueError(f"{self._name}: input: expected two samples at least, got {len(map)}")
        return F.l1_loss(widen(map), widen(map.roll(1, 0)), reduction=self.reduction)


class LaplacianLoss(_LayerLoss):
    """Squared difference of pictures' Laplacians, which are edges (Laplacian-steered, Li et al., ACM MM 2017).

    Pictures (N, C, H, W) are averaged over squares, then the Laplacian (4 in the middle, -1 at each side) of all channels
    is added up.

    Args:
        weights: by the side of a square, {4: 100.0}.
    """

    def __init__(self, weights: Mapping[int, float], reduction: str = "mean") -> None:
        super().__init__(1.0, reduction)
        if not isinstance(weights, Mapping) or not weights:
            raise TypeError(f"{self._name}: weights: expected a mapping from sides of squares to weights, got {weights!r}")
        for size in weights:
            check_sizes(self._name, "weights", size, 1, 1)
        self.squares = _checked_weights(self, weights)

    def _goal(self, target: Tensor) -> list[Tensor]:
        return [self._edges(target, size) for size in self.squares]

    def _distance(self, input: Tensor, goal: list[Tensor]) -> Tensor:
        edges = zip(self._goal(input), goal, self.squares.values())
        return sum(weight * self._compare(own, other) for own, other, weight in edges)

    def _edges(self, picture: Tensor, size: int) -> Tensor:
        if min(picture.shape[2:]) < 3 * size:
            raise ValueError(
                f"{self._name}: input: expected {3 * size} pixels at least along each side, for squares of {size},"
                f" got {tuple(picture.shape[2:])}"
            )
        pooled = F.avg_pool2d(widen(picture).sum(1, keepdim=True), size)
        beside = pooled[..., :-2, 1:-1] + pooled[..., 2:, 1:-1] + pooled[..., 1:-1, :-2] + pooled[..., 1:-1, 2:]
        return 4 * pooled[..., 1:-1, 1:-1] - beside

    def extra_repr(self) -> str:
        return f"weights={dict(self.squares)}, reduction={self.reduction!r}"


class TotalVariationLoss(_WeightedLoss):
    """Differences of neighbours, down and to the right, each to a power: with 2 that of Mahendran and Vedaldi, CVPR 2015, who
    couple both directions at others.

    `loss(picture)` takes no target. "mean" averages over the differences in each direction.
    """

    _settings = "reduction", "power"

    def __init__(self, weights: Weights = 1.0, reduction: str = "mean", *, power: float = 2.0) -> None:
        super().__init__(weights, reduction)
        check_number(self._name, "power", power, 1)
        self.power = power

    def forward(self, input: Maps) -> Tensor:
        return sum(self._weight(layer) * self._variation(map) for layer, map in self._layers("input", input).items())

    def _variation(self, picture: Tensor) -> Tensor:
        total = widen(picture).new_zeros(())
        for dim in (2, 3):
            if picture.shape[dim] > 1:
                differences = widen(picture).diff(dim=dim)
                powers = differences.square() if self.power == 2 else differences.abs().pow(self.power)
                total = total + (powers.mean() if self.reduction == "mean" else powers.sum())
        return total


class IdentityLoss(nn.Module):
    """A picture that is its own style should stay as it is: in pixels and in features (SANet, Park and Lee, CVPR 2019).

    For the content's picture and for the style's, each by a call. 50 and 1 are the weights of public training code.

    Args:
        weights: of features, by layer.
        image_weight: of pixels.
    """

    def __init__(self, weights: Weights = 1.0, reduction: str = "mean", *, image_weight: float = 50.0) -> None:
        super().__init__()
        check_number(type(self).__name__, "image_weight", image_weight)
        self.of_image, self.of_features = ContentLoss(float(image_weight), reduction), ContentLoss(weights, reduction)

    def forward(self, input: Tensor, target: Tensor, input_features: Maps, target_features: Maps | Goal) -> Tensor:
        """The network's picture and what went in, (N, 3, H, W), and the features of both."""
        return self.of_image(input, target) + self.of_features(input_features, target_features)


def _some(count: Tensor) -> Tensor:
    """To divide by, where a region may have no positions: what is divided is 0 then, and so is its gradient."""
    return count.clamp(min=1e-6)


def _checked_weights(loss: nn.Module, weights: Weights):
    name = type(loss).__name__
    if isinstance(weights, Mapping):
        weights = dict(weights)
        each = weights.items()
    elif isinstance(weights, Sequence) and not isinstance(weights, str):
        weights = list(weights)
        each = enumerate(weights)
    else:
        check_number(name, "weights", weights)
        return float(weights)
    for layer, weight in each:
        check_number(name, f"weights[{layer!r}]", weight)
    return weights


def _checked_reduction(loss: nn.Module, reduction: str) -> str:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{type(loss).__name__}: reduction: expected 'mean' or 'sum', got {reduction!r}")
    return reduction


def _names(layers) -> str:
    return ", ".join(map(repr, layers))
