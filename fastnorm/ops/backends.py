"""Which kernels run: those of the extension on CPU, CUDA C++ or Triton on a GPU, plain PyTorch elsewhere.

`FASTNORM_BACKEND` chooses, when fastnorm is imported:

    auto        the fastest there is for each device (the default)
    reference   the plain PyTorch references, which any exporter understands
    triton      Triton in place of CUDA C++; in place of the CPU kernels too, under TRITON_INTERPRET=1
"""

import importlib
import importlib.util
import os
import warnings
from pathlib import Path

import torch

from ._library import library

BACKENDS = ("auto", "reference", "triton")

# The operators that have kernels, and where in their Triton room each is.
_TRITON = {
    "instance_stats": ("instance_stats", "forward"),
    "scale_shift": ("scale_shift", "forward"),
    "scale_shift_backward": ("scale_shift", "backward"),
    "instance_norm": ("instance_norm", "forward"),
    "instance_norm_backward": ("instance_norm", "backward"),
    "layer_instance_norm": ("layer_instance_norm", "forward"),
    "layer_instance_norm_backward": ("layer_instance_norm", "backward"),
}

_PACKAGE = __package__.rpartition(".")[0]
_CUDA_LIBRARY = Path(__file__).parent.parent / "_C_cuda.so"


def _chosen() -> str:
    backend = os.environ.get("FASTNORM_BACKEND") or "auto"
    if backend not in BACKENDS:
        raise ValueError(f"FASTNORM_BACKEND: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend


_backend = _chosen()
_in_use = {"cpu": "definition", "cuda": "definition"}


def reference() -> bool:
    """Whether public functions run their references: when asked to, and for exporters, which know torch's operators only."""
    return _backend == "reference" or torch.compiler.is_exporting()


def which(kernel: str, device: str) -> str:
    """What runs a kernel operator on a device type: "cpu", "cuda", "triton", "definition" or "reference"."""
    if reference():
        return "reference"
    return _in_use.get(device, "definition") if kernel in _TRITON else "definition"


def install() -> None:
    """Register the kernels that this machine and build have. Called once, when fastnorm is imported."""
    interpreting = _backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    if interpreting:
        _register_triton("CPU")
        _in_use["cpu"] = "triton"
    elif _load_cpu():
        _in_use["cpu"] = "cpu"
    if not torch.cuda.is_available():
        return
    if _backend != "triton" and torch.version.cuda and _load_cuda():
        _in_use["cuda"] = "cuda"
    elif importlib.util.find_spec("triton"):
        _register_triton("CUDA")
        _in_use["cuda"] = "triton"


def _load_cpu() -> bool:
    if importlib.util.find_spec(f"{_PACKAGE}._C") is None:
        return False
    try:
        importlib.import_module(f"{_PACKAGE}._C")
    except ImportError as error:
        warnings.warn(f"fastnorm: the compiled extension does not load, plain PyTorch runs instead: {error}", stacklevel=2)
        return False
    return True


def _load_cuda() -> bool:
    if not _CUDA_LIBRARY.exists():
        return False
    try:
        torch.ops.load_library(str(_CUDA_LIBRARY))
    except OSError as error:
        warnings.warn(f"fastnorm: the CUDA library does not load, Triton runs instead: {error}", stacklevel=2)
        return False
    return True


def _register_triton(dispatch_key: str) -> None:
    for kernel, (room, function) in _TRITON.items():
        library.impl(kernel, _first_use(room, function), dispatch_key)


def _first_use(room: str, function: str):
    """The kernel, imported when it is first called: importing fastnorm does not import Triton."""
    kernel = None

    def call(*arguments):
        nonlocal kernel
        if kernel is None:
            kernel = getattr(importlib.import_module(f"{_PACKAGE}.kernels.{room}"), function)
        return kernel(*arguments)

    return call
