"""`swap` and `unswap`: a model's slow layers exchanged, in place, and back."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from .._errors import first_line
from ..nn._plan import make_plan
from ..nn._recognise import changed_in_place
from ..nn._steps import Call
from ..nn.chain import Chain
from ._capture import Capture, choose_torch, copied, in_turns, tensors_of, undisturbed, with_gradients
from ._classes import Swapped, swapped, unswapped
from ._rewrite import Choices

# How long is measured, in seconds: each layer that has a choice, and the whole model.
LAYER_SECONDS, MODEL_SECONDS = 0.05, 1.0
# What is exchanged has to be so much faster than what stands.
LEAST_GAIN = 0.98

_NORMS = {nn.InstanceNorm1d: "norm1d", nn.InstanceNorm2d: "norm2d", nn.InstanceNorm3d: "norm3d"}
_METHODS_OF_NORMS = "forward", "_check_input_dim", "_apply_instance_norm"


def swap(model: nn.Module, example_inputs: Tensor | tuple | None = None) -> nn.Module:
    """`model` itself, with its slow layers replaced by fused ones: in place, until `unswap`.

    Instance norms and runs of modules in a Sequential are replaced by what they compute. With example inputs the code of
    `forward` is, too: torch.compile captures it, and what amounts to a norm, a padded or upsampled convolution, a
    convolution by samples, becomes a kernel, with what stands before and behind it. Layers, and the whole, are measured on
    them, in training mode with gradients, and what does not gain is left as it is.

    Parameters and buffers stay the same objects under the same names, so that checkpoints, optimisers and moving averages
    go on; so do hooks, copies, pickles and the modes. Another size or type of input, or another mode, is captured when it
    first comes, which takes a second or two.

    Args:
        model: a torch.nn.Module.
        example_inputs: what it is called with: a tensor, or a tuple of arguments.

    Whatever is raised, the model is left as it was; so it is, with a warning, where a call fails while it is measured.

    Raises:
        TypeError: model is no module, or a scripted or traced one.
        ValueError: the model cannot be called with these inputs.
    """
    check_module("swap", model)
    forms = {module: form for module in model.modules() if (form := form_of(module)) is not None}
    if example_inputs is None:
        _exchange(forms)
        return model
    args = as_arguments(example_inputs)
    check_call("swap", model, args)
    if isinstance(model, Swapped) and not forms:
        return model
    try:
        _exchange_what_gains(model, args, forms)
    except Exception as error:
        name = type(model).__name__
        warnings.warn(f"swap: {name} is left as it was, for measuring it fails: {first_line(error)}", stacklevel=2)
    return model


def unswap(model: nn.Module) -> nn.Module:
    """`model` itself, as it was before `swap`."""
    check_module("unswap", model)
    for module in model.modules():
        _give_back(module)
    return model


def check_module(function: str, model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{function}: model: expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"{function}: model: expected a torch.nn.Module, got a scripted or traced one: "
            f"{function} the module that it was made from"
        )


def as_arguments(example_inputs) -> tuple:
    return copied(example_inputs if isinstance(example_inputs, tuple) else (example_inputs,))


# Modules by themselves.


def form_of(module):
    """What a module is exchanged for; None where it stays."""
    kind = type(module)
    if isinstance(module, Swapped) or not _may_exchange(module):
        return None
    for norm, form in _NORMS.items():
        if isinstance(module, norm) and all(getattr(kind, name) is getattr(norm, name) for name in _METHODS_OF_NORMS):
            return form
    return "sequence" if kind.forward is nn.Sequential.forward and _gains(module) else None


def _may_exchange(module):
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return False
    own = kind.__call__ is not nn.Module.__call__ or "forward" in vars(module) or is_parametrized(module)
    return not own and not kind.__module__.startswith("fastnorm.")


def may_capture(module):
    return not isinstance(module, Swapped) and _may_exchange(module)


def _gains(sequence):
    """Whether a chain of its modules would fuse any. What begins in place changes its very input, for others to see."""
    if changed_in_place("", sequence._modules)[0]:
        return False
    steps = make_plan(Chain(OrderedDict(sequence._modules))).steps
    return any(not isinstance(step, Call) for step in steps) and len(steps) < len(sequence)


def _exchange(forms):
    """All of them; none, if anything is raised."""
    with _given_back(forms):
        for module, form in forms.items():
            module.__class__ = swapped(type(module), form)


@contextmanager
def _given_back(modules):
    """If anything is raised."""
    try:
        yield
    except BaseException:
        for module in modules:
            _give_back(module)
        raise


def _give_back(module):
    if isinstance(module, Swapped):
        module.__class__ = unswapped(type(module))
        for name in ("_planned", "_fastnorm_captured", "_fastnorm_choices"):
            module.__dict__.pop(name, None)


# The forward as a whole.


def check_call(function, model, args):
    try:
        with undisturbed(model):
            model(*args)
    except Exception as error:
        name = type(model).__name__
        raise ValueError(f"{function}: example_inputs: {name} cannot be called with them: {first_line(error)}") from error


def _exchange_what_gains(model, args, forms):
    """The forward as a whole, with the modules in it; else the modules by themselves; else nothing."""
    with undisturbed(model):
        captures = _captures(model, args) if forms.get(model) != "sequence" and may_capture(model) else []
        best = _fastest(model, args, captures)
    if best is None:
        _exchange_if_it_gains(model, args, forms)
    else:
        _exchange({module: form for module, form in forms.items() if module is not model} | {model: "captured"})
        model.__dict__ |= {"_fastnorm_choices": best.choices, "_fastnorm_captured": best}


def captures_of(model: nn.Module, args: tuple) -> list[Capture]:
    """Captures of the model's forward to choose from, each with its layers chosen; none where there is nothing to fuse."""
    first, pieces = _capture(model, args, channels_last=False)
    if not any(piece.gains for piece in pieces):
        return []
    if len(pieces) > 1:
        warnings.warn(
            f"swap: {type(model).__name__}.forward breaks into {len(pieces)} graphs, each swapped by itself; "
            f"TORCH_LOGS=graph_breaks says where",
            stacklevel=5,
        )
    if not any(piece.has_volumes for piece in pieces):
        return [first]
    try:
        return [first, _capture(model, args, channels_last=True)[0]]
    except RuntimeError:  # Its code has views that the layout does not allow.
        return [first]


