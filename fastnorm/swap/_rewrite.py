"""A graph of torch's functions, as torch.compile captures it, with a kernel a layer."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from ..nn._planner import Planner, Skip, Stream
from ..nn._recognise import Sum, Unfused
from ..nn._steps import Call, Convolve, Entering, Entry, Layer, ScaleShift, Step
from ..ops import norm_conv2d
from ._attention import recognise_attention
from ._in_place import Sweep, make_out_of_place, mark_epochs, may_change
from ._norms import recognise_norms
from ._parts import Operands, name_of, reading_of
from ._samples import recognise_samples
from ._volumes import put_volumes_channels_last


@dataclass(frozen=True)
class Choices:
    """What was found by measuring: names of the layers whose convolution or attention stays torch's, None where nothing
    was measured; whether that was with gradients; and whether volumes are brought to channels_last.
    """

    by_torch: frozenset[str] | None = None
    with_gradients: bool = False
    channels_last: bool = False

    def of(self, name: str) -> tuple[bool | None, bool]:
        return None if self.by_torch is None else name in self.by_torch, self.with_gradients


def rewrite(module: GraphModule, choices: Choices = Choices()) -> GraphModule:
    """The same function with fused layers; parameters are shared. `module` itself stays as it is."""
    graph = Graph()
    output = graph.graph_copy(module.graph, copies := {})
    graph.output(output)
    for node, copied in copies.items():
        copied.meta = node.meta
    sweep = Sweep(graph)
    if choices.channels_last:
        put_volumes_channels_last(graph)
    make_out_of_place(graph)
    mark_epochs(graph)
    recognise_samples(graph, sweep)
    recognise_attention(graph, sweep, choices.by_torch or frozenset())
    recognise_norms(graph, sweep)
    make_out_of_place(graph)
    sweep()
    steps = _Reader(graph).steps()
    return _Writer(module, choices).written(steps)


@dataclass
class Copy:
    """A call of the graph that stays as it is, and why; `maps` are those of the nodes that it takes."""

    node: Node
    output: int
    maps: dict[Node, int] = field(default_factory=dict)
    reason: str = ""


class _Reader:
    """What a planner makes of the calls of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._planner = graph, Planner()
        self._streams: dict[Node, Stream] = {}  # Those that nobody has read yet,
        self._skips: dict[Node, Skip] = {}  # what further readers read,
        self._maps: dict[Node, int] = {}  # those that lie in memory,
        self._sized: dict[Node, int] = {}  # and a map of the same size, for those that ask no more.

    def steps(self) -> list[Step | Copy]:
        for node in self._graph.nodes:
            try:
                self._take(node)
            except Unfused as reason:
                self._copy(node, str(reason))
        return self._planner.steps

    def _take(self, node):
        reading = reading_of(node)
        operands = self._written(reading.operands)
        if reading.residual is not None:
            stream = self._sum(node, reading)
        else:
            stream = self._stream_of(reading.input)
            for part in reading.parts:
                stream = self._planner.take(stream, Layer(name_of(node), _Source(node, operands), part))
        self._keep(node, stream)

    def _sum(self, node, reading):
        """One of the two is read as it is, the other goes on as a stream: the one with more to come on its way."""
        first, second = reading.input, reading.residual
        if self._is_pending(second) or not self._is_pending(first):
            first, second = second, first
        added = self._map_of(second)
        stream = self._stream_of(first)
        layer = Layer(name_of(node), _Source(node, Operands()), Sum())
        return self._planner.add(stream, Skip(stream, added), layer)

    def _is_pending(self, node):
        stream = self._streams.get(node)
        return stream is not None and stream.adds and not stream.entry.bare

    def _written(self, operands):
        """With maps in place of nodes."""
        tensors = [None if tensor is None else self._map_of(tensor) for tensor in operands.tensors]
        names = "weight", "bias", "running_mean", "running_var", "rho"
        return Operands(**vars(operands) | dict(zip(names, tensors)))

    def _keep(self, node, stream):
        readers = list(node.users)
        if not stream.upsampling and not stream.padding:
            self._sized[node] = stream.entry.map
            readers = [reader for reader in readers if not _asks_size(reader)]
        if len(readers) > 1:
            stream, self._skips[node] = self._planner.split(stream)
        self._streams[node] = stream

    def _stream_of(self, node):
        """For a reader that does something to it."""
        if node in self._streams:
            return self._streams.pop(node)
        return Stream(Entry(self._map_of(node)))

    def _map_of(self, node):
        """For a reader that takes it as it is."""
        if node not in self._maps:
            if node in self._skips:
                self._maps[node] = self._planner.settle(self._skips[node])
            else:
                written = self._planner.write(self._streams.pop(node), "what follows runs as it is")
                self._maps[node] = written.entry.map
        return self._maps[node]

    def _size_of(self, node):
        return self._sized[node] if node in self._sized else self._map_of(node)

    def _copy(self, node, reason):
        if may_change(node):
            self._settle_all()
        map_of = self._size_of if _asks_size(node) else self._map_of
        maps = {input: map_of(input) for input in node.all_input_nodes}
        step = Copy(node, self._planner.new_map(), maps, reason)
        self._planner.steps.append(step)
        self._maps[node] = step.output

    def _settle_all(self):
        """Nothing is put off beyond a call that may change what it depends on."""
        for node in list(self._streams):
            self._map_of(node)
        for skip in self._skips.values():
            self._planner.settle(skip)


