"""The kernels' values: run by the emulator, in a process of its own, whose CPU tensors go to the CUDA kernels."""

import os
import subprocess
import sys
from pathlib import Path

import commands
import pytest

pytestmark = pytest.mark.skipif(commands.GXX is None, reason="no g++ for Linux")

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def emulator(build_folder):
    return commands.emulator_library(build_folder)


def run_tests(emulator, *arguments):
    """pytest on the emulator; the number of tests that passed."""
    paths = [commands.EMULATOR, commands.ROOT, os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"FASTNORM_EMULATOR": str(emulator), "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "on_emulator", *map(str, arguments)],
        cwd=commands.ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.long
def test_plans_for_hopper(emulator):
    run_tests(emulator, TESTS / "cuda" / "emulator", "-k", "hopper")


@pytest.mark.long
def test_every_plan(emulator):
    run_tests(emulator, TESTS / "cuda" / "emulator", "-m", "")


# Not the files with large maps: a thread of the emulator takes a microsecond for each turn.
@pytest.mark.long
@pytest.mark.parametrize("file", ["values", "layouts", "shapes", "numbers", "autograd"])
def test_contract(emulator, file):
    run_tests(emulator, TESTS / "contract" / f"test_{file}.py")
