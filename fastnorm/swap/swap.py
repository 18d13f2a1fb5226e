"""`swap` and `unswap`: the modules of a model, made fast in place."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..nn._plan import make_plan
from ..nn._recognise import changed_in_place
from ..nn._steps import Call
from ..nn.chain import Chain
from ._classes import Swapped, swapped
from ._rewrite import Fused
from .backend import captured_forward

_NORMS = {nn.InstanceNorm1d: "norm1d", nn.InstanceNorm2d: "norm2d", nn.InstanceNorm3d: "norm3d"}


def swap(model: nn.Module, example_inputs: tuple | Tensor | None = None) -> nn.Module:
    """`model` itself, with its slow layers replaced.

    Args:
        model: any torch module; it is changed in place, and `unswap` changes it back.
        example_inputs: what it is called with, a tensor or a tuple. With them code in `forward` is swapped as well, by the
            graph that torch.compile captures.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap: model: expected a torch.nn.Module, got {type(model).__name__}")
    forms = {module: form for module in model.modules() if (form := _form(module)) is not None}
    if example_inputs is not None and not isinstance(model, Swapped):
        found = _capture(model, example_inputs)
        if found:
            forms[model] = "captured"
    for module, form in forms.items():
        module.__class__ = swapped(type(module), form)
    return model


def unswap(model: nn.Module) -> nn.Module:
    """`model` itself, as it was before `swap`."""
    for module in model.modules():
        if isinstance(module, Swapped):
            module.__class__ = module._fastnorm_original
            for name in ("_planned", "_fastnorm_captured"):
                module.__dict__.pop(name, None)
    return model


def _form(module):
    kind = type(module)
    if isinstance(module, Swapped) or kind.__call__ is not nn.Module.__call__ or "forward" in vars(module):
        return None
    if is_parametrized(module) or kind.__module__.startswith("fastnorm."):
        return None
    for norm, form in _NORMS.items():
        if isinstance(module, norm) and kind.forward is norm.forward and kind._check_input_dim is norm._check_input_dim:
            return form
    if kind.forward is nn.Sequential.forward and _gains(module):
        return "sequence"
    return None


def _gains(sequence):
    """Whether a chain of its modules would fuse any. What begins in place changes its very input, for others to see."""
    if changed_in_place("", sequence._modules)[0]:
        return False
    steps = make_plan(Chain(OrderedDict(sequence._modules))).steps
    return any(not isinstance(step, Call) for step in steps) and len(steps) < len(sequence)


def _capture(model, example_inputs):
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    found = []
    captured = captured_forward(type(model).forward, lambda before, after: found.append(after))
    with torch.no_grad():
        captured(model, *args)
    return any(isinstance(part, Fused) for graph in found for part in graph.children())
