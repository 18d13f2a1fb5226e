"""Measurements in a file: what was measured, on what, and everything that the table shows."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Iterable

from . import machine
from .measure import Measurement


def report(measurements: Iterable[Measurement], complete: bool, **settings) -> dict:
    """Times are in seconds, memory in bytes. `complete` is False for a run that was interrupted.

    A measurement is of an "operator" or of a "network".
    """
    return {
        "machine": machine.describe(),
        "settings": settings,
        "complete": complete,
        "measurements": [_measurement(measurement) for measurement in measurements],
    }


def _measurement(measurement):
    pace, work = ("copy", "bytes") if measurement.counts_bytes else ("multiply_adds", "flops")
    return {
        **measurement.case.facts(),
        "remarks": list(measurement.remarks),
        pace: {
            **asdict(measurement.pace),
            "by": measurement.paced_by,
            work: measurement.case.pace_work,
            f"{work}_per_second": measurement.rate,
        },
        "contenders": [_entry(measurement, entry) for entry in measurement.entries],
        "fastnorm": {layout: _standing(measurement, layout) for layout in measurement.layouts},
    }


def _entry(measurement, entry):
    named = {"name": entry.name, "layout": entry.layout}
    if entry.problem:
        return {**named, "problem": entry.problem, "detail": entry.detail}
    return {
        **named,
        **asdict(entry.timing),
        "of_limit": measurement.of_limit(entry.layout, entry.name),
        "times_fastnorm": measurement.times_fastnorm(entry),
        "peak_bytes": entry.peak_bytes,
        "resident_bytes": entry.resident_bytes,
        "error": asdict(entry.error),
    }


def _standing(measurement, layout):
    paced = {"copies": measurement.copies(layout)} if measurement.counts_bytes else {}
    return {
        **paced,
        "of_limit": measurement.of_limit(layout),
        "times_faster": {rival: measurement.ratio(rival, layout) for rival in measurement.case.rivals},
    }


def write(path: Path, content: dict) -> None:
    """The whole file or none of it."""
    unfinished = Path(f"{path}.part")
    unfinished.write_text(_text(content) + "\n")
    os.replace(unfinished, path)


def _text(value, indent="") -> str:
    """JSON with every innermost list or object on a line of its own, and four digits: no measurement has more."""
    if isinstance(value, float):
        return json.dumps(float(f"{value:.4g}"))
    if not isinstance(value, (dict, list)):
        return json.dumps(value)
    deeper = indent + " "
    if isinstance(value, dict):
        parts, (opening, closing) = [f"{json.dumps(key)}: {_text(item, deeper)}" for key, item in value.items()], "{}"
        items = value.values()
    else:
        parts, (opening, closing) = [_text(item, deeper) for item in value], "[]"
        items = value
    if any(isinstance(item, (dict, list)) for item in items):
        return f"{opening}\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{indent}{closing}"
    return opening + ", ".join(parts) + closing
