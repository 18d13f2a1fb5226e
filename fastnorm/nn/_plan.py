"""The plan of a chain: its modules taken in, and the steps that come of them."""

from __future__ import annotations

import re
from copy import copy

import torch
from torch import Tensor, nn

from ._planner import Planner, Stream
from ._recognise import Sum, Unfused, changed_in_place, children, global_hooks, is_known, parts_of, why_called
from ._steps import Call, Entry, Layer, Run, Step
from ._styles import takes_style


class Plan:
    """The steps of a chain, in order. `print` shows them as a table.

    With an input's shape, from `chain.plan(shape)`, it knows the sizes of all maps: `sizes` has them by number.
    """

    def __init__(self, root: nn.Module, steps: list[Step], output: int) -> None:
        self.name, self.steps, self.output = type(root).__name__, steps, output
        self.dtype = torch.float32
        self.sizes = dict.fromkeys([0] + [map for step in steps for map in step.writes])
        self._takes_style = takes_style(root)
        self._begins_with_maps = _begins_with_maps(steps)

    def of(self, input_shape: tuple[int, ...], dtype: torch.dtype) -> Plan:
        """The same plan, with the sizes that maps have for such an input."""
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{self.name}: dtype: expected one of torch, such as torch.float32, got {dtype!r}")
        plan = copy(self)
        plan.dtype, plan.sizes = dtype, {0: self._checked(input_shape)}
        for step in self.steps:
            try:
                plan.sizes.update(step.sizes(plan.sizes))
            except ValueError as error:
                raise self._named(step, error) from None
            if 0 in (plan.sizes[step.output] or ())[1:]:
                raise self._named(step, ValueError(f"expected a larger input than {tuple(input_shape)}"))
        return plan

    def _checked(self, input_shape):
        sizes = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
        whole = all(isinstance(size, int) and size >= 0 for size in sizes)
        if not whole or not sizes or (self._begins_with_maps and len(sizes) not in (3, 4)):
            raise ValueError(f"{self.name}: input_shape: expected (N, C, H, W) or (C, H, W), got {input_shape!r}")
        return (1, *sizes) if len(sizes) == 3 and self._begins_with_maps else sizes

    def run(self, root: nn.Module, input: Tensor, style=None) -> Tensor:
        if global_hooks():
            return root.one_by_one(input, style)
        if style is not None and not self._takes_style:
            raise ValueError(f"{self.name}: style: expected None, for none of its modules takes one")
        if self._begins_with_maps and not isinstance(input, Tensor):
            raise TypeError(f"{self.name}: input: expected a tensor, got {type(input).__name__}")
        if self._begins_with_maps and input.dim() == 3:
            return self._run(root, input.unsqueeze(0), _of_batch(style)).squeeze(0)
        return self._run(root, input, style)

    def _run(self, root, input, style):
        run = Run({0: input}, style, _differentiated(root, input))
        for step in self.steps:
            try:
                step.run(run)
            except (ValueError, TypeError, IndexError, RuntimeError) as error:
                raise self._named(step, error)
            for map in step.frees:
                del run.maps[map]
        return run.maps[self.output]

    def _named(self, step, error):
        """An error in one line, with the name of the layer; one that is more than its message stays as it is."""
        if type(error) not in (ValueError, TypeError, IndexError, RuntimeError):
            return error
        message = str(error)
        if not isinstance(step, Call):
            message = re.sub(r"^\w+: (?=[\w ]+: )", "", message)  # The function: the layer says more.
        layer = step.culprit(re.match(r"\w*", message).group())
        where = self.name if str(layer) == self.name else f"{self.name}: {layer}"
        return type(error)(f"{where}: {message}")

    def draw(self, path) -> None:
        """A picture of it, in a format by the path's suffix: .svg, .png, .pdf. It takes matplotlib.

        Raises ModuleNotFoundError without that, ValueError for another suffix.
        """
        from ._plan_picture import draw

        draw(self, path)

    def __str__(self) -> str:
        from ._plan_table import table

        return table(self)

    __repr__ = __str__


def _differentiated(root, input):
    return torch.is_grad_enabled() and (
        input.requires_grad or any(parameter.requires_grad for parameter in root.parameters())
    )


def _begins_with_maps(steps):
    """Whether an input of three dimensions is (C, H, W): where no module of another kind comes before the first kernel."""
    for step in steps:
        if not isinstance(step, Call):
            return True
        if not is_known(step.layer.module):
            break
    return False


def _of_batch(style):
    """An index, a mixture, a vector or a map, for the batch of one that goes with it."""
    if isinstance(style, dict):
        return {name: _of_batch(one) for name, one in style.items()}
    return style.unsqueeze(0) if isinstance(style, Tensor) and style.dim() in (0, 1, 3) else style


def make_plan(root: nn.Module) -> Plan:
    modules = _Modules(_shared(root))
    modules.take_children("", root.parts(), root)
    steps, output = modules.written()
    _free(steps, output)
    for step in steps:
        step.prepare()
    return Plan(root, steps, output)


def _free(steps, output):
    """A map is let go behind the step that reads it last, so that torch can give its memory to the next."""
    last = {}
    for step in steps:
        last.update(dict.fromkeys(step.writes + step.reads, step))
    for map, step in last.items():
        if map != output:
            step.frees.append(map)


def _shared(root):
    """Names of the modules that hold a parameter or buffer that another one holds too, and of that other one."""
    owners, shared = {}, {}
    for name, module in _leaves("", root.parts()):
        for tensor in (*module.parameters(), *module.buffers()):
            owner = owners.setdefault(id(tensor), name)
            if owner != name:
                shared[name] = owner
                shared.setdefault(owner, name)
    return shared


def _leaves(prefix, modules):
    for name, module in modules.items():
        inside = children(module)
        if inside is None:
            yield prefix + name, module
        else:
            yield from _leaves(f"{prefix}{name}.", inside)


class _Modules:
    """What a planner makes of modules that run one after the other."""

    def __init__(self, shared: dict[str, str]) -> None:
        self._planner = Planner()
        self._stream = Stream(Entry(self._planner.new_map()))
        self._shared, self._taken = shared, set()

    def written(self) -> tuple[list[Step], int]:
        """The steps, and the map that the last one writes."""
        output = self._planner.write(self._stream, "no convolution follows").entry.map
        return self._planner.steps, output

    def take_children(self, name: str, modules: dict[str, nn.Module], container: nn.Module) -> None:
        adds = getattr(container, "adds_input", False)
        if adds:
            # What works in place changes what is added, as in torch's own `x + block(x)`.
            for child, module in changed_in_place(name, modules)[0].items():
                self.take(child, module)
                self._taken.add(child)
            self._stream, skip = self._planner.split(self._stream)
        for child, module in modules.items():
            self.take(f"{name}.{child}" if name else child, module)
        if adds:
            self._stream = self._planner.add(self._stream, skip, Layer(name, None, Sum()))

    def take(self, name: str, module: nn.Module) -> None:
        if name in self._taken:
            return
        try:
            why_called(module)
            modules = children(module)
            if modules is not None:
                return self.take_children(name, modules, module)
            parts = parts_of(module)
            if parts and name in self._shared:
                raise Unfused(f"it shares its state with {self._shared[name]}")
        except Unfused as reason:
            self._stream = self._planner.call(self._stream, Layer(name, module), str(reason))
            return
        for part in parts:
            self._stream = self._planner.take(self._stream, Layer(name, module, part))
