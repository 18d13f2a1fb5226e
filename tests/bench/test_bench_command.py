"""`fastnorm bench` and `fastnorm info`, as a user sees them."""

import json
import platform
import re
import subprocess

import pytest
import torch

from fastnorm import cli
from fastnorm.bench import machine, report
from fastnorm.bench import table as cells
from fastnorm.cli import bench
from fastnorm.ops import OPERATORS, backends

SMALL = ["--shape", "2x3x8x8", "--rounds", "2", "--no-compile", "--device", "cpu"]


def rows_of(text):
    """The cells of the plain table's rows, without title and header."""
    return [re.split(" {2,}", line.strip()) for line in text.splitlines() if re.match(r"(forward|backward)\b", line)]


# bench


def test_a_row_for_each_layout_and_pass(capsys):
    assert cli.main(["bench", "instance_norm", *SMALL]) == 0
    text = capsys.readouterr().out
    assert "instance_norm, float32" in text
    found = [(row[0], row[1], row[2]) for row in rows_of(text)]
    assert found == [(p, "2x3x8x8", layout) for p in ("forward", "backward") for layout in ("nchw", "channels_last")]


def test_only_what_was_asked_for(capsys):
    options = ["--pass", "backward", "--layout", "channels_last", "--dtype", "bfloat16", "--dtype", "float64"]
    assert cli.main(["bench", "adain", *SMALL, *options, "--alone"]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("adain")] == ["adain, bfloat16", "adain, float64"]
    found = rows_of(text)
    assert [(row[0], row[2]) for row in found] == [("backward", "channels_last")] * 2
    assert all(row[-3:] == ["-", "-", "-"] for row in found)


