"""How a chain is planned: modules are taken in one by one, and a convolution ends what can be done in one kernel.

What was taken in since the last one waits in a `Stream`: a map as it lies in memory, and what is to become of it on its way
into the next kernel: norm, sum, activation, then upsampling, then padding. What comes in another order, or has no
convolution behind it, is written first.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ._recognise import (
    Activation,
    Convolution,
    Norm,
    Padding,
    Sum,
    Unfused,
    Upsampling,
    changed_in_place,
    children,
    global_hooks,
    is_known,
    parts_of,
    why_called,
)
from ._steps import Call, Convolve, Entry, Layer, Run, ScaleShift, Step
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
    planner = _Planner(_shared(root))
    planner.take_children("", root.parts(), root)
    planner.write("no convolution follows")
    output = planner.stream.entry.map
    _free(planner.steps, output)
    for step in planner.steps:
        step.prepare()
    return Plan(root, planner.steps, output)


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


@dataclass
class _Skip:
    """The stream that a Residual adds: a map, once there is one."""

    map: int | None = None


@dataclass
class _Stream:
    entry: Entry
    upsampling: list[Layer] = field(default_factory=list)
    padding: list[Layer] = field(default_factory=list)
    # The convolution that makes the map, which may still do something to it on store.
    maker: Convolve | None = None
    # Those that begin at the entry, and wait for the convolution that writes it.
    skips: list[_Skip] = field(default_factory=list)

    @property
    def bare(self) -> bool:
        return self.entry.bare and not self.upsampling and not self.padding


class _Planner:
    def __init__(self, shared: dict[str, str]) -> None:
        self.steps: list[Step] = []
        self.stream = _Stream(Entry(0))
        self._shared, self._maps, self._taken = shared, 1, set()
        self._take = {
            Convolution: self._convolve,
            Norm: self._normalise,
            Activation: self._activate,
            Upsampling: self._upsample,
            Padding: self._pad,
        }

    # Modules.

    def take_children(self, name: str, modules: dict[str, nn.Module], container: nn.Module) -> None:
        adds = getattr(container, "adds_input", False)
        if adds:
            # What works in place changes what is added, as in torch's own `x + block(x)`.
            for child, module in changed_in_place(name, modules)[0].items():
                self.take(child, module)
                self._taken.add(child)
        skip = self._split() if adds else None
        for child, module in modules.items():
            self.take(f"{name}.{child}" if name else child, module)
        if adds:
            self._add(Layer(name, None, Sum()), skip)

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
            return self._call(Layer(name, module), str(reason))
        for part in parts:
            self._take[type(part)](Layer(name, module, part))

    # Parts.

    def _normalise(self, layer):
        if not self.stream.bare:
            self.write("a norm follows")
        stream, norm = self.stream, layer.part
        stream.entry.norm = layer
        maker = stream.maker
        if maker is not None and not norm.running:
            maker.statistics = norm
            maker.drops_bias = not maker.is_added and maker.activation is None and maker.layer.module.bias is not None

    def _activate(self, layer):
        stream = self.stream
        if stream.entry.activation is not None or stream.padding or stream.skips:
            self.write("an activation follows")
            stream = self.stream
        maker = stream.maker
        if stream.entry.bare and maker is not None and maker.activation is None and not maker.is_added:
            maker.activation = layer
        else:
            stream.entry.activation = layer

    def _upsample(self, layer):
        if self.stream.padding:
            self.write("an upsampling follows")
        self.stream.upsampling.append(layer)

    def _pad(self, layer):
        before = self.stream.padding
        if before and not before[0].part.mode == layer.part.mode == "zeros":
            self.write("another padding follows")
        self.stream.padding.append(layer)

    def _convolve(self, layer):
        if layer.part.padding == "same" and self.stream.padding:
            self.write("another padding follows")
        stream = self.stream
        step = Convolve(layer, stream.entry, self._new_map(), stream.upsampling, stream.padding)
        if stream.skips:
            step.entered = self._new_map()
            self._begin(stream.skips, step.entered)
        self.steps.append(step)
        self.stream = _Stream(Entry(step.output), maker=step)

    # The stream of a Residual.

    def _split(self):
        if self.stream.upsampling or self.stream.padding:
            self.write("a residual stream begins")
        skip, stream = _Skip(), self.stream
        if not stream.entry.bare:
            stream.skips.append(skip)
            return skip
        skip.map = stream.entry.map
        if stream.maker is not None:
            stream.maker.is_added = True
        return skip

    def _add(self, layer, skip):
        stream = self.stream
        entry = stream.entry
        if (
            entry.residual is not None
            or entry.activation is not None
            or stream.upsampling
            or stream.padding
            or stream.skips
        ):
            self.write("a sum follows")
        self.stream.entry.residual, self.stream.entry.sum = skip.map, layer

    def _begin(self, skips, map):
        for skip in skips:
            skip.map = map

    # What no convolution takes.

    def write(self, why: str) -> None:
        """The stream, as a map."""
        stream, self.stream = self.stream, _Stream(Entry(self.stream.entry.map), maker=self.stream.maker)
        entry = stream.entry
        if entry.norm is not None or entry.residual is not None:
            self._append(ScaleShift(entry, self._new_map()))
        elif entry.activation is not None:
            self._call_now(entry.activation, why)
        self._begin(stream.skips, self.stream.entry.map)
        for layer in (*stream.upsampling, *stream.padding):
            self._call_now(layer, why)

    def _call(self, layer, reason):
        self.write("what follows runs as it is")
        self._call_now(layer, reason)

    def _call_now(self, layer, reason):
        self._append(Call(layer, reason, self.stream.entry.map, self._new_map()))

    def _append(self, step):
        self.steps.append(step)
        self.stream = _Stream(Entry(step.output))

    def _new_map(self):
        self._maps += 1
        return self._maps - 1
