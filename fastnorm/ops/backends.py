"""Which kernels run: those of the extension on CPU, CUDA C++ or Triton on a GPU, plain PyTorch elsewhere.

`FASTNORM_BACKEND` chooses, when fastnorm is imported:

    auto        the fastest there is for each device (the default); Triton for what the CUDA library has not, and for all
                where a GPU cannot run that
    reference   the plain PyTorch references, which any exporter understands
    triton      Triton in place of CUDA C++; in place of the CPU kernels too, under TRITON_INTERPRET=1
"""

import contextlib
import ctypes
import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterable, Sequence
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
    "norm_conv2d": ("norm_conv2d", "forward"),
    "dynamic_conv2d": ("dynamic_conv2d", "forward"),
    "dynamic_conv2d_backward": ("dynamic_conv2d", "backward"),
    "dynamic_instance_norm": ("dynamic_instance_norm", "forward"),
    "dynamic_instance_norm_backward": ("dynamic_instance_norm", "backward"),
    "upsample_pad2d": ("upsample_pad2d", "forward"),
    "upsample_pad2d_backward": ("upsample_pad2d", "backward"),
    "attention_stats": ("attention_stats", "forward"),
    "patch_match": ("patch_match", "forward"),
    "swap_patches": ("swap_patches", "forward"),
    "swap_patches_backward": ("swap_patches", "backward"),
    "gram_matrix": ("gram_matrix", "forward"),
    "match_histogram": ("match_histogram", "forward"),
}
# Of these, the CUDA library has not.
_NOT_IN_CUDA = (
    "norm_conv2d",
    "attention_stats",
    "patch_match",
    "swap_patches",
    "swap_patches_backward",
    "gram_matrix",
    "match_histogram",
)
# And those that have a kernel on CPU alone.
_ON_CPU_ALONE = "attention_stats_backward", "match_histogram_backward"

_PACKAGE = __package__.rpartition(".")[0]
CUDA_LIBRARY = Path(__file__).parent.parent / "_C_cuda.so"


