"""Measurements in words: the cells of a table, and the notes under it."""

from typing import Iterable

from .contenders import FASTNORM, RIVALS
from .measure import Measurement

TEXT_COLUMNS = 3  # The rest are numbers.
HEADER = (
    "pass", "shape", "layout", "copy GB/s", "time", "copies", "of limit", "memory", *(f"vs {rival}" for rival in RIVALS)
)  # fmt: skip
LEGEND = (
    "copies: how often the map could be copied in that time. of limit: part of the copy's rate, on the bytes that must "
    "be moved. memory: allocated at most during the call, in maps. vs: how many times faster than the rival in its "
    "better layout."
)

CALLS_TEXT_COLUMNS = 2
CALLS_HEADER = ("operator", "pass", FASTNORM, *RIVALS)


def rows(measurements: Iterable[Measurement]) -> list[tuple[str, ...]]:
    """One row for each layout of each case."""
    return [_row(measurement, layout) for measurement in measurements for layout in measurement.layouts]


def _row(measurement, layout):
    case, entry = measurement.case, measurement.of(FASTNORM, layout)
    right = entry.timing is not None
    return (
        case.direction,
        dimensions(case.shape),
        layout,
        f"{measurement.bandwidth / 1e9:.1f}",
        duration(entry.timing.median) if right else entry.problem,
        f"{measurement.copies(layout):.2f}" if right else "",
        f"{measurement.of_limit(layout):.0%}" if right else "",
        f"{entry.peak_bytes / (case.copy_bytes / 2):.2f}" if right else "",
        *(_ratio(measurement, rival, layout) for rival in RIVALS),
    )


def _ratio(measurement, rival, layout):
    ratio, best = measurement.ratio(rival, layout), measurement.best(rival)
    if ratio is not None:
        return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"
    return best.problem if best else "-"


def call_rows(measurements: Iterable[Measurement]) -> list[tuple[str, ...]]:
    """What a call costs by itself: one row for each case, everybody's time in its better layout."""
    return [(found.case.name, found.case.direction, *_times(found)) for found in measurements]


def _times(measurement):
    for name in (FASTNORM, *RIVALS):
        best = measurement.best(name)
        yield "-" if best is None else duration(best.timing.median) if best.timing else best.problem


def notes(measurements: Iterable[Measurement]) -> list[str]:
    """Who was not timed, and why."""
    return [
        f"{case.name} {case.direction} {dimensions(case.shape)}: {entry.name} {entry.layout} {entry.problem}: "
        f"{entry.detail}"
        for measurement in measurements
        for case in [measurement.case]
        for entry in measurement.entries
        if entry.problem
    ]


def dimensions(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def duration(seconds: float) -> str:
    """With three digits, in us or ms."""
    value, unit = (seconds * 1e6, "us") if seconds < 0.9995e-3 else (seconds * 1e3, "ms")
    return f"{value:#.3g}".removesuffix(".") + f" {unit}"
