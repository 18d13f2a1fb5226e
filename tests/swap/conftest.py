"""What torch.compile has compiled is forgotten between tests, and nothing is left alone for being slow here."""

import importlib

import pytest
import torch

module = importlib.import_module("fastnorm.swap.swap")  # By this name, its package has the function.


@pytest.fixture(autouse=True)
def compiled_anew():
    torch._dynamo.reset()


@pytest.fixture(autouse=True)
def one_thread():
    """Maps here are so small that several threads take longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def time_does_not_count(monkeypatch):
    """What is exchanged must not depend on how busy the machine is, and nothing is measured for long."""
    monkeypatch.setattr(module, "LEAST_GAIN", float("inf"))
    monkeypatch.setattr(module, "LAYER_SECONDS", 0.0)
    monkeypatch.setattr(module, "MODEL_SECONDS", 0.0)
