"""Normalisations written out: means, deviations and arithmetic on planes, read as the norms that they amount to.

A normalised map (`_meanings`) becomes a call of `functional.instance_norm`, or of `layer_norm` or
`functional.layer_instance_norm` where whole samples come in; what is then multiplied and added becomes its weight and bias,
or per pixel that of `functional.spatially_adaptive_norm` (`_affine`). Statistics that something else needs come from
`functional.instance_stats`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from torch.fx import Graph

from .. import functional
from ..nn._layer_norm import layer_norm
from ..nn._recognise import Unfused
from ._affine import AFFINE, Affine
from ._in_place import in_one_epoch
from ._meanings import PLANE, STATISTICS, Meanings, function_of
from ._parts import reshaped, value


def recognise_norms(graph: Graph, sweep: Callable[[], None]) -> None:
    _put_plain_norms(graph)
    meanings = Meanings()
    for node in list(graph.nodes):
        _divide_first(graph, node, meanings)
        meanings.read(node)
    for node in reversed(list(graph.nodes)):
        meaning = meanings.get(node)
        if meaning is not None and meaning.kind in ("normed", "blend") and node.users and node.target not in AFFINE:
            try:
                sweep(_replace(graph, node, meaning))
            except Unfused:
                continue
    _put_statistics(graph, meanings, sweep)
    for node in list(graph.nodes):
        if node.target in AFFINE and node.users:
            Affine(graph, node, sweep).take()


def _divide_first(graph, node, meanings):
    """s * ((map - mean) / std) for (s * (map - mean)) / std."""
    if function_of(node) != "truediv" or len(node.args) != 2 or node.kwargs:
        return
    if function_of(node.args[0]) != "mul" or meanings.get(node.args[1]) is None:
        return
    if not in_one_epoch(node, *node.all_input_nodes):
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


# What takes their place.


def _put_plain_norms(graph):
    """torch's norms of other names that amount to these."""
    for node in list(graph.nodes):
        rule = _BY_OTHER_NAMES.get(node.target)
        try:
            found = rule and rule(*node.args, **node.kwargs)
            if found and (found[1] is node.args[0] or in_one_epoch(node, node.args[0])):
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
    for view in [user for user in node.users if function_of(user) in ("view", "reshape", "view_as", "reshape_as")]:
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
            of_map.setdefault((meaning.of, node.meta.get("epoch")), []).append(node)
    for (map, _), nodes in of_map.items():
        rules = [meanings[node].rule for node in nodes if meanings[node].kind != "mean"]
        if rules and all(rule == rules[0] for rule in rules):
            try:
                sweep(_put_pair(graph, map, nodes, meanings, rules[0]))
            except Unfused:
                continue


def _is_expanded(node):
    return function_of(node) in ("expand", "expand_as")


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


# Norms of torch by which people write others.


def _instance_norm_by_batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):
    """Of a map reshaped to one sample, with running statistics that nobody keeps."""
    view = input
    if not training or function_of(view) not in ("view", "reshape") or _is_kept(running_mean) or _is_kept(running_var):
        return None
    map = view.args[0]
    while function_of(map) == "contiguous" and in_one_epoch(view, map):
        map = map.args[0]
    n, c, *size = value(map).shape
    if tuple(value(view).shape) not in ((1, n * c, *size), (1, n * c, prod(size))) or not size:
        return None
    return functional.instance_norm, map, dict(weight=weight, bias=bias, eps=eps), (n, c)


def _is_kept(statistic):
    if statistic is None:
        return False
    return function_of(statistic) not in ("repeat", "clone", "zeros", "ones") or len(statistic.users) > 1


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
