"""Measurements in words: the cells of a table, and the notes under it."""

from typing import Iterable

from .contenders import FASTNORM, RIVALS
from .measure import LEFT_OUT, Measurement

TEXT_COLUMNS = 3  # The rest are numbers.
HEADER = (
    "pass", "shape", "layout", "pace", "time", "copies", "of limit", "memory", *(f"vs {rival}" for rival in RIVALS)
)  # fmt: skip
LEGEND = (
    "pace: a copy of the map, or of products of matrices torch's fastest. copies: how often the map could be copied in "
    "that time. of limit: part of the pace, on the bytes that must be moved or the flops that must be done. memory: "
    "allocated at most during the call, in maps. vs: how many times faster than the rival in its better layout."
)

NETWORK_TEXT_COLUMNS = 3
NETWORK_HEADER = (
    "shape", "contender", "layout", "time", "vs fastnorm", "of limit", "memory", "process", "error", "mean error",
)  # fmt: skip
NETWORK_LEGEND = (
    "vs fastnorm: time, over that of fastnorm in its better layout. of limit: part of the rate of torch's fastest "
    "multiply-adds, on the flops of the convolutions in full. memory: what torch allocates at most during the call. "
    "process: growth of a fresh process, whoever allocates, the allocator as it is. error: largest and mean difference "
    "from float64."
)

CALLS_TEXT_COLUMNS = 2
CALLS_HEADER = ("operator", "pass", FASTNORM, *RIVALS)


def rows(measurements: Iterable[Measurement]) -> list[tuple[str, ...]]:
    """One row for each layout of each case."""
    return [_row(measurement, layout) for measurement in measurements for layout in measurement.layouts]


def _row(measurement, layout):
    case, entry = measurement.case, measurement.of(FASTNORM, layout)
    right, copies = entry.timing is not None, measurement.counts_bytes
    return (
        case.direction,
        dimensions(case.shape),
        layout,
        f"{measurement.rate / 1e9:.3g} {'GB/s' if copies else 'GFLOP/s'}",
        duration(entry.timing.median) if right else entry.problem,
        (f"{measurement.copies(layout):.2f}" if copies else "-") if right else "",
        f"{measurement.of_limit(layout):.0%}" if right else "",
        f"{entry.peak_bytes / (case.copy_bytes / 2):.2f}" if right else "",
        *(_ratio(measurement, rival, layout) for rival in RIVALS),
    )


def _ratio(measurement, rival, layout):
    ratio, best = measurement.ratio(rival, layout), measurement.best(rival)
    if ratio is not None:
        return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"
    return best.problem if best else "-"


def network_rows(measurements: Iterable[Measurement]) -> list[tuple[str, ...]]:
    """One row for each contender in each layout."""
    return [
        (dimensions(found.case.shape), entry.name, entry.layout, *_network_cells(found, entry))
        for found in measurements
        for entry in found.entries
        if entry.problem != LEFT_OUT
    ]


def _network_cells(measurement, entry):
    if entry.problem:
        return (entry.problem, *[""] * (len(NETWORK_HEADER) - NETWORK_TEXT_COLUMNS - 1))
    times = measurement.times_fastnorm(entry)
    return (
        duration(entry.timing.median),
        "-" if times is None else f"{times:.2f}x",
        f"{measurement.of_limit(entry.layout, entry.name):.0%}",
        *("-" if size is None else f"{size / 1e6:.1f} MB" for size in (entry.peak_bytes, entry.resident_bytes)),
        f"{entry.error.largest:.1e}",
        f"{entry.error.mean:.1e}",
    )


def call_rows(measurements: Iterable[Measurement]) -> list[tuple[str, ...]]:
    """What a call costs by itself: one row for each case, everybody's time in its better layout."""
    return [(found.case.name, found.case.direction, *_times(found)) for found in measurements]


def _times(measurement):
    for name in (FASTNORM, *RIVALS):
        best = measurement.best(name)
        yield "-" if best is None else duration(best.timing.median) if best.timing else best.problem


def notes(measurements: Iterable[Measurement]) -> list[str]:
    """What the rows do not say: who was not timed, and why. Each once."""
    found = [note for measurement in measurements for note in (*measurement.remarks, *_problems(measurement))]
    return list(dict.fromkeys(found))


def _problems(measurement):
    case = measurement.case
    where = f"{case.name} {case.direction} {dimensions(case.shape)}"
    for entry in measurement.entries:
        if entry.problem == LEFT_OUT:
            yield entry.detail
        elif entry.problem:
            yield f"{where}: {entry.name} {entry.layout} {entry.problem}: {entry.detail}"


def limits(measurements: Iterable[Measurement]) -> list[str]:
    """What the limit of each network was."""
    return [
        f"{found.case.name} {dimensions(found.case.shape)}: {found.case.work / 1e9:.3g} GFLOP, "
        f"{duration(found.case.work / found.rate)} at {found.rate / 1e12:.3g} TFLOP/s ({found.paced_by})"
        for found in measurements
    ]


def dimensions(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def duration(seconds: float) -> str:
    """With three digits, in us or ms."""
    value, unit = (seconds * 1e6, "us") if seconds < 0.9995e-3 else (seconds * 1e3, "ms")
    return f"{value:#.3g}".removesuffix(".") + f" {unit}"
