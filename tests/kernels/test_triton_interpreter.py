"""Triton's interpreter must be chosen before kernels are imported: tests of values have processes of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")
# Half a minute or more each, so that those of one of the most intricate kernels run each time.
VALUES = (
    pytest.param("test_triton_values.py", marks=pytest.mark.long),
    pytest.param("test_triton_dynamic_conv2d.py", marks=pytest.mark.long),
    pytest.param("test_triton_upsample_pad2d.py", marks=pytest.mark.long),
    "test_triton_norm_conv2d.py",
    pytest.param("test_triton_attention_stats.py", marks=pytest.mark.long),
    pytest.param("test_triton_patch_match.py", marks=pytest.mark.long),
    pytest.param("test_triton_swap_patches.py", marks=pytest.mark.long),
    pytest.param("test_triton_gram_matrix.py", marks=pytest.mark.long),
    pytest.param("test_triton_match_histogram.py", marks=pytest.mark.long),
)


def version(module):
    return tuple(map(int, module.__version__.split(".")[:2]))


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter is already chosen")
@pytest.mark.skipif(
    version(triton) <= (3, 6) and version(numpy) >= (2, 4),
    reason="the interpreter of Triton 3.6 takes int() of arrays of one element, which NumPy 2.4 refuses",
)
@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    values = Path(__file__).with_name(name)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(values)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=values.parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\b\d{2,} passed", run.stdout) and "skipped" not in run.stdout, run.stdout
