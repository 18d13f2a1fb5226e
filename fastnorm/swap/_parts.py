"""What a call in a graph of torch's functions is to the planner: the parts of `nn._recognise`, and the tensors they take.

A rule has the signature of the function that it reads, takes the nodes that are its arguments, and gives a `Reading`; or
raises `Unfused` with the reason why the call stays. `RULES` has them by function, and by name for methods of tensors.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from inspect import signature
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from .. import functional
from ..nn._layer_norm import layer_norm
from ..nn._recognise import Activation, Convolution, Norm, Padding, Part, Sum, Unfused, Upsampling
from ._in_place import may_change


@dataclass(frozen=True)
class Operands:
    """The tensors of a part, as nodes; and of a convolution its settings, by torch's names."""

    weight: Node | None = None
    bias: Node | None = None
    running_mean: Node | None = None
    running_var: Node | None = None
    rho: Node | None = None
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    padding_mode: str = "zeros"
    in_channels: int = 0
    out_channels: int = 0
    kernel_size: tuple[int, ...] = ()
    per_sample: bool = False

    @property
    def tensors(self) -> tuple[Node | None, ...]:
        return self.weight, self.bias, self.running_mean, self.running_var, self.rho


class Reading(NamedTuple):
    """The tensor that runs through, what becomes of it, with what; and what is added, where that is a sum."""

    input: Node
    parts: tuple[Part, ...]
    operands: Operands = Operands()
    residual: Node | None = None


def reading_of(node: Node) -> Reading:
    rule = RULES.get(node.target) if node.op in ("call_function", "call_method") else None
    if rule is None:
        raise Unfused("no layer that is fused")
    if may_change(node):
        raise Unfused("it works in place, on what others may see")
    try:
        call = signature(rule).bind(*node.args, **node.kwargs)
    except TypeError:
        raise Unfused("called in an unusual way") from None
    reading = rule(*call.args, **call.kwargs)
    if not value(reading.input).is_floating_point() or value(node).dtype != value(reading.input).dtype:
        raise Unfused("its input is of another type")
    return reading


def value(node) -> torch.Tensor:
    """A tensor without numbers, of the shape and type that the node's has."""
    found = node.meta.get("example_value") if isinstance(node, Node) else None
    if not isinstance(found, torch.Tensor):
        raise Unfused("it takes no tensor")
    return found


def name_of(node: Node) -> str:
    """The path of the module that the call stands in, with the name of the call where the module is more than that."""
    if "layer" in node.meta:
        return node.meta["layer"]
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return node.name
    path, kind = stack[-1]
    path = ".".join(re.findall(r"\w+", re.sub(r"^L\['\w+'\]|_modules|_orig_mod", "", path)))
    return path if kind.__module__.startswith("torch.nn") else f"{path}: {node.name}".removeprefix(": ")


def reshaped(graph: Graph, tensor: Node, shape: tuple[int, ...]) -> Node:
    """A call that gives the tensor another shape; one size may be known only when it runs."""
    sizes = [size if type(size) is int else -1 for size in shape]
    if sizes.count(-1) > 1:
        raise Unfused("its shape is known only when it runs")
    made = graph.call_method("reshape", (tensor, tuple(sizes)))
    made.meta = dict(tensor.meta) | {"example_value": value(tensor).reshape(shape)}
    return made


# Convolutions.


