"""Volumes in channels_last: on a CPU torch's convolutions of those, which stay torch's, are faster in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

_CONVOLUTIONS = (torch.conv3d, torch.conv_transpose3d)


def has_volumes(graph: Graph) -> bool:
    """Whether the layout is worth a try."""
    return any(node.target in _CONVOLUTIONS for node in graph.nodes) and bool(_inputs(graph))


def put_volumes_channels_last(graph: Graph) -> None:
    """What comes in is brought to it, and what leaves has the layout that it had. Between, each call keeps what it gets."""
    inputs = _inputs(graph)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for input in inputs:
        with graph.inserting_after(placeholders[-1]):
            moved = graph.call_method("contiguous", (input,), {"memory_format": torch.channels_last_3d})
        moved.meta = dict(input.meta)
        input.replace_all_uses_with(moved, lambda user: user is not moved)
    (output,) = (node for node in graph.nodes if node.op == "output")
    for node in output.all_input_nodes:
        value = node.meta.get("example_value")
        if isinstance(value, Tensor) and value.dim() == 5 and value.is_contiguous():
            with graph.inserting_before(output):
                moved = graph.call_method("contiguous", (node,), {"memory_format": torch.contiguous_format})
            moved.meta = dict(node.meta)
            output.replace_input_with(node, moved)


def _inputs(graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "placeholder" and _is_volume(node.meta.get("example_value"))]


def _is_volume(value):
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.dim() == 5 and value.is_contiguous()
