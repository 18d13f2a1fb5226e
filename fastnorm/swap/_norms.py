"""Normalisations written out: means, deviations and arithmetic on planes, read as the norms that they amount to.

Each node gets a `Meaning` from those of its arguments: what it is, of which map. A normalised map becomes a call of
`functional.instance_norm`, or of `layer_norm` or `functional.layer_instance_norm` where whole samples come in; what is then
multiplied and added becomes its weight and bias, or per pixel that of `functional.spatially_adaptive_norm`. Statistics that
something else needs come from `functional.instance_stats`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isclose, prod

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from .. import functional
from ..nn._layer_norm import layer_norm
from ..nn._recognise import Activation, Unfused

from ._parts import reading_of, reshaped, value

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


def recognise_norms(graph: Graph, sweep: Callable[[], None]) -> None:
    _put_plain_norms(graph)
    meanings = _Meanings()
    for node in list(graph.nodes):
        _divide_first(graph, node, meanings)
        meanings.read(node)
    for node in reversed(list(graph.nodes)):
        meaning = meanings.get(node)
        if meaning is not None and meaning.kind in ("normed", "blend") and node.users and node.target not in _AFFINE:
            try:
                sweep(_replace(graph, node, meaning))
            except Unfused:
                continue
    _put_statistics(graph, meanings, sweep)
    for node in list(graph.nodes):
        if node.target in _AFFINE and node.users:
            _Affine(graph, node, sweep).take()


# What each node means.


class _Meanings(dict):
    """By node. A rule has the signature of the function that it reads."""

    def read(self, node: Node) -> None:
        rule = getattr(self, f"_{_name(node)}", None)
        if rule is None:
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
        if meaning.kind == "centered square" and over not in (meaning.over, ROW):
            return None
        return replace(meaning, kind=kinds[meaning.kind], over=over)

    def _deviation(kind):
        def rule(self, input, dim=None, unbiased=True, keepdim=False, correction=None, axis=None):
            meaning = self._of(input)
            if meaning is None or meaning.kind not in ("map", "centered"):
                return None
            over = _reduced(meaning.of, value(input).shape, axis if dim is None else dim)
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
        if _flat(value(factor).shape, normed.of) is None:
            return None
        rho = _without_views(factor)
        if normed.over == SAMPLE:
            if _name(rho) not in ("sub", "rsub") or not isinstance(rho.args[1], Node) or rho.args[0] not in (1, 1.0):
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


_SYNONYMS = {"div": "truediv", "true_divide": "truediv", "multiply": "mul", "subtract": "sub"}


def _name(node) -> str:
    if not isinstance(node, Node) or node.op not in ("call_function", "call_method"):
        return ""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return _SYNONYMS.get(name, name)


_VIEWS = ("view", "reshape", "expand", "expand_as", "unsqueeze", "view_as", "contiguous")


def _without_views(node):
    while _name(node) in _VIEWS or (_name(node) == "getitem" and _only_new_dims(node.args[1])):
        node = node.args[0]
    return node


def _only_new_dims(index):
    index = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or part == slice(None) for part in index)


# What takes their place.


def _put_plain_norms(graph):
    """torch's norms of other names that amount to these."""
    for node in list(graph.nodes):
        rule = _BY_OTHER_NAMES.get(node.target)
        try:
            found = rule and rule(*node.args, **node.kwargs)
            if found:
                function, map, settings, shape = found
                with graph.inserting_before(node):
                    for name in ("weight", "bias"):
                        if settings.get(name) is not None:
                            settings[name] = reshaped(graph, settings[name], shape)
                    _put(graph, node, function, [map], settings)
        except (TypeError, Unfused):
            continue


def _put(graph, node, function, arguments, settings):
    """A call in place of a node; whoever gives that another shape, which is the map's, takes the call itself."""
    map = value(arguments[0])
    if function is functional.instance_norm and prod(map.shape[2:]) == 1:
        raise Unfused("its planes have one element")
    norm = graph.call_function(function, tuple(arguments), settings)
    norm.meta = dict(node.meta) | {"example_value": map}
    for view in [user for user in node.users if _name(user) in ("view", "reshape", "view_as", "reshape_as")]:
        if value(view).shape == map.shape:
            view.replace_all_uses_with(norm)
    same = value(node).shape == map.shape
    if same or any(user.users for user in node.users):
        node.replace_all_uses_with(norm if same else reshaped(graph, norm, value(node).shape))
    return norm


