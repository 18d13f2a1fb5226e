"""What works in place: made to write a result of its own where that is the same, and known where it is not."""

from __future__ import annotations

import inspect
import operator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from .. import functional
from ..nn._layer_norm import layer_norm

_METHODS = ("relu", "sigmoid", "tanh", "add", "sub", "mul", "div")

# What works in place, and what does the same to a result of its own.
_OUT_OF_PLACE = {
    **{f"{name}_": name for name in _METHODS},
    torch.relu_: torch.relu,
    torch.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
    F.leaky_relu_: F.leaky_relu,
    torch._C._nn.leaky_relu_: F.leaky_relu,  # Where torch.compile has found it.
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
# Those with an argument `inplace` of which that is done.
_WITH_ARGUMENT = F.relu, F.leaky_relu, F.silu

# What writes a new tensor, and hands on no view of another one.
_MAKERS = {
    torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
    F.instance_norm, F.batch_norm, F.layer_norm, F.group_norm, F.linear, torch._C._nn.linear, torch.cat, torch.bmm,
    torch.matmul, torch.relu, torch.sigmoid, torch.tanh, torch.add, torch.mul, torch.sub, torch.div, F.sigmoid, F.tanh,
    F.gelu, F.avg_pool2d, F.max_pool2d, torch.max_pool2d, operator.add, operator.sub, operator.mul, operator.truediv,
    operator.matmul, torch.softmax, F.softmax, "softmax", functional.instance_norm, functional.dynamic_conv2d,
    functional.layer_instance_norm, layer_norm, functional.spatially_adaptive_norm, *_METHODS, *_OUT_OF_PLACE.values(),
    *_WITH_ARGUMENT,
}  # fmt: skip


def make_out_of_place(graph: Graph) -> None:
    """Where the graph itself has made the tensor, and nobody holds a view of it."""
    _skip_dropouts(graph)
    place = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not _works_in_place(node) or not isinstance(node.args[0], Node):
            continue
        changed = node.args[0]
        before = [user for user in changed.users if place[user] < place[node]]
        if not all(map(_makes, (changed, *before))) or (node.target not in _WITH_ARGUMENT and _promotes(node)):
            continue
        if node.target in _WITH_ARGUMENT:
            node.args = node.args[: _place_of_inplace(node.target)]
            node.kwargs = {name: value for name, value in node.kwargs.items() if name != "inplace"}
        else:
            node.target = _OUT_OF_PLACE[node.target]
        changed.replace_all_uses_with(node, lambda user: place[user] > place[node])


def _skip_dropouts(graph):
    """Those that drop nothing may hand on their very input; where nobody else reads that, whether they do is all the same."""
    for node in list(graph.nodes):
        if node.target in _DROPOUTS and node.args and not _drops(*node.args, **node.kwargs):
            dropped = node.args[0]
            if dropped.target in _MAKERS and len(dropped.users) == 1:
                node.replace_all_uses_with(dropped)
                graph.erase_node(node)


def _drops(input, p=0.5, training=True, inplace=False):
    return p and training


_DROPOUTS = F.dropout, F.dropout2d, F.dropout3d


def _makes(node):
    return node.target in _MAKERS and not _asks_for_it(node)


def _promotes(node):
    """Whether a result of its own would be of another type than the tensor that is changed."""
    operands = [other.meta.get("example_value") if isinstance(other, Node) else other for other in node.args[:2]]
    try:
        return len(operands) > 1 and torch.result_type(*operands) != operands[0].dtype
    except TypeError:
        return True  # Not known.


def _works_in_place(node):
    if not node.args:
        return False
    return node.target in _OUT_OF_PLACE or (node.target in _WITH_ARGUMENT and bool(_asks_for_it(node)))


def _asks_for_it(node):
    at = _place_of_inplace(node.target) if node.op == "call_function" else None
    return node.kwargs.get("inplace") or (at is not None and len(node.args) > at and node.args[at])


@lru_cache(maxsize=None)
def _place_of_inplace(function):
    """Where the argument `inplace` of a function stands; None of one that has none."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None
    return names.index("inplace") if "inplace" in names else None


def may_change(node: Node) -> bool:
    """Whether it may write into tensors that were there before, or switch how those behind it are computed."""
    if node.op != "call_function":
        return node.op == "call_module" or (node.op == "call_method" and node.target.endswith("_"))
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.is_mutable
    name, module = getattr(node.target, "__name__", "_"), getattr(node.target, "__module__", None) or ""
    if node.target is getattr:
        return False
    if node.target in _OUT_OF_PLACE or name.endswith("_") or any(map(node.kwargs.get, ("out", "inplace"))):
        return True
    if module == "_operator":
        return name in ("setitem", "delitem") or (name.startswith("i") and not name.startswith(("index", "inv", "is_")))
    # Inlined bodies, operators of others, and switches such as that of gradients.
    switches = "enable" in name or "autocast" in name
    return switches or not module.startswith(("torch", "fastnorm", "math")) or bool(_asks_for_it(node))


def is_changed(node: Node) -> bool:
    """Whether anything may write into its tensor, or into a view of it."""
    views = [node]
    for view in views:
        if any(map(may_change, view.users)):
            return True
        views += [user for user in view.users if not _makes(user) and user not in views]
    return False


def mark_epochs(graph: Graph) -> None:
    """Between two calls that may change tensors, or how they are computed, lies an epoch: within it, order does not matter."""
    epoch = 0
    for node in graph.nodes:
        epoch += may_change(node)
        node.meta["epoch"] = epoch


def in_one_epoch(*nodes: Node) -> bool:
    return len({node.meta.get("epoch") for node in nodes}) == 1


class Sweep:
    """Erases what has lost its last reader, and does nothing besides. What never had one stays.

    A node tells by `origins` what calls it stands for; one that takes the place of others inherits theirs.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self._kept = graph, {node for node in graph.nodes if not node.users}
        for node in graph.nodes:
            node.meta["origins"] = (node.name,)

    def __call__(self, heir: Node | None = None) -> None:
        origins = []
        for node in reversed(self._graph.nodes):
            if not node.users and node not in self._kept and node.op != "placeholder" and not may_change(node):
                origins += node.meta.get("origins", ())
                self._graph.erase_node(node)
        if heir is not None:
            heir.meta["origins"] = tuple(dict.fromkeys((*heir.meta.get("origins", ()), *origins)))
