"""The steps of a plan: what each reads, does and writes, and how it runs.

Maps have numbers; 0 is the chain's input. While a plan runs, a `Run` holds those that are still to be read, and the
statistics that their convolutions took.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import functional
from .._checks import autocasts, check_per_plane, check_window
from ..ops import norm_conv2d
from ..ops._window import both_sides, output_size
from ._layer_norm import affine_of_blend, affine_of_samples
from ._recognise import Norm, Part, shortened
from ._styles import call, style_of, takes_style


def _facts(*tensors: Tensor | None) -> tuple:
    """All that checks look at: of tensors like the last ones, nothing is checked again."""
    return tuple([
        (tensor.shape, tensor.dtype, tensor.device, tensor.layout) if isinstance(tensor, Tensor) else type(tensor)
        for tensor in tensors
    ])  # fmt: skip


class Layer(NamedTuple):
    """A part of a module, and the name that the module has in the chain. The sum of a Residual comes without that.

    In place of a module there may be what has its settings, and a `kind`.
    """

    name: str
    module: nn.Module | None
    part: Part | None = None

    @property
    def kind(self) -> str:
        if isinstance(self.module, nn.Module):
            return type(self.module).__name__
        return "Residual" if self.module is None else self.module.kind

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})" if self.name else self.kind


class Written(NamedTuple):
    """A map that the modules write, one by one. Where the plan writes it too, it has a number there."""

    words: str
    name: str
    shape: tuple[int, ...] | None
    map: int | None = None


@dataclass
class Run:
    maps: dict[int, Tensor]
    style: object
    differentiated: bool
    statistics: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Entering(NamedTuple):
    """The tensors that enter a step: a map, and what its norm and its sum take. Statistics are there if its maker took them."""

    input: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    rho: Tensor | None = None
    statistics: tuple[Tensor, Tensor] | None = None
    residual: Tensor | None = None


@dataclass
class Entry:
    """What becomes of a map on its way in: activation(norm(map) + residual)."""

    map: int
    norm: Layer | None = None
    residual: int | None = None
    sum: Layer | None = None
    activation: Layer | None = None
    # Whether the convolution that makes the map takes the statistics of the norm.
    takes_statistics: bool = False
    checked: tuple = ()

    @property
    def bare(self) -> bool:
        return self.norm is self.residual is self.activation is None

    @property
    def layers(self) -> list[Layer]:
        return [layer for layer in (self.norm, self.sum, self.activation) if layer is not None]

    @property
    def reads(self) -> list[int]:
        return [self.map] if self.residual is None else [self.map, self.residual]

    def fetched(self, run: Run) -> Entering:
        """From a run of a chain, and from its modules."""
        input = run.maps[self.map]
        residual = None if self.residual is None else run.maps[self.residual]
        if self.norm is None:
            return Entering(input, residual=residual)
        name, module, norm = self.norm
        weight, bias = module.affine_of(style_of(name, run.style)) if norm.styled else (module.weight, module.bias)
        running = (module.running_mean, module.running_var) if norm.running else (None, None)
        return Entering(input, weight, bias, *running, None, run.statistics.pop(self.map, None), residual)

    def changes(self, entering: Entering) -> dict[str, Tensor | None]:
        """mean, scale, shift and residual, as `functional.scale_shift` and `norm_conv2d` take them."""
        mean, scale, shift = (None, None, None) if self.norm is None else self._affine(entering)
        return dict(mean=mean, scale=scale, shift=shift, residual=entering.residual)

    def written(self, entering: Entering) -> Tensor:
        """What enters, as a map of its own."""
        input, norm, activation = entering.input, self.norm and self.norm.part, _activation(self.activation)
        if norm is None or norm.running or norm.over == "sample" or entering.statistics is not None:
            return functional.scale_shift(input, **self.changes(entering), **activation)
        weight, bias = self._parameters(entering)
        settings = dict(eps=norm.eps, correction=norm.correction, residual=entering.residual, **activation)
        if norm.over == "blend":
            return functional.layer_instance_norm(input, entering.rho, weight, bias, **settings)
        return functional.instance_norm(input, weight=weight, bias=bias, eps_mode=norm.eps_mode, **settings)

    def _affine(self, entering):
        norm, input = self.norm.part, entering.input
        weight, bias = self._parameters(entering)
        mean, rstd = self._statistics(entering)
        if norm.over == "plane":
            return mean, rstd if weight is None else rstd * weight, bias
        affine = weight, bias, input, norm.eps, norm.correction
        if norm.over == "sample":
            return affine_of_samples((mean, rstd), *affine, norm.eps_mode)
        return affine_of_blend((mean, rstd), entering.rho, *affine)

    def _parameters(self, entering):
        """Weight and bias of the norm, each None, (C,) or (N, C)."""
        input, weight, bias = entering[:3]
        facts = _facts(input, weight, bias)
        if facts != self.checked:
            _check_planes(input, self.norm.part)
            _check_per_plane("weight", weight, input)
            _check_per_plane("bias", bias, input)
            self.checked = facts
        return _of_all_samples(weight, input), _of_all_samples(bias, input)

    def _statistics(self, entering):
        norm = self.norm.part
        if norm.running:
            return _running(entering, norm)
        if entering.statistics is not None:
            return entering.statistics
        return functional.instance_stats(entering.input, **norm.of_planes)


def _check_planes(input, norm):
    if norm.dims is not None and input.dim() != norm.dims + 2:
        raise ValueError(f"norm: expected an input (N, C, H, W), got {tuple(input.shape)}")
    if not norm.running and input.shape[2:].numel() == 1:
        raise ValueError(f"norm: expected more than 1 element in a plane, got planes of {tuple(input.shape[2:])}")


def _check_per_plane(name, parameter, input):
    if parameter is not None:
        check_per_plane("chain", f"norm {name}", parameter, input, shared_samples=True)


def _of_all_samples(parameter, input):
    if parameter is None or parameter.dim() == 1 or parameter.shape[0] == input.shape[0]:
        return parameter
    return parameter.expand(input.shape[:2])


def _running(entering, norm):
    wide = torch.promote_types(entering.running_var.dtype, torch.promote_types(entering.input.dtype, torch.float32))
    return entering.running_mean, (entering.running_var.to(wide) + norm.eps).rsqrt()


def _activation(layer, whose=""):
    if layer is None:
        return {}
    return {f"{whose}activation": layer.part.name, f"{whose}negative_slope": layer.part.negative_slope}


# By the number of dimensions: of this package, and torch's own for both.
_FUNCTIONS = {
    2: (functional.norm_conv2d, functional.norm_conv_transpose2d, (F.conv2d, F.conv_transpose2d)),
    3: (functional.norm_conv3d, functional.norm_conv_transpose3d, (F.conv3d, F.conv_transpose3d)),
}


class Step:
    """Reads maps, writes maps, and frees those that nobody reads after it."""

    def prepare(self) -> None:
        """Once, before the first run: what is the same at every one."""

    def run(self, run: Run) -> None:
        """One kernel, or one module."""

    def culprit(self, argument: str) -> Layer:
        """The layer that the first word of an error is about."""

    def sizes(self, shapes: dict) -> dict:
        """Shapes of the maps that it writes, from those of the maps it reads; None for what cannot be told."""

    def written(self, shapes: dict) -> list[Written]:
        """What modules would write, one by one."""


@dataclass
class Convolve(Step):
    """A call of `functional.norm_conv2d`."""

    layer: Layer
    entry: Entry
    output: int
    upsampling: list[Layer]
    padding: list[Layer]
    entered: int | None = None
    activation: Layer | None = None
    statistics: Norm | None = None
    drops_bias: bool = False
    # Its output is read as it is, too, so that nothing may be done to it on store.
    is_added: bool = False
    frees: list[int] = field(default_factory=list)

    @property
    def reads(self) -> list[int]:
        return self.entry.reads

    @property
    def writes(self) -> list[int]:
        return [self.output] if self.entered is None else [self.entered, self.output]

    def prepare(self) -> None:
        conv, part, norm = self.layer.module, self.layer.part, self.statistics
        plain, transposed, self._by_torch = _FUNCTIONS[len(conv.kernel_size)]
        self._factor = _product(self.upsampling, len(conv.kernel_size))
        self._padding = _sum(self.padding) if self.padding else part.padding
        self._window = dict(stride=conv.stride, padding=self._padding, dilation=conv.dilation, groups=conv.groups)
        if part.transposed:
            self._function = transposed
            self._window["output_padding"] = part.output_padding
        else:
            self._function = plain
            self._window["padding_mode"] = self.padding[0].part.mode if self.padding else conv.padding_mode
            self._window["scale_factor"] = self._factor
        self._window.update(_activation(self.activation, "output_"))
        self._ends = dict(return_entered=self.entered is not None, **_activation(self.entry.activation))
        if norm is not None:
            self._ends.update(return_stats=True, **norm.of_planes)
        self._settled = (), None

    def run(self, run: Run) -> None:
        conv = self.layer.module
        found = self.computed(self.entry.fetched(run), conv.weight, conv.bias, run.differentiated)
        run.maps[self.output], statistics, entered = found
        if statistics is not None:
            run.statistics[self.output] = statistics
        if self.entered is not None:
            run.maps[self.entered] = entered

    def computed(
        self, entering: Entering, weight: Tensor, bias: Tensor | None, differentiated: bool, by_torch: bool = False
    ) -> tuple:
        """output, (mean, rstd) or None, entered or None: those two where they are asked for, the first by one kernel only.

        `by_torch`: the convolution itself is torch's.
        """
        if differentiated or by_torch:
            output, entered = self._computed_apart(entering, weight, bias, by_torch)
            taken = self.statistics is not None and not differentiated
            return output, functional.instance_stats(output, **self.statistics.of_planes) if taken else None, entered
        bias = None if self.drops_bias else bias
        found = self._norm_conv2d(_as_autocast(entering.input), weight, bias, **self.entry.changes(entering))
        output, *others = found if isinstance(found, tuple) else (found,)
        statistics, others = (None, others) if self.statistics is None else (tuple(others[:2]), others[2:])
        return output, statistics, others[0] if others else None

    def _norm_conv2d(self, input, weight, bias, mean, scale, shift, residual):
        """`functional.norm_conv2d`; of tensors like the last ones, without all that is the same again."""
        tensors = input, weight, bias, mean, scale, shift, residual
        facts, (known, repeated) = _facts(*tensors), self._settled
        if repeated and facts == known and not norm_conv2d.is_differentiated(tensors):
            return repeated(*tensors)
        self._check_channels(input)
        changes = dict(mean=mean, scale=scale, shift=shift, residual=residual)
        found = self._function(input, weight, bias, **changes, **self._window, **self._ends)
        if facts != known and not self.layer.part.transposed and not torch.compiler.is_compiling():
            repeated = None
            # Autocast mixes types, and is asked at every call what to make of them.
            if weight.dtype == input.dtype and (residual is None or residual.dtype == input.dtype):
                repeated = norm_conv2d.repeated(input, weight, bare=self.entry.bare, **self._window, **self._ends)
            self._settled = facts, repeated
        return found

    def _computed_apart(self, entering, weight, bias, by_torch):
        """With gradients what enters is written in any case, and that of a norm together with its statistics costs less."""
        entered = entering.input if self.entry.bare else self.entry.written(entering)
        # Of a bias without effect the gradient is 0: whoever waits for every gradient, as DistributedDataParallel, gets it.
        bias = 0 * bias if self.drops_bias and bias is not None else bias
        self._check_channels(entered)
        if by_torch:
            output = self._convolved_by_torch(entered, weight, bias)
        else:
            output = self._function(_as_autocast(entered), weight, bias, **self._window)
        return output, None if self.entered is None else entered

    def _convolved_by_torch(self, input, weight, bias):
        window, around = self._window, self._padding
        if self.layer.part.transposed:
            settings = (window[name] for name in ("stride", "padding", "output_padding", "groups", "dilation"))
            return self._activated(self._by_torch[1](input, weight, bias, *settings))
        mode, factor = window["padding_mode"], window["scale_factor"]
        if max(factor) > 1 or (mode != "zeros" and around != "same" and around):
            rows, columns = around if around else (0, 0)
            input = functional.upsample_pad2d(input, factor, (columns, columns, rows, rows), mode)
            around = 0
        output = self._by_torch[0](input, weight, bias, window["stride"], around, window["dilation"], window["groups"])
        return self._activated(output)

    def _activated(self, output):
        return output if self.activation is None else functional.scale_shift(output, **_activation(self.activation))

    def culprit(self, argument: str) -> Layer:
        return _culprit(argument, self.entry, self.padding) or self.layer

    def sizes(self, shapes: dict) -> dict:
        shape = shapes[self.entry.map]
        if shape is not None:
            self._check_input(torch.empty(shape, device="meta"))
        return {self.output: self._output(shape)} | ({} if self.entered is None else {self.entered: shape})

    def _check_channels(self, input):
        channels = self.layer.module.in_channels
        if input.dim() == len(self._factor) + 2 and input.shape[1] != channels:
            raise ValueError(f"input: expected {channels} channels, got {input.shape[1]}")

    def _check_input(self, input):
        conv = self.layer.module
        self._check_channels(input)
        if self.layer.part.transposed:
            return
        mode = self._window["padding_mode"]
        check_window("chain", conv.weight, input, conv.stride, self._padding, conv.dilation, mode, self._factor)

    def _output(self, shape):
        if shape is None:
            return None
        conv, part = self.layer.module, self.layer.part
        if part.transposed:
            sides = zip(shape[2:], conv.kernel_size, conv.stride, part.padding, part.output_padding, conv.dilation)
            size = [
                (length - 1) * jump - 2 * side + step * (width - 1) + more + 1
                for length, width, jump, side, more, step in sides
            ]
            return shape[0], conv.out_channels, *size
        around = both_sides(self._padding, conv.kernel_size, conv.dilation)
        size = [length * factor for length, factor in zip(shape[2:], self._factor)]
        return shape[0], conv.out_channels, *output_size(size, conv.kernel_size, conv.stride, around, conv.dilation)

    def written(self, shapes: dict) -> list[Written]:
        conv, shape, output = self.layer.module, shapes[self.entry.map], shapes[self.output]
        made = [Written(layer.part.words, layer.name, shape) for layer in self.entry.layers]
        if self.entered is not None:
            made[-1] = made[-1]._replace(map=self.entered)
        for name, module, part in (*self.upsampling, *self.padding):
            shape = shape and part.shape(shape)
            # torch's convolution copies the map for every padding but that with zeros.
            if module is not conv or part.mode != "zeros":
                made.append(Written(part.words, name, shape))
        stride = "" if max(conv.stride) == 1 else f", stride {shortened(conv.stride)}"
        made.append(Written(f"{self.layer.part.words} {'x'.join(map(str, conv.kernel_size))}{stride}", self.layer.name, output))
        if self.activation is not None:
            made.append(Written(self.activation.part.words, self.activation.name, output))
        made[-1] = made[-1]._replace(map=self.output)
        return made


def _product(layers, dims):
    factors = [layer.part.factor for layer in layers]
    return tuple(map(prod, zip(*factors))) if factors else (1,) * dims


def _sum(layers):
    return tuple(map(sum, zip(*(layer.part.sides for layer in layers))))


def _culprit(argument, entry, padding=()):
    """The layer that an argument comes from; None for those of the convolution itself."""
    if argument == "padding" and padding:
        return padding[0]
    if argument == "residual":
        return entry.sum
    return entry.norm if argument in ("norm", "style", "mean", "scale", "shift") else None


def _as_autocast(input):
    """As torch's convolutions take their input under autocast."""
    if input.dtype != torch.float64 and autocasts(input):
        return input.to(torch.get_autocast_dtype(input.device.type))
    return input