def _replace(graph, node, meaning):
    with graph.inserting_before(node):
        if meaning.kind == "blend":
            n, c = value(meaning.of).shape[:2]
            rho = reshaped(graph, meaning.rho, (c,) if value(meaning.rho).numel() == c else (n, c))
            settings = dict(eps=meaning.eps, correction=meaning.correction)
            return _put(graph, node, functional.layer_instance_norm, [meaning.of, rho], settings)
        function = functional.instance_norm if meaning.over == PLANE else layer_norm
        return _put(graph, node, function, [meaning.of], meaning.rule)


def _put_statistics(graph, meanings, sweep):
    """One pass for the mean and the deviation of a map, where both are still read, or the deviation alone."""
    of_map = {}
    for node in graph.nodes:
        meaning = meanings.get(node)
        is_one = meaning is not None and meaning.kind in ("mean", "std", "rstd") and meaning.over == PLANE
        if is_one and not _is_expanded(node) and any(_is_other(user, meanings) for user in node.users):
            of_map.setdefault(meaning.of, []).append(node)
    for map, nodes in of_map.items():
        rules = [meanings[node].rule for node in nodes if meanings[node].kind != "mean"]
        if rules and all(rule == rules[0] for rule in rules):
            try:
                sweep(_put_pair(graph, map, nodes, meanings, rules[0]))
            except Unfused:
                continue


def _is_expanded(node):
    return _name(node) in ("expand", "expand_as")


def _is_other(node, meanings):
    """Whether a reader of statistics makes something else of them."""
    meaning = meanings.get(node)
    return meaning is None or meaning.kind not in STATISTICS or _is_expanded(node)


def _put_pair(graph, map, nodes, meanings, rule):
    with graph.inserting_before(nodes[0]):
        pair = graph.call_function(functional.instance_stats, (map,), rule)
        mean, rstd = (graph.call_function(operator.getitem, (pair, index)) for index in (0, 1))
    pair.meta = {name: found for name, found in nodes[0].meta.items() if name != "example_value"}
    wide = value(map).new_empty(value(map).shape[:2], dtype=torch.promote_types(value(map).dtype, torch.float32))
    for node in nodes:
        with graph.inserting_before(node):
            kind = meanings[node].kind
            found = mean if kind == "mean" else graph.call_method("reciprocal", (rstd,)) if kind == "std" else rstd
            if value(node).dtype != wide.dtype:
                found = graph.call_method("to", (found, value(node).dtype))
            found.meta = {"example_value": wide.to(value(node).dtype)}
            made = reshaped(graph, found, value(node).shape)
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
    return pair


# What is done to a normalised map.

_AFFINE = (functional.instance_norm, functional.layer_instance_norm, layer_norm, F.instance_norm)