def _conv(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    shape = tuple(value(weight).shape)
    if value(input).dim() != len(shape):
        raise Unfused("its input is no batch of maps")
    return _convolution(input, weight, bias, stride, padding, dilation, groups, "zeros", shape, False)


def _dynamic_conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    return _convolution(input, weight, bias, stride, padding, dilation, groups, padding_mode, tuple(value(weight).shape), True)


def _convolution(input, weight, bias, stride, padding, dilation, groups, padding_mode, shape, per_sample):
    shape = shape[1:] if per_sample else shape
    kernel = tuple(shape[2:])
    dims = len(kernel)
    stride, dilation = per_dimension(stride, dims), per_dimension(dilation, dims)
    if not _are_numbers((*stride, *dilation, *shape, groups)):
        raise Unfused("its settings are computed")
    conv = Operands(
        weight, bias, stride=stride, dilation=dilation, groups=groups, padding_mode=padding_mode,
        in_channels=shape[1] * groups, out_channels=shape[0], kernel_size=kernel, per_sample=per_sample,
    )  # fmt: skip
    if padding == "same":
        around = [step * (size - 1) for step, size in zip(dilation, kernel)]
        if any(total % 2 for total in around):
            return Reading(input, (Convolution("same"),), conv)
        padding = tuple(total // 2 for total in around)
    padding = (0,) * dims if padding == "valid" else per_dimension(padding, dims)
    if not _are_numbers(padding):
        raise Unfused("its padding is computed")
    return Reading(input, (Padding(padding_mode, padding), Convolution()) if any(padding) else (Convolution(),), conv)


def _conv_transpose(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    shape, dims = tuple(value(weight).shape), value(input).dim() - 2
    per_sample = len(shape) == dims + 3
    if not per_sample and len(shape) != dims + 2:
        raise Unfused("its input is no batch of maps")
    shape = shape[1:] if per_sample else shape
    settings = [per_dimension(numbers, dims) for numbers in (stride, padding, output_padding, dilation)]
    if not _are_numbers((*shape, groups, *(number for numbers in settings for number in numbers))):
        raise Unfused("its settings are computed")
    stride, padding, output_padding, dilation = settings
    conv = Operands(
        weight, bias, stride=stride, dilation=dilation, groups=groups, in_channels=shape[0],
        out_channels=shape[1] * groups, kernel_size=shape[2:], per_sample=per_sample,
    )  # fmt: skip
    return Reading(input, (Convolution(padding, True, output_padding),), conv)


# Norms.


def _instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5,
    *, correction=0, eps_mode="var",
):  # fmt: skip
    if not use_input_stats:
        return _running_norm(input, running_mean, running_var, weight, bias, eps)
    if running_mean is not None:
        raise Unfused("it updates running statistics")
    return _norm(input, weight, bias, eps, correction, eps_mode)


def _layer_norm(input, weight=None, bias=None, eps=1e-5, correction=0, eps_mode="var"):
    return _norm(input, weight, bias, eps, correction, eps_mode, over="sample")


def _layer_instance_norm(input, rho, weight=None, bias=None, eps=1e-5, *, correction=0):
    return _norm(input, weight, bias, eps, correction, over="blend", rho=rho)


def _norm(input, weight, bias, eps, correction=0, eps_mode="var", over="plane", rho=None):
    _check_planes(input, eps)
    return Reading(input, (Norm(eps, correction, eps_mode, over=over, dims=None),), Operands(weight, bias, rho=rho))


def _batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training or running_mean is None:
        raise Unfused("it normalises by the statistics of the batch")
    return _running_norm(input, running_mean, running_var, weight, bias, eps)


def _running_norm(input, running_mean, running_var, weight, bias, eps):
    _check_planes(input, eps)
    return Reading(input, (Norm(eps, running=True, dims=None),), Operands(weight, bias, running_mean, running_var))


def _check_planes(input, eps):
    if value(input).dim() < 3:
        raise Unfused("its input has no planes")
    if not _are_numbers((eps,)):
        raise Unfused("its settings are computed")


# What changes elements, or where they lie.


def _repeat_interleave(input, repeats, dim=None, *, output_size=None):
    dims = {2: (repeats, 1), 3: (1, repeats)}.get(dim % 4 if type(dim) is int and value(input).dim() == 4 else None)
    if dims is None or type(repeats) is not int:
        raise Unfused("it repeats no rows or columns of maps by a number")
    return Reading(input, (Upsampling(dims),) if repeats > 1 else ())


def _activation(name):
    def rule(input, inplace=False):
        return Reading(input, (Activation(name),))

    return rule


def _leaky_relu(input, negative_slope=0.01, inplace=False):
    if not _are_numbers((negative_slope,)):
        raise Unfused("its slope is computed")
    return Reading(input, (Activation("leaky_relu", negative_slope),))


def _gelu(input, approximate="none"):
    if approximate != "none":
        raise Unfused("it approximates GELU by tanh")
    return Reading(input, (Activation("gelu"),))


def _interpolate(
    input, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None, antialias=False
):
    if mode not in ("nearest", "nearest-exact"):
        raise Unfused(f"its mode is {mode}")
    if value(input).dim() != 4:
        raise Unfused("its input is no batch of maps")
    if scale_factor is None:
        scale_factor = _factor_between(value(input).shape[2:], size)
    factor = per_dimension(scale_factor, 2)
    if not _are_numbers(factor) or any(number != int(number) or number < 1 for number in factor):
        raise Unfused("its factor is no integer")
    if max(factor) == 1:
        return _copied(input)
    return Reading(input, (Upsampling(tuple(map(int, factor))),))


def _factor_between(before, size):
    after = per_dimension(size, 2)
    if not _are_numbers((*before, *after)) or any(big % small for big, small in zip(after, before)):
        raise Unfused("its factor is no integer")
    return tuple(big // small for big, small in zip(after, before))


def _pad(input, pad, mode, fill):
    modes = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
    if value(input).dim() != 4 or len(pad) != 4 or not _are_numbers(pad):
        raise Unfused("it does not pad the sides of maps by numbers")
    left, right, top, bottom = pad
    if min(pad) < 0:
        raise Unfused("it crops")
    if mode == "constant" and fill:
        raise Unfused(f"it pads with {fill}")
    if (left, top) != (right, bottom):
        raise Unfused("its sides differ")
    return Reading(input, (Padding(modes[mode], (top, left)),)) if any(pad) else _copied(input)


def _copied(input):
    """What only makes a copy is nothing, as long as nobody writes into that, or into what it was made of."""
    if any(map(may_change, input.graph.nodes)):
        raise Unfused("it makes a copy, and something works in place")
    return Reading(input, ())


def _torch_pad(input, pad, mode="constant", value=None):
    return _pad(input, pad, mode, value)


def _add(input, other, *, alpha=1):
    first, second = value(input), value(other)
    if alpha != 1 or input is other:
        raise Unfused("no sum of two maps")
    if first.shape != second.shape or first.dtype != second.dtype or first.dim() < 3:
        raise Unfused("no sum of two maps of a shape and type")
    return Reading(input, (Sum(),), residual=other)


def _dropout(input, p=0.5, training=True, inplace=False):
    if training and p != 0:
        raise Unfused("it is random in training")
    return Reading(input, ())


def _contiguous(input, memory_format=torch.contiguous_format):
    if memory_format != torch.contiguous_format or not value(input).is_contiguous():
        raise Unfused("it changes the layout")
    return Reading(input, ())


def _view(input, *shape):
    """To the shape that it has: a batch of one, by code that lays samples side by side."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list, torch.Size)) else shape
    if not _are_numbers(sizes) or len(sizes) != value(input).dim():
        raise Unfused("it changes the shape")
    if any(size not in (-1, length) for size, length in zip(sizes, value(input).shape)):
        raise Unfused("it changes the shape")
    return Reading(input, ())


def per_dimension(numbers, dims):
    if isinstance(numbers, (tuple, list)):
        return tuple(numbers) * (dims if len(numbers) == 1 else 1)
    return (numbers,) * dims


def _are_numbers(values):
    return all(type(value) in (int, float) for value in values)


RULES = {
    torch.conv2d: _conv,
    torch.conv3d: _conv,
    functional.dynamic_conv2d: _dynamic_conv2d,
    torch.conv_transpose2d: _conv_transpose,
    torch.conv_transpose3d: _conv_transpose,
    functional.norm_conv_transpose2d: _conv_transpose,
    F.instance_norm: _instance_norm,
    functional.instance_norm: _instance_norm,
    functional.layer_instance_norm: _layer_instance_norm,
    layer_norm: _layer_norm,
    F.batch_norm: _batch_norm,
    F.relu: _activation("relu"),
    torch.relu: _activation("relu"),
    "relu": _activation("relu"),
    F.leaky_relu: _leaky_relu,
    F.silu: _activation("silu"),
    F.gelu: _gelu,
    F.sigmoid: _activation("sigmoid"),
    torch.sigmoid: _activation("sigmoid"),
    "sigmoid": _activation("sigmoid"),
    F.tanh: _activation("tanh"),
    torch.tanh: _activation("tanh"),
    "tanh": _activation("tanh"),
    F.interpolate: _interpolate,
    F.upsample: _interpolate,
    "repeat_interleave": _repeat_interleave,
    torch.repeat_interleave: _repeat_interleave,
    F.pad: _torch_pad,
    torch._C._nn.pad: _torch_pad,  # Where torch.compile has found F.pad.
    operator.add: _add,
    torch.add: _add,
    "add": _add,
    F.dropout: _dropout,
    F.dropout2d: _dropout,
    F.dropout3d: _dropout,
    "contiguous": _contiguous,
    "view": _view,
    "reshape": _view,
}
