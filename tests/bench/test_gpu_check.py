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


WRONG = ["wrong[bf16]: AssertionError: off by 3", "broken: RuntimeError: no"]


@pytest.mark.parametrize(
    "code, complete, failures",
    [
        (1, True, WRONG),
        (gpu_check.TIME_OVER, False, WRONG),
        (2, True, [*WRONG, "pytest ended with exit code 2"]),
        (-9, True, [*WRONG, "pytest ended with exit code -9"]),
    ],
)
def test_tests_are_counted(tmp_path, code, complete, failures):
    path = tmp_path / "tests.xml"
    path.write_text(JUNIT)
    assert gpu_check.read_tests(path, code) == {
        "passed": 2,
        "skipped": 1,
        "failures": failures,
        "complete": complete,
    }


@pytest.mark.parametrize(
    "code, failures",
    [(-11, ["pytest ended with exit code -11", "pytest left no report"]), (None, ["pytest left no report"])],
)
def test_no_report_is_a_failure(tmp_path, code, failures):
    assert gpu_check.read_tests(tmp_path / "missing.xml", code)["failures"] == failures


@pytest.mark.parametrize(
    "code, failures",
    [
        (0, ["no test ran"]),
        (gpu_check.TIME_OVER, ["no test ran"]),
        *((code, [f"pytest ended with exit code {code}"]) for code in (2, 3, 4, 5)),
    ],
)
def test_no_test_is_a_failure(tmp_path, code, failures):
    path = tmp_path / "tests.xml"
    path.write_text('<testsuites><testcase name="a"><skipped message="no GPU"/></testcase></testsuites>')
    assert gpu_check.read_tests(path, code)["failures"] == failures


# Steps in processes of their own.


def test_a_file_that_cannot_be_imported_costs_no_other(tmp_path):
    (tmp_path / "test_a_broken_file.py").write_text("import nothing_of_this_name")
    (tmp_path / "test_another_file.py").write_text("def test_right(): pass")
    found = gpu_check.test("auto", "cpu", 60, [tmp_path])
    assert found["passed"] == 1 and found["complete"]
    assert found["failures"] == ["test_a_broken_file: collection failure"]


def test_a_path_without_tests_is_a_failure(tmp_path):
    found = gpu_check.test("auto", "cpu", 60, [tmp_path])
    assert found["failures"] == ["pytest ended with exit code 5"]


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
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's job in the background begins with it ignored.
pathlib.Path("started").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path("report").touch()
    sys.exit(130)
