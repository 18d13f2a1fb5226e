"""One call of an operator, and everybody who can answer it: fastnorm, its rivals, and the copy that sets the pace.

What `measure` asks of a case and its stage, the cases of whole networks in `networks.py` have as well.
"""

import importlib
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnorm import functional
from fastnorm.ops import backends
from fastnorm.ops._operator import Operator

from . import arithmetic
from .clock import Contender

FASTNORM = "fastnorm"
RIVALS = ("eager", "idiom", "compile")
LAYOUTS = ("nchw", "channels_last")

MOST_COPIES = 256  # Of a map so small that there the cache does not matter.

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class LeftOut(Exception):
    """A contender that cannot take part here, and why, in one line."""


def room_of(name: str):
    """What an operator or a network is measured against."""
    return importlib.import_module(f"fastnorm.benchmarks.{name}")


def layouts_of(shape: tuple[int, ...]) -> tuple[str, ...]:
    """channels_last exists for maps of two and three spatial dimensions."""
    return LAYOUTS if len(shape) in _CHANNELS_LAST else LAYOUTS[:1]


@dataclass(frozen=True)
class Case:
    """An operator, forward or backward, on maps of one shape (N, C, *), type and device.

    `kind` is one of those that its room in `benchmarks/` names, or empty.
    """

    operator: Operator
    backward: bool
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    kind: str = ""

    rivals = RIVALS
    leniency = 1

    @property
    def name(self) -> str:
        return f"{self.operator.name} {self.kind}".strip()

    @property
    def direction(self) -> str:
        return "backward" if self.backward else "forward"

    @property
    def copy_bytes(self) -> int:
        """What copying one map reads and writes."""
        return 2 * math.prod(self.shape) * self.dtype.itemsize

    @property
    def bytes(self) -> float:
        """What the operator must at least read and write."""
        return self.operator.bytes(torch.empty(self.shape, dtype=self.dtype, device="meta"), self.backward)

    @property
    def flops(self) -> int:
        """0 where its room counts none: then arithmetic is not the limit."""
        count = getattr(room_of(self.operator.name), "flops", None)
        return count(self.shape, self.kind, self.backward) if count else 0

    @property
    def work(self) -> float:
        """Bytes, or flops where there are so many that bytes are nothing beside them."""
        return self.flops or self.bytes

    @property
    def pace_work(self) -> int:
        return arithmetic.pace_flops(self.device) if self.flops else self.copy_bytes

    def layouts(self, name: str, wanted: tuple[str, ...]) -> list[str]:
        """Those of the wanted ones in which a contender runs."""
        return [layout for layout in wanted if layout in layouts_of(self.shape)]

    def stage(self) -> "Stage":
        return Stage(self)

    def facts(self) -> dict:
        return {
            "operator": self.operator.name,
            "kind": self.kind,
            "pass": self.direction,
            "shape": list(self.shape),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "kernels": {kernel: backends.which(kernel, self.device.type) for kernel in self.operator.kernels},
            **({"flops": self.flops} if self.flops else {"least_bytes": self.bytes}),
        }


