"""ONNX Runtime and OpenVINO on the CPU, each as its users set it up for one picture at a time.

`RUNTIMES[name](find, dtype, threads)` gives a function that runs the network once and returns its output, a numpy array
that the next run may overwrite. `find()` gives an ONNX file and its inputs by name; it is called when the runtime is
found.
"""

import importlib

import torch

from .contenders import LeftOut


def onnxruntime(find, dtype, threads):
    runtime = _module("onnxruntime")
    if dtype != torch.float32:
        raise LeftOut(f"onnxruntime left out in {_named(dtype)}: it has no such convolution on the CPU")
    file, inputs = find()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # Errors: the published file is said to have initialisers that nothing uses.
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)[0]


def openvino(find, dtype, threads):
    core = _module("openvino").Core()
    hints = {torch.float32: "f32", torch.bfloat16: "bf16"}
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if dtype not in hints or hints[dtype].upper() not in (*able, "F32"):
        raise LeftOut(f"openvino left out in {_named(dtype)}: it does not have it on this CPU")
    file, inputs = find()
    model = core.read_model(file)
    model.reshape({name: array.shape for name, array in inputs.items()})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": hints[dtype],
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)[0]


RUNTIMES = {"onnxruntime": onnxruntime, "openvino": openvino}


def _module(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise LeftOut(f"{name} left out, it is not installed: pip install {name}") from None


def _named(dtype):
    return str(dtype).removeprefix("torch.")
