"""`make gpu-check`: what it makes of its steps' reports, and that no step can hold it up. On CPU."""

import json
import subprocess
import sys

import pytest

from fastnorm.benchmarks import gpu_check

JUNIT = """<testsuites><testsuite>
<testcase classname="a" name="right"/>
<testcase classname="a" name="other"/>
<testcase classname="a" name="wrong[bf16]"><failure message="AssertionError: off by 3&#10;more">at</failure></testcase>
<testcase classname="a" name="broken"><error message="RuntimeError: no">long</error></testcase>
<testcase classname="a" name="elsewhere"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize("code, complete", [(1, True), (2, False), (-9, False)])
def test_tests_are_counted(tmp_path, code, complete):
    path = tmp_path / "tests.xml"
    path.write_text(JUNIT)
    assert gpu_check.read_tests(path, code) == {
        "passed": 2,
        "skipped": 1,
        "failures": ["wrong[bf16]: AssertionError: off by 3", "broken: RuntimeError: no"],
        "complete": complete,
    }


def test_a_crash_without_a_report_is_a_failure(tmp_path):
    found = gpu_check.read_tests(tmp_path / "missing.xml", -11)
    assert found["failures"] == ["pytest ended without a report, exit code -11"] and not found["complete"]


# Steps in processes of their own.


def module(folder, text):
    (folder / "a_step.py").write_text(text)
    return ["a_step"]


def test_a_step_knows_its_backend_and_device(tmp_path):
    code = """
import os, sys
sys.exit([os.environ[name] for name in ("FASTNORM_BACKEND", "FASTNORM_TEST_DEVICE")] != ["triton", "cpu"])
"""
    assert gpu_check.run(module(tmp_path, code), tmp_path, "triton", "cpu", 60) == 0


def test_a_step_that_takes_too_long_can_still_report(tmp_path):
    code = """
import pathlib, sys, time
pathlib.Path("started").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path("report").touch()
    sys.exit(130)
