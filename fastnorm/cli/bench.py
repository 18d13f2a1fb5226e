"""`fastnorm bench`: each operator against a copy of its map, torch's operators, published code and torch.compile."""

import argparse
import difflib
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from .. import tune_allocator
from ..bench import SHAPES, TINY, machine, report, table as cells
from ..bench.clock import clock_for, wall_clock
from ..bench.contenders import FASTNORM, LAYOUTS, RIVALS, Case, layouts_of, room_of
from ..bench.measure import measure
from ..ops import OPERATORS
from . import arguments, table
from .errors import UserError, complain

DTYPES = ("float32", "bfloat16", "float16", "float64")
ROUNDS, QUICK_ROUNDS = 15, 3
QUICK_SHAPES = SHAPES[-2:]
WRONG = 1  # The exit code where a result of fastnorm was wrong.

EPILOG = f"""Every contender has the same input, threads and allocator, and is checked against float64 first.
{cells.LEGEND} The exit code is {WRONG} where a result of fastnorm was wrong."""


def add_arguments(parser):
    parser.epilog = EPILOG
    add = parser.add_argument
    add("operators", nargs="*", metavar="OP", type=_operator, help=f"{', '.join(OPERATORS)} (default: all)")
    add("--pass", dest="passes", choices=("forward", "backward", "both"), default="both", help="default: both")
    add("--shape", dest="shapes", action="append", metavar="NxCxHxW", type=_shape, help="of the map, may be repeated "
        "(default: those of style-transfer networks)")
    add("--kind", dest="kinds", action="append", metavar="KIND", help="of an operator that has several, such as depthwise; "
        "may be repeated (default: all)")
    add("--layout", choices=LAYOUTS, help="default: both")
    add("--dtype", dest="dtypes", action="append", choices=DTYPES, help="may be repeated (default: float32)")
    add("--device", choices=arguments.DEVICES, default="auto", help="auto (default) is cuda where there is one")
    add("--threads", type=arguments.count, metavar="N", help="CPU threads (default: torch's choice)")
    add("--rounds", type=arguments.count, metavar="N", help=f"turns of each contender (default: {ROUNDS})")
    add("--no-compile", action="store_true", help="leave torch.compile out: it takes seconds to compile each case")
    add("--alone", action="store_true", help="no rivals, only fastnorm and the copy")
    add("--quick", action="store_true", help=f"two small shapes, {QUICK_ROUNDS} rounds, no torch.compile")
    add("--json", type=_file, metavar="FILE", help="write everything that was measured to this file")


def run(args) -> int:
    if find_spec("fastnorm.benchmarks") is None:
        raise UserError("the benchmarks are not installed; in a checkout, run pip install --no-build-isolation -e .")
    plan = Plan(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    tuned = tune_allocator()
    print(_headline(plan.device), end="\n\n", flush=True)

    measured, complete = [], False
    try:
        for section in plan.sections():
            _measure(section, plan, measured)
        complete = True
    finally:
        if args.json and measured:
            _save(args.json, report.report(measured, complete, rounds=plan.rounds, tuned_allocator=tuned))
    wrong = any(entry.name == FASTNORM and entry.problem for found in measured for entry in found.entries)
    return WRONG if wrong else 0


class Plan:
    """What the arguments ask for."""

    def __init__(self, args):
        self.operators = args.operators or list(OPERATORS.values())
        self.passes = {"forward": [False], "backward": [True], "both": [False, True]}[args.passes]
        self.kinds = args.kinds
        self.shapes = args.shapes or (QUICK_SHAPES if args.quick else ())
        self.calls = not args.shapes
        self.layouts = (args.layout,) if args.layout else LAYOUTS
        self.dtypes = args.dtypes or ["float32"]
        self.device = torch.device(arguments.device(args.device))
        self.rounds = args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS)
        self.rivals = () if args.alone else RIVALS[:2] if args.quick or args.no_compile else RIVALS
        for shape in self.shapes:
            if not set(self.layouts) & set(layouts_of(shape)):
                raise UserError(f"--shape {cells.dimensions(shape)}: channels_last needs NxCxHxW or NxCxDxHxW")

    def sections(self):
        """A table for each operator and type, and one for the cost of a call."""
        chosen = [(operator, kind) for operator in self.operators for kind in self._kinds(operator)]
        if not chosen:
            raise UserError(f"--kind {' '.join(self.kinds)}: none of these operators has it")
        for operator, kind in chosen:
            shapes = self.shapes or getattr(room_of(operator), "SHAPES", {}).get(kind, SHAPES)
            for dtype in self.dtypes:
                cases = self._cases(operator, kind, shapes, dtype)
                yield Section(f"{cases[0].name}, {dtype}", cases)
        if self.calls:
            cases = [case for each in chosen for case in self._cases(*each, [TINY], self.dtypes[0])]
            yield Calls(f"a call on {cells.dimensions(TINY)}, {self.dtypes[0]}", cases)

    def _kinds(self, operator):
        """Those of its room that are wanted; one without a name where it has none."""
        kinds = getattr(room_of(operator), "KINDS", ("",))
        return kinds if self.kinds is None else [kind for kind in kinds if kind in self.kinds]

    def _cases(self, operator, kind, shapes, dtype):
        return [
            Case(operator, backward, shape, getattr(torch, dtype), self.device, kind)
            for backward in self.passes
            for shape in shapes
        ]