def _capture(model, args, channels_last):
    capture = Capture(type(model).forward, Choices(channels_last=channels_last))
    pieces = capture.recorded(model, *args)
    by_torch = frozenset().union(*(choose_torch(piece, LAYER_SECONDS) for piece in pieces))
    capture.choices = Choices(by_torch, torch.is_grad_enabled(), channels_last)
    if any(by_torch & piece.attentions for piece in pieces):
        # As they were written, they are captured anew.
        capture = Capture(type(model).forward, capture.choices)
        pieces = capture.recorded(model, *args)
        for piece in pieces:
            piece.release()
    return capture, pieces


def _captures(model, args):
    try:
        return captures_of(model, args)
    except Exception as error:
        name = type(model).__name__
        warnings.warn(f"swap: {name}.forward is left as it is, torch.compile fails: {first_line(error)}", stacklevel=4)
        return []


def _fastest(model, args, captures):
    """The capture that is fastest; None where none gains."""
    if not captures:
        return None
    calls = {None: lambda: model(*args)}
    calls |= {capture: partial(capture, model, *args) for capture in captures}
    found = in_turns({who: with_gradients(call) for who, call in calls.items()}, MODEL_SECONDS)
    as_it_is = found.pop(None)
    gaining = [capture for capture in captures if found[capture] < LEAST_GAIN * as_it_is]
    return min(gaining, key=found.get, default=None)


def _exchange_if_it_gains(model, args, forms):
    """Modules by themselves."""
    if not forms:
        return
    original = light_copy(model)
    _exchange(forms)
    with _given_back(forms), undisturbed(model), undisturbed(original):
        calls = {None: lambda: original(*args), model: lambda: model(*args)}
        found = in_turns({who: with_gradients(call) for who, call in calls.items()}, MODEL_SECONDS)
    if found[model] >= LEAST_GAIN * found[None]:
        for module in forms:
            _give_back(module)


def light_copy(model: nn.Module) -> nn.Module:
    """Modules of its own, tensors shared."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors_of(model)})
