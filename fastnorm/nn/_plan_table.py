"""A plan in words: a row for each step, what it takes in, and which maps are written."""

from __future__ import annotations

from math import prod

from .._table import aligned
from ._steps import Call, Convolve

AS_IT_IS = "as it is"


def table(plan) -> str:
    rows = [("", "step", "on load", "kernel", "on store", *_head(plan))]
    rows += [
        (str(number), name_of(step), *cells(step, plan), *_size(plan, step))
        for number, step in enumerate(plan.steps, 1)
    ]
    return "\n".join([title(plan), *aligned(rows), *notes(plan)])


def title(plan) -> str:
    steps, maps = _count(len(plan.steps), "step"), _count(len(_written(plan)), "map")
    return f"{plan.name}: {steps}, where its modules write {maps}"


def _count(number, what):
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def name_of(step) -> str:
    return step.layer.name or step.layer.kind


def cells(step, plan) -> tuple[str, str, str]:
    """What happens on load, the kernel, what happens on store."""
    if isinstance(step, Call):
        return "", step.layer.kind, ""
    made = [written.words for written in step.written(plan.sizes)]
    if not isinstance(step, Convolve):
        return ", ".join(made), "scale_shift", ""
    at = next(index for index, words in enumerate(made) if words.startswith("conv"))
    entry = [layer.part.words for layer in step.entry.layers]
    if step.entered is not None:
        entry[-1] += " (kept)"
    on_load = entry + [layer.part.words for layer in (*step.upsampling, *step.padding)]
    on_store = made[at + 1 :] + (["statistics"] if step.statistics is not None else [])
    return ", ".join(on_load), made[at], ", ".join(on_store)


def notes(plan) -> list[str]:
    lines = []
    dropped = [step.layer.name for step in plan.steps if isinstance(step, Convolve) and step.drops_bias]
    if dropped:
        lines.append(f"left out, since the norm that follows subtracts it: the bias of {', '.join(dropped)}")
    if any(isinstance(step, Convolve) and step.entered is not None for step in plan.steps):
        lines.append("kept: written, too, for a residual adds it")
    calls = {}
    for step in plan.steps:
        if isinstance(step, Call):
            calls.setdefault((step.layer.kind, step.reason), []).append(step.layer.name)
    lines += [f"{AS_IT_IS}: {', '.join(names)} ({kind}): {reason}" for (kind, reason), names in calls.items()]
    if known(plan):
        ours, theirs = (sum(bytes_of(shape, plan) for shape in shapes) for shapes in (_ours(plan), _theirs(plan)))
        result_only = ", of what runs as it is the result only" if calls else ""
        lines.append(f"written: {size(ours)} of the {size(theirs)} that the modules write{result_only}")
    return lines


def known(plan) -> bool:
    return all(shape is not None for shape in plan.sizes.values())


def bytes_of(shape, plan) -> int:
    return prod(shape) * plan.dtype.itemsize


def size(bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes >= scale:
            return f"{bytes / scale:.3g} {unit}"
    return f"{bytes} B"


def by(shape) -> str:
    return "?" if shape is None else " x ".join(map(str, shape))


def _written(plan):
    return [written for step in plan.steps for written in step.written(plan.sizes)]


def _ours(plan):
    return [plan.sizes[map] for step in plan.steps for map in step.writes]


def _theirs(plan):
    return [written.shape for written in _written(plan)]


def _head(plan):
    return ("writes", "") if plan.sizes[0] is not None else ()


def _size(plan, step):
    if plan.sizes[0] is None:
        return ()
    shapes = [plan.sizes[map] for map in step.writes]
    if None in shapes:
        return by(plan.sizes[step.output]), ""
    words = " and ".join(map(by, shapes)) if len(set(shapes)) > 1 else f"{_count(len(shapes), 'map')} of {by(shapes[0])}"
    return words.removeprefix("1 map of "), size(sum(bytes_of(shape, plan) for shape in shapes))
