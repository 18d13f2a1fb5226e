"""`explain`: layer by layer, what `swap` makes of a model, why it leaves the rest, and what that brings."""

from __future__ import annotations

import textwrap
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest

from torch import Tensor, nn

from .._errors import first_line
from .._table import aligned
from ._capture import Capture, Piece, in_turns, is_ours, seconds_by_call, undisturbed, with_gradients
from ._classes import Swapped
from ._parts import name_of
from ._rewrite import Fused, layers_of
from .swap import (
    LEAST_GAIN,
    MODEL_SECONDS,
    as_arguments,
    captures_of,
    check_call,
    check_module,
    form_of,
    light_copy,
    may_capture,
    unswap,
)

# A row for what takes less of the time is joined with others of its kind.
LEAST_SHARE = 0.005
AS_IT_IS = "as it is"
REST = "the rest"
# Letters in a line of the two columns of text: with the times a table is some 110 wide.
WIDTHS = 32, 48


@dataclass(frozen=True)
class Row:
    """A layer, or several that become one kernel: where the chief of them stands, what they are, and what they become.

    `why` says why nothing more becomes of them. Seconds are None where nothing was measured.
    """

    name: str
    was: str
    becomes: str
    why: str = ""
    layers: tuple[str, ...] = ()
    before: float | None = None
    after: float | None = None

    @property
    def words(self) -> str:
        """What it becomes, which says what it was, too; of what stays, what it is."""
        return f"{self.was}, {AS_IT_IS}" if self.was and self.becomes == AS_IT_IS else self.becomes


