"""Triton's interpreter must be chosen before kernels are imported: `test_triton_values.py` has a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
VALUES = Path(__file__).with_name("test_triton_values.py")


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter is already chosen")
def test_values():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(VALUES)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=VALUES.parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\b\d{2,} passed", run.stdout) and "skipped" not in run.stdout, run.stdout
