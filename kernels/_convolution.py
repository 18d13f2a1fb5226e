"""How a convolution is dealt to programs, and how these are started: directly, or on tensor cores."""

import functools
import math
from dataclasses import dataclass, replace

import torch

from . import _launch
from ._launch import _ceil_div, _power_of_2
from ._patch import Patch
from ._triton import tl
from ._window import Sizes, Window, three


@dataclass(frozen=True)
class Heuristics:
    """The sizes that choose the way, and how large a piece a program takes.

    They are reasoned from an H100 and from what compiles without spills. None is measured on a GPU yet.
    """

    # Channels of a group, in and out, from which tensor cores are worth it: their smallest operand. In 16 bits they
    # have fifteen times the rate of threads: fewer channels in are folded with taps; and a few outputs, in one group,
    # are worth the empty ones beside them where steps are full.
    dense: int = 16
    few_outputs: int = 3
    # Direct. Outputs of a group that share a read. Sums in a thread, of at most so many positions: more would leave
    # too few warps to hide the latency of L1.
    outputs: int = 4
    sums: int = 32
    positions: int = 8
    threads: int = 128
    # Bytes of a row of a patch, and of neighbouring channels in a channels-last one: a line of L2.
    row: int = 128
    # Taps times outputs that are unrolled: 5 x 5, 3 x 3 x 3. ptxas loads the filters of all of them first.
    unrolled: int = 27
    # Numbers of a patch whose products are summed, by one warp: it needs no barrier.
    summed: int = 1024
    # Dense: outputs and positions, or outputs and channels, of a tile, and the length of a step. 64 KB of sums on 8
    # warps, 16 KB of operands for each of three steps in flight. Steps of 64 spill on gfx1100.
    tile: int = 128
    step: int = 32
    # In float32 the threads multiply, 4 by 8 numbers each.
    tile_float32: int = 64
    step_float32: int = 16
    # Sums, and numbers that a step reads, of a thread: what compiles without spills.
    held: int = 100
    held_float32: int = 50
    # Fewer channels than this are folded.
    folded: int = 16
    # Fewer programs than this leave multiprocessors idle: tiles become smaller, chunks shorter.
    busy: int = 128
    # Positions that the filters' gradient sums at least, before it writes.
    chunk: int = 512


HEURISTICS = Heuristics()