@dataclass(frozen=True)
class Explanation:
    """Rows in the order in which they run, and the seconds of a whole call. Printed, a table.

    `gains` says whether the whole is so much faster that `swap` exchanges its forward; None where nothing was measured.
    """

    model: str
    rows: tuple[Row, ...]
    before: float | None = None
    after: float | None = None
    notes: tuple[str, ...] = ()
    gains: bool | None = None

    def as_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        header, rows = self.cells()
        return "\n".join([self.title, *aligned([header, *rows], range(TEXT_COLUMNS, len(header))), *self.below])

    __repr__ = __str__

    @property
    def title(self) -> str:
        """The whole call, and on a second line that it does not gain."""
        if self.before is None:
            return self.model
        gain = self.before / self.after
        whole = f"{self.model}: {_duration(self.before)} before, {_duration(self.after)} after: {gain:.2f} times as fast"
        return whole if self.gains else f"{whole}\n{DOES_NOT_GAIN}"

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The header of a table, and its lines: TEXT_COLUMNS of text, then times and their shares."""
        header, marks = ("layer", "becomes"), self._marks()
        texts = [(row.name, f"{row.words} [{marks[row.why]}]" if row.why else row.words) for row in self.rows]
        if self.before is None:
            return header, [line for text in texts for line in _wrapped(text)]
        before, after = sum(row.before for row in self.rows), sum(row.after for row in self.rows)
        times = [(*_part(row.before, before), *_part(row.after, after)) for row in self.rows]
        return (*header, "before", "", "after", ""), [
            line for text, time in zip(texts, times) for line in _wrapped(text, time)
        ]

    @property
    def below(self) -> tuple[str, ...]:
        """What stands under the table: why not more becomes of the rows so marked, and notes."""
        reasons = [f"[{mark}] {why}" for why, mark in self._marks().items()]
        how = [] if self.before is None else [HOW_TIMED]
        rest = [WHAT_RESTS] if any(row.name == REST for row in self.rows) else []
        return *reasons, *rest, *how, *self.notes

    def _marks(self):
        reasons = dict.fromkeys(row.why for row in self.rows if row.why)
        return {why: mark for mark, why in enumerate(reasons, 1)}


TEXT_COLUMNS = 2

DOES_NOT_GAIN = "as a whole it does not gain, so swap leaves its forward as it is"
HOW_TIMED = "layers are timed one at a time and do not add up to the whole"
WHAT_RESTS = f"{REST}: calls of less than {LEAST_SHARE:.1%} of the time each, and what hands tensors from layer to layer"


def _wrapped(texts, times=()):
    """The lines of a row; times stand in the first."""
    columns = [textwrap.wrap(text, width, break_on_hyphens=False) for text, width in zip(texts, WIDTHS)]
    lines = list(zip_longest(*columns, fillvalue="")) or [("",) * len(texts)]
    return [(*line, *(times if index == 0 else [""] * len(times))) for index, line in enumerate(lines)]


def _part(seconds, whole):
    return _duration(seconds), f"{seconds / whole:.0%}" if whole else ""


def _duration(seconds):
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def explain(model: nn.Module, example_inputs: Tensor | tuple | None = None) -> Explanation:
    """What `swap` makes of each layer of a model, and why not where not; the model itself stays as it is.

    With example inputs each layer is timed before and after, as `swap` measures: in training mode with gradients. Times of
    layers are taken one at a time and do not add up to that of a whole call, which is in the first line.

    Args:
        model: a torch.nn.Module, swapped or not.
        example_inputs: what it is called with: a tensor, or a tuple of arguments.

    Raises:
        TypeError, ValueError: as `swap` does.
    """
    check_module("explain", model)
    if any(isinstance(module, Swapped) for module in model.modules()):
        model = unswap(light_copy(model))
    if example_inputs is None:
        return Explanation(type(model).__name__, tuple(_rows_of_modules(model)), notes=(WITHOUT_INPUTS,))
    args = as_arguments(example_inputs)
    check_call("explain", model, args)
    if not may_capture(model):
        return Explanation(type(model).__name__, tuple(_rows_of_modules(model)), notes=(NOT_CAPTURED,))
    try:
        with undisturbed(model):
            return _measured(model, args)
    except Exception as error:
        return Explanation(type(model).__name__, tuple(_rows_of_modules(model)), notes=(NOT_MEASURED + first_line(error),))


WITHOUT_INPUTS = "with example inputs, code in forward is swapped as well, and all is measured"
NOTHING = "torch.compile finds nothing in its forward that is fused"
NOT_CAPTURED = "its forward is not captured, for it has a __call__ or a forward of its own, or is parametrised"
NOT_MEASURED = "swap leaves it as it is, for measuring it fails: "


def _measured(model, args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captures = captures_of(model, args)
    if not captures:
        return Explanation(type(model).__name__, tuple(_rows_of_modules(model)), notes=(NOTHING,))
    calls = {None: lambda: model(*args)} | {capture: partial(capture, model, *args) for capture in captures}
    found = in_turns({who: with_gradients(call) for who, call in calls.items()}, MODEL_SECONDS)
    before, best = found.pop(None), min(captures, key=found.get)
    pieces = Capture(type(model).forward, best.choices).recorded(model, *args)
    rows = [row for piece in pieces for row in _rows_of_piece(piece)]
    notes = [] if len(pieces) == 1 else [f"its forward breaks into {len(pieces)} graphs: TORCH_LOGS=graph_breaks says where"]
    if best.choices.channels_last:
        notes.append("volumes are in channels_last from the first convolution to the last")
    gains = found[best] < LEAST_GAIN * before
    return Explanation(type(model).__name__, tuple(rows), before, found[best], tuple(notes), gains)


# Of what torch.compile captured.


def _rows_of_piece(piece: Piece) -> list[Row]:
    before, after = (seconds_by_call(graph, piece.arguments) for graph in (piece.before, piece.after))
    names = {node.name: _function(node) for node in piece.before.graph.nodes}
    rows, rest_before, rest_after = [], 0.0, 0.0
    for node in piece.after.graph.nodes:
        if node.name not in after:
            continue
        origins = node.meta.get("origins", ())
        taken = sum(before.get(origin, 0.0) for origin in origins)
        is_large = max(taken / sum(before.values()), after[node.name] / sum(after.values())) >= LEAST_SHARE
        step = piece.after.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(step, Fused) or is_ours(node) or (is_large and origins):
            was = ", ".join(dict.fromkeys(names[origin] for origin in origins if names[origin] not in _TRIVIAL))
            rows.append(Row(*_described(node, step, was), taken, after[node.name]))
        else:
            rest_before, rest_after = rest_before + taken, rest_after + after[node.name]
    return [*rows, Row(REST, "", AS_IT_IS, before=rest_before, after=rest_after)]


def _described(node, step, was):
    """name, was, becomes, why, layers"""
    if isinstance(step, Fused):
        why = "torch's convolution is faster here" if step.by_torch else ""
        return step.name, was, step.extra_repr(), why, tuple(dict.fromkeys(layer.name for layer in layers_of(step.step)))
    name = name_of(node)
    if is_ours(node):
        return name, was, node.target.__name__, "", (name,)
    return name, was, AS_IT_IS, node.meta.get("reason", ""), (name,)


def _function(node):
    return str(node.target) if node.op != "call_function" else getattr(node.target, "__name__", str(node.target))


_TRIVIAL = (
    "getitem", "size", "view", "reshape", "expand", "expand_as", "contiguous", "unsqueeze", "transpose", "permute", "add", "sub",
)  # fmt: skip


# Of modules, without a call.


def _rows_of_modules(model):
    inside = ()
    for name, module in model.named_modules():
        form, kind = form_of(module), type(module).__name__
        if inside and name.startswith(inside):
            continue
        if form == "sequence":
            yield Row(name, kind, "a Chain: a kernel a layer")
            inside = (f"{name}." if name else "",)
        elif form is not None:
            yield Row(name, kind, f"fastnorm.nn.{kind}")
        elif isinstance(module, _LAYERS):
            yield Row(name, kind, AS_IT_IS, "it stands in the code of a forward")


_LAYERS = (
    nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.Upsample, nn.ReflectionPad1d,
    nn.ReflectionPad2d, nn.ReflectionPad3d,
)  # fmt: skip
