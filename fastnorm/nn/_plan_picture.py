"""A plan as a picture: a box for each kernel with what it takes in, an arrow for each map that is written.

Units are lines of text: y goes down, a line high; x is as wide as y is high.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from pathlib import PurePath
from textwrap import wrap

from ._plan_table import AS_IT_IS, by, bytes_of, name_of, notes, size, title
from ._steps import Call, Convolve

WIDTH, CORNER, HEAD, GAP, MARGIN = 19.0, 0.35, 1.25, 2.1, 4.2
LINES = 60  # Of a column, about.
INK, FADED, STREAM = "#1d2733", "#9aa5b1", "#c2410c"
FILL = {Convolve: ("#e8f0fb", "#2f6fb7"), Call: ("#fdf1e3", "#c77d22")}
OTHER = ("#e9f6ee", "#2e8b57")
INCH = 0.2  # Of a line.


def draw(plan, path) -> None:
    try:
        from matplotlib.backend_bases import FigureCanvasBase
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a picture of a plan takes matplotlib: pip install matplotlib") from None
    suffix = PurePath(path).suffix
    if suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"draw: path: expected a name that ends in .svg, .png or .pdf, got {str(path)!r}")
    boxes = [_Box(step, plan) for step in plan.steps]
    columns = _columns(boxes)
    height = max((column[-1].bottom for column in columns if column), default=0) + 2 * GAP
    width = max(1, len(columns)) * (WIDTH + MARGIN) + 1
    # What runs as it is has a box that says so.
    below = ["grey: never written"] + [words for words in notes(plan) if not words.startswith(AS_IT_IS)]
    below = [line for words in below for line in wrap(words, int(width * 2.6))]
    total = height + 3 + 1.1 * len(below)
    figure = Figure(figsize=(width * INCH, total * INCH))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(total - 2, -2))
    axes.set_axis_off()
    axes.text(0.7, -0.9, title(plan), size=11, weight="bold", color=INK, va="center")
    for box in boxes:
        box.draw(axes)
    if boxes:
        _arrows(axes, plan, boxes)
        _streams(axes, plan, boxes)
    for line, words in enumerate(below):
        axes.text(0.7, height + 0.6 + 1.1 * line, words, size=7, color=INK, va="center")
    figure.savefig(path, dpi=160, facecolor="white", metadata={"Date": None} if str(path).endswith(".svg") else None)


class _Box:
    """A step: its kernel, and a line for each map that its modules would write."""

    def __init__(self, step, plan) -> None:
        self.step, self.lines = step, step.written(plan.sizes)
        self.tall = HEAD + len(self.lines) + 0.35 + (0.95 if isinstance(step, Call) else 0)
        self.left = self.top = 0.0

    @property
    def bottom(self) -> float:
        return self.top + self.tall

    @property
    def right(self) -> float:
        return self.left + WIDTH

    @property
    def middle(self) -> float:
        return self.left + WIDTH / 2

    def line_of(self, map: int) -> float:
        return self._height(next(line for line, written in enumerate(self.lines) if written.map == map))

    def line_of_sum(self) -> float:
        return self._height(next(line for line, written in enumerate(self.lines) if written.words == "add"))

    def _height(self, line):
        return self.top + HEAD + 0.45 + line

    def draw(self, axes) -> None:
        from matplotlib.patches import FancyBboxPatch

        fill, edge = FILL.get(type(self.step), OTHER)
        style = f"round,pad=0,rounding_size={CORNER}"
        axes.add_patch(
            FancyBboxPatch(
                (self.left, self.top), WIDTH, self.tall, style, facecolor=fill, edgecolor=edge, linewidth=1.1
            )
        )
        statistics = "  + statistics" if isinstance(self.step, Convolve) and self.step.statistics is not None else ""
        kernel = {Convolve: "norm_conv2d", Call: AS_IT_IS}.get(type(self.step), "scale_shift")
        self._line(axes, 0.72, _short(name_of(self.step), 26), kernel + statistics, edge, True)
        for number, written in enumerate(self.lines):
            kept = written.map is not None
            shape = by(written.shape[1:]) if written.shape else ""
            self._line(axes, self._height(number) - self.top, written.words, shape, INK if kept else FADED)
        if isinstance(self.step, Call):
            axes.text(
                self.left + 0.6,
                self.bottom - 0.75,
                _short(self.step.reason, 48),
                size=6.5,
                style="italic",
                color=edge,
                va="center",
            )

    def _line(self, axes, down, left, right, color, head=False):
        look = dict(size=8 if head else 7.5, weight="bold" if head else "normal", color=color, va="center")
        axes.text(self.left + 0.6, self.top + down, left, **look)
        axes.text(self.left + WIDTH - 0.6, self.top + down, right, ha="right", **(look | dict(size=7, weight="normal")))


def _short(words, most):
    return words if len(words) <= most else words[: most - 1] + "…"


def _columns(boxes):
    """Puts the boxes in their places, in columns of about the same height."""
    columns, down = [[]], GAP
    total = sum(box.tall + GAP for box in boxes)
    longest = total / max(1, ceil(total / LINES))
    for box in boxes:
        if columns[-1] and down + box.tall / 2 > longest + GAP:
            columns.append([])
            down = GAP
        box.left, box.top = 0.7 + (len(columns) - 1) * (WIDTH + MARGIN), down
        columns[-1].append(box)
        down = box.bottom + GAP
    return columns


def _arrows(axes, plan, boxes):
    """From each step to the next, with the map that it leaves there; into the first, and out of the last."""
    first, last = boxes[0], boxes[-1]
    _down(axes, first.middle, first.top - GAP + 0.5, first.top)
    _label(axes, plan, first.middle, first.top - GAP / 2 + 0.2, 0)
    for above, below in pairwise(boxes):
        if above.left == below.left:
            _down(axes, above.middle, above.bottom, below.top)
        else:
            end, turn = above.bottom + GAP * 0.8, below.left - 1.1
            points = [
                (above.middle, above.bottom),
                (above.middle, end),
                (turn, end),
                (turn, GAP / 2),
                (below.middle, GAP / 2),
            ]
            axes.plot(*zip(*points), color=INK, linewidth=1.1, solid_joinstyle="round")
            _down(axes, below.middle, GAP / 2, below.top)
        _label(axes, plan, above.middle, above.bottom + GAP / 2, above.step.output)
    _down(axes, last.middle, last.bottom, last.bottom + GAP - 0.2)
    _label(axes, plan, last.middle, last.bottom + GAP / 2, last.step.output)


def _down(axes, x, start, end):
    axes.annotate(
        "", (x, end), (x, start), arrowprops=dict(arrowstyle="-|>", color=INK, linewidth=1.1, shrinkA=0, shrinkB=0)
    )


def _label(axes, plan, x, y, map):
    shape = plan.sizes[map]
    if shape is not None:
        axes.text(x + 0.5, y, f"{by(shape)}   {size(bytes_of(shape, plan))}", size=6.5, color=INK, va="center")


def _streams(axes, plan, boxes):
    """Maps that a residual adds: along the side, from the step that writes or has them to the one that adds them."""
    makers = {map: box for box in boxes for map in box.step.writes}
    adding = [box for box in boxes if not isinstance(box.step, Call) and box.step.entry.residual is not None]
    for number, box in enumerate(adding):
        map, lane = box.step.entry.residual, 0.9 + 0.5 * (number % 2)  # One stream begins where another ends.
        maker = makers.get(map)
        out, start = (maker.right, maker.line_of(map)) if maker else (boxes[0].middle, GAP / 2)
        side, end = box.right + lane, box.line_of_sum()
        if maker is None or maker.left == box.left:
            _stream(axes, (out, start), (side, start), (side, end))
        else:
            foot = max(other.bottom for other in boxes if other.left == maker.left) + GAP * 0.8 + 0.5
            turn, start = box.left - 0.6, GAP / 2 - 0.5
            down, up = (out + lane, foot), (turn, foot)
            _stream(axes, (out, maker.line_of(map)), (out + lane, maker.line_of(map)), down, up, (turn, start), (side, start), (side, end))
        arrow = dict(arrowstyle="-|>", color=STREAM, linewidth=1.1, shrinkA=0, shrinkB=0)
        axes.annotate("", (box.right, end), (side, end), arrowprops=arrow)
        if plan.sizes[map] is not None:
            words = f"kept   {size(bytes_of(plan.sizes[map], plan))}"
            axes.text(side + 0.55, (start + end) / 2, words, size=6.5, color=STREAM, va="center", ha="left", rotation=90)


def _stream(axes, *points):
    axes.plot(*zip(*points), color=STREAM, linewidth=1.1, solid_joinstyle="round")
    axes.plot(*points[0], color=STREAM, marker="o", markersize=3)