def test_the_file_holds_what_the_table_shows(capsys, tmp_path):
    path = tmp_path / "found.json"
    assert cli.main(["bench", "instance_norm", "adain", *SMALL, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["complete"] is True
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert found["machine"]["cpu"]["name"]
    shown = rows_of(capsys.readouterr().out)
    for measured in found["measurements"]:
        assert set(measured["kernels"]) == set(OPERATORS[measured["operator"]].kernels)
        contenders = {(entry["name"], entry["layout"]): entry for entry in measured["contenders"]}
        copy = measured["copy"]
        rounded = 2e-3  # The file holds four digits of each number.
        assert copy["low"] <= copy["median"] <= copy["high"]
        for layout, standing in measured["fastnorm"].items():
            ours = contenders["fastnorm", layout]
            assert ours["rounds"] == 2
            assert ours["low"] <= ours["median"] <= ours["high"]
            copies = ours["median"] / copy["median"]
            assert standing["copies"] == pytest.approx(copies, rel=rounded)
            assert standing["of_limit"] == pytest.approx(measured["least_bytes"] / copy["bytes"] / copies, rel=rounded)
            eager = min(contenders["eager", either]["median"] for either in measured["fastnorm"])
            assert standing["times_faster"]["eager"] == pytest.approx(eager / ours["median"], rel=rounded)
            assert standing["times_faster"]["compile"] is None
            row = shown.pop(0)
            assert row[:3] == [measured["pass"], "2x3x8x8", layout]
            percent = next(cell for cell in row if cell.endswith("%"))
            assert float(percent[:-1]) == pytest.approx(100 * standing["of_limit"], abs=0.6, rel=1e-3)
    assert not shown


def test_the_cost_of_a_call_comes_last_where_no_shape_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(bench, "SHAPES", ((1, 2, 4, 4),))
    assert cli.main(["bench", "instance_norm", "--rounds", "2", "--no-compile", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    calls = text[text.index("a call on 1x3x4x4, float32"):].splitlines()
    assert calls[1].split() == ["operator", "pass", "fastnorm", "eager", "idiom", "compile"]
    assert [line.split()[:2] for line in calls[2:4]] == [["instance_norm", "forward"], ["instance_norm", "backward"]]
    assert calls[2].endswith("-")


def test_an_interrupted_run_keeps_what_it_has(capsys, monkeypatch, tmp_path):
    measure, cases = bench.measure, []

    def interrupted(case, *arguments, **options):
        if cases:
            raise KeyboardInterrupt
        cases.append(case)
        return measure(case, *arguments, **options)

    monkeypatch.setattr(bench, "measure", interrupted)
    path = tmp_path / "found.json"
    assert cli.main(["bench", "instance_norm", *SMALL, "--json", str(path)]) == cli.INTERRUPTED
    found = json.loads(path.read_text())
    assert found["complete"] is False
    assert [measured["pass"] for measured in found["measurements"]] == ["forward"]
    assert [row[0] for row in rows_of(capsys.readouterr().out)] == ["forward", "forward"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["found.json"]


def test_a_wrong_result_of_fastnorm_is_said_and_is_the_exit_code(capsys, monkeypatch):
    monkeypatch.setattr("fastnorm.functional.instance_norm", lambda input, weight, bias: input * 2)
    assert cli.main(["bench", "instance_norm", *SMALL, "--pass", "forward"]) == bench.WRONG
    text = capsys.readouterr().out
    assert all(row[4] == "wrong" for row in rows_of(text))
    assert "instance_norm forward 2x3x8x8: fastnorm nchw wrong: off by" in text


def test_a_shape_too_large_for_the_memory_is_left_out(capsys, monkeypatch):
    def too_large(case, *arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    monkeypatch.setattr(bench, "measure", too_large)
    assert cli.main(["bench", "instance_norm", *SMALL, "--pass", "forward"]) == 0
    assert capsys.readouterr().err == "fastnorm: 2x3x8x8 left out: too large for the memory here\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["instnorm"], "there is no operator or network 'instnorm'; there is instance_norm"),
        (["adaim"], "there is no operator or network 'adaim'; there is adain"),
        (["xyz"], "there is no operator or network 'xyz'; there is instance_stats, scale_shift, instance_norm, adain"),
        (["--shape", "2x3"], "expected sizes such as 1x64x512x512, got '2x3'"),
        (["--shape", "2x3x0x4"], "expected sizes such as 1x64x512x512, got '2x3x0x4'"),
        (["--shape", "2x3x9", "--layout", "channels_last"], "--shape 2x3x9: channels_last needs NxCxHxW or NxCxDxHxW"),
        (["cin", "--shape", "1x3x16x18"], "--shape 1x3x16x18: networks need Nx3xHxW, sides multiples of 4 from 8"),
        (["cin", "--shape", "1x4x16x16"], "--shape 1x4x16x16: networks need Nx3xHxW"),
        (["cin", "--pass", "backward"], "--pass backward: networks are measured forward only; leave it out"),
        (["patch_match", "--pass", "backward"], "--pass backward: patch_match has no gradient; leave it out"),
        (["cin", "--kind", "dense"], "--kind dense: none of these operators has it"),
        (["--rounds", "0"], "must be a whole number from 1 up, got '0'"),
        (["--json", "no/such/folder/x.json"], "no/such/folder/x.json cannot be written: No such file or directory"),
        (["--json", "/"], "/ cannot be written: it is a folder"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_errors_are_one_line(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 2
    text = capsys.readouterr()
    assert text.out == "" and text.err.count("\n") == 1
    assert text.err.startswith("fastnorm: ") and message in text.err


def test_a_checkout_that_is_not_installed_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert cli.main(["bench", *SMALL]) == 2
    assert capsys.readouterr().err.startswith("fastnorm: the benchmarks are not installed; in a checkout, run pip")


def test_no_gpu_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["bench", "--device", "cuda"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    "seconds, text",
    [(4.2e-6, "4.20 us"), (123.4e-6, "123 us"), (999.4e-6, "999 us"), (999.6e-6, "1.00 ms"), (0.5, "500 ms")],
)
def test_durations(seconds, text):
    assert cells.duration(seconds) == text


@pytest.mark.parametrize(
    "value",
    [{}, [], {"a": []}, {"a": [1, 2], "b": {"c": None, "d": [{"e": "f\"g\n"}, True]}}, [[], {}, [[1.5e-7]]]],
    ids=str,
)
def test_what_is_written_can_be_read(tmp_path, value):
    report.write(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text()) == value


def test_four_digits_are_written(tmp_path):
    report.write(tmp_path / "x.json", [123456.7, 1.23456e-7, 123456])
    assert json.loads((tmp_path / "x.json").read_text()) == [123500.0, 1.235e-7, 123456]


# info


def test_info_as_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["python"] == platform.python_version()
    assert found["threads"] == torch.get_num_threads()
    assert set(found["operators"]) == set(OPERATORS)
    for name, operator in OPERATORS.items():
        kernels = found["operators"][name]["cpu"]
        assert kernels == {kernel: backends.which(kernel, "cpu") for kernel in operator.kernels}
    assert len(found["gpus"]) == torch.cuda.device_count()


class Extension:
    compiler = "c++ 14"

    @staticmethod
    def isa():
        return "avx2"

    @staticmethod
    def available_isas():
        return ["avx512", "avx2", "portable"]


def test_info_with_the_extension(capsys, monkeypatch):
    monkeypatch.setattr(machine, "extension", lambda: Extension)
    monkeypatch.setattr(backends, "which", lambda kernel, device: "cpu" if kernel != "scale_shift" else "definition")
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"torch {torch.__version__}" in text
    assert "CPU kernels: avx2 (this machine can also run avx512, portable), c++ 14" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert lines["instance_norm"].split(maxsplit=1)[1] == "C++"
    # Where not all kernels of an operator run on the same, most are meant and the others named.
    assert lines["scale_shift"].split(maxsplit=1)[1] == "plain PyTorch; C++: scale_shift_backward"


def test_info_without_the_extension_says_how_to_build_it(capsys, monkeypatch):
    monkeypatch.setattr(machine, "extension", lambda: None)
    monkeypatch.setattr(backends, "which", lambda kernel, device: "definition")
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert "there is no compiled extension, plain PyTorch runs instead: install a C++ compiler, then in a checkout pip" in text
    assert re.search(r"instance_norm +plain PyTorch", text)
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["extension"] is None and found["cpu"]["isa"] is None


def test_commit_of_a_checkout_and_of_a_folder(tmp_path):
    assert machine.commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("one")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    clean = machine.commit(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{12}", clean)
    (tmp_path / "file").write_text("two")
    assert machine.commit(tmp_path) == clean + "+"
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert machine.commit(inside) is None