def _asks_size(node):
    return node.op == "call_method" and node.target in ("size", "dim")


@dataclass(frozen=True)
class _Source:
    """What a layer of a graph has in place of a module: the call itself, and its operands as maps."""

    node: Node
    operands: Operands

    @property
    def kind(self) -> str:
        return getattr(self.node.target, "__name__", str(self.node.target))

    def __getattr__(self, name):
        return getattr(self.operands, name)


# Least channels, in and out, from which on oneDNN's convolution with its backward is ahead of the ones here. Measured on two
# threads of an AVX-512 Xeon, 3x3, times of torch over those of fastnorm: 32 channels 1.15, 64 1.00, 128 0.85, 256 0.90;
# 64 to 128 with stride 2 1.10; 3 to 32 of 9x9 1.36 and 32 to 3 3.7; upsampled before 1.2 to 1.8; of 1x1, 256 channels 0.51.
LEAST_IN_TRAINING = 64
# Of volumes, forward: 32 to 32 channels at 96^3 0.84, 64 to 32 0.87, 64 to 64 at 48^3 0.98, 1 to 32 3.5; of 1x1x1, 32 to 3,
# 2.6; transposed by 2x2x2, 64 to 32, 4.7.
LEAST_OF_VOLUMES = 32


class Fused(nn.Module):
    """A step of a plan as a module of a graph, which gives it all its tensors."""

    def __init__(self, step: Convolve | ScaleShift, by_torch: bool | None = None, with_gradients: bool = False) -> None:
        """by_torch: whether its convolution is torch's; None where that was not measured, with gradients or without."""
        super().__init__()
        self.step, self.by_torch, self.with_gradients = step, by_torch, with_gradients
        step.prepare()

    @property
    def name(self) -> str:
        return self.step.layer.name

    @property
    def has_choice(self) -> bool:
        """Whether torch has a convolution for it: of filters that samples share."""
        return isinstance(self.step, Convolve) and not self.step.layer.module.per_sample

    def forward(
        self,
        input: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        norm_weight: Tensor | None = None,
        norm_bias: Tensor | None = None,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        rho: Tensor | None = None,
        mean: Tensor | None = None,
        rstd: Tensor | None = None,
        residual: Tensor | None = None,
    ):
        statistics = None if mean is None else (mean, rstd)
        entering = Entering(input, norm_weight, norm_bias, running_mean, running_var, rho, statistics, residual)
        if weight is None:
            return self.step.entry.written(entering)
        differentiated = norm_conv2d.is_differentiated(
            (input, weight, bias, norm_weight, norm_bias, rho, mean, residual)
        )
        by_torch = self.by_torch
        if by_torch is None or differentiated != self.with_gradients:
            by_torch = self._is_ahead(weight, differentiated)
        output, statistics, entered = self.step.computed(entering, weight, bias, differentiated, by_torch)
        return output, *(statistics or (None, None)), entered

    def _is_ahead(self, weight, differentiated):
        """Whether torch's convolution is, where that was not measured."""
        if not self.has_choice or self.step.upsampling or weight.device.type != "cpu":
            return False
        channels, kernel = min(weight.shape[:2]), weight.shape[2:]
        if len(kernel) == 3:
            is_dense = channels >= LEAST_OF_VOLUMES and max(kernel) > 1 and not self.step.layer.part.transposed
            return differentiated or is_dense
        return differentiated and (channels >= LEAST_IN_TRAINING or max(kernel) == 1)

    def extra_repr(self) -> str:
        words = ", ".join(written.words for written in self.step.written(_UnknownSizes()))
        return f"{words}, by torch" if self.by_torch else words