class _Affine:
    """A norm, and what multiplies and adds to what it returns: taken into it, one after the other."""

    def __init__(self, graph: Graph, node: Node, sweep: Callable[[], None]) -> None:
        self._graph, self._node, self._sweep = graph, node, sweep
        self._map, self._settings = node.args[0] if node.args else None, _settings(node)

    def take(self) -> None:
        if self._settings is None or not isinstance(self._map, Node):
            return
        try:
            self._join_factors()
            while self._take_factor() or self._take_term():
                pass
            self._take_pixels()
            self._take_alpha()
        except Unfused:
            return

    def _take_factor(self):
        reader, factor = self._reader("mul")
        factor = self._per_plane(reader, factor)
        if factor is None:
            return False
        for name in ("weight", "bias"):
            self._combine(reader, name, operator.mul, factor, alone=name == "weight")
        return self._fold(reader)

    def _take_term(self):
        reader, term = self._reader("add")
        term = self._per_plane(reader, term)
        if term is None:
            return False
        self._combine(reader, "bias", operator.add, term, alone=True)
        return self._fold(reader)

    def _combine(self, reader, name, function, other, alone):
        """A parameter of the norm, with what is done to its output. `alone`: where it has none, that is the parameter."""
        given = self._settings.get(name)
        if given is None:
            if alone:
                self._settings[name] = other
            return
        with self._graph.inserting_before(reader):
            made = self._graph.call_function(function, (given, other))
        made.meta = dict(other.meta) | {"example_value": function(value(given), value(other))}
        self._settings[name] = made

    def _fold(self, reader):
        """The norm in place of what reads it."""
        node = self._node
        target = functional.instance_norm if node.target is F.instance_norm else node.target
        with self._graph.inserting_before(reader):
            arguments = node.args[: 2 if target is functional.layer_instance_norm else 1]
            self._node = self._graph.call_function(target, arguments, dict(self._settings))
        self._replace(reader, self._node)
        return True

    def _replace(self, reader, made):
        made.meta = dict(reader.meta)
        reader.replace_all_uses_with(made)
        self._sweep(made)

    def _reader(self, *names):
        """What reads the norm, if that is one of those and the only one; and the other tensor that it takes."""
        users = list(self._node.users)
        if len(users) != 1 or _name(users[0]) not in names or value(users[0]).shape != value(self._node).shape:
            return None, None
        arguments = [argument for argument in users[0].args if argument is not self._node]
        return (users[0], arguments[0]) if len(arguments) == 1 and not users[0].kwargs else (None, None)

    def _per_plane(self, reader, tensor):
        """A tensor as (C,) or (N, C), for a call in place of the reader; None where it is none of the planes."""
        if reader is None or not isinstance(tensor, Node):
            return None
        with self._graph.inserting_before(reader):
            return _per_plane(self._graph, tensor, self._map)

    def _join_factors(self):
        """`norm * factor` for `norm + norm * gamma` and for `addcmul(beta, norm, factor)`."""
        users = list(self._node.users)
        scaled = next((user for user in users if _name(user) == "mul"), None)
        if len(users) == 2 and scaled is not None:
            (sum,) = (user for user in users if user is not scaled)
            if _name(sum) != "add" or set(sum.args) != {self._node, scaled} or len(scaled.users) > 1:
                return
            (gamma,) = (argument for argument in scaled.args if argument is not self._node)
            self._multiply(sum, self._called(sum, operator.add, gamma, 1))
        if len(users) == 1 and _name(users[0]) == "addcmul" and len(users[0].args) == 3 and not users[0].kwargs:
            beta, *factors = users[0].args
            if self._node in factors and beta is not self._node:
                (factor,) = (factor for factor in factors if factor is not self._node)
                product = self._called(users[0], operator.mul, self._node, factor)
                self._replace(users[0], self._called(users[0], operator.add, product, beta))

    def _multiply(self, reader, factor):
        self._replace(reader, self._called(reader, operator.mul, self._node, factor))

    def _called(self, reader, function, first, second):
        with self._graph.inserting_before(reader):
            made = self._graph.call_function(function, (first, second))
        numbers = [value(argument) if isinstance(argument, Node) else argument for argument in (first, second)]
        made.meta = dict(reader.meta) | {"example_value": function(*numbers)}
        return made

    def _take_pixels(self):
        """norm * (1 + gamma) + beta, of maps."""
        reader, factor = self._reader("mul")
        gamma = _one_less(factor)
        plain = self._node.target in (functional.instance_norm, F.instance_norm) and self._settings.get("weight") is None
        if gamma is None or not plain or self._settings.get("eps_mode", "var") != "var":
            return
        users = list(reader.users)
        if len(users) != 1 or _name(users[0]) != "add" or len(users[0].args) != 2 or users[0].kwargs:
            return
        beta = users[0].args[1] if users[0].args[0] is reader else users[0].args[0]
        maps = gamma, beta
        if any(not isinstance(map, Node) or value(map).shape != value(self._node).shape for map in maps):
            return
        settings = {name: self._settings[name] for name in ("eps", "correction") if name in self._settings}
        self._put_pixels(users[0], (self._map, *maps), settings)

    def _put_pixels(self, reader, maps, settings):
        followers = list(reader.users)
        if len(followers) == 1 and (activation := _activation(followers[0])) is not None:
            (reader,), settings = followers, settings | activation
        with self._graph.inserting_before(reader):
            made = self._graph.call_function(functional.spatially_adaptive_norm, maps, settings)
        self._replace(reader, made)

    def _take_alpha(self):
        """alpha * norm + (1 - alpha) * map, by numbers: AdaIN's trade-off."""
        settings = self._settings
        parameters = settings.get("weight"), settings.get("bias")
        if self._node.target is not functional.instance_norm or None in parameters:
            return
        found = self._blended()
        if found is None:
            return
        reader, alpha = found
        rule = {name: settings[name] for name in ("eps", "correction", "eps_mode") if name in settings}
        arguments = self._map, (settings["bias"], settings["weight"]), alpha
        with self._graph.inserting_before(reader):
            made = self._graph.call_function(functional.adain, arguments, rule)
        self._replace(reader, made)

    def _blended(self):
        reader, alpha = self._reader("mul")
        if reader is not None and isinstance(alpha, (int, float)) and len(reader.users) == 1:
            (sum,) = reader.users
            others = [argument for argument in sum.args if argument is not reader]
            if _name(sum) == "add" and len(others) == 1 and _name(others[0]) == "mul" and not sum.kwargs:
                rest = [argument for argument in others[0].args if argument is not self._map]
                if len(rest) == 1 and isinstance(rest[0], (int, float)) and isclose(alpha + rest[0], 1, abs_tol=1e-9):
                    return sum, float(alpha)
        return None


