"""Losses of style transfer, each a module with weights by layer.

    loss = GramLoss({"relu1_1": 1.0, "relu2_1": 0.5})
    goal = loss.prepare(features_of(style))      # once; or pass the features themselves
    loss(features_of(picture), goal).backward()

Features are a mapping from names to (N, C, H, W) maps, of which those with a weight are compared; or a sequence of maps with
a sequence of weights; or one map with a number. Losses are scalars in float32, or float64 for float64 maps. "mean" averages
over all that is compared in a layer, samples included, "sum" adds it up.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import functional
from ._checks import check_number, check_sizes, check_tensor
from .ops._layout import widen

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
    """What a loss compares with, by layer: computed once by `prepare`."""


class _LayerLoss(nn.Module):
    """The sum over layers of weight * distance(map, goal)."""

    def __init__(self, weights: Weights = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.weights, self.reduction = _checked_weights(self, weights), _checked_reduction(self, reduction)

    def prepare(self, target: Maps) -> Goal:
        """The goal of a target that is compared with more than once. Its graph is kept: wrap it in torch.no_grad()."""
        return Goal({layer: self.goal(map) for layer, map in self._layers("target", target).items()})

    def forward(self, input: Maps, target: Maps | Goal) -> Tensor:
        maps, goals = self._layers("input", input), target if isinstance(target, Goal) else self.prepare(target)
        if maps.keys() != goals.keys():
            raise ValueError(f"{self._name}: target: expected the input's layers {_names(maps)}, got {_names(goals)}")
        return sum(self._weight(layer) * self.distance(map, goals[layer]) for layer, map in maps.items())

    def goal(self, target: Tensor):
        """Of a map, what is compared."""
        return target

    def distance(self, input: Tensor, goal) -> Tensor:
        raise NotImplementedError

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _weight(self, layer) -> float:
        return self.weights if isinstance(self.weights, float) else self.weights[layer]

    def _layers(self, name: str, maps: Maps) -> dict:
        """The maps that have a weight, by name or number."""
        if isinstance(maps, Tensor):
            maps = [maps]
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

    def _compare(self, input: Tensor, goal: Tensor) -> Tensor:
        """The squared difference."""
        if input.shape != goal.shape:
            raise ValueError(f"{self._name}: target: expected shape {tuple(input.shape)} as of the input, got {tuple(goal.shape)}")
        return F.mse_loss(widen(input), widen(goal), reduction=self.reduction)

    def extra_repr(self) -> str:
        weights = dict(self.weights) if isinstance(self.weights, Mapping) else self.weights
        return f"weights={weights}, reduction={self.reduction!r}"


class ContentLoss(_LayerLoss):
    """Squared difference of features (Gatys et al., CVPR 2016; there a half of the sum).

    Args:
        normalized: of instance-normalised features, which knows no style (MUNIT, Huang et al., ECCV 2018; SANet).
        eps: added to a variance.
    """

    def __init__(
        self, weights: Weights = 1.0, reduction: str = "mean", *, normalized: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__(weights, reduction)
        check_number(self._name, "eps", eps, 0)
        self.normalized, self.eps = normalized, eps

    def goal(self, target: Tensor) -> Tensor:
        return functional.instance_norm(target, eps=self.eps) if self.normalized else target

    def distance(self, input: Tensor, goal: Tensor) -> Tensor:
        if not self.normalized:
            return self._compare(input, goal)
        # The difference alone is kept for the backward, not the normalised map.
        difference = widen(functional.instance_norm(input, eps=self.eps, residual=-goal)).square()
        return difference.mean() if self.reduction == "mean" else difference.sum()


class MeanStdLoss(_LayerLoss):
    """Squared differences of each plane's mean and standard deviation (AdaIN, Huang and Belongie, ICCV 2017).

    Args:
        eps, correction, eps_mode: how a deviation is taken, as in `functional.instance_stats`; AdaIN's authors take the
            unbiased variance, correction=1.
    """

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
        self.rule = eps, correction, eps_mode

    def goal(self, target: Tensor) -> tuple[Tensor, Tensor]:
        mean, rstd = functional.instance_stats(target, *self.rule)
        return mean, 1 / rstd

    def distance(self, input: Tensor, goal: tuple[Tensor, Tensor]) -> Tensor:
        return sum(self._compare(own, other) for own, other in zip(self.goal(input), goal))


class GramLoss(_LayerLoss):
    """Squared difference of Gram matrices (Gatys et al., CVPR 2016).

    Args:
        normalized: divided by channels and positions (Johnson et al., ECCV 2016). Gatys' own loss is a quarter of the sum
            of the normalised ones' differences.
        centred: of features less their mean, covariances (Li et al., CVPR 2017).
    """

    def __init__(
        self, weights: Weights = 1.0, reduction: str = "mean", *, normalized: bool = True, centred: bool = False
    ) -> None:
        super().__init__(weights, reduction)
        self.normalized, self.centred = normalized, centred

    def goal(self, target: Tensor) -> Tensor:
        return functional.gram_matrix(target, self.centred, self.normalized)

    def distance(self, input: Tensor, goal: Tensor) -> Tensor:
        return self._compare(self.goal(input), goal)


class HistogramLoss(_LayerLoss):
    """Squared difference from the features' own match to the target's histograms (Risser et al. 2017, arXiv:1701.08893).

    The match is a constant: it has no gradient.

    Args:
        bins: of a histogram; None matches by sorting, exactly.
    """

    def __init__(self, weights: Weights = 1.0, reduction: str = "mean", *, bins: int | None = 256) -> None:
        super().__init__(weights, reduction)
        if bins is not None:
            check_sizes(self._name, "bins", bins, 1, 1)
        self.bins = bins

    def distance(self, input: Tensor, goal: Tensor) -> Tensor:
        return self._compare(input, functional.match_histogram(input.detach(), goal.detach(), self.bins))


class MRFLoss(_LayerLoss):
    """Squared distance of each patch to the target's that correlates best (CNNMRF, Li and Wand, CVPR 2016).

    Which patch that is has no gradient; the target's features may be of another size. "sum" is the paper's; "mean" averages
    over samples, patches, channels and pixels of a patch.

    Args:
        patch_size, stride: of patches, as in `functional.patch_match`.
        usage_penalty: what each use of a patch takes from its correlation the next time.
    """

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
        self.patches = patch_size, stride
        self.usage_penalty = usage_penalty

    def distance(self, input: Tensor, goal: Tensor) -> Tensor:
        """At each pixel, of the patches that cover it: the distance of their mean, and how far they lie around that."""
        index = functional.patch_match(input.detach(), goal.detach(), *self.patches, usage_penalty=self.usage_penalty)
        input, goal = widen(input), widen(goal)
        # Small numbers, so that squares keep their digits.
        centre = goal.detach().mean((2, 3), keepdim=True)
        goal = goal - centre
        mean, square = (functional.swap_patches(map, index, input.shape[2:], *self.patches) for map in (goal, goal.square()))
        around = (square - mean.square()).clamp(min=0)
        total = (self._cover(input) * ((input - centre - mean).square() + around)).sum()
        if self.reduction == "sum":
            return total
        return total / (index.numel() * input.shape[1] * self.patches[0] ** 2)

    def _cover(self, input: Tensor) -> Tensor:
        """How many patches cover a pixel, (H, W)."""
        size, stride = self.patches

        def along(length):
            starts = torch.arange(0, length - size + 1, stride, device=input.device)
            positions = torch.arange(length, device=input.device)[:, None]
            return ((positions >= starts) & (positions < starts + size)).sum(1).to(input.dtype)

        rows, columns = map(along, input.shape[2:])
        return rows[:, None] * columns

    def extra_repr(self) -> str:
        size, stride = self.patches
        return f"{super().extra_repr()}, patch_size={size}, stride={stride}, usage_penalty={self.usage_penalty}"


class ReshuffleLoss(MRFLoss):
    """MRFLoss in which the target's patches are used about equally often (deep feature reshuffle, Gu et al., CVPR 2018)."""

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


