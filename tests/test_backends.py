"""Which kernels run on a GPU: decided when torch begins to use CUDA, on machines of every kind. On CPU."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from fastnorm.cli import info
from fastnorm.ops import OPERATORS, backends

ROOT = Path(__file__).parents[1]
MISSING = Path("nowhere.so")
OPEN = backends._open_cuda_library


class Machine:
    """A torch with CUDA, GPUs and their driver; a CUDA library as setup.py builds it; Triton."""

    def __init__(self, patch):
        self.gpus = [(9, 0)]
        self.driver = 13000
        self.triton = True
        self.registered = []
        waiting = []

        def begin():
            while waiting:
                waiting.pop()()

        def load():
            self.registered.append("cuda")
            return 13000, [80, 90, 100, 120]

        def replace(key, kernels):
            if kernels is backends._TRITON:
                self.registered.append("triton")
                warnings.warn("torch: overriding a previously registered kernel", stacklevel=1)
            else:
                self.registered.append("triton beside")

        patch(torch.version, cuda="13.0", hip=None)
        patch(torch.cuda, _lazy_call=waiting.append, init=begin, is_available=lambda: bool(self.gpus))
        patch(torch.cuda, device_count=lambda: len(self.gpus), get_device_capability=lambda index: self.gpus[index])
        patch(torch.cuda, get_device_name=lambda index: f"GPU {index}")
        patch(backends, CUDA_LIBRARY=Path(__file__), _open_cuda_library=load, _driver=lambda: self.driver)
        patch(backends, _register_triton=replace, _load_cpu=lambda: False)
        patch(backends, _backend="auto", _in_use={"cpu": "definition", "cuda": "definition"}, _cuda_problem=None)
        patch(backends.importlib.util, find_spec=lambda name: self.triton or None)


@pytest.fixture
def patch(monkeypatch):
    def set_all(module, **attributes):
        for name, value in attributes.items():
            monkeypatch.setattr(module, name, value)

    return set_all


@pytest.fixture
def machine(patch):
    return Machine(patch)


def in_use():
    return backends.which("instance_norm", "cuda")


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 3), (12, 1), (13, 0)], ids=str)
def test_cuda_runs_on_what_it_is_compiled_for(machine, capability):
    machine.gpus = [(8, 6), capability]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backends.install()
        assert in_use() == "cuda" and machine.registered == ["cuda", "triton beside"]
    assert backends.cuda_problem() is None


@pytest.mark.parametrize("triton, runs", [(True, "triton"), (False, "definition")], ids=str)
def test_what_the_cuda_library_has_not_runs_beside_it(machine, triton, runs):
    machine.triton = triton
    backends.install()
    assert backends.which("norm_conv2d", "cuda") == runs and in_use() == "cuda"
    assert machine.registered == ["cuda", *(["triton beside"] if triton else [])]
    operator = info._kernels(OPERATORS["upsample_conv2d"])["cuda"]
    assert operator.pop("norm_conv2d") == runs
    assert set(operator.values()) == {"cuda"}


@pytest.mark.parametrize("capability", [(7, 5), (11, 0)], ids=str)
def test_triton_runs_where_a_gpu_is_too_old_or_left_out(machine, capability):
    machine.gpus = [(9, 0), capability]
    backends.install()
    problem = f"it has no kernels for GPU 1, compute capability {capability[0]}.{capability[1]}"
    with pytest.warns(UserWarning) as warned:
        assert in_use() == "triton"
    (warning,) = warned
    assert str(warning.message) == f"fastnorm: the CUDA library cannot run, Triton runs instead: {problem}"
    assert machine.registered == ["cuda", "triton"]
    assert backends.cuda_problem() == problem


def test_triton_runs_where_the_driver_is_older_than_the_library(machine):
    machine.driver = 12080
    backends.install()
    with pytest.warns(UserWarning, match="it needs a driver for CUDA 13.0, and this one is for CUDA 12.8$"):
        assert in_use() == "triton"


def test_without_triton_it_is_asked_for(machine):
    machine.driver, machine.triton = 12080, False
    backends.install()
    with pytest.warns(UserWarning, match="cannot run, pip install triton to have it run instead: it needs a driver"):
        assert in_use() == "cuda"


def test_a_library_that_does_not_load(machine, patch, tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    patch(backends, CUDA_LIBRARY=broken, _open_cuda_library=OPEN)
    with pytest.warns(UserWarning, match="cannot run, Triton runs instead: it does not load: .*broken.so"):
        backends.install()
    assert in_use() == "triton"


@pytest.mark.parametrize(
    "settings, registered",
    [
        (dict(CUDA_LIBRARY=MISSING), ["triton"]),
        (dict(_backend="triton"), ["triton"]),
        (dict(cuda=None, hip="7.1"), ["triton"]),
        (dict(cuda=None), []),
    ],
    ids=str,
)
def test_what_is_registered_without_the_library(machine, patch, settings, registered):
    for name, value in settings.items():
        patch(torch.version if name in ("cuda", "hip") else backends, **{name: value})
    backends.install()
    assert machine.registered == registered
    assert in_use() == (registered or ["definition"])[0]


def test_installing_asks_for_no_gpu(machine, patch):
    def ask(*_):
        raise AssertionError("this process cannot fork any more")

    patch(torch.cuda, **dict.fromkeys(("is_available", "init", "device_count", "get_device_capability"), ask))
    patch(backends, _driver=ask)
    backends.install()
    assert machine.registered == ["cuda"]


# In processes of their own.


def python(program, *paths):
    environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, paths)), "FASTNORM_BACKEND": "auto"}
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_importing_asks_for_no_gpu():
    program = """
