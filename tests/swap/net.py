"""The network that the tests of swap exchange, and what they do with it."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from forms import randn, randomized
from torch import nn

import fastnorm
from fastnorm.swap._classes import Swapped

swap_module = importlib.import_module("fastnorm.swap.swap")  # By this name, its package has the function.

C = 6


class Net(nn.Module):
    """A run of modules, a norm alone, and code of its own; with running statistics."""

    def __init__(self):
        super().__init__()
        self.run = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, C, 3), nn.InstanceNorm2d(C, affine=True), nn.ReLU(), nn.Conv2d(C, C, 1)
        )
        self.norm = nn.InstanceNorm2d(C, affine=True)
        self.batch_norm = nn.BatchNorm2d(C)
        self.last = nn.Conv2d(C, 3, 3)

    def forward(self, x):
        x = x_run = self.run(x)
        x = F.relu(self.norm(x)) + x_run
        return self.last(F.pad(self.batch_norm(x), (1, 1, 1, 1), mode="reflect"))

    def features(self, x):
        return self.norm(self.run(x))


X = randn(2, 3, 9, 8)


def make(training=True):
    return randomized(Net).train(training)


def run_of_modules():
    return randomized(lambda: make().run)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def step_all(model, optimiser, steps=3, also=lambda: None):
    losses = []
    for index in range(steps):
        optimiser.zero_grad()
        loss = model(randn(2, 3, 9, 8, seed=index)).square().mean()
        loss.backward()
        optimiser.step()
        also()
        losses.append(loss.detach())
    return losses


def swap_all(model=None, inputs=X):
    """All levels, with inputs."""
    model = make() if model is None else model
    found = fastnorm.swap(model, inputs)
    assert found is model and isinstance(model, Swapped)
    return model


# By what it is exchanged: with inputs, the forward; without, its modules.
WAYS = pytest.mark.parametrize("inputs", [None, X], ids=["modules", "forward"])