def layers_of(step: Step) -> list[Layer]:
    """All that a step does, in order."""
    if isinstance(step, ScaleShift):
        return step.entry.layers
    after = [] if step.activation is None else [step.activation]
    return [*step.entry.layers, *step.upsampling, *step.padding, step.layer, *after]


class _UnknownSizes(dict):
    def __missing__(self, key):
        return None


class _Writer:
    """A graph from steps."""

    def __init__(self, module: GraphModule, choices: Choices) -> None:
        self._graph, self._choices = Graph(), choices
        self._attributes = {
            node.target: attrgetter(node.target)(module)
            for node in module.graph.nodes
            if node.op in ("get_attr", "call_module")
        }
        self._nodes: dict[int, Node] = {}
        self._statistics: dict[int, tuple[Node, Node]] = {}

    def written(self, steps: list[Step | Copy]) -> GraphModule:
        for step in steps:
            if isinstance(step, Copy):
                self._nodes[step.output] = self._copied(step.node, step.maps)
                self._nodes[step.output].meta.setdefault("reason", step.reason)
            elif isinstance(step, Call):
                node = step.layer.module.node
                operands = zip(node.all_input_nodes, [step.input])
                self._nodes[step.output] = self._copied(node, dict(operands))
                self._nodes[step.output].meta["reason"] = step.reason
            elif isinstance(step, ScaleShift):
                self._nodes[step.output] = self._fused(step, None, None)
            else:
                self._convolution(step)
        self._graph.lint()
        return GraphModule(self._attributes, self._graph)

    def _copied(self, node, maps):
        copied = self._graph.node_copy(node, lambda input: self._nodes[maps[input]])
        # torch's instance norm loses channels_last, after which code may say view; here the layout stays.
        if copied.target == "view" and not isinstance(copied.args[-1], torch.dtype):
            copied.target = "reshape"
        return copied

    def _convolution(self, step):
        conv = step.layer.module
        found = self._fused(step, self._node(conv.weight), self._node(conv.bias))
        self._nodes[step.output] = self._part(found, 0)
        if step.statistics is not None:
            self._statistics[step.output] = self._part(found, 1), self._part(found, 2)
        if step.entered is not None:
            self._nodes[step.entered] = self._part(found, 3)

    def _part(self, found, index):
        return self._graph.call_function(operator.getitem, (found, index))

    def _fused(self, step, weight, bias):
        entry, norm = step.entry, (None,) * 5
        if entry.norm is not None:
            norm = map(self._node, entry.norm.module.operands.tensors)
        mean, rstd = self._statistics.get(entry.map, (None, None)) if entry.takes_statistics else (None, None)
        name = f"fused_{len(self._graph.nodes)}"
        self._attributes[name] = Fused(step, *self._choices.of(step.layer.name))
        arguments = self._nodes[entry.map], weight, bias, *norm, mean, rstd, self._node(entry.residual)
        made = self._graph.call_module(name, arguments)
        sources = [layer.module.node for layer in layers_of(step)]
        made.meta["origins"] = tuple(dict.fromkeys(origin for node in sources for origin in node.meta.get("origins", ())))
        return made

    def _node(self, map):
        return None if map is None else self._nodes[map]
