"""`fastnorm bench`: each operator against a copy of its map, torch's operators, published code and torch.compile.

And whole networks against the arithmetic, the same in plain torch, and the runtimes.
"""

import argparse
import difflib
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

from .. import tune_allocator
from ..bench import SHAPES, TINY, machine, networks, report, table as cells
from ..bench.clock import clock_for, wall_clock
from ..bench.contenders import FASTNORM, LAYOUTS, Case, layouts_of, room_of
from ..bench.measure import measure
from ..bench.networks import NETWORKS, NetworkCase
from ..ops import OPERATORS
from . import arguments, table
from .errors import UserError, complain

DTYPES = ("float32", "bfloat16", "float16", "float64")
ROUNDS, QUICK_ROUNDS = 15, 3
QUICK_SHAPES = SHAPES[-2:]
# Seconds of turns before a slow contender sits the rest out.
PATIENCE, NETWORK_PATIENCE = 1.0, 3.0
WRONG = 1  # The exit code where a result of fastnorm was wrong.

EPILOG = f"""Every contender has the same input, threads and (tuned) allocator, and is checked against float64 first.
Operators: {cells.LEGEND} Networks, forward only, on 1x3x256x256, 512 and 1024, with the published weights, take
minutes each; rivals are the same in plain torch, ONNX Runtime and OpenVINO. {cells.NETWORK_LEGEND}
The exit code is {WRONG} where a result of fastnorm was wrong."""


def add_arguments(parser):
    parser.epilog = EPILOG
    add = parser.add_argument
    add("subjects", nargs="*", metavar="NAME", type=_subject, help=f"operators: {', '.join(OPERATORS)} (default: all "
        f"of these); networks: {', '.join(NETWORKS)} (only where named)")
    add("--pass", dest="passes", choices=("forward", "backward", "both"), default="both", help="default: both")
    add("--shape", dest="shapes", action="append", metavar="NxCxHxW", type=_shape, help="of the map or picture, may be "
        "repeated (default: those of style-transfer networks)")
    add("--kind", dest="kinds", action="append", metavar="KIND", help="of an operator that has several, such as depthwise; "
        "may be repeated (default: all)")
    add("--layout", choices=LAYOUTS, help="default: both")
    add("--dtype", dest="dtypes", action="append", choices=DTYPES, help="may be repeated (default: float32; "
        "networks in bfloat16, too)")
    add("--device", choices=arguments.DEVICES, default="auto", help="auto (default) is cuda where there is one")
    add("--threads", type=arguments.count, metavar="N", help="CPU threads (default: torch's choice)")
    add("--rounds", type=arguments.count, metavar="N", help=f"turns of each contender (default: {ROUNDS})")
    add("--no-compile", action="store_true", help="leave torch.compile out: it takes seconds to compile each operator, "
        "and up to a minute each network")
    add("--alone", action="store_true", help="no rivals, only fastnorm and what sets the limit")
    add("--quick", action="store_true", help="two small shapes (networks, and operators with shapes of their own: one), "
        f"{QUICK_ROUNDS} rounds, no torch.compile, no memory of processes")
    add("--json", type=_file, metavar="FILE", help="write everything that was measured to this file")


def run(args) -> int:
    if find_spec("fastnorm.benchmarks") is None:
        raise UserError("the benchmarks are not installed; in a checkout, run pip install --no-build-isolation -e .")
    with tempfile.TemporaryDirectory() as exports:
        return _run(args, Plan(args, Path(exports)))


