from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import fastnorm
from fastnorm.bench import arithmetic

# In a checkout that is not installed, the benchmarks lie beside fastnorm, not in it.
if find_spec("fastnorm.benchmarks") is None:
    fastnorm.__path__.append(str(Path(__file__).parents[2]))


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine two threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def little_arithmetic(monkeypatch):
    """What sets the pace takes seconds in float64, and no test looks at a time."""
    monkeypatch.setattr(arithmetic, "SIDES", {"cpu": 64})
