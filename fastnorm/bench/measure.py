"""A case measured: who is right, how long each takes, how much memory; and what follows from that."""

import math
import os
from dataclasses import dataclass, replace

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from fastnorm._errors import first_line

from .clock import Clock, Contender, Timing, clock_for, take_turns
from .contenders import FASTNORM, LAYOUTS, Case, Error, LeftOut, error
from .networks import NetworkCase
from .resident import resident_bytes

# How far from float64 a result may be, of the largest number in it. It tells a wrong result, not a good one: what
# published code makes of bfloat16 passes. How exact fastnorm is, the tests say.
ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}

WRONG, FAILED, LEFT_OUT = "wrong", "failed", "left out"

_PACE = ("pace", "")


@dataclass(frozen=True)
class Entry:
    """A contender in one layout. Without a timing there is a problem, and what exactly.

    `peak_bytes` is what torch allocated, None where it is not torch that does; `resident_bytes` what the process grew
    by, None where that was not measured.
    """

    name: str
    layout: str
    timing: Timing | None = None
    peak_bytes: int | None = None
    resident_bytes: int | None = None
    error: Error | None = None
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Measurement:
    """What was found of a case. The pace is what the machine does at best: copying a map, or multiplying and adding."""

    case: Case | NetworkCase
    pace: Timing
    entries: tuple[Entry, ...]
    paced_by: str = "copy"
    remarks: tuple[str, ...] = ()

    @property
    def layouts(self) -> list[str]:
        return [entry.layout for entry in self.entries if entry.name == FASTNORM]

    def of(self, name: str, layout: str) -> Entry | None:
        return next((entry for entry in self.entries if (entry.name, entry.layout) == (name, layout)), None)

    def best(self, name: str) -> Entry | None:
        """A contender in its better layout."""
        entries = [entry for entry in self.entries if entry.name == name]
        return min(entries, key=lambda entry: entry.timing.median if entry.timing else math.inf, default=None)

    @property
    def counts_bytes(self) -> bool:
        """Whether memory is the limit: the pace is then a copy, and the work bytes; else both are flops."""
        return self.paced_by == "copy"

    @property
    def rate(self) -> float:
        """Bytes per second of the copy, or flops per second of the multiply-adds."""
        return self.case.pace_work / self.pace.median

    def copies(self, layout: str) -> float | None:
        """How many copies of the map could be made while fastnorm runs once."""
        timing = self.of(FASTNORM, layout).timing
        return timing.median / self.pace.median if timing else None

    def of_limit(self, layout: str, name: str = FASTNORM) -> float | None:
        """The part of the pace's rate that a contender reaches, counted on the work that must be done."""
        timing = self.of(name, layout).timing
        return self.case.work / self.rate / timing.median if timing else None

    def times_fastnorm(self, entry: Entry) -> float | None:
        """A contender's time in those that fastnorm takes in its better layout."""
        ours = self.best(FASTNORM).timing
        return entry.timing.median / ours.median if ours and entry.timing else None

    def ratio(self, rival: str, layout: str) -> float | None:
        """How many times fastnorm is faster than the rival in its better layout."""
        timing, best = self.of(FASTNORM, layout).timing, self.best(rival)
        return best.timing.median / timing.median if timing and best and best.timing else None


def measure(
    case: Case | NetworkCase,
    layouts: tuple[str, ...] = LAYOUTS,
    rivals: tuple[str, ...] | None = None,
    rounds: int = 15,
    patience: float = 1.0,
    clock: Clock | None = None,
    resident: bool = False,
) -> Measurement:
    """Check every contender against float64, then time those that are right in turns.

    Args:
        rivals: some of the case's own; None for all of them.
        rounds: turns of each contender; `patience`: seconds after which a slow one takes no more.
        resident: of a network, measure also what a fresh process grows by, for each contender.
    """
    rivals = case.rivals if rivals is None else rivals
    if "compile" in rivals:
        torch.compiler.reset()  # It gives up on a function that it has compiled for too many cases.
    stage = case.stage()
    paced_by, pace = stage.pace()
    contenders, entries = {_PACE: pace}, {}
    for key in [(name, layout) for name in (FASTNORM, *rivals) for layout in case.layouts(name, layouts)]:
        entries[key], contender = _admit(stage, *key)
        if contender:
            contenders[key] = contender
    peaks = {key: peak_bytes(each, case.device) if each.by_torch else None for key, each in contenders.items()}
    timings = take_turns(contenders, rounds, clock or clock_for(case.device), patience)
    for key, entry in entries.items():
        if not entry.problem:
            grown = resident_bytes(case, *key) if resident else None
            entries[key] = replace(entry, timing=timings[key], peak_bytes=peaks[key], resident_bytes=grown)
    return Measurement(case, timings[_PACE], tuple(entries.values()), paced_by, stage.remarks)


def _admit(stage, name, layout):
    """The entry, and the contender where it may take part."""
    entry = Entry(name, layout)
    try:
        contender = stage.contender(name, layout)
        off = error(contender.run(contender.prepare()), stage.expected)
    except LeftOut as reason:
        return replace(entry, problem=LEFT_OUT, detail=str(reason)), None
    except Exception as reason:  # A compiler may be missing, memory short: the others can still be measured.
        return replace(entry, problem=FAILED, detail=f"{type(reason).__name__}: {first_line(reason)}"), None
    allowed = ALLOWED[stage.case.dtype] * stage.case.leniency
    if off.relative <= allowed:
        return replace(entry, error=off), contender
    detail = f"off by {off.relative:.2g} of the largest number, allowed {allowed:g}"
    return replace(entry, error=off, problem=WRONG, detail=detail), None


def peak_bytes(contender: Contender, device: torch.device) -> int:
    """The most that torch had allocated during a call, beyond what was there before it."""
    if device.type == "cuda":
        prepared = contender.prepare()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        contender.run(prepared)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # Or the profiler says when it starts and stops.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        prepared = contender.prepare()
        with record_function("the call starts"):  # A mark: what is freed inside it would show as one sum at its end.
            pass
        contender.run(prepared)
    return _peak(found.events())


def _peak(events):
    """The same holds for an operator and what it frees within itself: the peak found is never below the real one."""
    start = next(event for event in events if event.name == "the call starts").time_range.end
    peak = total = 0
    for event in sorted(events, key=lambda event: event.time_range.end):
        if event.time_range.end > start:
            total += event.self_cpu_memory_usage
            peak = max(peak, total)
    return peak
