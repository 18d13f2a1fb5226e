"""`fastnorm explain`: the table, the same as JSON, and what a user can get wrong."""

import json
import sys

import pytest
import torch

MODELS = """
import torch
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU())


class Two(nn.Module):
    def forward(self, x, y):
        return (nn.functional.instance_norm(x) + y).relu()


ready, number, inner = Net(), 3, nn.Module()
inner.Net = Net


def broken():
    raise OSError("no weights")


def wrong():
    return 3


def leaving():
    raise SystemExit(3)


def lacking():
    import no_package
"""

# Modules that cannot be imported.
BAD_MODULES = {
    "bad_syntax": "def f(:\n",
    "bad_start": "raise RuntimeError('no weights')\n",
    "bad_exit": "import sys; sys.exit(3)\n",
    "bad_import": "import no_package.part\n",
}


@pytest.fixture
def explain(command, tmp_path, monkeypatch):
    """explain(*arguments) in a folder with the module `some_models`."""
    for name, text in {"some_models": MODELS, **BAD_MODULES}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "some_models", raising=False)
    torch._dynamo.reset()
    threads = torch.get_num_threads()
    yield lambda *arguments: command("explain", "--device", "cpu", *arguments)
    torch.set_num_threads(threads)


def test_table(explain):
    code, out, err = explain("some_models:Net", "--input", "1x3x12x10", "--threads", "1")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith("Net: ") and lines[0].endswith("times as fast")
    assert any("reflect 1, conv 3x3" in line for line in lines) and any("norm, relu" in line for line in lines)
    assert max(map(len, lines)) <= 112 and lines[-1] == "layers are timed one at a time and do not add up to the whole"


@pytest.mark.parametrize("name", ["some_models:ready", "some_models:inner.Net"])
def test_without_inputs(explain, name):
    code, out, err = explain(name)
    assert (code, err) == (0, "")
    assert "Sequential" in out or "Net" in out
    assert "a Chain: a kernel a layer" in out and "with example inputs" in out


def test_json(explain):
    code, out, err = explain("some_models:Two", "--input", "2x3x8x6", "--input", "2x3x8x6", "--json", "--train")
    data = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert data["model"] == "Two" and data["before"] > 0 and data["after"] > 0
    assert [row["becomes"] for row in data["rows"]] == ["norm, add, relu", "as it is"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_types(explain, dtype):
    code, out, err = explain("some_models:Net", "--input", "1x3x12x10", "--dtype", dtype, "--channels-last", "--json")
    assert (code, err) == (0, "")
    assert [row["becomes"] for row in json.loads(out)["rows"]][:2] == ["reflect 1, conv 3x3", "norm, relu"]


@pytest.mark.parametrize(
    "name, said",
    [
        ("some_models", "some_models: expected MODULE:CALLABLE, such as mypackage.models:Generator"),
        (":Net", ":Net: expected MODULE:CALLABLE"),
        ("..:Net", "..:Net: expected MODULE:CALLABLE"),
        ("/models/some_models.py:Net", "/models/some_models.py:Net: expected MODULE:CALLABLE"),
        ("some_models.py:Net", "some_models.py:Net: expected a module as import names it: some_models:Net"),
        ("./some_models.py:Net", "./some_models.py:Net: expected a module as import names it: some_models:Net"),
        (".some_models:Net", ".some_models:Net: expected a module as import names it: some_models:Net"),
        ("a/b.py:Net", "a/b.py:Net: expected a module as import names it: a.b:Net"),
        ("no_models:Net", "no_models:Net: importing no_models: there is no module no_models, neither in the current folder, /"),
        ("bad_syntax:f", "bad_syntax:f: importing bad_syntax raised SyntaxError: "),
        ("bad_start:f", "bad_start:f: importing bad_start raised RuntimeError: no weights"),
        ("bad_exit:f", "bad_exit:f: importing bad_exit called sys.exit"),
        ("bad_import:f", "bad_import:f: importing bad_import raised ModuleNotFoundError: No module named 'no_package'"),
        ("some_models:Nte", "some_models:Nte: module 'some_models' has no attribute 'Nte'; did you mean Net?"),
        ("some_models:nn", "some_models:nn: torch.nn is a Python module; name what it has: torch.nn:CALLABLE"),
        ("some_models:leaving", "some_models:leaving: leaving() called sys.exit"),
        ("some_models:lacking", "some_models:lacking: lacking() raised ModuleNotFoundError: No module named 'no_package'"),
        ("some_models:number", "some_models:number: expected a torch.nn.Module, or what returns one, got int"),
        ("some_models:broken", "some_models:broken: broken() raised OSError: no weights"),
        ("some_models:wrong", "some_models:wrong: expected wrong() to return a torch.nn.Module, got int"),
    ],
)
def test_names_that_are_none(explain, name, said):
    code, out, err = explain(name, "--input", "1x3x12x10")
    assert (code, out) == (2, "")
    assert err.startswith(f"fastnorm: {said}") and err.count("\n") == 1


@pytest.mark.parametrize("shape", ["1x4x12x10", "3", "2x3x12x10x3"])
def test_inputs_that_do_not_fit(explain, shape):
    code, out, err = explain("some_models:Net", "--input", shape)
    assert (code, out) == (2, "")
    assert err.startswith("fastnorm: explain: example_inputs: Net cannot be called with them: ") and err.count("\n") == 1


@pytest.mark.parametrize("shape", ["1x3x100000000x100000000", "1x3x9999999999x9999999999", f"1x3x1{'0' * 30}x4"])
def test_inputs_that_no_memory_holds(explain, shape):
    expected = "fastnorm: --input: there is not enough memory for inputs of this size; take smaller ones\n"
    assert explain("some_models:Net", "--input", shape) == (2, "", expected)


def test_an_option_that_is_none(explain):
    said = "fastnorm: unrecognized arguments: --imput 1x3x12x10 (see fastnorm explain --help)\n"
    assert explain("some_models:Net", "--imput", "1x3x12x10") == (2, "", said)


@pytest.mark.parametrize("shape", ["1x", "axb", "1x-3x12x10", "0x3x4x4", ""])
def test_shapes_that_are_none(explain, shape):
    code, out, err = explain("some_models:Net", "--input", shape)
    assert (code, out) == (2, "")
    assert f"argument --input: expected sizes such as 1x3x512x512, got {shape!r}" in err
