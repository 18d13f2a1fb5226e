"""The kernels compile for every target without spilling a register, and the library loads beside a torch without CUDA."""

import re
import subprocess
import sys

import commands
import pytest

pytestmark = pytest.mark.skipif(commands.NVCC is None or commands.CXX is None, reason="no nvcc")


def resources(report):
    """(kernel, registers, bytes spilled) of every kernel in the assembler's report."""
    for block in report.split("Compiling entry function ")[1:]:
        name = block.split("'")[1]
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", block)))
        yield name, int(re.search(r"Used (\d+) registers", block)[1]), spilled


def assert_nothing_spills(reports, targets):
    found = [kernel for report in reports for kernel in resources(report)]
    # 10 forms of three kernels, 6 of the two that hold planes, four that merge parts, and four that blend planes; 4 of the
    # four kernels of a convolution, 36 by tiles; 12 forms of an upsampling, 16 of its reverse.
    assert len(found) == 130 * targets
    assert [kernel for kernel in found if kernel[2]] == []
    # Blocks of 512 threads leave each 128 registers; one thread fewer and they would not start.
    assert all(registers <= 128 for name, registers, _ in found if "of_planes" in name or "stats_of_chunks" in name)


def assert_loads_without_cuda(library):
    undefined = commands.run(["nm", "-D", "--undefined-only", library]).split()
    # torch's C++ changes from version to version; its C shim and a CUDA library are not to be relied on either way.
    assert not [name for name in undefined if re.match(r"_Z.*(2at|3c10|5torch)|cuda|cu[A-Z]|aoti_torch_.*cuda_", name)]
    program = f"""
import torch, fastnorm
torch.ops.load_library({str(library)!r})
from fastnorm.ops import backends
kernels = {{kernel for operator in fastnorm.ops.OPERATORS.values() for kernel in operator.kernels}}
for name in kernels.intersection(backends._TRITON).difference(backends._NOT_IN_CUDA):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"fastnorm::{{name}}", "CUDA"), name
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=commands.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_for_hopper_without_spills(tmp_path):
    (_, (report,)) = commands.compile_kernels(tmp_path, ("90",), [commands.CSRC / "cuda/instance_stats.cu"])
    found = list(resources(report))
    assert len(found) >= 4 and not any(spilled for _, _, spilled in found)


@pytest.mark.long
def test_all_for_hopper_without_spills_and_loaded_without_cuda(build_folder):
    """One test, for each worker that had one of two would compile all kernels: a minute and a half."""
    objects, reports = commands.compile_kernels(build_folder, ("90",))
    assert_nothing_spills(reports, 1)
    assert_loads_without_cuda(commands.cuda_library(build_folder, objects))


@pytest.mark.long
def test_every_target_without_spills(tmp_path):
    assert_nothing_spills(commands.compile_kernels(tmp_path, ("80", "90", "100", "120"))[1], 4)


def test_the_report_of_spills_is_read():
    report = """ptxas info    : Compiling entry function 'kernel' for 'sm_90'
    32 bytes stack frame, 28 bytes spill stores, 60 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers"""
    assert list(resources(report)) == [("kernel", 128, 88)]