class DiversityLoss(_LayerLoss):
    """Minus the absolute difference of the features of one sample and the next: the larger, the less alike samples are.

    Li et al., CVPR 2017 (arXiv:1703.01664), where the order is drawn; here it is that of the batch, the last beside the
    first, of two samples at least. `loss(features)` takes no target.
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

    def goal(self, target: Tensor) -> list[Tensor]:
        return [self._edges(target, size) for size in self.squares]

    def distance(self, input: Tensor, goal: list[Tensor]) -> Tensor:
        edges = zip(self.goal(input), goal, self.squares.values())
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


class TotalVariationLoss(_LayerLoss):
    """Differences of neighbours, down and to the right, each to a power (Mahendran and Vedaldi, CVPR 2015).

    `loss(picture)` takes no target. "mean" averages over the differences in each direction.
    """

    def __init__(self, weight: float = 1.0, reduction: str = "mean", *, power: float = 2.0) -> None:
        super().__init__(weight, reduction)
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

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, power={self.power}"


class IdentityLoss(nn.Module):
    """A picture that is its own style should stay as it is: in pixels and in features (SANet, Park and Lee, CVPR 2019).

    Args:
        weights: of features, by layer; SANet's are 1.
        image_weight: of pixels; SANet's is 50.
    """

    def __init__(self, weights: Weights = 1.0, reduction: str = "mean", *, image_weight: float = 50.0) -> None:
        super().__init__()
        check_number(type(self).__name__, "image_weight", image_weight)
        self.of_image, self.of_features = ContentLoss(float(image_weight), reduction), ContentLoss(weights, reduction)

    def forward(self, input: Tensor, target: Tensor, input_features: Maps, target_features: Maps | Goal) -> Tensor:
        """The network's picture and what went in, (N, 3, H, W), and the features of both."""
        return self.of_image(input, target) + self.of_features(input_features, target_features)


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
