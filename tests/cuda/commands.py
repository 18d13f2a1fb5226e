"""The commands that build the CUDA half, for a machine without a GPU: by nvcc, or for the emulator by any C++ compiler."""

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
EMULATOR = Path(__file__).parent / "emulator"
KERNELS = sorted((CSRC / "cuda").glob("*.cu"))
BINDINGS = [CSRC / "bindings" / "cuda.cpp", CSRC / "bindings" / "current_stream.cpp"]

CXX = shutil.which(os.environ.get("CXX", "c++"))
# For its _Float16 and thread-local memory that other threads can reach.
GXX = shutil.which("g++") if platform.system() == "Linux" else None
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path=os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin")

_TORCH = [f"-isystem{path}" for path in include_paths()] + ["-DTORCH_TARGET_VERSION=0x020b000000000000"]
_TORCH_LIBRARY = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu"]


def run(command: list) -> str:
    """What the command prints; an error with all of it where it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, " ".join(map(str, command)) + "\n" + done.stdout + done.stderr
    return done.stdout + done.stderr


def run_all(commands: list[list]) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, commands))


def emulator_library(folder: Path) -> Path:
    """The kernels as the emulator runs them, bound to CPU tensors. What the standard leaves undefined traps."""
    flags = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-w", "-fno-strict-aliasing", "-fno-extern-tls-init"]
    flags += ["-fsanitize=alignment,bounds,shift,signed-integer-overflow", "-fsanitize-undefined-trap-on-error"]
    flags += [f"-I{EMULATOR}", f"-I{CSRC}", *_TORCH, "-DFASTNORM_DISPATCH_KEY=CPU"]
    sources = [*KERNELS, CSRC / "bindings" / "cuda.cpp", EMULATOR / "emulator.cpp", EMULATOR / "stream.cpp"]
    objects = [folder / f"{source.stem}.emulated.o" for source in sources]
    run_all([[GXX, *flags, "-xc++", "-c", source, "-o", object] for source, object in zip(sources, objects)])
    library = folder / "emulated.so"
    run([GXX, "-shared", *objects, *_TORCH_LIBRARY, "-pthread", "-o", library])
    return library


def compile_kernels(folder: Path, targets: tuple[str, ...], kernels: list[Path] = KERNELS) -> tuple[list[Path], list[str]]:
    """Object files of the kernels for these GPUs, and what the assembler says of registers."""
    codes = [f"-gencode=arch=compute_{target},code=sm_{target}" for target in targets]
    flags = ["-std=c++17", "-O3", "-Xptxas=-v", "-Xcompiler=-fPIC,-fvisibility=hidden", *codes]
    objects = [folder / f"{kernel.stem}.o" for kernel in kernels]
    return objects, run_all([[NVCC, *flags, "-c", kernel, "-o", object] for kernel, object in zip(kernels, objects)])


def cuda_library(folder: Path, kernels: list[Path]) -> Path:
    """The CUDA half whole, of kernels compiled before: `fastnorm/_C_cuda.so`."""
    home = cuda_home(folder)
    flags = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", *_TORCH, f"-isystem{home / 'include'}"]
    objects = [folder / f"{source.stem}.o" for source in BINDINGS]
    run_all([[CXX, *flags, "-c", source, "-o", object] for source, object in zip(BINDINGS, objects)])
    library = folder / "_C_cuda.so"
    static_runtime = [f"-L{home / 'lib64'}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    run([CXX, "-shared", *kernels, *objects, *_TORCH_LIBRARY, *static_runtime, "-o", library])
    return library


def cuda_home(folder: Path) -> Path:
    """Where the toolkit is, in nvcc's own words: the nvcc on the path may be a wrapper."""
    source = folder / "empty.cu"
    source.touch()
    top = next(line for line in run([NVCC, "--dryrun", "-c", source]).splitlines() if "TOP=" in line)
    return Path(top.partition("TOP=")[2]).resolve()
