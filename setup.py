"""How fastnorm is built.

Two shared libraries, each compiled by ninja from plain commands:

    fastnorm/_C.*.so       the CPU kernels, once per instruction set, and their binding to torch's stable ABI
    fastnorm/_C_cuda.so    the CUDA kernels and their binding, where nvcc is found (a CPU-only torch is enough)

Without a C++ compiler the package installs all the same and runs on its definitions; where CUDA does not compile, on
Triton. FASTNORM_BUILD=cpu leaves CUDA out; FASTNORM_BUILD=none leaves both out.
"""

import importlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / "csrc"

CPU, CUDA = LIBRARIES = "fastnorm._C", "fastnorm._C_cuda"
BUILDS = {"all": LIBRARIES, "cpu": (CPU,), "none": ()}

# torch's stable ABI as of this version: the oldest torch that a build serves.
TORCH_TARGET = "0x020b000000000000"

X86_ISAS = {
    "avx512": "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -mprefer-vector-width=512",
    "avx2": "-mavx2 -mfma -mf16c",
}
CPU_KERNELS = (
    "instance_stats", "scale_shift", "instance_norm", "layer_instance_norm", "norm_conv2d", "dynamic_conv2d", "upsample_pad2d",
    "attention_stats", "attention_stats_backward", "patch_match", "swap_patches", "gram_matrix", "match_histogram",
    "table",
)  # fmt: skip
# GCC 12 warns of its own intrinsics: they start from undefined registers.
CXX_FLAGS = (
    "-std=c++17 -O2 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno"
    " -Wall -Wno-psabi -Wno-uninitialized -Wno-maybe-uninitialized"
).split()

CUDA_KERNELS = (
    "instance_stats", "scale_shift", "instance_norm", "layer_instance_norm", "dynamic_conv2d", "upsample_pad2d",
)  # fmt: skip
CUDA_BINDINGS = ("cuda", "current_stream")
CUDA_TARGETS = ("80", "90", "100", "120")
# What fastnorm/ops/backends.py asks the library before it trusts it with a GPU.
CUDA_FACTS = f"""#include <cuda_runtime_api.h>
#define PUBLIC extern "C" __attribute__((visibility("default")))
PUBLIC int fastnorm_cuda_runtime() {{ return CUDART_VERSION; }}
PUBLIC const char* fastnorm_cuda_targets() {{ return "{' '.join(CUDA_TARGETS)}"; }}
"""
WITHOUT_CUDA = "installing without it, on Triton; FASTNORM_BUILD=cpu leaves CUDA out"


class BuildExtension(build_ext):
    """Builds the libraries that are wanted. What an earlier build left of the others would be installed with them."""

    def build_extensions(self) -> None:
        libraries = wanted()
        for name, build in ((CPU, build_cpu), (CUDA, build_cuda)):
            library = Path(self.get_ext_fullpath(name)).resolve()
            library.parent.mkdir(parents=True, exist_ok=True)
            if not (name in libraries and build(Path(self.build_temp, name).resolve(), library)):
                library.unlink(missing_ok=True)

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        for name in LIBRARIES:
            if not Path(self.build_lib, self.get_ext_filename(name)).exists():
                Path(self.get_ext_fullpath(name)).unlink(missing_ok=True)

    def get_ext_filename(self, fullname: str) -> str:
        # No module of Python: one file for each of its versions.
        if fullname.endswith("_C_cuda"):
            return os.path.join(*fullname.split(".")) + ".so"
        return super().get_ext_filename(fullname)

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if os.path.exists(path)]


def wanted() -> tuple[str, ...]:
    """The libraries that FASTNORM_BUILD asks for, as far as there are compilers for them."""
    what = os.environ.get("FASTNORM_BUILD") or "all"
    if what not in BUILDS:
        sys.exit(f"FASTNORM_BUILD: expected {', '.join(BUILDS)}, got {what!r}")
    if what != "none" and not cxx():
        say("no C++ compiler: installing without kernels, on plain PyTorch")
        return ()
    return tuple(library for library in BUILDS[what] if library != CUDA or nvcc())


def say(line: str) -> None:
    print(f"fastnorm: {line}", file=sys.stderr, flush=True)


# Compilers, and what they need.


def cxx() -> list[str]:
    """The C++ compiler, as a command begins: CXX may have arguments. Empty where there is none."""
    chosen = os.environ.get("CXX", "").strip()
    words = [chosen] if shutil.which(chosen) else shlex.split(chosen or "c++")
    if shutil.which(words[0]):
        return words
    if chosen:
        sys.exit(f"fastnorm: CXX: there is no {words[0]!r}: set CXX to a C++ compiler, or unset it")
    return []


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def cuda_home() -> Path | None:
    """Where nvcc's headers are: the nvcc on the path may be a wrapper that lies elsewhere."""
    homes = [os.environ.get("CUDA_HOME"), Path(nvcc()).resolve().parents[1], "/usr/local/cuda"]
    for home in map(Path, filter(None, homes)):
        if (home / "include" / "cuda_runtime.h").exists():
            return home
    return None