class Section:
    """Cases that share a table."""

    def __init__(self, title, cases):
        self.title, self.cases = title, cases

    def clock(self, device):
        return clock_for(device)

    def show(self, measured):
        table.show(self.title, cells.HEADER, cells.rows(measured), cells.TEXT_COLUMNS)


class Calls(Section):
    """So little work that the time is the call's own, as the caller sees it."""

    def clock(self, device):
        return wall_clock(device)

    def show(self, measured):
        table.show(self.title, cells.CALLS_HEADER, cells.call_rows(measured), cells.CALLS_TEXT_COLUMNS)


def _measure(section, plan, measured):
    """Measure the cases of a section and show them; those that were done, where it is interrupted."""
    done = []
    clock = section.clock(plan.device)
    try:
        for number, case in enumerate(section.cases, 1):
            _say(f"{section.title}: {number} of {len(section.cases)}")
            done += _measured(case, plan, clock)
    finally:
        _say("")
        measured += done
        if done:
            section.show(done)
        for note in cells.notes(done):
            print(note, end="\n\n", flush=True)


def _say(text):
    """Progress on a terminal. Not a bar that draws itself: its thread would be timed too."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _measured(case, plan, clock):
    """A list of the measurement, empty where it does not fit into memory."""
    try:
        return [measure(case, plan.layouts, plan.rivals, plan.rounds, clock=clock)]
    except RuntimeError as error:  # torch has a type of its own for this on a GPU only.
        if "allocate" not in str(error):
            raise
        complain(f"{cells.dimensions(case.shape)} left out: too large for the memory here")
        return []


def _save(path, content):
    try:
        report.write(path, content)
    except OSError as error:
        raise UserError(f"--json {path} cannot be written: {error.strerror}") from None


def _headline(device):
    found = machine.describe()
    if device.type == "cuda":
        where = found["gpus"][device.index or 0]["name"]
    else:
        where = f"{found['cpu']['name']}, {found['cpu']['isa'] or 'no compiled kernels'}, {found['threads']} threads"
    commit = f" ({found['commit']})" if found["commit"] else ""
    versions = found["versions"]
    return f"{where}; fastnorm {versions['fastnorm']}{commit}, torch {versions['torch']}"


def _operator(name):
    if name in OPERATORS:
        return OPERATORS[name]
    near = difflib.get_close_matches(name, OPERATORS, cutoff=0.4) or OPERATORS
    raise argparse.ArgumentTypeError(f"there is no operator {name!r}; there is {', '.join(near)}")


def _shape(text):
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){2,4}", text):
        raise argparse.ArgumentTypeError(f"expected sizes such as 1x64x512x512, got {text!r}")
    return tuple(map(int, text.split("x")))


def _file(text):
    path = Path(text)
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path