class Stage:
    """The tensors of a case, its answer in float64, and the contenders that work on them.

    Each layout holds the same numbers.
    """

    remarks = ()

    def __init__(self, case: Case):
        self.case = case
        self._room = room_of(case.operator.name)
        self._sets = {}
        generator = torch.Generator(case.device).manual_seed(0)

        def make(*shape):
            return torch.randn(shape, generator=generator, device=case.device).to(case.dtype)

        self._arguments = self._room.arguments(make, case.shape, *filter(None, [case.kind]))
        exact = _changed(self._arguments, _double)
        with torch.set_grad_enabled(case.backward):
            exact = _leaves(exact) if case.backward else exact
            outputs = _call(case.operator.reference, exact)
        self._gradients = [make(*output.shape) for output in outputs] if case.backward else []
        self.expected = _differentiate(outputs, exact, self._gradients) if case.backward else outputs

    def pace(self) -> tuple[str, Contender]:
        return arithmetic.pace(self.case.dtype, self.case.device) if self.case.flops else ("copy", self.copy())

    def copy(self) -> Contender:
        """`out.copy_(x)` on CPU, `clone()` on a GPU: a map read and a map written."""
        input = next(
            value for value in self._arguments.values() if isinstance(value, Tensor) and value.shape == self.case.shape
        )
        turn = itertools.cycle([input.clone() for _ in range(self._copies())])
        copy = torch.clone if self.case.device.type == "cuda" else torch.empty_like(input).copy_
        return Contender(lambda: next(turn), copy)

    def contender(self, name: str, layout: str) -> Contender:
        function = self._function(name)
        sets = self._arguments_in(layout)
        turn = itertools.cycle(sets)
        if not self.case.backward:
            return Contender(lambda: next(turn), lambda arguments: _call(function, arguments))

        # A gradient comes in the type and layout of the output.
        outputs = _call(function, sets[0])
        gradients = itertools.cycle(
            [[torch.empty_like(o).copy_(g) for o, g in zip(outputs, self._gradients)] for _ in sets]
        )

        def prepare():
            arguments = next(turn)
            return _call(function, arguments), arguments, next(gradients)

        return Contender(prepare, lambda prepared: _differentiate(*prepared))

    def _function(self, name):
        if name == FASTNORM:
            return getattr(functional, self.case.operator.name)
        if name == "compile":
            return torch.compile(self._room.idiom, fullgraph=True, dynamic=False)
        return getattr(self._room, name)

    def _arguments_in(self, layout):
        """Copies of the arguments, to be taken in turn."""
        if layout not in self._sets:
            arguments = _changed(self._arguments, lambda value: self._in_layout(value, layout))
            copies = [_changed(arguments, Tensor.clone) for _ in range(self._copies())]
            self._sets[layout] = [_leaves(copy) if self.case.backward else self._frozen(copy) for copy in copies]
        return self._sets[layout]

    def _in_layout(self, value, layout):
        """Maps alone: filters lie as they are made."""
        is_map = value.dim() == len(self.case.shape)
        channels_last = _CHANNELS_LAST.get(value.dim()) if is_map and layout == "channels_last" else None
        return value if channels_last is None else value.contiguous(memory_format=channels_last)

    def _frozen(self, arguments):
        """A layer's own tensors, as parameters that nobody trains: something may be prepared of them once."""
        own = getattr(self._room, "PARAMETERS", ())
        return arguments | {name: torch.nn.Parameter(arguments[name], requires_grad=False) for name in own}

    def _copies(self):
        """Enough on a GPU that no call finds its input in the cache; on CPU a layer's input often is there."""
        if self.case.device.type != "cuda":
            return 1
        cache = torch.cuda.get_device_properties(self.case.device).L2_cache_size
        return max(1, min(MOST_COPIES, math.ceil(3 * cache / (self.case.copy_bytes / 2))))


@dataclass(frozen=True)
class Error:
    """How far results are from float64: the worst of the tensors. NaN and a wrong shape are infinitely far.

    `largest` and `mean` are absolute, `relative` is the largest over the largest number expected.
    """

    largest: float
    mean: float
    relative: float


def error(results, expected) -> Error:
    each = [_error(result, exact) for result, exact in zip(results, expected, strict=True)]
    return Error(*map(max, zip(*each)))


def _error(result, exact):
    if result.shape != exact.shape:
        return (math.inf,) * 3
    difference = (result.double() - exact).abs()
    largest, mean = difference.max().item(), difference.mean().item()
    return (math.inf,) * 3 if math.isnan(largest) else (largest, mean, largest / (exact.abs().max().item() or 1.0))


def _call(function, arguments):
    output = function(**arguments)
    return output if isinstance(output, tuple) else (output,)


def _differentiate(outputs, arguments, gradients):
    """The gradients of all arguments that have one."""
    inputs = [value for value in arguments.values() if isinstance(value, Tensor) and value.requires_grad]
    found = torch.autograd.grad(outputs, inputs, [g.to(o.dtype) for o, g in zip(outputs, gradients)], allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def _double(value):
    return value.double() if value.is_floating_point() else value


def _leaves(arguments):
    return _changed(arguments, lambda value: value.detach().requires_grad_(value.is_floating_point()))


def _changed(arguments, change):
    """The same call on changed tensors."""
    return {name: change(value) if isinstance(value, Tensor) else value for name, value in arguments.items()}