def _settings(node):
    """Of a norm by its own statistics, by name; None for others."""
    if node.target is not F.instance_norm:
        return dict(node.kwargs)
    names = "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"
    settings = dict(zip(names, node.args[1:])) | dict(node.kwargs)
    if settings.get("running_mean") is not None or not settings.get("use_input_stats", True):
        return None
    return {name: settings[name] for name in ("weight", "bias", "eps") if settings.get(name) is not None}


def _per_plane(graph, tensor, map):
    while _name(tensor) in ("expand", "expand_as"):
        tensor = tensor.args[0]
    flat = _flat(value(tensor).shape, map)
    if flat is None or value(tensor).dtype != value(map).dtype:
        return None
    return reshaped(graph, tensor, flat)


def _flat(shape, map):
    """(C,) or (N, C), for a shape that broadcasts a number over each plane; None for others."""
    n, c, *size = value(map).shape
    leading, trailing = tuple(shape[: len(shape) - len(size)]), tuple(shape[len(shape) - len(size) :])
    if any(length != 1 for length in trailing):
        return None
    return (c,) if leading in ((c,), (1, c)) else (n, c) if leading == (n, c) else None


def _one_less(factor):
    if _name(factor) != "add" or len(factor.args) != 2:
        return None
    first, second = factor.args
    return second if first in (1, 1.0) else first if second in (1, 1.0) else None


def _activation(node):
    """The arguments of a norm that activates, for one; None for what is none."""
    try:
        parts = reading_of(node).parts
    except Unfused:
        return None
    if len(parts) != 1 or not isinstance(parts[0], Activation):
        return None
    return dict(activation=parts[0].name, negative_slope=parts[0].negative_slope)


def _divide_first(graph, node, meanings):
    """s * ((map - mean) / std) for (s * (map - mean)) / std."""
    if _name(node) != "truediv" or _name(node.args[0]) != "mul" or meanings.get(node.args[1]) is None:
        return
    product, deviation = node.args
    centered = [factor for factor in product.args if (meaning := meanings.get(factor)) and meaning.kind == "centered"]
    if len(centered) != 1 or meanings[deviation].kind != "std" or meanings[deviation].of is not meanings[centered[0]].of:
        return
    (other,) = (factor for factor in product.args if factor is not centered[0])
    with graph.inserting_before(node):
        normed = graph.call_function(operator.truediv, (centered[0], deviation))
    normed.meta = dict(centered[0].meta)
    meanings.read(normed)
    node.target, node.args = operator.mul, (normed, other)


# Norms of torch by which people write others.


def _instance_norm_by_batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):
    """Of a map reshaped to one sample, with running statistics that nobody keeps."""
    view = input
    if not training or _name(view) not in ("view", "reshape") or any(_is_kept(node) for node in (running_mean, running_var)):
        return None
    map = view.args[0]
    while _name(map) == "contiguous":
        map = map.args[0]
    n, c, *size = value(map).shape
    if tuple(value(view).shape) not in ((1, n * c, *size), (1, n * c, prod(size))) or not size:
        return None
    return functional.instance_norm, map, dict(weight=weight, bias=bias, eps=eps), (n, c)


def _is_kept(statistic):
    if statistic is None:
        return False
    return _name(statistic) not in ("repeat", "clone", "zeros", "ones") or len(statistic.users) > 1


def _norm_by_group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    channels = value(input).shape[1]
    if value(input).dim() < 3 or num_groups not in (channels, 1):
        return None
    function = functional.instance_norm if num_groups == channels else layer_norm
    return function, input, dict(weight=weight, bias=bias, eps=eps), (channels,)


def _norm_by_layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    shape = tuple(value(input).shape)
    if len(shape) < 3 or tuple(normalized_shape) != shape[1:] or weight is not None or bias is not None:
        return None
    return layer_norm, input, dict(eps=eps), ()


_BY_OTHER_NAMES = {
    F.batch_norm: _instance_norm_by_batch_norm,
    F.group_norm: _norm_by_group_norm,
    F.layer_norm: _norm_by_layer_norm,
}
