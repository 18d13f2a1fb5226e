"""The definitions, which serve where nothing was compiled: values, gradients, layouts, and what their fakes promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from calls import backend

from fastnorm.ops import OPERATORS

# A process that finds no extension, and makes sure of it.
WITHOUT_EXTENSION = """
import sys
sys.modules["fastnorm._C"] = None
import pytest
from fastnorm.ops import OPERATORS, backends
kernels = [kernel for operator in OPERATORS.values() for kernel in operator.kernels]
assert {backends.which(kernel, "cpu") for kernel in kernels} == {"definition"}
sys.exit(pytest.main(sys.argv[1:]))
"""

TESTS = (
    "test_values.py::test_values",
    "test_values.py::test_gradients",
    "test_values.py::test_each_input_alone_has_the_same_gradient",
    "test_activations.py",
    "test_shapes.py::test_empty",
    "test_shapes.py::test_planes_of_one_or_two",
    "test_layouts.py::test_maps_of_different_layouts",
    "test_memory.py::test_no_argument_is_modified",
    "test_memory.py::test_outputs_are_new_memory",
    "test_compile.py::test_fakes_promise_what_comes",
)


@pytest.mark.parametrize(
    "types",
    # Definitions are the formula in float64, whatever the type.
    [
        "not float64 and not float16 and not bfloat16",
        pytest.param("float64 or float16 or bfloat16", marks=pytest.mark.long),
    ],
)
@pytest.mark.skipif({*map(backend, OPERATORS.values())} == {"definition"}, reason="every test here runs on definitions")
def test_the_contract_holds_without_an_extension(types):
    tests = [str(Path(__file__).parent / test) for test in TESTS]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION, "-q", "--tb=line", "-p", "no:cacheprovider", "-k", types, *tests],
        env=os.environ | dict(FASTNORM_BACKEND="auto", FASTNORM_TEST_DEVICE="cpu"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