@dataclass(frozen=True)
class Convolution:
    """Sizes of what a kernel reads and writes. `channels` and `writes` are those of one group."""

    window: Window
    samples: int
    groups: int
    channels: int
    writes: int
    size: Sizes
    written: Sizes
    itemsize: int
    channels_last: bool
    maps: int = 1  # that a thread holds of what it reads: as it was, changed, and a residual

    @classmethod
    def of(cls, planes, input, output, weight, window, groups, maps=1) -> "Convolution":
        size, written = three(input.shape[2:]), three(output.shape[2:])
        if window.pointwise:
            # Positions are independent: a line of them has the fewest ragged ends.
            size = written = (1, 1, math.prod(size))
        channels, writes = weight.shape[2], weight.shape[1] // max(1, groups)
        layout = planes.itemsize, planes.channels_last
        return cls(window, len(input), groups, channels, writes, size, written, *layout, maps)

    @property
    def reversed(self) -> "Convolution":
        """The gather of the input's gradient: it reads the output's."""
        exchanged = dict(channels=self.writes, writes=self.channels, size=self.written, written=self.size)
        return replace(self, window=self.window.reversed, **exchanged)

    @property
    def folded(self) -> bool:
        """Not backward, where a tap may depend on the position."""
        return self.itemsize == 2 and self.channels < HEURISTICS.folded and not self.window.transposed

    @property
    def dense(self) -> bool:
        """Tensor cores have float32 sums at most."""
        limits = HEURISTICS
        few = self.itemsize == 2 and self.groups == 1 and self.reduced >= limits.step
        outputs = min(limits.few_outputs, limits.dense) if few else limits.dense
        return self.itemsize < 8 and self.reduced >= limits.dense and self.writes >= outputs

    @property
    def dense_filter(self) -> bool:
        """Whether tensor cores find the filters' gradient, for which channels in and out are outputs."""
        return self.itemsize < 8 and min(self.channels, self.writes) >= HEURISTICS.dense

    @property
    def reduced(self) -> int:
        """The row that dense steps go along, with each tap or with all."""
        return self.channels * (math.prod(self.window.met) if self.folded else 1)

    @property
    def sizes(self) -> dict:
        return dict(
            groups=self.groups, channels=self.channels, writes=self.writes,
            **dict(zip(("read_d", "read_h", "read_w"), self.size)),
            **dict(zip(("write_d", "write_h", "write_w"), self.written)),
        )  # fmt: skip

    def patches(self, patch: Patch) -> int:
        (d, h, w), (_, apart_h, apart_w) = self.written, patch.apart
        rows, columns = _ceil_div(h, patch.block_h * apart_h), _ceil_div(w, patch.block_w * apart_w)
        return d * rows * apart_h * columns * apart_w

    def blocks(self, patch: Patch) -> int:
        return self.samples * _ceil_div(self.groups, patch.block_g) * _ceil_div(self.writes, patch.block_o)

    def sides(self, positions: int) -> Sizes:
        """Rows and columns of a patch of at most `positions`: rows that fill a line, and lose little at the end."""
        _, height, width = map(_ceil_div, self.written, self.window.phases)
        line = HEURISTICS.row // self.itemsize
        widths = [min(positions, _power_of_2(width), columns) for columns in (line, line // 2)]
        columns = min(widths, key=lambda columns: _ceil_div(width, columns) * columns)
        rows = min(positions // columns, _power_of_2(height))
        return rows, min(positions // rows, _power_of_2(width))

    @property
    def outputs(self) -> int:
        """Of a group, those that share a read."""
        return _ceil_div(self.writes, max(1, _ceil_div(self.writes, HEURISTICS.outputs)))

    def direct_patch(self, numbers: int) -> Patch:
        """At most so many positions, of as many groups as lie in a line, or have small planes."""
        groups = _power_of_2(self.groups)
        if self.channels_last:
            block_g = min(groups, HEURISTICS.row // self.itemsize, numbers)
            sides = self.sides(numbers // block_g)
        else:
            sides = self.sides(numbers)
            block_g = min(groups, numbers // math.prod(sides))
        return self.patch(block_g, max(1, self.outputs), 1, sides)

    def patch(self, block_g, block_o, block_i, sides) -> Patch:
        dense_side = self.groups if self.channels_last else self.written[2]
        unrolled = self.window.even and math.prod(self.window.met) * block_o <= HEURISTICS.unrolled
        wide = tl.float64 if self.itemsize == 8 else tl.float32
        vector = math.gcd(dense_side, 16 // self.itemsize)
        ways = self.folded, unrolled
        return Patch(self.channels_last, block_g, block_o, block_i, *sides, *ways, vector, self.window.phases, wide)


def plan(convolution: Convolution) -> tuple[Patch, int]:
    """What a program writes, and its threads."""
    return plan_dense(convolution) if convolution.dense else plan_direct(convolution)


@functools.lru_cache(4096)
def plan_direct(convolution: Convolution) -> tuple[Patch, int]:
    """A patch of outputs, and its threads."""
    limits = HEURISTICS
    share = _power_of_2(convolution.outputs) * max(1, convolution.itemsize // 4)
    # The addresses of a residual.
    share *= 2 if convolution.maps > 2 else 1
    numbers = min(limits.positions, max(1, limits.sums // share)) * limits.threads
    patch = convolution.direct_patch(numbers)
    return patch, max(32, min(limits.threads, patch.block_g * patch.block_h * patch.block_w))


@functools.lru_cache(4096)
def plan_direct_filter(convolution: Convolution) -> tuple[Patch, int]:
    """A patch that is summed, by one warp."""
    share = _power_of_2(convolution.outputs) * max(1, convolution.itemsize // 4)
    return convolution.direct_patch(max(32, HEURISTICS.summed // share)), 32


@functools.lru_cache(4096)
def plan_dense(convolution: Convolution) -> tuple[Patch, int]:
    limits = HEURISTICS
    wide = convolution.itemsize == 4
    tile, step = (limits.tile_float32, limits.step_float32) if wide else (limits.tile, limits.step)
    block_o, block_i = (
        max(16, min(most, _power_of_2(channels)))
        for most, channels in ((tile, convolution.writes), (step, convolution.reduced))
    )
    positions = tile
    while True:
        patch = convolution.patch(1, block_o, block_i, _at_least_16(convolution.sides(positions)))
        if convolution.blocks(patch) * convolution.patches(patch) >= limits.busy or max(block_o, positions) <= 32:
            return patch, _dense_threads(convolution, patch)
        if positions >= block_o:
            positions //= 2
        else:
            block_o //= 2


@functools.lru_cache(4096)
def plan_dense_filter(convolution: Convolution) -> tuple[Patch, int, int]:
    """A patch, its threads, and the patches of a chunk."""
    limits = HEURISTICS
    wide = convolution.itemsize == 4
    tile, step = (limits.tile_float32, limits.step_float32) if wide else (limits.tile, limits.step)
    block_o, block_i = (
        max(16, min(tile, _power_of_2(channels))) for channels in (convolution.writes, convolution.channels)
    )
    patch = convolution.patch(1, block_o, block_i, _at_least_16(convolution.sides(step)))
    programs = convolution.blocks(patch) * _ceil_div(convolution.channels, block_i) * convolution.window.taps
    patches = convolution.patches(patch)
    least = _ceil_div(limits.chunk, patch.block_h * patch.block_w)
    chunk = max(least, patches * max(1, programs) // limits.busy)
    # In float32 the addresses of both maps and 32 sums do not fit into the registers of a thread.
    threads = 256 if wide or block_o * block_i >= 128 * 128 else 128
    return patch, threads, min(chunk, max(1, patches))


def _at_least_16(sides):
    """The smallest operand of tensor cores."""
    rows, columns = sides
    return rows, max(columns, 16 // rows)


def _dense_threads(convolution: Convolution, patch: Patch) -> int:
    positions = patch.block_h * patch.block_w
    # In a folded row each number has an address of its own, of twice its size.
    reads = convolution.maps + (2 if patch.folded else 0)
    held = patch.block_o * positions + reads * patch.block_i * positions
    most = HEURISTICS.held_float32 if convolution.itemsize == 4 else HEURISTICS.held
    return next((threads for threads in (128, 256) if held <= most * threads), 512)


def launch(kernel, programs: int, convolution: Convolution, patch: Patch, threads: int, **arguments) -> None:
    if not programs:
        return
    with torch.cuda.device_of(arguments["map"]):
        kernel[(programs,)](
            **arguments, **convolution.sizes, WINDOW=convolution.window, PATCH=patch,
            num_warps=max(1, threads // _launch._WARP),
        )  # fmt: skip
