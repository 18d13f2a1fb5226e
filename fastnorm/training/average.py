"""Weights averaged over the steps, which make better pictures than those of the last step."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of what changes in a model: parameters that learn, and statistics of batch norms.

    After step k = 1, 2, ... it is d * average + (1 - d) * weight, d = min(decay, (1 + k) / (10 + k)): a decay that grows to
    its value lets the first, random weights go in the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        learns = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        statistics = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
        self.weights, self.decay = {**learns, **statistics}, decay
        self.tensors = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, average in self.tensors.items():
            average.lerp_(self.weights[name], 1 - decay)

    @contextlib.contextmanager
    def applied(self):
        """Within, the model has the averages."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
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
        for name, weight in self.weights.items():
            weight.copy_(tensors[name])
