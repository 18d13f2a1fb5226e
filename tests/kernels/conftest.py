"""In a checkout that is not installed, the kernels lie beside fastnorm, not in it."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import fastnorm

if find_spec("fastnorm.kernels") is None:
    fastnorm.__path__.append(str(Path(__file__).parents[2]))


@pytest.fixture
def poisoned_memory():
    """Memory that nothing wrote holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
