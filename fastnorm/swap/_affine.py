"""What is done to a normalised map: factors, terms and an activation are taken into the norm, one after the other."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import isclose

import torch.nn.functional as F
from torch.fx import Graph, Node

from .. import functional
from ..nn._layer_norm import layer_norm
from ..nn._recognise import Activation, Unfused
from ._in_place import in_one_epoch
from ._meanings import flat_per_plane, function_of
from ._parts import reading_of, reshaped, value

AFFINE = (functional.instance_norm, functional.layer_instance_norm, layer_norm, F.instance_norm)


class Affine:
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
        if len(users) != 1 or function_of(users[0]) not in names or value(users[0]).shape != value(self._node).shape:
            return None, None
        if not in_one_epoch(self._node, users[0]):
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
        if not in_one_epoch(self._node, *users):
            return
        scaled = next((user for user in users if function_of(user) == "mul"), None)
        if len(users) == 2 and scaled is not None:
            (sum,) = (user for user in users if user is not scaled)
            gammas = [argument for argument in scaled.args if argument is not self._node]
            if function_of(sum) != "add" or set(sum.args) != {self._node, scaled} or sum.kwargs or len(scaled.users) > 1:
                return
            if len(gammas) != 1 or scaled.kwargs:
                return
            self._multiply(sum, self._called(sum, operator.add, gammas[0], 1))
        if len(users) == 1 and function_of(users[0]) == "addcmul" and len(users[0].args) == 3 and not users[0].kwargs:
            beta, *factors = users[0].args
            others = [factor for factor in factors if factor is not self._node]
            if len(others) == 1 and beta is not self._node:
                product = self._called(users[0], operator.mul, self._node, others[0])
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
        bare = self._settings.get("weight") is self._settings.get("bias") is None
        plain = self._node.target in (functional.instance_norm, F.instance_norm) and bare
        if gamma is None or not plain or self._settings.get("eps_mode", "var") != "var":
            return
        users = list(reader.users)
        if len(users) != 1 or function_of(users[0]) != "add" or len(users[0].args) != 2 or users[0].kwargs:
            return
        if not in_one_epoch(reader, users[0]):
            return
        beta = users[0].args[1] if users[0].args[0] is reader else users[0].args[0]
        maps = gamma, beta
        if any(not isinstance(map, Node) or value(map).shape != value(self._node).shape for map in maps):
            return
        settings = {name: self._settings[name] for name in ("eps", "correction") if name in self._settings}
        self._put_pixels(users[0], (self._map, *maps), settings)

    def _put_pixels(self, reader, maps, settings):
        followers = list(reader.users)
        activation = _activation(followers[0]) if len(followers) == 1 and in_one_epoch(reader, *followers) else None
        if activation is not None:
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
            if not in_one_epoch(reader, sum):
                return None
            if function_of(sum) == "add" and len(others) == 1 and function_of(others[0]) == "mul" and not sum.kwargs:
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
    while function_of(tensor) in ("expand", "expand_as"):
        tensor = tensor.args[0]
    flat = flat_per_plane(value(tensor).shape, map)
    if flat is None or value(tensor).dtype != value(map).dtype:
        return None
    return reshaped(graph, tensor, flat)


def _one_less(factor):
    if function_of(factor) != "add" or len(factor.args) != 2 or factor.kwargs:
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
