"""Convolutions with a filter per sample, read as `functional.dynamic_conv2d`, or as `functional.norm_conv_transpose2d`.

Public code has two ways to write them: as one convolution of all samples laid side by side, with a group for each; and
as a loop over samples, whose results are joined.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from .. import functional
from ..nn._recognise import Unfused
from ._in_place import in_one_epoch
from ._parts import reshaped, value


def recognise_samples(graph: Graph, sweep: Callable[[Node | None], None]) -> None:
    for node in list(graph.nodes):
        try:
            made = _take_side_by_side(graph, node) or _take_loop(graph, node)
        except (Unfused, TypeError, IndexError):
            made = None
        if made is not None:
            sweep(made)


# Samples side by side: (1, N * C, H, W) for (N, C, H, W).


def _take_side_by_side(graph, node):
    if node.target in _PLANE_BY_PLANE:
        map = _whole_batch(node.args[0])
        stays = node.target not in _PADS or len(node.args[1] if len(node.args) > 1 else node.kwargs["pad"]) <= 4
        if map is not None and value(node).dim() == 4 and stays and in_one_epoch(node, node.args[0]):
            return _put_side_by_side(graph, node, node.target, (map, *node.args[1:]), node.kwargs)
    elif node.target is torch.conv2d:
        return _put_convolution(graph, node, *_conv2d(*node.args, **node.kwargs))
    elif node.target is torch.conv_transpose2d:
        return _put_convolution(graph, node, *_conv_transpose2d(*node.args, **node.kwargs))


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    return functional.dynamic_conv2d, input, weight, bias, groups, 0, (stride, padding, dilation)


def _conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    return functional.norm_conv_transpose2d, input, weight, bias, groups, 1, (stride, padding, output_padding, dilation)


def _put_convolution(graph, node, function, input, weight, bias, groups, out_dim, settings):
    map = _whole_batch(input)
    if map is None or not in_one_epoch(node, input) or type(groups) is not int or groups % (n := value(map).shape[0]):
        return None
    # Groups come outermost among the filters, and samples outermost among the groups.
    filters, channels = value(weight).shape, value(node).shape[1] // n
    with graph.inserting_before(node):
        weight = reshaped(graph, weight, (n, filters[0] // n, *filters[1:]))
        bias = None if bias is None else reshaped(graph, bias, (n, channels))
    if function is functional.dynamic_conv2d:
        arguments = map, weight, bias, *settings, groups // n
    else:
        arguments = map, weight, bias, *settings[:3], groups // n, settings[3]
    return _put_side_by_side(graph, node, function, arguments, {})


def _put_side_by_side(graph, node, function, arguments, settings):
    """A call on the batch, laid side by side for those who read the node; who lays it out as a batch again, takes that."""
    n = value(arguments[0]).shape[0]
    _, channels, *size = value(node).shape
    with graph.inserting_before(node):
        made = graph.call_function(function, arguments, settings)
        made.meta = dict(node.meta) | {"example_value": value(node).reshape(n, channels // n, *size)}
        beside = graph.call_method("unsqueeze", (graph.call_method("flatten", (made, 0, 1)), 0))
        beside.meta = dict(node.meta)
    for reader in list(node.users):
        if reader.op == "call_method" and reader.target in ("view", "reshape") and value(reader).shape == value(made).shape:
            reader.replace_all_uses_with(made)
    node.replace_all_uses_with(beside)
    return made


def _whole_batch(node):
    """The batch (N, C, H, W), N > 1, of which a node is the view (1, N * C, H, W)."""
    if not (isinstance(node, Node) and node.op == "call_method" and node.target in ("view", "reshape", "unsqueeze")):
        return None
    map = node.args[0].args[0] if node.target == "unsqueeze" else node.args[0]
    if not isinstance(map, Node) or value(map).dim() != 4:
        return None
    n, c, *size = value(map).shape
    return map if n > 1 and tuple(value(node).shape) == (1, n * c, *size) else None


# What does to each plane the same, whatever stands beside it.
_PADS = F.pad, torch._C._nn.pad  # Of the last two dimensions.
_PLANE_BY_PLANE = (*_PADS, F.relu, F.leaky_relu, torch.relu, torch.sigmoid, torch.tanh, F.silu)


# A loop over samples.


def _take_loop(graph, node):
    if node.target is torch.cat and len(node.args) + len(node.kwargs) <= 2:
        samples, dim = node.args[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    elif node.target is torch.stack:
        samples, dim = node.args[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        samples = [_of_one(sample) for sample in samples]
    else:
        return None
    is_loop = len(samples) > 1 and dim == 0 and all(isinstance(sample, Node) for sample in samples)
    if not is_loop or any(sample.target is not torch.conv2d for sample in samples):
        return None
    with graph.inserting_before(node):
        made = _Loop(graph, node, len(samples)).batched(samples)
    node.replace_all_uses_with(made)
    return made


def _of_one(sample):
    """Without the squeeze that took its batch of one away."""
    if _is_view(sample) and value(sample.args[0]).dim() == 4 and value(sample.args[0]).shape[0] == 1:
        return sample.args[0]
    raise Unfused("no batch of one")


class _Loop:
    """What is done to one sample after the other, done to the batch."""

    def __init__(self, graph: Graph, joined: Node, count: int) -> None:
        self._graph, self._joined, self._count = graph, joined, count

    def batched(self, samples: list[Node]) -> Node:
        """The batch whose samples are these nodes, each a batch of one."""
        if not in_one_epoch(self._joined, *samples):
            raise Unfused("between samples something works in place")
        whole = self._whole(samples, lambda shape: (1, *shape[1:]))
        if whole is not None:
            return whole
        first = samples[0]
        if first.target not in _BY_SAMPLE or any(sample.target is not first.target for sample in samples):
            raise Unfused("samples go different ways")
        rule = self._convolution if first.target is torch.conv2d else self._same
        found = rule(samples)
        found.meta = dict(first.meta) | {"example_value": value(first).new_empty(self._count, *value(first).shape[1:])}
        return found

    def _same(self, samples):
        first = samples[0]
        if any((sample.args[1:], sample.kwargs) != (first.args[1:], first.kwargs) for sample in samples):
            raise Unfused("samples go different ways")
        input = self.batched([sample.args[0] for sample in samples])
        return self._graph.call_function(first.target, (input, *first.args[1:]), first.kwargs)

    def _convolution(self, samples):
        calls = [_conv2d(*sample.args, **sample.kwargs) for sample in samples]
        _, inputs, weights, biases, groups, _, settings = zip(*calls)
        if len(set(groups)) > 1 or len(set(settings)) > 1:
            raise Unfused("samples go different ways")
        input = self.batched(list(inputs))
        if len(set(weights)) == len(set(biases)) == 1:
            return self._graph.call_function(torch.conv2d, (input, weights[0], biases[0], *settings[0], groups[0]))
        weight = self._whole(list(weights), lambda shape: shape[1:])
        bias = None if set(biases) == {None} else self._whole(list(biases), lambda shape: shape[1:])
        if weight is None or (bias is None and set(biases) != {None}):
            raise Unfused("filters of no batch")
        return self._graph.call_function(functional.dynamic_conv2d, (input, weight, bias, *settings[0], groups[0]))

    def _whole(self, samples, shape_of_one):
        """The tensor that they are the samples of, in their order; None where there is none."""
        found = [_sample(node) for node in samples]
        wholes = {whole for whole, _ in found}
        if len(wholes) > 1 or None in wholes or [index for _, index in found] != list(range(self._count)):
            return None
        (whole,) = wholes
        shape = value(whole).shape
        same = all(value(node).shape == shape_of_one(shape) for node in samples)
        return whole if same and shape[0] == self._count else None


def _sample(node):
    """The tensor that a node is one sample of, and which; (None, None) for others."""
    while isinstance(node, Node) and _is_view(node):
        node = node.args[0]
    if not isinstance(node, Node) or node.target not in _BY_INDEX:
        return None, None
    whole, index = node.args[0], node.args[-1] if len(node.args) > 1 else None
    if node.target == "select":
        return (whole, node.args[2]) if node.args[1] == 0 else (None, None)
    if isinstance(whole, Node) and whole.target in _SPLITS:  # Into a tuple of samples.
        pieces, whole = whole, whole.args[0]
        dim = pieces.kwargs.get("dim", pieces.args[-1] if pieces.target in ("unbind", torch.unbind) else 0)
        return (whole, index) if dim == 0 or len(pieces.args) == 1 else (None, None)
    if isinstance(index, slice):
        return (whole, index.start or 0) if index.step is None and index.stop == (index.start or 0) + 1 else (None, None)
    return (whole, index) if type(index) is int else (None, None)


def _is_view(node):
    """A batch of one more, or less."""
    if node.op == "call_function" and node.target is operator.getitem:
        index = node.args[1]
        return index is None or (isinstance(index, tuple) and all(part in (None, Ellipsis, slice(None)) for part in index))
    return node.op == "call_method" and node.target in ("unsqueeze", "squeeze", "view", "reshape", "flatten")


_SPLITS = ("unbind", "chunk", "split", torch.unbind, torch.chunk, torch.split)
_BY_INDEX = (operator.getitem, "select", *_SPLITS)
_BY_SAMPLE = (torch.conv2d, F.instance_norm, *_PLANE_BY_PLANE)