"""
    assert gpu_check.run(module(tmp_path, code), tmp_path, "auto", "cpu", 2) == 130
    assert (tmp_path / "report").exists()


def test_a_step_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "GRACE", 0.5)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    assert gpu_check.run(module(tmp_path, code), tmp_path, "auto", "cpu", 2) == -9


def stub(monkeypatch, *outcomes):
    """`fastnorm bench` that ends with these codes, after measuring those operators; returns what it is asked for."""
    asked, outcomes = [], iter(outcomes)

    def bench(backend, device, seconds, options):
        asked.append([option for option in options if not option.startswith("-")])
        code, measured = next(outcomes)
        return code, {"complete": code in (0, 1), "measurements": [{"operator": name} for name in measured]}

    monkeypatch.setattr(gpu_check, "bench", bench)
    return asked


def test_after_a_crash_it_goes_on_with_the_next_operator(monkeypatch):
    # b crashes half-way, c before anything of it was measured, d is wrong and e right.
    asked = stub(monkeypatch, (-11, "ab"), (-11, ""), (1, "de"))
    found = gpu_check.measure("auto", "cuda", 100, list("abcde"), ["--alone"])
    assert asked == [list("abcde"), list("cde"), list("de")]
    assert found["complete"] and [case["operator"] for case in found["measurements"]] == list("abde")
    assert found["problems"] == [f"fastnorm bench {name}, or the next: crashed, exit code -11" for name in "bc"]


def test_it_does_not_go_on_when_the_time_is_over(monkeypatch):
    asked = stub(monkeypatch, (130, "a"))
    found = gpu_check.measure("auto", "cuda", 100, list("ab"), [])
    assert len(asked) == 1 and not found["complete"] and found["problems"] == []


def test_a_step_without_time_is_left_out(monkeypatch):
    asked = stub(monkeypatch)
    assert gpu_check.measure("auto", "cuda", -3, list("ab"), []) == report(complete=False)
    assert asked == []


# What the reports add up to.


def case(backend="cuda", of_limit=0.9, times_faster=5.0, shape=(16, 64, 512, 512), device="cuda", **wrong):
    return {
        "operator": "adain",
        "pass": "forward",
        "dtype": "float32",
        "shape": list(shape),
        "device": device,
        "kernels": {"instance_norm": backend},
        "contenders": [
            {"name": "fastnorm", "layout": "nchw", **wrong},
            {"name": "idiom", "layout": "nchw", "problem": "failed"},
        ],
        "fastnorm": {
            layout: {"of_limit": share, "times_faster": dict.fromkeys(["eager", "idiom", "compile"], times_faster)}
            for layout, share in (("nchw", of_limit), ("channels_last", of_limit and of_limit / 2))
        },
    }


def report(*cases, complete=True, problems=()):
    return {"complete": complete, "problems": list(problems), "measurements": list(cases)}


TESTED = {"passed": 3, "skipped": 0, "failures": [], "complete": True}


def result(**measured):
    reports = {"auto": report(case()), "triton": report(case("triton")), "compile": report(case())}
    return {"tests": {"auto": TESTED, "triton": TESTED}, "measured": reports | measured}


def test_nothing_failed():
    # A rival that fails is not our failure.
    assert gpu_check.failures(result()) == []


def test_what_failed():
    found = result(
        auto=report(case("definition"), case(problem="wrong", detail="off by 1")),
        triton=report(complete=False, problems=["fastnorm bench adain, or the next: crashed, exit code -11"]),
    )
    found["tests"]["triton"] = TESTED | {"failures": ["test_values: off"]}
    assert gpu_check.failures(found) == [
        "test, triton: test_values: off",
        "measure, auto: adain forward [16, 64, 512, 512] float32: ran {'instance_norm': 'definition'}, not cuda",
        "measure, auto: adain forward [16, 64, 512, 512] float32 nchw: wrong, off by 1",
        "measure, triton: fastnorm bench adain, or the next: crashed, exit code -11",
    ]


def test_the_summary_takes_the_worst():
    small = case(of_limit=0.1, times_faster=2.0, shape=(1, 32, 128, 128))
    found = result(
        auto=report(case(of_limit=0.9), case(of_limit=0.8, shape=(32, 256, 128, 128)), small),
        triton=report(case(of_limit=0.6)),
        compile=report(case(times_faster=1.5)),
    )
    # The part of the limit is that on large maps, in both layouts; the ratios count everywhere.
    assert gpu_check.summary(found["measured"]) == [
        ("adain", "forward", "float32", "40%", "62%", "30%", "45%", "2.00x", "2.00x", "1.50x")
    ]


def test_the_summary_of_what_was_not_measured():
    found = result(auto=report(case(of_limit=None, times_faster=None)), triton=report(), compile=report())
    assert gpu_check.summary(found["measured"]) == [("adain", "forward", "float32", *["-"] * 7)]


def test_no_gpu_is_said_at_once(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_check.main(["--no-build"]) == 2
    assert "no torch that finds a CUDA device" in capsys.readouterr().out


@pytest.mark.long
def test_the_whole_of_it(tmp_path, capfd, monkeypatch):
    if subprocess.run([sys.executable, "-c", "import fastnorm.benchmarks"], cwd=tmp_path).returncode:
        pytest.skip("needs fastnorm installed")
    monkeypatch.setattr(gpu_check, "LEAST", 1)
    (tmp_path / "test_nothing.py").write_text("def test_right(): pass\ndef test_wrong(): assert 1 == 2\n")
    where = ["--device", "cpu", "--no-build", "--output", str(tmp_path), "--commit", "abc"]
    what = ["--shape", "1x2x4x4", "--operators", "scale_shift", "--tests", str(tmp_path / "test_nothing.py")]
    assert gpu_check.main([*where, *what, "--minutes", "0.5"]) == 1
    path = next(tmp_path.glob("*.json"))
    found = json.loads(path.read_text())
    assert found["machine"]["commit"] == "abc"
    assert [found["tests"][backend]["passed"] for backend in ("auto", "triton")] == [1, 1]
    assert found["tests"]["auto"]["failures"] == ["test_wrong: assert 1 == 2"]
    measured = found["measured"]["auto"]["measurements"]
    assert [(case["pass"], case["dtype"]) for case in measured] == [
        (direction, dtype) for dtype in ("float32", "bfloat16") for direction in ("forward", "backward")
    ]
    text = capfd.readouterr().out
    assert "test, auto: 1 passed, 1 failed, 0 skipped" in text
    assert "FAILED test, triton: test_wrong: assert 1 == 2" in text
    assert text.rstrip().endswith(str(path))
