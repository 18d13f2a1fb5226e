"""`fastnorm info`: versions, the machine, and what runs each operator on it."""

import json
import os
import shutil

import torch

from ..bench import machine
from ..ops import OPERATORS, backends
from . import table

NAMES = {
    "cpu": "C++",
    "cuda": "CUDA C++",
    "triton": "Triton",
    "definition": "plain PyTorch",
    "reference": "plain PyTorch",
}
HOW_TO_BUILD = (
    "there is no compiled extension, plain PyTorch runs instead: "
    "install a C++ compiler, then in a checkout pip install --no-build-isolation --force-reinstall --no-deps ."
)
HOW_TO_BUILD_CUDA = (
    "nvcc is here, the CUDA library is not: to build it, or to see what fails, "
    "pip install -v --no-build-isolation --force-reinstall --no-deps . in a checkout"
)


def add_arguments(parser):
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args) -> int:
    found = collect()
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(_lines(found)), end="\n\n")
        table.show("what runs", *_operator_table(found["operators"]), text_columns=3)
    return 0


def collect() -> dict:
    extension = machine.extension()
    return machine.describe() | {
        "extension": extension and {"isas": extension.available_isas(), "compiler": extension.compiler},
        "cuda_problem": _cuda_problem(),
        "operators": {name: _kernels(operator) for name, operator in OPERATORS.items()},
    }


def _cuda_problem():
    """Why CUDA C++ does not run where it could; None where it does, or nothing is there for it to run on."""
    if not torch.version.cuda:
        return None
    if backends.CUDA_LIBRARY.exists():
        return backends.cuda_problem()
    found = shutil.which("nvcc") or shutil.which("nvcc", path=os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin")
    return HOW_TO_BUILD_CUDA if found else None


def _kernels(operator):
    """What runs each kernel of an operator on CPU, and on a GPU where there is one."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return {device: {kernel: backends.which(kernel, device) for kernel in operator.kernels} for device in devices}


def _lines(found):
    versions, cpu, extension = found["versions"], found["cpu"], found["extension"]
    yield f"fastnorm {versions['fastnorm']}" + (f", commit {found['commit']}" if found["commit"] else "")
    yield "  ".join(f"{name} {versions[name] or 'not installed'}" for name in ("python", "torch", "triton", "numpy"))
    yield f"CPU: {cpu['name']}, {found['threads']} threads"
    if extension:
        others = ", ".join(isa for isa in extension["isas"] if isa != cpu["isa"])
        also = f" (this machine can also run {others})" if others else ""
        yield f"CPU kernels: {cpu['isa']}{also}, {extension['compiler']}"
    else:
        yield f"CPU kernels: {HOW_TO_BUILD}"
    for gpu in found["gpus"]:
        yield f"GPU: {gpu['name']}, compute capability {gpu['capability']}, {gpu['memory'] / 2**30:.0f} GiB"
    if not found["gpus"]:
        yield "GPU: none that torch can use"
    if found["cuda_problem"]:
        yield f"CUDA kernels: {found['cuda_problem']}"
    if backends.reference():
        yield "FASTNORM_BACKEND=reference: plain PyTorch runs everything"


def _operator_table(operators):
    devices = list(next(iter(operators.values())))
    rows = [(name, *(_in_words(kernels[device]) for device in devices)) for name, kernels in operators.items()]
    return ("operator", *({"cpu": "on CPU", "cuda": "on GPU"}[device] for device in devices)), rows


def _in_words(kernels):
    """What runs most of the kernels, and the others by name."""
    by_name = {}
    for kernel, backend in kernels.items():
        by_name.setdefault(NAMES[backend], []).append(kernel)
    most, *others = sorted(by_name, key=lambda name: -len(by_name[name]))
    return "; ".join([most, *(f"{name}: {', '.join(by_name[name])}" for name in others)])
