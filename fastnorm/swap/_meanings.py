"""What each node of a graph means as a statistic or a normalisation: a mean, a deviation, a map less its mean.

Each node gets its `Meaning` from those of its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from torch.fx import Node

from ..nn._recognise import Unfused
from ._in_place import in_one_epoch
from ._parts import value

PLANE, SAMPLE, ROW = "plane", "sample", "row"
STATISTICS = "mean", "squared mean", "mean square", "var", "std", "rstd"


@dataclass(frozen=True)
class Meaning:
    """`kind` of the map `of`, in whatever shape; its statistics are over each plane, or each sample.

    Kinds: map, centered, square, centered square, normed; those of STATISTICS; var_mean and std_mean, a pair; weighted, a
    normed map times `rho`, or times 1 - rho where it is over samples; blend, the sum of the two.
    """

    kind: str
    of: Node
    over: str = PLANE
    eps: float = 0.0
    correction: int = 0
    eps_mode: str = "var"
    rho: Node | None = None

    @property
    def rule(self) -> dict:
        return dict(eps=self.eps, correction=self.correction, eps_mode=self.eps_mode)


class Meanings(dict):
    """By node. A rule has the signature of the function that it reads."""

    def read(self, node: Node) -> None:
        rule = getattr(self, f"_{function_of(node)}", None)
        if rule is None or not in_one_epoch(node, *(input for input in node.all_input_nodes if input in self)):
            return
        try:
            meaning = rule(*node.args, **node.kwargs)
            shape = value(node).shape if meaning is not None and not meaning.kind.endswith("_mean") else None
        except (TypeError, Unfused):
            return
        if meaning is not None and (shape is None or _keeps(meaning, shape)):
            self[node] = meaning

    def _of(self, node) -> Meaning | None:
        """Of a tensor that has no other meaning: that it is a map."""
        if node in self or not isinstance(node, Node):
            return self.get(node)
        return Meaning("map", node) if value(node).dim() > 2 and value(node).is_floating_point() else None

    def _instance_norm(
        self, input, mean=None, var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5, **rule
    ):
        if not use_input_stats or any(tensor is not None for tensor in (mean, var, weight, bias)):
            return None
        return Meaning("normed", input, PLANE, eps, **rule)

    def _layer_norm(self, input, weight=None, bias=None, eps=1e-5, **rule):
        if not isinstance(eps, float) or weight is not None or bias is not None:
            return None
        return Meaning("normed", input, SAMPLE, eps, **rule)

    def _same(self, input, *_, **__):
        """In another shape: `_keeps` says whether that still holds planes together."""
        return self._of(input)

    _view = _reshape = _flatten = _expand = _expand_as = _unsqueeze = _contiguous = _view_as = _reshape_as = _same

    def _getitem(self, input, index):
        meaning = self.get(input)
        if meaning is None or not meaning.kind.endswith("_mean"):
            return meaning
        return replace(meaning, kind=meaning.kind.split("_")[index])

    def _mean(self, input, dim=None, keepdim=False, axis=None):
        meaning = self._of(input)
        kinds = {"map": "mean", "square": "mean square", "centered square": "var"}
        if meaning is not None and meaning.over == ROW and meaning.kind in STATISTICS:
            return replace(meaning, over=PLANE) if dim in (2, (2,), [2]) else None
        if meaning is None or meaning.kind not in kinds:
            return None
        over = _reduced(meaning.of, value(input).shape, axis if dim is None else dim)
        if meaning.kind == "centered square" and over != meaning.over and (over, meaning.over) != (ROW, PLANE):
            return None
        return replace(meaning, kind=kinds[meaning.kind], over=over)

    def _deviation(kind):
        def rule(self, input, dim=None, unbiased=True, keepdim=False, correction=None, axis=None):
            meaning = self._of(input)
            if meaning is None or meaning.kind not in ("map", "centered"):
                return None
            over = _reduced(meaning.of, value(input).shape, axis if dim is None else dim)
            # A constant taken away changes no deviation: but what is that of a plane is none of a sample.
            if over == ROW or (meaning.kind == "centered" and (meaning.over, over) == (PLANE, SAMPLE)):
                return None
            correction = int(unbiased) if correction is None else correction
            if correction not in (0, 1):
                return None
            return Meaning(kind, meaning.of, over, correction=correction)

        return rule

    _var, _std, _var_mean, _std_mean = map(_deviation, ("var", "std", "var_mean", "std_mean"))

    def _add(self, input, other, *, alpha=1):
        if isinstance(input, (int, float)):
            input, other = other, input
        first, second = self.get(input), self.get(other)
        if isinstance(other, (int, float)) and first is not None and alpha == 1:
            if first.kind == "var" and first.eps == 0:
                return replace(first, eps=float(other))
            if first.kind == "std" and first.eps == 0:
                return replace(first, eps=float(other), eps_mode="std")
        if first is not None and second is not None and first.kind == second.kind == "weighted":
            return _blend(first, second) or _blend(second, first)
        return None

    def _sub(self, input, other, *, alpha=1):
        first, second = self._of(input), self.get(other)
        if second is None or first is None or first.of is not second.of or alpha != 1:
            return None
        if second.over == ROW:
            return None
        if first.kind == "map" and second.kind == "mean" and _broadcasts(second, other, input):
            return replace(second, kind="centered")
        if first.kind == "mean square" and second.kind == "squared mean" and first.over == second.over:
            return replace(first, kind="var")
        return None

    def _mul(self, input, other):
        first, second = self._of(input), self._of(other)
        if input is other:
            return _squared(first)
        if first is None or second is None:
            return None
        if second.kind in ("centered", "normed"):
            input, other, first, second = other, input, second, first
        if first.kind == "centered" and second.kind == "rstd":
            return _normed(first, second, input, other)
        if first.kind == "normed":
            return self._weighted(first, other)
        return None

    def _truediv(self, input, other, *, rounding_mode=None):
        first, second = self._of(input), self.get(other)
        if second is None or second.kind != "std" or rounding_mode is not None:
            return None
        if input in (1, 1.0):
            return replace(second, kind="rstd")
        return _normed(first, second, input, other) if first is not None and first.kind == "centered" else None

    _div = _true_divide = _truediv

    def _reciprocal(self, input):
        return self._truediv(1, input)

    def _pow(self, input, exponent):
        if exponent == 2:
            return _squared(self._of(input))
        return {0.5: self._sqrt, -0.5: self._rsqrt}[exponent](input) if exponent in (0.5, -0.5) else None

    def _square(self, input):
        return _squared(self._of(input))

    def _sqrt(self, input):
        meaning = self.get(input)
        return replace(meaning, kind="std") if meaning is not None and meaning.kind == "var" else None

    def _rsqrt(self, input):
        meaning = self.get(input)
        return replace(meaning, kind="rstd") if meaning is not None and meaning.kind == "var" else None

    def _weighted(self, normed, factor):
        if flat_per_plane(value(factor).shape, normed.of) is None:
            return None
        rho = _without_views(factor)
        if normed.over == SAMPLE:
            if function_of(rho) not in ("sub", "rsub") or not isinstance(rho.args[1], Node) or rho.args[0] not in (1, 1.0):
                return None
            rho = _without_views(rho.args[1])
        return replace(normed, kind="weighted", rho=rho)


def _squared(meaning):
    kinds = {"map": "square", "centered": "centered square", "mean": "squared mean"}
    return replace(meaning, kind=kinds[meaning.kind]) if meaning is not None and meaning.kind in kinds else None


def _normed(centered, deviation, map, statistic):
    if centered.of is not deviation.of or centered.over != deviation.over or not _broadcasts(deviation, statistic, map):
        return None
    return replace(deviation, kind="normed")


def _blend(planes, samples):
    same = planes.of is samples.of and planes.rho is samples.rho and planes.rule == samples.rule
    if not same or (planes.over, samples.over) != (PLANE, SAMPLE) or planes.eps_mode != "var":
        return None
    return replace(planes, kind="blend")


# Shapes: of a map (N, C, *), with planes or samples flattened, and of its statistics.


def _keeps(meaning, shape):
    """Whether a tensor of this shape can still be read as what it means."""
    map_shape = value(meaning.of).shape
    if meaning.kind in STATISTICS:
        count = prod(map_shape[: {SAMPLE: 1, PLANE: 2, ROW: 3}[meaning.over]])
        return prod(shape) == count or tuple(shape) in _shapes_of(map_shape)
    return tuple(shape) in _shapes_of(map_shape)


def _shapes_of(shape):
    """(N, C, *), (N, C, -1), (N * C, -1), (1, N * C, *), (N, -1); of one sample (-1,), too."""
    n, c, *size = shape
    plane = prod(size)
    flat = ((c * plane,),) if n == 1 else ()
    return *flat, (n, c, *size), (n, c, plane), (n * c, plane), (1, n * c, *size), (1, n * c, plane), (n, c * plane)


def _reduced(map, shape, dims):
    """What statistics over these dimensions of the map, in this shape, are over."""
    if dims is None:
        if value(map).shape[0] > 1:
            raise Unfused("one number for all samples")
        return SAMPLE
    dims = sorted(dim % len(shape) for dim in (dims if isinstance(dims, (tuple, list)) else (dims,)))
    n, c, *size = value(map).shape
    left = prod(length for dim, length in enumerate(shape) if dim not in dims)
    trailing = dims == list(range(dims[0], len(shape)))
    if trailing and tuple(shape) == (n, c, *size) and len(size) == 2 and dims in ([2], [3]):
        over = ROW
    elif trailing and tuple(shape) in ((n, c, *size), (n, c, prod(size))):
        over = {2: PLANE, 1: SAMPLE}.get(dims[0])
    elif trailing and tuple(shape) in ((n * c, prod(size)), (n, c * prod(size))) and dims == [1]:
        over = PLANE if left == n * c and shape[1] == prod(size) else SAMPLE
    else:
        over = PLANE if trailing and dims[0] == 2 and tuple(shape[:2]) == (1, n * c) else None
    if over is None:
        raise Unfused("not over planes or samples")
    return over


def _broadcasts(meaning, statistic, map):
    """Whether each number of the statistic meets its own plane or sample of the map, in the shapes that they have here."""
    shape, there = tuple(value(map).shape), tuple(value(statistic).shape)
    if there == shape:
        return True
    n, c = value(meaning.of).shape[:2]
    if meaning.over == ROW:
        return False
    if meaning.over == SAMPLE:
        return len(there) == len(shape) and there == (n, *[1] * (len(shape) - 1))
    kept = 2 if shape[:2] in ((n, c), (1, n * c)) else 1 if shape[0] == n * c else 0
    return kept > 0 and len(there) == len(shape) and there == (*shape[:kept], *[1] * (len(shape) - kept))


def flat_per_plane(shape, map):
    """(C,) or (N, C), for a shape that broadcasts a number over each plane; None for others."""
    n, c, *size = value(map).shape
    leading, trailing = tuple(shape[: len(shape) - len(size)]), tuple(shape[len(shape) - len(size) :])
    if any(length != 1 for length in trailing):
        return None
    return (c,) if leading in ((c,), (1, c)) else (n, c) if leading == (n, c) else None


_SYNONYMS = {"div": "truediv", "true_divide": "truediv", "multiply": "mul", "subtract": "sub"}


def function_of(node) -> str:
    """What a node calls, by one name where torch has several; "" for what is no call."""
    if not isinstance(node, Node) or node.op not in ("call_function", "call_method"):
        return ""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return _SYNONYMS.get(name, name)


_VIEWS = ("view", "reshape", "expand", "expand_as", "unsqueeze", "view_as", "contiguous")


def _without_views(node):
    while function_of(node) in _VIEWS or (function_of(node) == "getitem" and _only_new_dims(node.args[1])):
        node = node.args[0]
    return node


def _only_new_dims(index):
    index = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or part == slice(None) for part in index)
