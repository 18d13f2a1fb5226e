"""A case measured: who is right, how long each takes, how much memory; and what follows from that."""

import math
import os
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from .clock import Clock, Contender, Timing, clock_for, take_turns
from .contenders import FASTNORM, LAYOUTS, RIVALS, Case, Stage, error, layouts_of

# How far from float64 a result may be, of the largest number in it. It tells a wrong result, not a good one: what
# published code makes of bfloat16 passes. How exact fastnorm is, the tests say.
ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}

COPY = ("copy", "")


@dataclass(frozen=True)
class Entry:
    """A contender in one layout. Without a timing there is a problem: "wrong" or "failed", and what exactly."""

    name: str
    layout: str
    timing: Timing | None = None
    peak_bytes: int | None = None
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Measurement:
    case: Case
    copy: Timing
    entries: tuple[Entry, ...]

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
    def bandwidth(self) -> float:
        """Bytes per second of the copy."""
        return self.case.copy_bytes / self.copy.median

    def copies(self, layout: str) -> float | None:
        """How many copies of the map could be made while fastnorm runs once."""
        timing = self.of(FASTNORM, layout).timing
        return timing.median / self.copy.median if timing else None

    def of_limit(self, layout: str) -> float | None:
        """The part of the copy's bandwidth that fastnorm reaches, counted on the bytes that must be moved.

        None of the operators does so much arithmetic that it could be the limit.
        """
        timing = self.of(FASTNORM, layout).timing
        return self.case.bytes / self.bandwidth / timing.median if timing else None

    def ratio(self, rival: str, layout: str) -> float | None:
        """How many times fastnorm is faster than the rival in its better layout."""
        timing, best = self.of(FASTNORM, layout).timing, self.best(rival)
        return best.timing.median / timing.median if timing and best and best.timing else None


def measure(
    case: Case,
    layouts: tuple[str, ...] = LAYOUTS,
    rivals: tuple[str, ...] = RIVALS,
    rounds: int = 15,
    patience: float = 1.0,
    clock: Clock | None = None,
) -> Measurement:
    """Check every contender against float64, then time those that are right in turns.

    Args:
        rounds: turns of each contender; `patience`: seconds after which a slow one takes no more.
    """
    if "compile" in rivals:
        torch.compiler.reset()  # It gives up on a function that it has compiled for too many cases.
    stage = Stage(case)
    wanted = [(name, layout) for name in (FASTNORM, *rivals) for layout in layouts if layout in layouts_of(case.shape)]
    contenders, entries = {COPY: stage.copy()}, {}
    for key in wanted:
        found = _admit(stage, *key)
        if isinstance(found, Contender):
            contenders[key] = found
        else:
            entries[key] = found
    peaks = {key: peak_bytes(contender, case.device) for key, contender in contenders.items()}
    timings = take_turns(contenders, rounds, clock or clock_for(case.device), patience)
    return Measurement(
        case,
        timings[COPY],
        tuple(entries.get(key) or Entry(*key, timings[key], peaks[key]) for key in wanted),
    )


def _admit(stage, name, layout):
    """The contender, or why there is none."""
    try:
        contender = stage.contender(name, layout)
        off = error(contender.run(contender.prepare()), stage.expected)
    except Exception as reason:  # A compiler may be missing, memory short: the others can still be measured.
        return Entry(name, layout, problem="failed", detail=f"{type(reason).__name__}: {_first_line(reason)}")
    allowed = ALLOWED[stage.case.dtype]
    if off <= allowed:
        return contender
    return Entry(name, layout, problem="wrong", detail=f"off by {off:.2g} of the largest number, allowed {allowed:g}")


def _first_line(reason):
    return (str(reason).strip().splitlines() or [""])[0]


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