def _run(args, plan):
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

    def __init__(self, args, exports):
        self.networks = [subject for subject in args.subjects if subject in NETWORKS]
        self.operators = [OPERATORS[subject] for subject in args.subjects or OPERATORS if subject in OPERATORS]
        self.passes = {"forward": [False], "backward": [True], "both": [False, True]}[args.passes]
        self.kinds = args.kinds
        self.shapes = args.shapes
        self.quick = args.quick
        self.calls = self.operators and not args.shapes
        self.layouts = (args.layout,) if args.layout else LAYOUTS
        self.dtypes = args.dtypes
        self.device = torch.device(arguments.device(args.device))
        self.rounds = args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS)
        self.alone, self.compile = args.alone, not (args.quick or args.no_compile)
        self.exports = exports
        self.noted = set()
        self.chosen = [(operator, kind) for operator in self.operators for kind in self._kinds(operator)]
        if self.kinds and not self.chosen:
            raise UserError(f"--kind {' '.join(self.kinds)}: none of these operators has it")
        for shape in self.shapes or ():
            option = f"--shape {cells.dimensions(shape)}"
            if not set(self.layouts) & set(layouts_of(shape)):
                raise UserError(f"{option}: channels_last needs NxCxHxW or NxCxDxHxW")
            if self.networks and not networks.fits(shape):
                raise UserError(f"{option}: networks need Nx3xHxW, sides multiples of 4 from 8")
        if self.networks and False not in self.passes:
            raise UserError("--pass backward: networks are measured forward only; leave it out")
        for operator in self.operators:
            if args.subjects and not operator.backward_maps and False not in self.passes:
                raise UserError(f"--pass backward: {operator.name} has no gradient; leave it out")

    def rivals(self, case):
        return () if self.alone else tuple(name for name in case.rivals if self.compile or name != "compile")

    def sections(self):
        """A table for each operator and type, one for the cost of a call, and one for each network and type."""
        dtypes = self.dtypes or DTYPES[:1]
        for operator, kind in self.chosen:
            own = getattr(room_of(operator.name), "SHAPES", {}).get(kind)
            # Shapes of its own mean that others may be much work: their last is the smallest.
            quick, usual = (own[-1:], own) if own else (QUICK_SHAPES, SHAPES)
            shapes = self.shapes or (quick if self.quick else usual)
            for dtype in dtypes:
                if cases := self._cases(operator, kind, shapes, dtype):
                    yield Section(f"{cases[0].name}, {dtype}", cases)
        if self.calls:
            cases = [case for each in self.chosen for case in self._cases(*each, [TINY], dtypes[0])]
            yield Calls(f"a call on {cells.dimensions(TINY)}, {dtypes[0]}", cases)
        for name in self.networks:
            usual = room_of(name).SHAPES
            shapes = self.shapes or (usual[:1] if self.quick else usual)
            for dtype in self.dtypes or networks.DTYPES:
                cases = [NetworkCase(name, shape, getattr(torch, dtype), self.device, self.exports) for shape in shapes]
                yield Networks(f"{name}, {dtype}", cases, resident=not self.quick)

    def _kinds(self, operator):
        """Those of its room that are wanted; one without a name where it has none."""
        kinds = getattr(room_of(operator.name), "KINDS", ("",))
        return kinds if self.kinds is None else [kind for kind in kinds if kind in self.kinds]

    def _cases(self, operator, kind, shapes, dtype):
        return [
            Case(operator, backward, shape, getattr(torch, dtype), self.device, kind)
            for backward in self.passes
            if operator.backward_maps or not backward
            for shape in shapes
        ]


class Section:
    """Cases that share a table."""

    def __init__(self, title, cases):
        self.title, self.cases = title, cases

    def clock(self, device):
        return clock_for(device)

    def options(self):
        return dict(patience=PATIENCE)

    def show(self, measured):
        table.show(self.title, cells.HEADER, cells.rows(measured), cells.TEXT_COLUMNS)


class Calls(Section):
    """So little work that the time is the call's own, as the caller sees it."""

    def clock(self, device):
        return wall_clock(device)

    def show(self, measured):
        table.show(self.title, cells.CALLS_HEADER, cells.call_rows(measured), cells.CALLS_TEXT_COLUMNS)


class Networks(Section):
    """A network on pictures of several sizes."""

    def __init__(self, title, cases, resident):
        super().__init__(title, cases)
        self.resident = resident

    def options(self):
        return dict(patience=NETWORK_PATIENCE, resident=self.resident)

    def show(self, measured):
        table.show(self.title, cells.NETWORK_HEADER, cells.network_rows(measured), cells.NETWORK_TEXT_COLUMNS)
        print("\n".join(cells.limits(measured)), end="\n\n", flush=True)


def _measure(section, plan, measured):
    """Measure the cases of a section and show them; those that were done, where it is interrupted."""
    done = []
    clock = section.clock(plan.device)
    try:
        for number, case in enumerate(section.cases, 1):
            _say(f"{section.title}: {number} of {len(section.cases)}")
            done += _measured(case, plan, clock, section.options())
    finally:
        _say("")
        measured += done
        if done:
            section.show(done)
        for note in cells.notes(done):
            if note not in plan.noted:
                print(note, end="\n\n", flush=True)
        plan.noted.update(cells.notes(done))


def _say(text):
    """Progress on a terminal. Not a bar that draws itself: its thread would be timed too."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _measured(case, plan, clock, options):
    """A list of the measurement, empty where it does not fit into memory."""
    try:
        return [measure(case, plan.layouts, plan.rivals(case), plan.rounds, clock=clock, **options)]
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


def _subject(name):
    names = [*OPERATORS, *NETWORKS]
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, cutoff=0.4) or names
    raise argparse.ArgumentTypeError(f"there is no operator or network {name!r}; there is {', '.join(near)}")


def _shape(text):
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){2,4}", text):
        raise argparse.ArgumentTypeError(f"expected sizes such as 1x64x512x512, got {text!r}")
    return tuple(map(int, text.split("x")))


def _file(text):
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written: it is a folder")
    try:
        tempfile.TemporaryFile(dir=path.absolute().parent).close()  # It has no name, and leaves no trace.
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {error.strerror}") from None
    return path
