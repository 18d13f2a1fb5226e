"""dynamic_conv2d: a convolution with a filter per sample, of lines, images and volumes.

At least, per element: one read and one write of a map, and the filters once; 2 * K * C_in / groups flops for an output,
K the taps of the kernel. Backward: two reads and one write, twice the flops.

A program writes a patch of one sample, and no program adds to what another one writes. The patch is read tap by tap;
the first tap brings it from memory, the others find it in L1. Where groups have few channels, threads multiply: a read
serves all outputs of the group (direct). Where they have many, tensor cores do (dense), on filters laid out tap by tap.
The gradient of the input is the same gather with the channels' roles exchanged (`_window.py`). That of the filters is a
product of two maps for each tap, summed over chunks of positions, and the chunks by torch, always in the same order.
"""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import _launch
from ._launch import Planes, _ceil_div, _power_of_2
from ._tile import kernel
from ._triton import tl, triton
from ._window import Sizes, Window, count_pairs, index_of, reads, stay_inside, three


@dataclass(frozen=True)
class Heuristics:
    """The sizes that choose the way, and how large a piece a program takes.

    They are reasoned from an H100 and from what compiles without spills. None is measured on a GPU yet.
    """

    # Channels of a group, in and out, from which tensor cores are worth it: their smallest operand.
    dense: int = 16
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
    # Fewer programs than this leave multiprocessors idle: tiles become smaller, chunks shorter.
    busy: int = 128
    # Positions that the filters' gradient sums at least, before it writes.
    chunk: int = 512


HEURISTICS = Heuristics()


@dataclass(frozen=True)
class Patch:
    """What a kernel is compiled for, beside the window: what a program takes."""

    channels_last: bool
    block_g: int  # groups
    block_o: int  # channels of a group, on the output's side
    block_i: int  # and on the input's; direct kernels take them one by one
    block_h: int
    block_w: int
    unrolled: bool
    vector: int  # the dense side of the written map is a multiple of this
    wide: tl.dtype  # computed in: float64 for float64, float32 for all else


@triton.jit
def _place(blocks_g, blocks_o, written, PATCH: tl.constexpr):
    """Sample, group block, channel block, and the patch's first position. Neighbours work on neighbouring memory."""
    program = tl.program_id(0)
    rows, columns = tl.cdiv(written[1], PATCH.block_h), tl.cdiv(written[2], PATCH.block_w)
    blocks = blocks_g * blocks_o
    positions = written[0] * rows * columns
    if PATCH.channels_last:
        block, position, sample = program % blocks, program // blocks % positions, program // (blocks * positions)
    else:
        position, block, sample = program % positions, program // positions % blocks, program // (blocks * positions)
    first = position // (rows * columns), position // columns % rows * PATCH.block_h, position % columns * PATCH.block_w
    return sample.to(tl.int64), block // blocks_o, block % blocks_o, first


@triton.jit
def _strides(channels, size, PATCH: tl.constexpr):
    """Between samples, channels and positions of a map."""
    positions = tl.full((), 1, tl.int64) * size[0] * size[1] * size[2]
    if PATCH.channels_last:
        strides = positions * channels, 1, channels
    else:
        strides = positions * channels, positions, 1
    return strides


@triton.jit
def _patch_of(first, PATCH: tl.constexpr):
    """The patch's positions, and its last one."""
    d = first[0] + tl.arange(0, 1)[:, None, None]
    h = first[1] + tl.arange(0, PATCH.block_h)[None, :, None]
    w = first[2] + tl.arange(0, PATCH.block_w)[None, None, :]
    return (d, h, w), (first[0], first[1] + PATCH.block_h - 1, first[2] + PATCH.block_w - 1)


# Direct: for each of `block_o` channels of a group, a patch of (groups, rows, columns).


@triton.jit
def _statistic(numbers, plane, exists, PATCH: tl.constexpr):
    return tl.load(numbers + plane, mask=exists, other=0).to(PATCH.wide)


@triton.jit
def _load(map, exists, average, scale, PATCH: tl.constexpr):
    """Normalised, and 0 where there is nothing."""
    x = tl.load(map, mask=exists, other=0).to(PATCH.wide)
    if average is not None:
        x = tl.where(exists, (x - average) * scale, 0.0)
    return x


