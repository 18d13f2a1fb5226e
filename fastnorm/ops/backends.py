"""Which kernels run: those of the extension on CPU, CUDA C++ or Triton on a GPU, plain PyTorch elsewhere.

`FASTNORM_BACKEND` chooses, when fastnorm is imported:

    auto        the fastest there is for each device (the default)
    reference   the plain PyTorch references, which any exporter understands
    triton      Triton in place of CUDA C++; on CPU tensors too under TRITON_INTERPRET=1
"""

import importlib
import os

BACKENDS = ("auto", "reference", "triton")


def _chosen() -> str:
    backend = os.environ.get("FASTNORM_BACKEND") or "auto"
    if backend not in BACKENDS:
        raise ValueError(f"FASTNORM_BACKEND: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend


_backend = _chosen()


def reference() -> bool:
    """Whether public functions run their references."""
    return _backend == "reference"
