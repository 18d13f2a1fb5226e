"""How fastnorm is built.

Two shared libraries, each compiled by ninja from plain commands:

    fastnorm/_C.*.so       the CPU kernels, once per instruction set, and their binding to torch's stable ABI
    fastnorm/_C_cuda.so    the CUDA kernels and their binding, where nvcc is found (a CPU-only torch is enough)

Without a C++ compiler the package installs all the same and runs on its definitions. FASTNORM_BUILD=cpu leaves CUDA out;
FASTNORM_BUILD=none leaves both out.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / "csrc"

# torch's stable ABI as of this version: the oldest torch that a build serves.
TORCH_TARGET = "0x020b000000000000"

X86_ISAS = {
    "avx512": "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -mprefer-vector-width=512",
    "avx2": "-mavx2 -mfma -mf16c",
}
CPU_KERNELS = ("instance_stats", "scale_shift", "instance_norm", "layer_instance_norm", "table")
# GCC 12 warns of its own intrinsics: they start from undefined registers.
CXX_FLAGS = (
    "-std=c++17 -O2 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno"
    " -Wall -Wno-psabi -Wno-uninitialized -Wno-maybe-uninitialized"
)

CUDA_KERNELS = ("instance_stats", "scale_shift", "instance_norm", "layer_instance_norm")
CUDA_BINDINGS = ("cuda", "current_stream")
CUDA_TARGETS = ("80", "90", "100", "120")


class Ninja:
    """A build.ninja in the making: one line of text per command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = [
            "rule run",
            "  command = $cmd",
            "  description = $what",
            "rule compile",
            "  command = $cmd -MMD -MF $out.d",
            "  description = $what",
            "  depfile = $out.d",
            "  deps = gcc",
        ]

    def add(self, rule: str, output: str, inputs: list, what: str, command: str) -> str:
        sources = " ".join(str(path).replace(" ", "$ ") for path in inputs)
        self.lines += [f"build {output}: {rule} {sources}", f"  cmd = {command}", f"  what = {what}"]
        return output

    def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "build.ninja").write_text("\n".join(self.lines) + "\n")
        subprocess.run(_ninja(), cwd=self.folder, check=True)


def _ninja() -> list[str]:
    return ["ninja"] if shutil.which("ninja") else [sys.executable, "-m", "ninja"]


def _torch() -> tuple[str, Path]:
    """Include flags, and the folder of torch's libraries."""
    from torch.utils.cpp_extension import include_paths
    import torch

    flags = " ".join(f"-isystem {path}" for path in include_paths())
    return f"{flags} -DTORCH_TARGET_VERSION={TORCH_TARGET}", Path(torch.__file__).parent / "lib"


def build_cpu(folder: Path, output: Path) -> None:
    import pybind11

    cxx = os.environ.get("CXX", "c++")
    torch_flags, torch_lib = _torch()
    isas = {"portable": ""} | (X86_ISAS if platform.machine() in ("x86_64", "AMD64") else {})
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    python_flags = f"-isystem {sysconfig.get_paths()['include']} -isystem {pybind11.get_include()}"

    ninja = Ninja(folder)

    def compile(name: str, source: str, flags: str = "") -> str:
        path = CSRC / source
        return ninja.add("compile", f"{name}.o", [path], f"c++ {name}", f"{cxx} {CXX_FLAGS} {flags} -c {path} -o {name}.o")

    objects = [
        compile(f"{kernel}.{isa}", f"cpu/{kernel}.cpp", f"-DFASTNORM_ISA={isa} {flags}")
        for isa, flags in isas.items()
        for kernel in CPU_KERNELS
    ]
    objects += [
        compile("isa", "cpu/isa.cpp"),
        compile("cpu", "bindings/cpu.cpp", torch_flags),
        compile("fastnorm", "fastnorm.cpp", f"{python_flags} -DFASTNORM_COMPILER='\"{version}\"'"),
    ]
    undefined = "-undefined dynamic_lookup" if sys.platform == "darwin" else ""
    command = f"{cxx} -shared {undefined} {' '.join(objects)} -L{torch_lib} -ltorch_cpu -o {output}"
    ninja.add("run", str(output), objects, f"link {output.name}", command)
    ninja.run()


class BuildExtension(build_ext):
    def build_extension(self, ext: Extension) -> None:
        what = os.environ.get("FASTNORM_BUILD", "all")
        if what not in ("all", "cpu", "none"):
            sys.exit(f"FASTNORM_BUILD: expected all, cpu or none, got {what!r}")
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        if what == "none" or not shutil.which(os.environ.get("CXX", "c++")):
            print("fastnorm: no C++ compiler: installing without kernels, on plain PyTorch", file=sys.stderr)
            return
        folder = Path(self.build_temp).resolve()
        build_cpu(folder / "cpu", output)
        if what == "all" and nvcc():
            build_cuda(folder / "cuda", output.parent / "_C_cuda.so")

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if os.path.exists(path)]


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def cuda_home() -> Path:
    """Where nvcc's headers are: the nvcc on the path may be a wrapper that lies elsewhere."""
    homes = [os.environ.get("CUDA_HOME"), Path(nvcc()).resolve().parents[1], "/usr/local/cuda"]
    for home in map(Path, filter(None, homes)):
        if (home / "include" / "cuda_runtime.h").exists():
            return home
    sys.exit("fastnorm: nvcc is here, but not cuda_runtime.h: set CUDA_HOME, or FASTNORM_BUILD=cpu to leave CUDA out")


def build_cuda(folder: Path, output: Path) -> None:
    """Builds beside a CPU-only torch too: torch's CUDA library is asked for the stream when the kernels run."""
    cxx = os.environ.get("CXX", "c++")
    torch_flags, torch_lib = _torch()
    home = cuda_home()
    codes = [f"-gencode arch=compute_{target},code=sm_{target}" for target in CUDA_TARGETS]
    newest = f"-gencode arch=compute_{CUDA_TARGETS[-1]},code=compute_{CUDA_TARGETS[-1]}"
    nvcc_flags = f"-std=c++17 -O3 --threads 2 -Xcompiler -fPIC,-fvisibility=hidden {' '.join(codes)} {newest}"

    ninja = Ninja(folder)
    objects = []
    for kernel in CUDA_KERNELS:
        path = CSRC / "cuda" / f"{kernel}.cu"
        command = f"{nvcc()} {nvcc_flags} -c {path} -o {kernel}.o"
        objects.append(ninja.add("compile", f"{kernel}.o", [path], f"nvcc {kernel}", command))
    for binding in CUDA_BINDINGS:
        path = CSRC / "bindings" / f"{binding}.cpp"
        command = f"{cxx} {CXX_FLAGS} {torch_flags} -DUSE_CUDA -isystem {home}/include -c {path} -o {binding}.o"
        objects.append(ninja.add("compile", f"{binding}.o", [path], f"c++ {binding}", command))
    libraries = f"-L{torch_lib} -ltorch_cpu -L{home}/lib64 -lcudart_static -ldl -lrt -lpthread"
    command = f"{cxx} -shared {' '.join(objects)} {libraries} -o {output}"
    ninja.add("run", str(output), objects, f"link {output.name}", command)
    ninja.run()


setup(cmdclass={"build_ext": BuildExtension}, ext_modules=[Extension("fastnorm._C", sources=[], optional=False)])