def torch_paths() -> tuple[list[str], str]:
    """Flags that find torch's headers, and one that finds its libraries."""
    torch = needed("torch")
    includes = needed("torch.utils.cpp_extension").include_paths()
    flags = [word for path in includes for word in ("-isystem", path)]
    return [*flags, f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"], f"-L{Path(torch.__file__).parent / 'lib'}"


def needed(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        sys.exit(f"fastnorm: {error}: building it needs torch, pybind11 and ninja")


def ninja_command() -> list[str]:
    if shutil.which("ninja"):
        return ["ninja"]
    needed("ninja")
    return [sys.executable, "-m", "ninja"]


class Ninja:
    """A build.ninja in the making: a file, and the command that makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
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

    def compile(self, compiler: str, source: Path, flags: list, name: str = "") -> str:
        """The object file of a source, in the folder."""
        output = f"{name or source.stem}.o"
        command = [*flags, "-c", source, "-o", output]
        return self._add("compile", output, [source], f"{compiler} {name or source.stem}", command)

    def link(self, library: Path, objects: list, flags: list) -> None:
        command = [*cxx(), "-shared", *objects, *flags, "-o", library]
        self._add("run", library, objects, f"link {library.name}", command)

    def _add(self, rule: str, output: str | Path, inputs: list, what: str, command: list) -> str | Path:
        def path(text) -> str:
            return re.sub("[$ :]", r"$\g<0>", str(text))

        self.lines += [
            f"build {path(output)}: {rule} {' '.join(map(path, inputs))}",
            f"  cmd = {shlex.join(map(str, command)).replace('$', '$$')}",
            f"  what = {what}",
        ]
        return output

    def run(self) -> bool:
        """Whether everything is made; if not, the compiler has said why."""
        (self.folder / "build.ninja").write_text("\n".join(self.lines) + "\n")
        return subprocess.run(ninja_command(), cwd=self.folder).returncode == 0


# The libraries.


def build_cpu(folder: Path, library: Path) -> bool:
    torch_flags, torch_libraries = torch_paths()
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    # Beside those, processors of before 2013: little is asked of the compiler, which then takes two thirds of its time.
    isas = {"portable": "-O1" if is_x86 else ""} | (X86_ISAS if is_x86 else {})
    version = subprocess.run([*cxx(), "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    python_includes = sysconfig.get_paths()["include"], needed("pybind11").get_include()
    module_flags = [word for path in python_includes for word in ("-isystem", path)]
    module_flags += [f"-DFASTNORM_COMPILER={json.dumps(version)}"]

    ninja = Ninja(folder)

    def compile(source: str, flags: list, name: str = "") -> str:
        return ninja.compile("c++", CSRC / source, [*cxx(), *CXX_FLAGS, *flags], name)

    objects = [
        compile(f"cpu/{kernel}.cpp", [f"-DFASTNORM_ISA={isa}", *flags.split()], f"{kernel}.{isa}")
        for isa, flags in isas.items()
        for kernel in CPU_KERNELS
    ]
    objects += [
        compile("cpu/isa.cpp", []),
        compile("bindings/cpu.cpp", torch_flags),
        compile("fastnorm.cpp", module_flags),
    ]
    undefined = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    ninja.link(library, objects, [*undefined, torch_libraries, "-ltorch_cpu"])
    if not ninja.run():
        sys.exit(
            f"fastnorm: {shlex.join(cxx())} failed, in its own words above;"
            " FASTNORM_BUILD=none installs without kernels, on plain PyTorch"
        )
    return True


def build_cuda(folder: Path, library: Path) -> bool:
    """Whether it is built. A CPU-only torch will do: torch's CUDA library is first asked for when the kernels run."""
    home = cuda_home()
    if home is None:
        say(f"warning: nvcc is here, but not cuda_runtime.h; set CUDA_HOME; {WITHOUT_CUDA}")
        return False
    torch_flags, torch_libraries = torch_paths()
    codes = [f"-gencode=arch=compute_{target},code=sm_{target}" for target in CUDA_TARGETS]
    newest = f"-gencode=arch=compute_{CUDA_TARGETS[-1]},code=compute_{CUDA_TARGETS[-1]}"
    nvcc_flags = ["-std=c++17", "-O3", "--threads=2", "-Xcompiler=-fPIC,-fvisibility=hidden", *codes, newest]
    cxx_flags = [*CXX_FLAGS, *torch_flags, "-DUSE_CUDA", "-isystem", home / "include"]

    ninja = Ninja(folder)
    facts = folder / "facts.cpp"
    facts.write_text(CUDA_FACTS)
    kernels = [CSRC / "cuda" / f"{kernel}.cu" for kernel in CUDA_KERNELS]
    bindings = [CSRC / "bindings" / f"{binding}.cpp" for binding in CUDA_BINDINGS]
    objects = [ninja.compile("nvcc", source, [nvcc(), *nvcc_flags]) for source in kernels]
    objects += [ninja.compile("c++", source, [*cxx(), *cxx_flags]) for source in [*bindings, facts]]
    runtime = [f"-L{home / 'lib64'}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    ninja.link(library, objects, [torch_libraries, "-ltorch_cpu", *runtime])
    if ninja.run():
        return True
    say(f"warning: the CUDA library does not compile, see the words of the compiler above; {WITHOUT_CUDA}")
    return False


if __name__ == "__main__":
    setup(
        # Before setuptools 77 pyproject.toml could not say it in one word; since then it need not.
        license="Apache-2.0",
        cmdclass={"build_ext": BuildExtension},
        # Not to find a library is no error of setuptools: whether it is one is said above.
        ext_modules=[Extension(name, sources=[], optional=True) for name in LIBRARIES],
    )
