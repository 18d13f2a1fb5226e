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


@pytest.fixture
def products_of_bfloat16(monkeypatch):
    """The interpreter's tl.dot multiplies bits of bfloat16: float32 has the same numbers."""
    import numpy
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    multiply = InterpreterBuilder.create_dot

    def widened(operand):
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        return TensorHandle((operand.data.astype(numpy.uint32) << 16).view(numpy.float32), tl.float32)

    def create_dot(builder, a, b, *others):
        return multiply(builder, widened(a), widened(b), *others)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