"""
    assert gpu_check.run(module(tmp_path, code), tmp_path, "auto", "cpu", 3) is gpu_check.TIME_OVER
    assert (tmp_path / "report").exists()


def test_a_step_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "GRACE", 0.5)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    assert gpu_check.run(module(tmp_path, code), tmp_path, "auto", "cpu", 2) is gpu_check.TIME_OVER


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


def test_a_crash_in_the_last_operator_is_not_for_want_of_time(monkeypatch):
    stub(monkeypatch, (-11, "ab"))
    found = gpu_check.measure("auto", "cuda", 100, list("ab"), [])
    assert found["complete"] and found["problems"] == ["fastnorm bench b, or the next: crashed, exit code -11"]


def test_it_does_not_go_on_when_the_time_is_over(monkeypatch):
    asked = stub(monkeypatch, (gpu_check.TIME_OVER, "a"))
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
    return {"missing": [], "tests": {"auto": TESTED, "triton": TESTED}, "measured": reports | measured}


def test_nothing_failed():
    # A rival that fails is not our failure.
    assert gpu_check.failures(result()) == []


def test_what_failed():
    found = result(
        auto=report(case("definition"), case(problem="wrong", detail="off by 1")),
        triton=report(complete=False, problems=["fastnorm bench adain, or the next: crashed, exit code -11"]),
    )
    found["tests"]["triton"] = TESTED | {"failures": ["test_values: off"]}
    found["missing"] = ["nvcc: CUDA C++ is not built"]
    assert gpu_check.failures(found) == [
        "missing: nvcc: CUDA C++ is not built",
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


@pytest.mark.parametrize("complete", [True, False])
def test_the_time_ran_out_is_said_where_it_did(capsys, complete):
    found = result(triton=report(case("triton"), complete=complete, problems=["fastnorm bench adain: crashed"]))
    found["tests"]["auto"] = TESTED | {"failures": ["pytest ended with exit code 3"], "complete": complete}
    gpu_check.show(found)
    text = capsys.readouterr().out
    assert ("test, auto: 3 passed, 1 failed, 0 skipped; the time ran out" in text) == (not complete)
    assert ("measure, triton: the time ran out after 1 cases" in text) == (not complete)
    assert text.count("the time ran out") == (0 if complete else 2)


# What the machine lacks.


@pytest.fixture
def machine(monkeypatch):
    """machine(lacks) lacks these modules and commands, and has all others."""

    def make(*lacks):
        present = [] if "bdist_wheel" in lacks else ["setuptools"]
        compilers = {name: lambda name=name: name not in lacks for name in ("cxx", "nvcc")}
        monkeypatch.setattr(gpu_check, "_has", lambda module: module not in lacks)
        monkeypatch.setattr(gpu_check, "_has_gpu", lambda: "gpu" not in lacks)
        monkeypatch.setattr(gpu_check.shutil, "which", lambda name: None if name in lacks else name)
        monkeypatch.setattr(gpu_check.importlib.metadata, "entry_points", lambda **kind: present)
        monkeypatch.setattr(gpu_check.runpy, "run_path", lambda path: compilers)

    return make


@pytest.mark.parametrize("building", [True, False])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_nothing_is_missing(machine, device, building):
    machine()
    assert gpu_check.what_hinders(device, building) == gpu_check.what_is_left_out(device, building) == []


def test_what_hinders_is_told_line_by_line(machine, capsys):
    machine("torch", "setuptools", "pybind11", "ninja", "gpu")
    assert gpu_check.main([]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "missing: torch",
        "missing: setuptools, to build with",
        "missing: pybind11, to build with",
        "missing: ninja, to build with",
        f"nothing can be done with {sys.executable}",
    ]


def test_an_old_setuptools_needs_an_old_wheel(machine):
    machine("bdist_wheel")
    assert gpu_check.what_hinders("cuda", True) == ["setuptools from 70.1, or wheel before 0.46, to build with"]


def test_no_gpu_is_told(machine, capsys):
    machine("gpu")
    assert gpu_check.main(["--no-build"]) == 2
    assert "missing: a torch that finds a CUDA device (--device cpu tries" in capsys.readouterr().out


@pytest.mark.parametrize(
    "lacks, told",
    [
        (["pytest", "hypothesis"], ["pytest: no test can run"]),
        (["hypothesis", "nvcc"], ["hypothesis: the tests that import it cannot run", "nvcc: CUDA C++ is not built"]),
        (["triton"], ["triton: plain PyTorch runs in its place"]),
        (["cxx", "nvcc"], ["a C++ compiler: nothing is compiled"]),
    ],
    ids=str,
)
def test_what_is_left_out(machine, lacks, told):
    machine(*lacks)
    assert gpu_check.what_hinders("cuda", True) == []
    assert gpu_check.what_is_left_out("cuda", True) == told


def test_looking_does_not_get_in_its_own_way():
    program = f"""
import runpy
here = runpy.run_path({gpu_check.__file__!r})
here["what_hinders"]("cpu", True), here["what_is_left_out"]("cpu", True)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_setup_says_which_compilers_there_are(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", "nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert "a C++ compiler: nothing is compiled" in gpu_check.what_is_left_out("cuda", True)


def test_without_hypothesis_the_other_files_run(machine, monkeypatch):
    machine("hypothesis")
    commands = []
    monkeypatch.setattr(gpu_check, "run", lambda command, *_: commands.append(command))
    gpu_check.test("auto", "cpu", 60, ["tests/contract"])
    (command,) = commands
    folder = command[command.index("--confcutdir") + 1]
    assert (folder / "conftest.py").exists() and "hypothesis" not in (folder / "conftest.py").read_text()


BUILDS = "import sys; print('fastnorm: warning: no CUDA'); print('all of it'); sys.exit({})"


@pytest.mark.parametrize("code, returned", [(0, ["no CUDA"]), (1, None)])
def test_a_build_with_a_warning_is_shown(monkeypatch, capsys, code, returned):
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **how: run([sys.executable, "-c", BUILDS.format(code)], **how))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    assert gpu_check.build() == returned
    assert "all of it" in capsys.readouterr().out


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
