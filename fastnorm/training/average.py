"""Weights averaged over the steps, which make better pictures than those of the last step."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of parameters.

    After step k = 1, 2, ... it is d * average + (1 - d) * parameter, d = min(decay, (1 + k) / (10 + k)): a decay that grows
    to its value lets the first, random weights go in the first steps.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.tensors = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, average in self.tensors.items():
            average.lerp_(self.parameters[name], 1 - decay)

    @contextlib.contextmanager
    def applied(self):
        """Within, the parameters are the averages."""
        kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._fill(self.tensors)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

    @torch.no_grad()
    def _fill(self, tensors):
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])
