"""torch.library and autograd, as every operator here uses them.

The schema lives in Python, beside the definition, so that an operator exists with or without a compiler. The definition
is plain PyTorch and serves every device that has no kernel; `csrc/bindings` and `kernels` register faster ones.

`torch.ops.fastnorm.<name>` are kernels and know no gradient; a torch.autograd.Function around them does. A gradient that
torch.library registers would cost 7 us at every call, 8 where none is needed; this costs 9 and nothing (of 8 us for the
kernel of a tiny map, 28 for torch's instance norm with gradients).
"""

import inspect
from typing import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

library = torch.library.Library("fastnorm", "DEF")


def define(name: str, schema: str, definition: Callable, fake: Callable):
    """Make `torch.ops.fastnorm.<name>` and return its overload: callable without attribute look-ups."""
    library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, definition, "CompositeExplicitAutograd")
    # torch's own operators know how to be mapped over a dimension, and derived below it.
    library.impl(name, definition, "FuncTorchBatched")
    library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"fastnorm::{name}", fake, lib=library)
    return getattr(torch.ops.fastnorm, name).default


def differentiable(operator, definition: Callable, setup_context: Callable, backward: Callable) -> Callable:
    """`operator` with a gradient: setup_context(ctx, inputs, output) and backward(ctx, *gradients) as in autograd.

    Forward-mode derivatives are those of its definition.
    """

    def forward(*arguments):
        return operator(*arguments)

    # autograd.Function asks for it at every call; finding it anew would cost as much as the kernel.
    forward.__signature__ = inspect.signature(forward)
    function = type(
        operator.__name__.partition(".")[0],
        (torch.autograd.Function,),
        {
            "forward": staticmethod(forward),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(backward),
            "generate_vmap_rule": True,
        },
    )

    def call(*arguments):
        # torch has no other word for "inside forward_ad.dual_level or torch.func.jvp".
        if forward_ad._current_level >= 0:
            return definition(*arguments)
        if torch.is_grad_enabled():
            for argument in arguments:
                if isinstance(argument, Tensor) and argument.requires_grad:
                    return function.apply(*arguments)
        return operator(*arguments)

    return call


def gradient_of(formula: Callable, inputs: Sequence[Tensor | None], gradients: Sequence[Tensor | None]):
    """Gradients of `formula(*inputs)` with respect to every tensor among its inputs, by autograd.

    The derivative of a backward, written nowhere twice; differentiable itself, and by torch.func's transforms. None
    stands for an input that is None, and for an output or a gradient that nobody asks for.
    """
    present = [index for index, input in enumerate(inputs) if input is not None]
    wanted = []

    def of_present(*tensors):
        arguments = [None] * len(inputs)
        for index, tensor in zip(present, tensors):
            arguments[index] = tensor
        # An output that was not needed came back empty, and so does its gradient.
        wanted[:] = [
            (output, gradient)
            for output, gradient in zip(formula(*arguments), gradients)
            if output is not None and gradient is not None and gradient.shape == output.shape
        ]
        return tuple(output for output, _ in wanted)

    found = [None] * len(inputs)
    if all(gradient is None for gradient in gradients):
        return found
    _, pull_back = torch.func.vjp(of_present, *(inputs[index] for index in present))
    for index, gradient in zip(present, pull_back(tuple(gradient.to(output.dtype) for output, gradient in wanted))):
        found[index] = gradient
    return found