@triton.jit
def _add_pair(
    sums, pair, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
    written_stride, tap_stride, position_stride, INSIDE: tl.constexpr, WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """Each of the group's outputs takes its share of what a pair reads. Inside the map, that is a fixed step from what
    the first tap reads."""
    if INSIDE:
        tap, there = pair, exists
        d = pair // (WINDOW.kernel[1] * WINDOW.kernel[2]) * WINDOW.dilation[0]
        h = pair // WINDOW.kernel[2] % WINDOW.kernel[1] * WINDOW.dilation[1]
        w = pair % WINDOW.kernel[2] * WINDOW.dilation[2]
        offset = ((tl.full((), 1, tl.int64) * d * size[1] + h) * size[2] + w) * position_stride
        address = first_tap - offset if WINDOW.transposed else first_tap + offset
    else:
        address, there, tap = reads(at, pair, pairs, size, written, WINDOW)
        address *= position_stride
        there = exists & there
    x = _load(planes + address, there, average, scale, PATCH)
    OUTPUTS: tl.constexpr = PATCH.block_o
    more = ()
    for i in tl.static_range(OUTPUTS):
        f = filters + (i * written_stride + tap * tap_stride)
        f = tl.load(f, mask=exists & (o + i < writes), other=0).to(PATCH.wide)
        more = more + (sums[i] + f * x,)
    return more


@triton.jit
def _add_pairs(
    sums, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
    written_stride, tap_stride, position_stride, INSIDE: tl.constexpr, WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    TAPS: tl.constexpr = WINDOW.taps
    if PATCH.unrolled and (INSIDE or not WINDOW.copies):
        for tap in tl.static_range(TAPS):
            sums = _add_pair(
                sums, tap, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
                written_stride, tap_stride, position_stride, INSIDE, WINDOW, PATCH,
            )  # fmt: skip
    else:
        count = TAPS if INSIDE else pairs[0] * pairs[1] * pairs[2]
        for pair in range(0, count):
            sums = _add_pair(
                sums, pair, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
                written_stride, tap_stride, position_stride, INSIDE, WINDOW, PATCH,
            )  # fmt: skip
    return sums


@kernel
def _direct_kernel(
    map, weight, bias, mean, rstd, output,
    sample_stride: tl.int64, group_stride, written_stride: tl.int64, read_stride: tl.int64, tap_stride,
    groups: tl.int64, channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """A group reads `channels` and writes `writes`."""
    # The dense side, written as the multiple that it is, lets Triton access vectors.
    if PATCH.channels_last:
        groups = groups // PATCH.vector * PATCH.vector
    else:
        write_w = write_w // PATCH.vector * PATCH.vector
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    OUTPUTS: tl.constexpr = PATCH.block_o
    blocks_g = tl.cdiv(groups, PATCH.block_g).to(tl.int32)
    sample, g, o, first = _place(blocks_g, tl.cdiv(writes, OUTPUTS), written, PATCH)
    g = g.to(tl.int64) * PATCH.block_g + tl.arange(0, PATCH.block_g)[:, None, None]
    o = o * OUTPUTS + tl.arange(0, 1)[:, None, None]
    at, last = _patch_of(first, PATCH)
    exists = g < groups

    map_stride, channel_stride, position_stride = _strides(groups * channels, size, PATCH)
    map += sample * map_stride + g * channels * channel_stride
    weight += sample * sample_stride + g * group_stride + o * written_stride
    pairs = count_pairs(first, last, written, WINDOW)
    inside = stay_inside(first, last, size, written, pairs, WINDOW)
    first_tap, there, _ = reads(at, 0, pairs, size, written, WINDOW)
    first_tap *= position_stride

    sums = ()
    for i in tl.static_range(OUTPUTS):
        sums = sums + (tl.full((PATCH.block_g, PATCH.block_h, PATCH.block_w), 0.0, PATCH.wide),)
    for c in range(0, channels):
        average, scale = mean, rstd
        if mean is not None:
            average = _statistic(mean, (sample * groups + g) * channels + c, exists, PATCH)
            scale = _statistic(rstd, (sample * groups + g) * channels + c, exists, PATCH)
        planes = map + tl.cast(c, tl.int64) * channel_stride
        filters = weight + c * read_stride
        if inside:
            sums = _add_pairs(
                sums, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
                written_stride, tap_stride, position_stride, True, WINDOW, PATCH,
            )  # fmt: skip
        else:
            sums = _add_pairs(
                sums, planes, filters, average, scale, first_tap, at, pairs, size, written, exists, o, writes,
                written_stride, tap_stride, position_stride, False, WINDOW, PATCH,
            )  # fmt: skip

    output_stride, channel_stride, position_stride = _strides(groups * writes, written, PATCH)
    output += sample * output_stride + index_of(at, written) * position_stride
    there = exists & (at[1] < write_h) & (at[2] < write_w)
    for i in tl.static_range(OUTPUTS):
        channel = g * writes + (o + i)
        y = sums[i]
        if bias is not None:
            y += tl.load(bias + (sample * groups * writes + channel), mask=exists & (o + i < writes), other=0)
        tl.store(output + channel * channel_stride, y, mask=there & (o + i < writes))


# Dense: outputs of a group by positions, in steps of channels that are read.


@triton.jit
def _positions_of(first, PATCH: tl.constexpr):
    """The patch's positions as one vector, of length `block_h * block_w`, and its last one."""
    n = tl.arange(0, PATCH.block_h * PATCH.block_w)
    at = first[0] + tl.arange(0, 1), first[1] + n // PATCH.block_w, first[2] + n % PATCH.block_w
    return at, (first[0], first[1] + PATCH.block_h - 1, first[2] + PATCH.block_w - 1)


@triton.jit
def _load_normed(map, address, exists, mean, rstd, plane, channel_exists, PATCH: tl.constexpr):
    """In the type of the map: what is normalised is rounded to it, as a norm that stands alone does."""
    x = tl.load(map + address, mask=exists, other=0)
    if mean is not None:
        average = _statistic(mean, plane, channel_exists, PATCH)
        scale = _statistic(rstd, plane, channel_exists, PATCH)
        x = tl.where(exists, (x.to(PATCH.wide) - average) * scale, 0.0).to(x.dtype)
    return x


@kernel
def _dense_kernel(
    map, weight, bias, mean, rstd, output,
    sample_stride: tl.int64, group_stride: tl.int64, written_stride, read_stride, tap_stride: tl.int64,
    groups: tl.int64, channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    sample, g, o, first = _place(groups.to(tl.int32), tl.cdiv(writes, PATCH.block_o), written, PATCH)
    o = o.to(tl.int64) * PATCH.block_o + tl.arange(0, PATCH.block_o)[:, None]
    at, last = _positions_of(first, PATCH)
    map_stride, channel_stride, position_stride = _strides(groups * channels, size, PATCH)
    map += sample * map_stride + g * channels * channel_stride
    weight += sample * sample_stride + g * group_stride + o * written_stride

    pairs = count_pairs(first, last, written, WINDOW)
    blocks = tl.cdiv(channels, PATCH.block_i)
    sums = tl.full((PATCH.block_o, PATCH.block_h * PATCH.block_w), 0.0, tl.float32)
    for step in range(0, pairs[0] * pairs[1] * pairs[2] * blocks):
        address, there, tap = reads(at, step // blocks, pairs, size, written, WINDOW)
        c = (step % blocks).to(tl.int64) * PATCH.block_i + tl.arange(0, PATCH.block_i)
        exists = (c < channels)[:, None]
        x = _load_normed(
            map, c[:, None] * channel_stride + (address * position_stride)[None, :], exists & there[None, :],
            mean, rstd, (sample * groups + g) * channels + c[:, None], exists, PATCH,
        )  # fmt: skip
        f_exists = (o < writes) & (c < channels)[None, :]
        f = tl.load(weight + (tap * tap_stride + c[None, :] * read_stride), mask=f_exists, other=0)
        # Tensor cores would round float32 to 10 bits.
        sums = tl.dot(f.to(x.dtype), x, sums, input_precision="ieee")

    channel = g * writes + o
    if bias is not None:
        sums += tl.load(bias + (sample * groups * writes + channel), mask=o < writes, other=0).to(tl.float32)
    output_stride, channel_stride, position_stride = _strides(groups * writes, written, PATCH)
    address = sample * output_stride + channel * channel_stride + (index_of(at, written) * position_stride)[None, :]
    there = (o < writes) & ((at[1] < write_h) & (at[2] < write_w))[None, :]
    tl.store(output + address, sums, mask=there)


# The gradient of the filters.


@kernel
def _direct_filter_kernel(
    grad, map, mean, rstd, sums,
    groups: tl.int64, channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """A patch of the output's gradient is held; what each tap read for it is multiplied with it and summed.

    `sums` are (N, patches, groups, writes, channels, taps).
    """
    if PATCH.channels_last:
        groups = groups // PATCH.vector * PATCH.vector
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    TAPS: tl.constexpr = WINDOW.taps
    OUTPUTS: tl.constexpr = PATCH.block_o
    blocks_g = tl.cdiv(groups, PATCH.block_g).to(tl.int32)
    sample, g, o, first = _place(blocks_g, tl.cdiv(writes, OUTPUTS), written, PATCH)
    g = g.to(tl.int64) * PATCH.block_g + tl.arange(0, PATCH.block_g)[:, None, None]
    o = o * OUTPUTS + tl.arange(0, 1)[:, None, None]
    at, last = _patch_of(first, PATCH)
    exists = g < groups

    grad_stride, channel_stride, position_stride = _strides(groups * writes, written, PATCH)
    grad += sample * grad_stride + index_of(at, written) * position_stride
    there = exists & (at[1] < write_h) & (at[2] < write_w)
    gradients = ()
    for i in tl.static_range(OUTPUTS):
        plane = grad + (g * writes + (o + i)) * channel_stride
        gradients = gradients + (tl.load(plane, mask=there & (o + i < writes), other=0).to(PATCH.wide),)

    rows, columns = tl.cdiv(write_h, PATCH.block_h), tl.cdiv(write_w, PATCH.block_w)
    patch = (first[0] * rows + first[1] // PATCH.block_h) * columns + first[2] // PATCH.block_w
    patches = tl.full((), 1, tl.int64) * write_d * rows * columns
    sums += (((sample * patches + patch) * groups + g) * writes + o) * channels * TAPS

    map_stride, channel_stride, position_stride = _strides(groups * channels, size, PATCH)
    map += sample * map_stride + g * channels * channel_stride
    pairs = count_pairs(first, last, written, WINDOW)
    for c in range(0, channels):
        average, scale = mean, rstd
        if mean is not None:
            average = _statistic(mean, (sample * groups + g) * channels + c, exists, PATCH)
            scale = _statistic(rstd, (sample * groups + g) * channels + c, exists, PATCH)
        for tap in range(0, TAPS):
            address, met, _ = reads(at, tap, pairs, size, written, WINDOW)
            x = _load(map + (c * channel_stride + address * position_stride), exists & met, average, scale, PATCH)
            for i in tl.static_range(OUTPUTS):
                total = tl.sum(tl.sum(gradients[i] * x, 2, keep_dims=True), 1, keep_dims=True)
                place = sums + ((i * channels + c).to(tl.int64) * TAPS + tap)
                tl.store(place, total, mask=exists & (o + i < writes))


@kernel
def _dense_filter_kernel(
    grad, map, mean, rstd, sums, groups: tl.int64, chunks, chunk,
    channels, writes, read_d, read_h, read_w, write_d, write_h, write_w,
    WINDOW: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """One tap of a block of a group's filters, from `chunk` patches of positions.

    `sums` are (N, chunks, groups, writes, channels, taps).
    """
    size, written = (read_d, read_h, read_w), (write_d, write_h, write_w)
    TAPS: tl.constexpr = WINDOW.taps
    blocks_o, blocks_i = tl.cdiv(writes, PATCH.block_o), tl.cdiv(channels, PATCH.block_i)
    program = tl.program_id(0)
    tap = program % TAPS
    c = program // TAPS % blocks_i
    o = program // (TAPS * blocks_i) % blocks_o
    program = program // (TAPS * blocks_i * blocks_o)
    piece = program % chunks
    g = program // chunks % groups
    sample = program // (chunks * groups)
    c = c.to(tl.int64) * PATCH.block_i + tl.arange(0, PATCH.block_i)[None, :]
    o = o.to(tl.int64) * PATCH.block_o + tl.arange(0, PATCH.block_o)[:, None]

    grad_stride, grad_channel_stride, grad_position_stride = _strides(groups * writes, written, PATCH)
    map_stride, channel_stride, position_stride = _strides(groups * channels, size, PATCH)
    grad += sample * grad_stride + (g * writes + o) * grad_channel_stride
    map += sample * map_stride + (g * channels + c) * channel_stride
    rows, columns = tl.cdiv(write_h, PATCH.block_h), tl.cdiv(write_w, PATCH.block_w)
    total = tl.full((PATCH.block_o, PATCH.block_i), 0.0, tl.float32)
    for patch in range(piece * chunk, tl.minimum((piece + 1) * chunk, write_d * rows * columns)):
        first = patch // (rows * columns), patch // columns % rows * PATCH.block_h, patch % columns * PATCH.block_w
        at, last = _positions_of(first, PATCH)
        there = (at[1] < write_h) & (at[2] < write_w)
        address = (index_of(at, written) * grad_position_stride)[None, :]
        gradient = tl.load(grad + address, mask=(o < writes) & there[None, :], other=0)
        address, met, _ = reads(at, tap, count_pairs(first, last, written, WINDOW), size, written, WINDOW)
        x = _load_normed(
            map, (address * position_stride)[:, None], (c < channels) & met[:, None],
            mean, rstd, (sample * groups + g) * channels + c, c < channels, PATCH,
        )  # fmt: skip
        total = tl.dot(gradient.to(x.dtype), x, total, input_precision="ieee")
    place = (((sample * chunks + piece) * groups + g) * writes + o) * channels + c
    tl.store(sums + (place * TAPS + tap), total, mask=(o < writes) & (c < channels))


# Launchers.


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

    @classmethod
    def of(cls, planes, input, output, weight, window, groups) -> "Convolution":
        size, written = three(input.shape[2:]), three(output.shape[2:])
        if window.pointwise:
            # Positions are independent: a line of them has the fewest ragged ends.
            size = written = (1, 1, math.prod(size))
        channels, writes = weight.shape[2], weight.shape[1] // max(1, groups)
        return cls(window, len(input), groups, channels, writes, size, written, planes.itemsize, planes.channels_last)

    @property
    def reversed(self) -> "Convolution":
        """The gather of the input's gradient: it reads the output's."""
        window = replace(self.window, transposed=True)
        exchanged = dict(channels=self.writes, writes=self.channels, size=self.written, written=self.size)
        return replace(self, window=window, **exchanged)

    @property
    def dense(self) -> bool:
        """Tensor cores have float32 sums at most."""
        return self.itemsize < 8 and min(self.channels, self.writes) >= HEURISTICS.dense

    @property
    def sizes(self) -> dict:
        return dict(
            groups=self.groups, channels=self.channels, writes=self.writes,
            **dict(zip(("read_d", "read_h", "read_w"), self.size)),
            **dict(zip(("write_d", "write_h", "write_w"), self.written)),
        )  # fmt: skip

    def patches(self, patch: Patch) -> int:
        d, h, w = self.written
        return d * _ceil_div(h, patch.block_h) * _ceil_div(w, patch.block_w)

    def blocks(self, patch: Patch) -> int:
        return self.samples * _ceil_div(self.groups, patch.block_g) * _ceil_div(self.writes, patch.block_o)

    def sides(self, positions: int) -> Sizes:
        """Rows and columns of a patch of at most `positions`: rows that fill a line, and lose little at the end."""
        _, height, width = self.written
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
        unrolled = self.window.taps * block_o <= HEURISTICS.unrolled
        wide = tl.float64 if self.itemsize == 8 else tl.float32
        vector = math.gcd(dense_side, 16 // self.itemsize)
        return Patch(self.channels_last, block_g, block_o, block_i, *sides, unrolled, vector, wide)


@functools.lru_cache(4096)
def plan_direct(convolution: Convolution) -> tuple[Patch, int]:
    """A patch of outputs, and its threads."""
    limits = HEURISTICS
    share = _power_of_2(convolution.outputs) * max(1, convolution.itemsize // 4)
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
        for most, channels in ((tile, convolution.writes), (step, convolution.channels))
    )
    positions = tile
    while True:
        patch = convolution.patch(1, block_o, block_i, _at_least_16(convolution.sides(positions)))
        if convolution.blocks(patch) * convolution.patches(patch) >= limits.busy or max(block_o, positions) <= 32:
            return patch, _dense_threads(patch.block_o * patch.block_h * patch.block_w)
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
    threads = 256 if wide else _dense_threads(block_o * block_i)
    return patch, threads, min(chunk, max(1, patches))


def _at_least_16(sides):
    """The smallest operand of tensor cores."""
    rows, columns = sides
    return rows, max(columns, 16 // rows)


def _dense_threads(sums: int) -> int:
    return 256 if sums >= 128 * 128 else 128


def _launch_on(kernel, programs: int, convolution: Convolution, patch: Patch, threads: int, **arguments) -> None:
    if not programs:
        return
    with torch.cuda.device_of(arguments["map"]):
        kernel[(programs,)](
            **arguments, **convolution.sizes, WINDOW=convolution.window, PATCH=patch,
            num_warps=max(1, threads // _launch._WARP),
        )  # fmt: skip


def _filters(weight: Tensor, convolution: Convolution) -> Tensor:
    """(N, groups, writes, channels, taps), as its kernel reads it; of all samples once, where they share it."""
    if len(weight) > 1 and weight.stride(0) == 0:
        weight = weight[:1]
    out_channels, in_channels = weight.shape[1] // max(1, convolution.groups), weight.shape[2]
    shape = len(weight), convolution.groups, out_channels, in_channels, convolution.window.taps
    filters = weight.reshape(shape).contiguous()
    if convolution.dense:
        # A step takes neighbouring channels of one tap.
        filters = filters.permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1)
    elif convolution.channels_last:
        # A thread takes neighbouring groups of one tap.
        filters = filters.permute(0, 4, 2, 3, 1).contiguous().permute(0, 4, 2, 3, 1)
    return filters.transpose(2, 3) if convolution.window.transposed else filters


def _convolve(convolution: Convolution, map, weight, bias, mean, rstd, output) -> None:
    filters = _filters(weight, convolution)
    sample_stride, *others = filters.stride()
    strides = dict(zip(("group_stride", "written_stride", "read_stride", "tap_stride"), others))
    kernel, plan = (_dense_kernel, plan_dense) if convolution.dense else (_direct_kernel, plan_direct)
    patch, threads = plan(convolution)
    _launch_on(
        kernel, convolution.blocks(patch) * convolution.patches(patch), convolution, patch, threads,
        map=map, weight=filters, bias=bias, mean=mean, rstd=rstd, output=output,
        sample_stride=sample_stride if len(filters) > 1 else 0, **strides,
    )  # fmt: skip


def _filter_gradient(convolution: Convolution, grad, map, weight, mean, rstd) -> Tensor:
    if convolution.dense:
        patch, threads, chunk = plan_dense_filter(convolution)
        chunks = _ceil_div(convolution.patches(patch), chunk)
        blocks = convolution.blocks(patch) * _ceil_div(convolution.channels, patch.block_i) * convolution.window.taps
        kernel, pieces = _dense_filter_kernel, dict(chunks=chunks, chunk=chunk)
    else:
        patch, threads = plan_direct_filter(convolution)
        chunks, blocks = convolution.patches(patch), convolution.blocks(patch)
        kernel, pieces = _direct_filter_kernel, {}
    wide = torch.float64 if convolution.itemsize == 8 else torch.float32
    sums = weight.new_empty((convolution.samples, chunks, *weight.shape[1:]), dtype=wide)
    _launch_on(
        kernel, blocks * chunks, convolution, patch, threads,
        grad=grad, map=map, mean=mean, rstd=rstd, sums=sums, **pieces,
    )  # fmt: skip
    return (sums[:, 0] if chunks == 1 else sums.sum(1)).to(weight.dtype)


def forward(input, weight, bias, stride, padding, dilation, groups, padding_mode, mean=None, rstd=None):
    """Of the input, or of (input - mean) * rstd."""
    planes = Planes.of(input)
    (input,) = planes.dense(input)
    window = Window.of(weight.shape[3:], stride, padding, dilation, padding_mode)
    output = _empty_output(planes, input, weight, stride, padding, dilation)
    convolution = Convolution.of(planes, input, output, weight, window, groups)
    bias = None if bias is None else bias.contiguous()
    _convolve(convolution, input, weight, bias, mean, rstd, output)
    return output


def backward(
    grad, input, weight, stride, padding, dilation, groups, padding_mode, need_input, need_weight, need_bias,
    mean=None, rstd=None,
):  # fmt: skip
    """The first gradient is that of what is convolved: the input, or the normalised one."""
    planes = Planes.of(input)
    grad, input = planes.dense(grad, input)
    window = Window.of(weight.shape[3:], stride, padding, dilation, padding_mode)
    convolution = Convolution.of(planes, input, grad, weight, window, groups)
    grad_input = planes.empty_map(input, need_input)
    if need_input:
        _convolve(convolution.reversed, grad, weight, None, None, None, grad_input)
    grad_weight, grad_bias = weight.new_empty(0), grad.new_empty(0, dtype=planes.wide)
    if need_weight:
        grad_weight = _filter_gradient(convolution, grad, input, weight, mean, rstd)
    if need_bias:
        grad_bias = grad.sum(tuple(range(2, grad.dim())), dtype=planes.wide)
    return grad_input, grad_weight, grad_bias


def _empty_output(planes, input, weight, stride, padding, dilation):
    size = [
        (length + before + after - step * (width - 1) - 1) // jump + 1
        for length, width, jump, before, after, step in zip(
            input.shape[2:], weight.shape[3:], stride, padding[::2], padding[1::2], dilation
        )
    ]
    shape = len(input), weight.shape[1], *size
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=planes.format)
