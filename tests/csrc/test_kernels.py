"""The C++ kernels by themselves: under sanitizers, and for a machine that this is not."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPU = ROOT / "csrc" / "cpu"
KERNELS = sorted(path for path in CPU.glob("*.cpp") if path.name != "isa.cpp")


def build(compiler: str, isas: dict[str, str], flags: str, folder: Path) -> list[Path]:
    """Object files of every kernel for every instruction set."""
    objects = []
    for isa, isa_flags in isas.items():
        for kernel in KERNELS:
            objects.append(folder / f"{kernel.stem}.{isa}.o")
            command = [compiler, "-std=c++17", "-w", *flags.split(), *isa_flags.split()]
            subprocess.run([*command, f"-DFASTNORM_ISA={isa}", "-c", kernel, "-o", objects[-1]], check=True)
    return objects


@pytest.mark.long
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_kernels_under_sanitizers(tmp_path):
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -ffp-contract=fast"
    isas = {"portable": ""}
    if platform.machine() == "x86_64":
        isas |= {"avx2": "-mavx2 -mfma -mf16c", "avx512": "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c"}
    objects = build("c++", isas, flags, tmp_path)
    program = tmp_path / "kernels"
    sources = [CPU / "isa.cpp", *sorted(Path(__file__).parent.glob("*.cpp"))]
    subprocess.run(["c++", "-std=c++17", *flags.split(), *sources, *objects, "-pthread", "-o", program], check=True)
    run = subprocess.run([program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "portable: checked" in run.stdout


@pytest.mark.long
@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-g++") is None, reason="no compiler for 64-bit Arm")
def test_kernels_compile_to_neon(tmp_path):
    objects = build("aarch64-linux-gnu-g++", {"portable": ""}, "-O2 -ffp-contract=fast", tmp_path)
    stats = next(path for path in objects if path.name.startswith("instance_stats"))
    assembly = subprocess.run(["aarch64-linux-gnu-objdump", "-d", stats], capture_output=True, text=True, check=True).stdout
    assert "fmla" in assembly and "v0.4s" in assembly, "the loops are not vectors of four floats"
