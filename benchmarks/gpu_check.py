"""`make gpu-check`: build, test and measure on a CUDA machine, with the torch that is there and without a network.

    1. look      for what the steps need, and say what is missing
    2. build     the checkout, into build/gpu-check; nothing else on the machine changes
    3. test      tests/contract on the GPU, once with CUDA C++ and once with Triton
    4. measure   `fastnorm bench` on large maps, the same twice; torch.compile last, for as long as the time lasts

All of it goes into benchmarks/results/<gpu>.json, and a short table to the end of the output. It goes on after a
failure; the exit code is 1 where anything failed, and 2 where it could not begin. What the time did not suffice for is
said, and no failure, as long as a test ran.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "gpu-check"
BACKENDS = ("auto", "triton")

# What has to run the kernels on a GPU in each measurement.
EXPECTED = {"auto": "cuda", "triton": "triton", "compile": "cuda"}

# Maps that no cache holds, and those of a network on one picture.
LARGE = ("16x64x512x512", "32x256x128x128", "1x64x512x512")
SMALL = ("8x256x64x64", "1x512x64x64", "1x32x128x128")

# How much of the time after the build a step may take: tests and large maps come first.
SHARES = {"test": 0.2, "rivals": 0.35, "triton": 0.1}
SHOWN = 30  # Failures: one that breaks the GPU's context takes all that follow with it.
GRACE = 30  # Seconds to report in, for a step whose time is over.
LEAST = 15  # Seconds that a step needs to get anywhere.
TIME_OVER = None  # In the place of an exit code.


def main(argv=None) -> int:
    args = _parse(argv)
    end = time.monotonic() + 60 * args.minutes
    hindrances = what_hinders(args.device, not args.no_build)
    missing = hindrances or what_is_left_out(args.device, not args.no_build)
    for line in missing:
        print(f"missing: {line}", flush=True)
    if hindrances:
        print(f"nothing can be done with {sys.executable}")
        return 2
    if not args.no_build:
        warnings = build()
        if warnings is None:
            return 1
        missing += warnings
    left = end - time.monotonic()
    tests = {backend: test(backend, args.device, SHARES["test"] * left, args.tests) for backend in BACKENDS}

    def measured(backend, seconds, shapes, *options):
        return measure(backend, args.device, seconds, args.operators, [*map("--shape={}".format, shapes), *options])

    shapes = args.shape or [*LARGE, *SMALL]
    result = {
        "missing": missing,
        "tests": tests,
        "measured": {
            "auto": measured("auto", SHARES["rivals"] * left, shapes, "--no-compile"),
            "triton": measured("triton", SHARES["triton"] * left, shapes[: len(LARGE)], "--alone"),
            "compile": measured("auto", end - time.monotonic(), shapes[:1], "--rounds=5"),
        },
    }
    path = write(result, args.device, args.output, args.commit)
    show(result)
    print(f"\n{path}")
    return 1 if failures(result) else 0


def what_hinders(device, building) -> list[str]:
    """One line for each thing without which nothing can be done."""
    lines = [name for name in ("torch", "numpy") if not _has(name)]
    if device == "cuda" and _has("torch") and not _has_gpu():
        lines.append("a torch that finds a CUDA device (--device cpu tries this script without one)")
    if building:
        lines += [f"{name}, to build with" for name in ("setuptools", "pybind11") if not _has(name)]
        if not _has("ninja") and not shutil.which("ninja"):
            lines.append("ninja, to build with")
        # setuptools before 70.1 leaves it to wheel, which leaves it to setuptools since 0.46.
        if _has("setuptools") and not importlib.metadata.entry_points(group="distutils.commands", name="bdist_wheel"):
            lines.append("setuptools from 70.1, or wheel before 0.46, to build with")
    return lines


def what_is_left_out(device, building) -> list[str]:
    """One line for each thing without which a part cannot be done."""
    lines = []
    if not _has("pytest"):
        lines.append("pytest: no test can run")
    elif not _has("hypothesis"):
        lines.append("hypothesis: the tests that import it cannot run")
    if device == "cuda" and not _has("triton"):
        lines.append("triton: plain PyTorch runs in its place")
    if building:
        compilers = runpy.run_path(str(ROOT / "setup.py"))
        if not compilers["cxx"]():
            lines.append("a C++ compiler: nothing is compiled")
        elif device == "cuda" and not compilers["nvcc"]():
            lines.append("nvcc: CUDA C++ is not built")
    return lines


def _has(module):
    return importlib.util.find_spec(module) is not None


def _has_gpu():
    import torch

    return torch.cuda.is_available()


def build() -> list[str] | None:
    """Install the checkout into a folder of its own, from which the steps run: its warnings, or None where it fails."""
    step(f"build, into {BUILD.relative_to(ROOT)}")
    options = ["-v", "--no-build-isolation", "--no-deps", "--no-index", "--upgrade", "--target", BUILD]
    command = [sys.executable, "-m", "pip", "install", *options, ROOT]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    warnings = re.findall("fastnorm: warning: (.*)", done.stdout)
    if warnings or done.returncode:
        print(done.stdout, flush=True)
    if done.returncode:
        print("the build failed, see above", flush=True)
        return None
    sys.path.insert(0, str(BUILD))
    os.environ["PYTHONPATH"] = str(BUILD)
    return warnings


def test(backend, device, seconds, paths) -> dict:
    """Run the contract on the device: how many passed, and what failed how."""
    step(f"test, FASTNORM_BACKEND={backend}, at most {seconds:.0f} s")
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "tests.xml"
        place = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider", "--junitxml", found]
        options = ["-q", "--tb=line", "--disable-warnings", "--continue-on-collection-errors"]
        if not _has("hypothesis"):
            # tests/conftest.py imports it: without that, only the files that import it themselves are lost.
            options += ["--confcutdir", ROOT / "tests" / "contract"]
        command = ["pytest", *place, *options, *(ROOT / path for path in paths)]
        return read_tests(found, run(command, folder, backend, device, seconds))


def read_tests(path, code) -> dict:
    """pytest's own report, and its exit code: 0 and 1 for all and for not all passed."""
    failed, skipped, passed = [], 0, 0
    for case in ElementTree.parse(path).iter("testcase") if path.exists() else ():
        wrong = next((case.find(tag) for tag in ("failure", "error") if case.find(tag) is not None), None)
        if wrong is not None:
            failed.append(f"{case.get('name')}: {first_line(wrong.get('message'))}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    if code not in (0, 1, TIME_OVER):
        failed.append(f"pytest ended with exit code {code}")
    if not path.exists():
        failed.append("pytest left no report")
    elif not passed and not failed:
        failed.append("no test ran")
    return {"passed": passed, "skipped": skipped, "failures": failed, "complete": code is not TIME_OVER}


def measure(backend, device, seconds, operators, options) -> dict:
    """What `fastnorm bench` measures in the time. After a crash it goes on with the next operator."""
    step(f"measure, FASTNORM_BACKEND={backend}, at most {seconds:.0f} s")
    end = time.monotonic() + seconds
    measured = {"complete": True, "problems": [], "measurements": []}
    operators = operators or _operators()
    while operators:
        left = end - time.monotonic()
        code, found = bench(backend, device, left, [*operators, *options]) if left > LEAST else (TIME_OVER, NOTHING)
        measured["measurements"] += found["measurements"]
        if found["complete"]:
            break
        if code is TIME_OVER:
            measured["complete"] = False
            break
        seen = {case["operator"] for case in found["measurements"]}
        last = max((index for index, name in enumerate(operators) if name in seen), default=0)
        measured["problems"].append(f"fastnorm bench {operators[last]}, or the next: crashed, exit code {code}")
        operators = operators[last + 1 :]
    return measured


NOTHING = {"complete": False, "measurements": []}


def bench(backend, device, seconds, options) -> tuple[int | None, dict]:
    """The exit code and the report of `fastnorm bench`; an empty one where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "bench.json"
        always = [f"--device={device}", "--dtype=float32", "--dtype=bfloat16", "--json", found]
        code = run(["fastnorm", "bench", *always, *options], folder, backend, device, seconds)
        return code, json.loads(found.read_text()) if found.exists() else NOTHING


def _operators():
    from fastnorm.ops import OPERATORS

    return list(OPERATORS)


def run(command, folder, backend, device, seconds) -> int | None:
    """Run a module outside the checkout, where the build is what gets imported; its exit code, or TIME_OVER.

    When its time is over it is interrupted, which leaves it time to report; then it is killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env=os.environ | {"FASTNORM_BACKEND": backend, "FASTNORM_TEST_DEVICE": device},
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # The compiler's workers too.
        process.wait()
    return TIME_OVER


def failures(result) -> list[str]:
    """One line for each thing that is wrong."""
    lines = [f"missing: {line}" for line in result["missing"]]
    lines += [f"test, {backend}: {line}" for backend, tests in result["tests"].items() for line in tests["failures"]]
    for backend, measured in result["measured"].items():
        lines += [f"measure, {backend}: {problem}" for problem in measured["problems"]]
        for case in measured["measurements"]:
            name = f"{called(case)} {case['pass']} {case['shape']} {case['dtype']}"
            if case["device"] == "cuda" and EXPECTED[backend] not in case["kernels"].values():
                lines.append(f"measure, {backend}: {name}: ran {case['kernels']}, not {EXPECTED[backend]}")
            for entry in case["contenders"]:
                if entry["name"] == "fastnorm" and "problem" in entry:
                    lines.append(f"measure, {backend}: {name} {entry['layout']}: {entry['problem']}, {entry['detail']}")
    return lines


def show(result):
    """The short table: per operator, pass and type, the worst and the median over shapes and layouts."""
    from fastnorm.cli import table

    for backend, tests in result["tests"].items():
        counts = f"{tests['passed']} passed, {len(tests['failures'])} failed, {tests['skipped']} skipped"
        print(f"test, {backend}: {counts}{'' if tests['complete'] else '; the time ran out before the rest'}")
    for name, measured in result["measured"].items():
        if not measured["complete"]:
            print(f"measure, {name}: the time ran out after {len(measured['measurements'])} cases")
    failed = failures(result)
    for line in failed[:SHOWN]:
        print(f"FAILED {line}")
    if failed[SHOWN:]:
        print(f"FAILED and {len(failed) - SHOWN} more: they are in the file")
    print()
    title = "of limit: worst and median over large maps in both layouts; vs: worst over all maps"
    table.show(title, HEADER, summary(result["measured"]), text_columns=3)


HEADER = ("operator", "pass", "dtype", "of limit", "median", "triton", "median", "vs eager", "vs idiom", "vs compile")


def summary(measured) -> list[tuple[str, ...]]:
    keys = {(called(case), case["pass"], case["dtype"]): None for case in measured["auto"]["measurements"]}
    rows = []
    for key in keys:
        ours, triton = (standings(measured[name], key, only=LARGE) for name in ("auto", "triton"))
        everywhere, compiled = (standings(measured[name], key) for name in ("auto", "compile"))
        rows.append((
            *key,
            *percent([standing["of_limit"] for standing in ours]),
            *percent([standing["of_limit"] for standing in triton]),
            *(worst([standing["times_faster"][rival] for standing in everywhere]) for rival in ("eager", "idiom")),
            worst([standing["times_faster"]["compile"] for standing in compiled]),
        ))  # fmt: skip
    return rows


def called(case) -> str:
    """The operator, and the kind of its call where it has several."""
    return f"{case['operator']} {case.get('kind', '')}".strip()


def standings(report, key, only=None) -> list[dict]:
    """How fastnorm does in each layout of the cases of (operator, pass, dtype), on some shapes or all."""
    return [
        standing
        for case in report["measurements"]
        if (called(case), case["pass"], case["dtype"]) == key
        if only is None or "x".join(map(str, case["shape"])) in only
        for standing in case["fastnorm"].values()
    ]


def percent(shares):
    known = [share for share in shares if share is not None]
    return (f"{min(known):.0%}", f"{median(known):.0%}") if known else ("-", "-")


def worst(ratios):
    known = [ratio for ratio in ratios if ratio is not None]
    return f"{min(known):.2f}x" if known else "-"


def write(result, device, folder, commit) -> Path:
    from fastnorm.bench import machine, report

    found = machine.describe() | {"commit": commit or machine.commit(ROOT)}
    name = found["gpus"][0]["name"] if device == "cuda" else found["cpu"]["name"]
    path = folder / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")
    folder.mkdir(parents=True, exist_ok=True)
    report.write(path, {"machine": found, **result})
    return path


def step(text):
    print(f"\n== {text}", flush=True)


def first_line(text):
    return (text or "").strip().partition("\n")[0]


def _parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only to try this script")
    add("--minutes", type=float, default=9, help="time for all of it (default: 9)")
    add("--no-build", action="store_true", help="use the fastnorm that is installed")
    add("--tests", nargs="+", default=["tests/contract/test_gpu.py", "tests/contract"], help="paths in the checkout")
    add("--operators", nargs="+", default=[], help="to measure, instead of all")
    add("--shape", action="append", help="NxCxHxW, instead of the maps of this script; may be repeated")
    add("--commit", help="the commit, where the checkout came without its history")
    add("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