import torch
def ask(*_): raise AssertionError("this process cannot fork any more")
for name in ("is_available", "init", "_lazy_init", "device_count", "get_device_properties"):
    setattr(torch.cuda, name, ask)
torch.version.cuda = "13.0"
import fastnorm
"""
    done = python(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (sys.platform == "linux" and shutil.which("cc")), reason="no C compiler for Linux")
def test_a_library_and_a_driver_that_do_not_fit(tmp_path):
    """The library is loaded, the driver asked, and Triton registered."""
    sources = {
        "library.so": 'int fastnorm_cuda_runtime() { return 13000; } char* fastnorm_cuda_targets() { return "80 90"; }',
        "libcuda.so.1": "int cuDriverGetVersion(int* version) { *version = 12040; return 0; }",
    }
    for name, source in sources.items():
        command = ["cc", "-xc", "-", "-shared", "-fPIC", "-o", tmp_path / name]
        subprocess.run(command, input=source, text=True, check=True)
    program = f"""
import pathlib, warnings, torch
torch.version.cuda = torch.version.hip = None
from fastnorm.ops import backends
torch.version.cuda = "13.0"
torch.cuda._lazy_call = lambda check: check()
backends.CUDA_LIBRARY = pathlib.Path({str(tmp_path / "library.so")!r})
backends.importlib.util.find_spec = lambda name: name
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    backends.install()
print(*(one.message for one in warned), sep="\\n")
assert backends._in_use["cuda"] == "triton"
assert torch._C._dispatch_has_kernel_for_dispatch_key("fastnorm::scale_shift", "CUDA")
"""
    done = python(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "fastnorm: the CUDA library cannot run, Triton runs instead: "
        "it needs a driver for CUDA 13.0, and this one is for CUDA 12.4\n"
    )


# What `fastnorm info` says.


def told():
    return [line for line in info._lines(info.collect() | {"gpus": []}) if line.startswith("CUDA kernels: ")]


def test_info_says_why_the_library_does_not_run(machine, patch):
    machine.driver = 12080
    patch(info.machine, gpus=list)
    backends.install()
    with pytest.warns(UserWarning):
        assert told() == ["CUDA kernels: it needs a driver for CUDA 13.0, and this one is for CUDA 12.8"]
    machine.driver = 13000
    patch(backends, _cuda_problem=None)
    assert told() == []


def test_info_says_that_the_library_is_missing_where_it_could_be_built(machine, patch, tmp_path):
    patch(info.machine, gpus=list)
    patch(backends, CUDA_LIBRARY=MISSING)
    patch(info.shutil, which=lambda name, path=None: path and f"{path}/{name}")
    (line,) = told()
    assert line.startswith("CUDA kernels: nvcc is here, the CUDA library is not: to build it, or to see what fails,")
    patch(info.shutil, which=lambda name, path=None: None)
    assert told() == []
    patch(info.shutil, which=lambda name, path=None: "/usr/bin/nvcc")
    patch(torch.version, cuda=None)
    assert told() == []
