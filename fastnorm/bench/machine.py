"""The machine that a measurement was taken on, and the versions of what ran."""

import importlib
import platform
import subprocess
from pathlib import Path

import numpy
import torch

import fastnorm


def describe() -> dict:
    """Everything that a result depends on beside the code: for a file of results, and for `fastnorm info`."""
    return {
        "versions": versions(),
        "commit": commit(),
        "cpu": cpu(),
        "threads": torch.get_num_threads(),
        "gpus": gpus(),
    }


def versions() -> dict[str, str | None]:
    return {
        "fastnorm": fastnorm.__version__,
        "torch": torch.__version__,
        "triton": getattr(_module("triton"), "__version__", None),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def extension():
    """The compiled module `fastnorm._C`; None where it was not built."""
    return _module("fastnorm._C")


def _module(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def commit(checkout: Path = Path(fastnorm.__file__).parent.parent) -> str | None:
    """The commit of a checkout, with a + where it was changed since; None for a folder that is not one."""
    top = _git(checkout, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != checkout.resolve():  # Installed, perhaps inside somebody else's checkout.
        return None
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return f"{_git(checkout, 'rev-parse', '--short=12', 'HEAD')}{'+' if changed else ''}"


def _git(checkout, *arguments):
    try:
        found = subprocess.run(["git", "-C", checkout, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def cpu() -> dict:
    """Its name, and the instruction set that the kernels use (None without the compiled extension)."""
    found = extension()
    return {"name": _cpu_name(), "isa": found.isa() if found else None}


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def gpus() -> list[dict]:
    if not torch.cuda.is_available():
        return []
    return [_gpu(torch.cuda.get_device_properties(index)) for index in range(torch.cuda.device_count())]


def _gpu(properties):
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory": properties.total_memory,
        "l2_cache": properties.L2_cache_size,
    }
