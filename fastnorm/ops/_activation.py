"""The activations that a kernel can apply on its way out.

A row holds the function and its derivative at the pre-activation, both plain and differentiable PyTorch. The
position of a row is its code in every kernel: `csrc/cpu/activation.h`, `csrc/cuda/activation.cuh` and
`kernels/activation.py` keep the same order.
"""

from typing import Callable, NamedTuple

import torch
from torch import Tensor


class Activation(NamedTuple):
    name: str
    function: Callable[[Tensor, float], Tensor]
    derivative: Callable[[Tensor, float], Tensor]


def _silu_derivative(x: Tensor, slope: float) -> Tensor:
    sigmoid = torch.sigmoid(x)
    return sigmoid * (1 + x * (1 - sigmoid))


def _gelu_derivative(x: Tensor, slope: float) -> Tensor:
    cdf = 0.5 * (1 + torch.erf(x * 0.5**0.5))
    pdf = torch.exp(-0.5 * x * x) * (2 * torch.pi) ** -0.5
    return cdf + x * pdf


ACTIVATIONS = (
    Activation("none", lambda x, slope: x, lambda x, slope: torch.ones_like(x)),
    Activation("relu", lambda x, slope: torch.relu(x), lambda x, slope: (x > 0).to(x.dtype)),
    Activation(
        "leaky_relu",
        lambda x, slope: torch.nn.functional.leaky_relu(x, slope),
        lambda x, slope: torch.full_like(x, slope).masked_fill(x > 0, 1),
    ),
    Activation("silu", lambda x, slope: torch.nn.functional.silu(x), _silu_derivative),
    Activation("gelu", lambda x, slope: torch.nn.functional.gelu(x), _gelu_derivative),
    Activation("sigmoid", lambda x, slope: torch.sigmoid(x), lambda x, slope: torch.sigmoid(x) * torch.sigmoid(-x)),
    Activation("tanh", lambda x, slope: torch.tanh(x), lambda x, slope: 1 - torch.tanh(x).square()),
)

CODES = {activation.name: code for code, activation in enumerate(ACTIVATIONS)} | {None: 0}
