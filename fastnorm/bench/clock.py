"""Times of things that compete, taken in turns: what slows the machine for a while slows all of them.

A contender is a pair of functions: `prepare()` makes what a call needs, untimed, and `run(prepared)` is the call.
"""

import contextlib
import gc
import math
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Hashable, Mapping

import torch


@dataclass(frozen=True)
class Contender:
    """`by_torch`: whether its memory is torch's, which can tell how much there was."""

    prepare: Callable[[], Any]
    run: Callable[[Any], Any]
    by_torch: bool = True


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median over the rounds, and its quartiles."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
        return cls(median, low, high, len(seconds))


# A turn lasts at least so long, or the clock's own steps and cost would show.
TURN = 200e-6
MOST_CALLS = 1000
# A contender that has used up its time sits the rest out, but has so many rounds in any case.
LEAST_ROUNDS = 3

Clock = Callable[[Callable[[Any], Any], list], float]


def take_turns(
    contenders: Mapping[Hashable, Contender], rounds: int, clock: Clock, patience: float = math.inf
) -> dict[Hashable, Timing]:
    """One turn each per round, in an order that rotates, so that nobody always follows the same one.

    `patience` is how many seconds of turns a contender may use up before it sits out.
    """
    calls = {key: _calls_per_turn(contender, clock) for key, contender in contenders.items()}
    seconds = {key: [] for key in contenders}
    order = list(contenders)
    with _no_garbage_collection():
        for round in range(rounds):
            for key in order:
                if round < LEAST_ROUNDS or calls[key] * sum(seconds[key]) < patience:
                    seconds[key].append(_turn(contenders[key], calls[key], clock))
            order.append(order.pop(0))
    return {key: Timing.of(found) for key, found in seconds.items()}


def _turn(contender, calls, clock):
    """Seconds per call. One call goes first, untimed: the caches still hold what the one before left."""
    first, *prepared = [contender.prepare() for _ in range(calls + 1)]
    contender.run(first)
    return clock(contender.run, prepared) / calls


def _calls_per_turn(contender, clock):
    seconds = _turn(contender, 1, clock)
    return max(1, min(MOST_CALLS, math.ceil(TURN / max(seconds, 1e-9))))


@contextlib.contextmanager
def _no_garbage_collection():
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def wall_clock(device: torch.device) -> Clock:
    """Time as the caller sees it; on a GPU, of many calls until all are done."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def clock(run, prepared):
        wait()
        start = time.perf_counter()
        for state in prepared:
            run(state)
        wait()
        return time.perf_counter() - start

    return clock


def gpu_clock(device: torch.device) -> Clock:
    """Time on the GPU, between two events.

    Long copies go first, one per call (170 us each on an H100): while they run the calls are queued, so that no gap
    between them is timed, and they leave nothing of theirs in the cache.
    """
    ahead = torch.empty(2, 2**28, dtype=torch.uint8, device=device)

    def clock(run, prepared):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        for _ in prepared:
            ahead[0].copy_(ahead[1])
        start.record()
        for state in prepared:
            run(state)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return clock


def clock_for(device: torch.device) -> Clock:
    return gpu_clock(device) if device.type == "cuda" else wall_clock(device)
