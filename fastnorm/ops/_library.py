"""torch.library, as every operator here uses it.

The schema lives in Python, beside the definition, so that an operator exists with or without a compiler. The definition
is plain PyTorch and serves every device that has no kernel; `csrc/bindings` and `kernels` register faster ones.
"""

from typing import Callable, Sequence

import torch
from torch import Tensor

library = torch.library.Library("fastnorm", "DEF")


def define(name: str, schema: str, definition: Callable, fake: Callable):
    """Make `torch.ops.fastnorm.<name>` and return its overload: callable without attribute look-ups."""
    library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, definition, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastnorm::{name}", fake, lib=library)
    return getattr(torch.ops.fastnorm, name).default


def differentiate(operator, setup_context: Callable, backward: Callable) -> None:
    torch.library.register_autograd(operator, backward, setup_context=setup_context, lib=library)


def gradient_of(formula: Callable, inputs: Sequence[Tensor | None], gradients: Sequence[Tensor | None]):
    """Gradients of `formula(*inputs)` with respect to every tensor among its inputs, by autograd.

    The derivative of a backward, written nowhere twice; differentiable itself where grad mode is on. None stands for an
    input that is None or does not matter.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # A view ends the graph here, not in whatever made the input.
        inputs = [_view(input) if input is not None and input.is_floating_point() else input for input in inputs]
        outputs = formula(*inputs)
        # An output that was not needed came back empty, and so does its gradient.
        pairs = [
            (output, gradient)
            for output, gradient in zip(outputs, gradients)
            if output is not None and output.requires_grad and gradient is not None and gradient.shape == output.shape
        ]
        leaves = [input for input in inputs if input is not None and input.is_floating_point()]
        found = iter(
            torch.autograd.grad(
                [output for output, _ in pairs],
                leaves,
                [gradient.to(output.dtype) for output, gradient in pairs],
                allow_unused=True,
                create_graph=create_graph,
            )
            if pairs
            else [None] * len(leaves)
        )
    return [None if input is None else next(found) for input in inputs]


def _view(tensor: Tensor) -> Tensor:
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