def _chosen() -> str:
    backend = os.environ.get("FASTNORM_BACKEND") or "auto"
    if backend not in BACKENDS:
        raise ValueError(f"FASTNORM_BACKEND: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend


_backend = _chosen()
_in_use = {"cpu": "definition", "cuda": "definition"}
_cuda_problem = None


def reference() -> bool:
    """Whether public functions run their references: when asked to, and for exporters, which know torch's operators only."""
    return _backend == "reference" or torch.compiler.is_exporting()


@contextlib.contextmanager
def by_reference():
    """Within, public functions run their references, as with FASTNORM_BACKEND=reference."""
    global _backend
    before, _backend = _backend, "reference"
    try:
        yield
    finally:
        _backend = before


def which(kernel: str, device: str) -> str:
    """What runs a kernel operator on a device type: "cpu", "cuda", "triton", "definition" or "reference"."""
    if reference():
        return "reference"
    if device == "cuda":
        _meet_gpus()
    backend = _in_use.get(device, "definition")
    if kernel not in _TRITON:
        return "cpu" if backend == "cpu" and kernel in _ON_CPU_ALONE else "definition"
    if backend == "cuda" and kernel in _NOT_IN_CUDA:
        return "triton" if _has_triton() else "definition"
    return backend


def cuda_problem() -> str | None:
    """Why the CUDA library is here and does not run, in a few words; None where it runs or is not here."""
    _meet_gpus()
    return _cuda_problem


def install() -> None:
    """Register the kernels that this build has. Called once, when fastnorm is imported.

    It does not ask for GPUs: a process that has begun to use CUDA can no longer fork others that do.
    """
    interpreting = _backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    if interpreting:
        _register_triton("CPU", _TRITON)
        _in_use["cpu"] = "triton"
    elif _load_cpu():
        _in_use["cpu"] = "cpu"
    if torch.version.cuda and _backend != "triton" and CUDA_LIBRARY.exists():
        _load_cuda()
    elif torch.version.cuda or torch.version.hip:
        _run_triton()


def _load_cpu() -> bool:
    if importlib.util.find_spec(f"{_PACKAGE}._C") is None:
        return False
    try:
        importlib.import_module(f"{_PACKAGE}._C")
    except ImportError as error:
        warnings.warn(f"fastnorm: the compiled extension does not load, plain PyTorch runs instead: {error}", stacklevel=2)
        return False
    return True


def _load_cuda() -> None:
    try:
        runtime, targets = _open_cuda_library()
    except (OSError, AttributeError) as error:
        _leave_cuda(f"it does not load: {error}")
        return
    _in_use["cuda"] = "cuda"

    def check():
        if problem := _misfit(runtime, targets):
            _leave_cuda(problem)
        elif _has_triton():
            _register_triton("CUDA", _NOT_IN_CUDA)

    # It runs when torch begins to use CUDA, before there is a tensor to call a kernel with; now, if it has begun.
    torch.cuda._lazy_call(check)


def _open_cuda_library() -> tuple[int, list[int]]:
    """Register the kernels of the library; the CUDA runtime that it brings, and the targets that it is compiled for."""
    torch.ops.load_library(str(CUDA_LIBRARY))
    library = ctypes.CDLL(str(CUDA_LIBRARY))
    library.fastnorm_cuda_targets.restype = ctypes.c_char_p
    return library.fastnorm_cuda_runtime(), [int(target) for target in library.fastnorm_cuda_targets().split()]


def _misfit(runtime: int, targets: Sequence[int]) -> str | None:
    """Why this machine cannot run a CUDA library of that runtime and for these targets.

    One GPU that it is not for is enough: kernels are chosen by the type of a device, not by the device.
    """
    driver = _driver()
    if driver // 1000 < runtime // 1000:
        return f"it needs a driver for CUDA {_version(runtime)}, and this one is for CUDA {_version(driver)}"
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        if not _serves(targets, 10 * major + minor):
            return f"it has no kernels for {torch.cuda.get_device_name(index)}, compute capability {major}.{minor}"
    return None


def _serves(targets: Sequence[int], capability: int) -> bool:
    """A target serves later minor versions of its major one; the newest, which is there as PTX too, all that follow."""
    same_major = [target for target in targets if target // 10 == capability // 10]
    return capability >= min([*same_major, max(targets)])


def _driver() -> int:
    """The newest CUDA that the driver runs, numbered as CUDA does: 13020 is 13.2."""
    version = ctypes.c_int()
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _leave_cuda(problem: str) -> None:
    global _cuda_problem
    _cuda_problem = problem
    _run_triton()
    instead = "Triton runs instead" if _in_use["cuda"] == "triton" else "pip install triton to have it run instead"
    warnings.warn(f"fastnorm: the CUDA library cannot run, {instead}: {problem}", stacklevel=2)


def _run_triton() -> None:
    if not _has_triton():
        return
    with warnings.catch_warnings():
        # torch warns of kernels that take the place of others: those of a CUDA library that is loaded and cannot run.
        warnings.simplefilter("ignore")
        _register_triton("CUDA", _TRITON)
    _in_use["cuda"] = "triton"


def _meet_gpus() -> None:
    """Have torch begin to use CUDA: before, what runs there is not certain."""
    if torch.cuda.is_available():
        torch.cuda.init()


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _register_triton(dispatch_key: str, kernels: Iterable[str]) -> None:
    for kernel in kernels:
        library.impl(kernel, _first_use(*_TRITON[kernel]), dispatch_key)


def _first_use(room: str, function: str):
    """The kernel, imported when it is first called: importing fastnorm does not import Triton."""
    kernel = None

    def call(*arguments):
        nonlocal kernel
        if kernel is None:
            kernel = getattr(importlib.import_module(f"{_PACKAGE}.kernels.{room}"), function)
        return kernel(*arguments)

    return call
