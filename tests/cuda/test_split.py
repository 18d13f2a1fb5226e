"""Plans of kernels, on the host."""

import commands
import pytest


@pytest.mark.skipif(commands.CXX is None, reason="no C++ compiler")
def test_plans(build_folder):
    program = build_folder / "split"
    source = commands.ROOT / "tests" / "cuda" / "split.cpp"
    commands.run([commands.CXX, "-std=c++17", "-O1", "-w", f"-I{commands.CSRC}", source, "-o", program])
    report = commands.run([program])
    assert int(report.split()[1]) > 20000