@dataclass
class ScaleShift(Step):
    """A norm, a sum and an activation that no convolution reads: `functional.scale_shift`, or `instance_norm`."""

    entry: Entry
    output: int
    frees: list[int] = field(default_factory=list)

    @property
    def layer(self) -> Layer:
        return self.entry.layers[0]

    @property
    def reads(self) -> list[int]:
        return self.entry.reads

    @property
    def writes(self) -> list[int]:
        return [self.output]

    def run(self, run: Run) -> None:
        run.maps[self.output] = self.entry.written(self.entry.fetched(run))

    def culprit(self, argument: str) -> Layer:
        return _culprit(argument, self.entry) or self.layer

    def sizes(self, shapes: dict) -> dict:
        return {self.output: shapes[self.entry.map]}

    def written(self, shapes: dict) -> list[Written]:
        made = [Written(layer.part.words, layer.name, shapes[self.output]) for layer in self.entry.layers]
        made[-1] = made[-1]._replace(map=self.output)
        return made


@dataclass
class Call(Step):
    """A module as it is, and why."""

    layer: Layer
    reason: str
    input: int
    output: int
    frees: list[int] = field(default_factory=list)

    @property
    def reads(self) -> list[int]:
        return [self.input]

    @property
    def writes(self) -> list[int]:
        return [self.output]

    def prepare(self) -> None:
        self._styled = takes_style(self.layer.module)

    def run(self, run: Run) -> None:
        name, module, _ = self.layer
        run.maps[self.output] = call(module, name, run.maps[self.input], run.style, self._styled)

    def culprit(self, argument: str) -> Layer:
        return self.layer

    def sizes(self, shapes: dict) -> dict:
        shape = shapes[self.input]
        return {self.output: None if shape is None else _shape_behind(self.layer.module, shape)}

    def written(self, shapes: dict) -> list[Written]:
        return [Written(self.layer.kind, self.layer.name, shapes[self.output], self.output)]


def _shape_behind(module, shape):
    """Of what a module makes of a map of that shape; None where it does not say so without numbers to work on."""
    try:
        without_numbers = deepcopy(module).to("meta")
        for part in without_numbers.modules():
            part._forward_hooks.clear(), part._forward_pre_hooks.clear()
        with torch.no_grad():
            return tuple(without_numbers(torch.empty(shape, device="meta")).shape)
    except Exception:
        return None
