"""The forward of a model as torch.compile captures it and `rewrite` changes it, and what is measured of it."""

from __future__ import annotations

import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_aggregate

from .. import functional
from ..nn._recognise import hooks_of
from ._attention import written_out
from ._in_place import may_change
from ._parts import name_of
from ._rewrite import Choices, Fused, rewrite
from ._volumes import has_volumes


@dataclass
class Piece:
    """A graph as it was captured and as it was rewritten, and what it was called with. A whole model is one, or more."""

    before: GraphModule
    after: GraphModule
    arguments: tuple | None = None

    def __call__(self, *arguments):
        if self.arguments is None:
            self.arguments = arguments
        return self.after.forward(*arguments)

    def release(self) -> None:
        """Nothing is measured any more: what it was called with may go."""
        self.arguments = ()

    @property
    def fused(self) -> list[Fused]:
        return [module for module in self.after.children() if isinstance(module, Fused)]

    @property
    def attentions(self) -> set[str]:
        """Names of those that are exchanged."""
        return {name_of(node) for node in self.after.graph.nodes if node.target is functional.attention_stats}

    @property
    def has_volumes(self) -> bool:
        return has_volumes(self.before.graph)

    @property
    def gains(self) -> bool:
        return bool(self.fused) or any(is_ours(node) for node in self.after.graph.nodes)


def is_ours(node: Node) -> bool:
    """Whether it calls a function of fastnorm."""
    return (getattr(node.target, "__module__", None) or "").startswith("fastnorm")


class Capture:
    """A forward; captured for each kind of arguments when it is called with them, apart from every other capture of it.

    Args:
        forward: of a class, taking the module first.
        choices: of another capture of the same forward.
    """

    def __init__(self, forward: Callable, choices: Choices = Choices()) -> None:
        self.choices = choices
        self.pieces: list[Piece] | None = None
        self._forward = forward
        self._compile()

    def _compile(self):
        forward = self._forward

        def run(module, *args, **kwargs):
            return forward(module, *args, **kwargs)

        # What torch.compile has compiled, and how often, it counts by the code.
        run.__code__ = run.__code__.replace()
        self._run = torch.compile(run, backend=self._rewrite)
        self._hooks = None

    def __call__(self, module: nn.Module, *args, **kwargs):
        hooks = _hooks_in(module)
        if self._hooks is not None and self._hooks != hooks:
            self._compile()
        self._hooks = hooks
        with capturing:
            return self._run(module, *args, **kwargs)

    def _rewrite(self, before, example_inputs):
        after = rewrite(before, self.choices)
        if self.pieces is None:
            return after.forward
        self.pieces.append(Piece(before, after))
        return self.pieces[-1]

    def recorded(self, module: nn.Module, *args) -> list[Piece]:
        """The pieces of one call."""
        self.pieces = []
        self(module, *args)
        pieces, self.pieces = self.pieces, None
        return pieces


def _hooks_in(module):
    """Those of all its modules as they are now, which torch.compile does not look for: a third of a microsecond a module."""
    parts = [module]
    for part in parts:
        parts += [child for child in part._modules.values() if child is not None]
    return [tuple(hooks) for part in parts for hooks in hooks_of(part) if hooks]


class _Capturing:
    """Whether torch.compile looks at a module on behalf of this package; what it exchanged shows the original then."""

    def __init__(self) -> None:
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_) -> None:
        self.depth -= 1


capturing = _Capturing()


# Measurements. They are of the model as it stands: in training mode with gradients, else without.


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Runs leave nothing changed: attributes, tensors, gradients, random numbers. Training mode records gradients.

    Only what trains is not looked after: optimisers write to it, not a forward, and a copy of it may be large.
    """
    numbers = [(tensor, tensor.detach().clone()) for tensor in tensors_of(model) if not _is_trained(tensor)]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    contents = [(kept, kept.copy()) for kept in _kept(model)]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.set_grad_enabled(model.training):
        try:
            for parameter, _ in gradients:
                parameter.grad = None  # A backward would add to them in place.
            yield
        finally:
            for kept, was in contents:
                _put_back(kept, was)
            for tensor, was in numbers:
                _copy_back(tensor, was)
            for parameter, was in gradients:
                parameter.grad = was


def tensors_of(model: nn.Module) -> list[Tensor]:
    """Each once: parameters, buffers, and what modules have besides, in attributes or in a list or dict that is one."""
    values = [value for kept in _kept(model) for value in (kept.values() if isinstance(kept, dict) else kept)]
    found = [*model.parameters(), *model.buffers(), *(value for value in values if isinstance(value, Tensor))]
    return list({id(tensor): tensor for tensor in found}.values())


def _kept(model):
    """What holds the state of modules: their attributes, and those of them that are lists and dicts."""
    for module in model.modules():
        yield vars(module)
        yield from [value for value in vars(module).values() if type(value) in (list, dict, OrderedDict)]


def _put_back(kept, was):
    if isinstance(kept, list):
        kept[:] = was
        return
    for name in [name for name in kept if name not in was]:
        del kept[name]
    kept.update(was)


def _is_trained(tensor):
    return isinstance(tensor, nn.Parameter) and tensor.requires_grad


def _copy_back(tensor, was):
    """What has not changed is not written to: a graph may hold it, and to one of inference mode only that mode writes."""
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.is_meta or (tensor.layout == torch.strided and tensor.equal(was)):
            return
        tensor.copy_(was)


def copied(inputs):
    """Inputs of their own for runs that may write to them, or leave gradients."""
    return map_aggregate(inputs, lambda value: _own(value) if isinstance(value, Tensor) else value)


def _own(tensor):
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def in_turns(calls: dict[str, Callable[[], object]], seconds: float, least: int = 3, most: int = 15) -> dict[str, float]:
    """Median seconds of each, taken in turns after a call that does not count, for about so long."""
    found = {name: [] for name in calls}
    for call in calls.values():
        _timed(call)
    start = time.perf_counter()
    for turn in range(most):
        if turn >= least and time.perf_counter() - start > seconds:
            break
        for name, call in calls.items():
            found[name].append(_timed(call))
    return {name: statistics.median(times) for name, times in found.items()}


def _timed(call):
    _wait()
    start = time.perf_counter()
    call()
    _wait()
    return time.perf_counter() - start


def _wait():
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def with_gradients(call: Callable) -> Callable[[], None]:
    """The call, and the backward of its sum where gradients are recorded."""

    def run():
        outputs = [output for output in _tensors(call()) if output.requires_grad]
        if outputs and torch.is_grad_enabled():
            torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])

    return run


def _tensors(value):
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


class _Layers(Interpreter):
    """A graph, call by call."""

    def __init__(self, module: GraphModule, on_call: Callable[[Node, Callable], None]) -> None:
        super().__init__(module)
        self._on_call = on_call

    def run_node(self, node):
        if node.op in ("call_function", "call_method", "call_module"):
            args, kwargs = self.fetch_args_kwargs_from_env(node)
            apart = _copied if may_change(node) else _apart

            def call(target=node.target):
                return getattr(self, node.op)(target, map_aggregate(args, apart), kwargs)

            self._on_call(node, call)
        return super().run_node(node)


def _apart(value):
    """A tensor without what it was made of, so that a backward ends there."""
    if not isinstance(value, Tensor) or not torch.is_grad_enabled():
        return value
    return value.detach().requires_grad_(value.requires_grad)


def _copied(value):
    """What is written to stays as it was for the next call."""
    return _apart(value).clone() if isinstance(value, Tensor) else value


OURS, TORCH = False, True


def choose_torch(piece: Piece, seconds: float) -> set[str]:
    """The names of the layers whose convolution or attention is slower here than torch's; a little slower does not count."""
    slower = set()

    def is_slower(calls):
        found = in_turns({who: with_gradients(call) for who, call in calls.items()}, seconds, most=9)
        return found[TORCH] < 0.95 * found[OURS]

    def compare(node, call):
        if node.target is functional.attention_stats and is_slower({OURS: call, TORCH: partial(call, written_out)}):
            slower.add(name_of(node))
        module = piece.after.get_submodule(node.target) if node.op == "call_module" else None
        if not isinstance(module, Fused) or not module.has_choice:
            return
        module.with_gradients = torch.is_grad_enabled()
        module.by_torch = is_slower({who: _chosen(module, who, call) for who in (OURS, TORCH)})
        if module.by_torch:
            slower.add(module.name)

    _Layers(piece.after, compare).run(*piece.arguments)
    piece.release()
    return slower


def _chosen(module, by_torch, call):
    def run():
        module.by_torch = by_torch
        return call()

    return run


def seconds_by_call(module: GraphModule, arguments: tuple, rounds: int = 5) -> dict[str, float]:
    """The median time of each call of a graph, by name."""
    found: dict[str, list[float]] = {}

    def time_it(node, call):
        found.setdefault(node.name, []).append(_timed(with_gradients(call)))

    for _ in range(rounds + 1):
        _Layers(module, time_it).run(*arguments)
    return {name: statistics.median(times[1:]) for name, times in found.items()}
