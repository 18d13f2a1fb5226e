"""upsample_pad2d: nearest upsampling by whole factors, and padding, in one pass.

At least: one read of the input and one write of the output, and the reverse backward; an addition for each number of the
gradient.

A program takes a tile of the map that it writes, and gathers: forward the position that each of its own is read at,
backward all positions that one was read for. In each dimension those are its own, as many as the factor, then their images
before the map, then those after it.
"""

import math
from dataclasses import dataclass, replace

from ._launch import Planes, plan_map
from ._tile import addresses, kernel, place
from ._triton import tl, triton
from ._window import REFLECT, REPLICATE, ZEROS, Sizes, three


@dataclass(frozen=True)
class Upsampling:
    """What a kernel is compiled for, beside its tile. Lines and images have leading factors of 1."""

    scale: Sizes
    before: Sizes
    after: Sizes
    mode: int
    index: tl.dtype  # of a position: 64 bits take several times as long to divide

    @classmethod
    def of(cls, scale, padding, mode, positions) -> "Upsampling":
        index = tl.int32 if positions < 2**31 else tl.int64
        return cls(three(scale), three(padding[::2], 0), three(padding[1::2], 0), mode, index)

    @property
    def in_front(self) -> Sizes:
        """How many images a position may have before the map."""
        return self._images(self.before)

    @property
    def behind(self) -> Sizes:
        return self._images(self.after)

    def _images(self, side: Sizes) -> Sizes:
        """Replication makes of one position many, every other mode one of each of its own."""
        if self.mode == ZEROS.value:
            return 0, 0, 0
        return side if self.mode == REPLICATE.value else tuple(map(min, side, self.scale))


@triton.jit
def split(position, height, width):
    row = position // width
    return row // height, row % height, position % width


@triton.jit
def _read_at(at, size, axis: tl.constexpr, UP: tl.constexpr):
    """The source position that a padded one is read at, in a map of `size`; and whether there is any."""
    upsampled = size * UP.scale[axis]
    at = at - UP.before[axis]
    exists = at == at
    if UP.before[axis] + UP.after[axis] == 0:
        pass
    elif UP.mode == ZEROS:
        exists = (at >= 0) & (at < upsampled)
    elif UP.mode == REFLECT:
        at = upsampled - 1 - tl.abs(upsampled - 1 - tl.abs(at))
    elif UP.mode == REPLICATE:
        at = tl.minimum(tl.maximum(at, 0), upsampled - 1)
    else:
        at = tl.where(at < 0, at + upsampled, at)
        at = tl.where(at < upsampled, at, at - upsampled)
    return at // UP.scale[axis], exists


@kernel
def _forward_kernel(
    input, output, read_d, read_h, read_w, write_d, write_h, write_w,
    first, chunks, chunk: tl.int64, channels: tl.int64, size: tl.int64, UP: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    sample, channel, piece = place(first, chunks, channels, False, TILE)
    address, exists = addresses(sample, channel, piece * chunk, channels, size, TILE)
    position = (piece * chunk + tl.arange(0, TILE.block_s)[None, :]).to(UP.index)
    d, h, w = split(position, write_h, write_w)
    d, has_d = _read_at(d, read_d, 0, UP)
    h, has_h = _read_at(h, read_h, 1, UP)
    w, has_w = _read_at(w, read_w, 2, UP)
    positions = tl.full((), 1, tl.int64) * read_d * read_h * read_w
    x = _load(input, (d.to(tl.int64) * read_h + h) * read_w + w, positions, sample, channel, channels,
              exists & has_d & has_h & has_w, TILE)  # fmt: skip
    tl.store(output + address, x, mask=exists)


@triton.jit
def _load(map, position, positions, sample, channel, channels, exists, TILE: tl.constexpr):
    if TILE.channels_last:
        address = (sample * positions + position) * channels + channel
    else:
        address = (sample * channels + channel) * positions + position
    return tl.load(map + address, mask=exists, other=0)


@triton.jit
def _count_readers(at, size, axis: tl.constexpr, UP: tl.constexpr):
    """How many numbers there are for positions `at`: of images only near to a border."""
    count = UP.scale[axis]
    if UP.in_front[axis] + UP.behind[axis] > 0:
        reach = max(UP.before[axis], UP.after[axis])
        near = (at * UP.scale[axis] <= reach) | ((size - 1 - at) * UP.scale[axis] <= reach)
        count = UP.scale[axis] + tl.max(near.to(tl.int32)) * (UP.in_front[axis] + UP.behind[axis])
    return count


@triton.jit
def _reader(at, number, size, axis: tl.constexpr, UP: tl.constexpr):
    """The padded position that is the `number`th of those that read position `at` of a map of `size`, if there is one."""
    own = at * UP.scale[axis] + number
    position, exists = own, own == own
    if UP.in_front[axis] + UP.behind[axis] > 0:
        image_before = number - UP.scale[axis]
        image_after = image_before - UP.in_front[axis]
        # How far from the border are the first of its own, from either.
        near_start, near_end = at * UP.scale[axis], (size - 1 - at) * UP.scale[axis]
        if UP.mode == REFLECT:
            # The border has no image: where one position alone has images, they are those beside it.
            before = near_start + image_before + (1 if UP.before[axis] < UP.scale[axis] else 0)
            after = near_end + image_after + (1 if UP.after[axis] < UP.scale[axis] else 0)
        elif UP.mode == REPLICATE:
            before = tl.where(at == 0, 1 + image_before, 0)
            after = tl.where(at == size - 1, 1 + image_after, 0)
        else:
            before = near_end + image_before + 1
            after = near_start + image_after + 1
        is_own, is_before = at * 0 + image_before < 0, at * 0 + image_after < 0
        position = tl.where(is_own, own, tl.where(is_before, -before, size * UP.scale[axis] - 1 + after))
        has_before, has_after = (before > 0) & (before <= UP.before[axis]), (after > 0) & (after <= UP.after[axis])
        exists = is_own | tl.where(is_before, has_before, has_after)
    return position + UP.before[axis], exists


@kernel
def _backward_kernel(
    input, output, read_d, read_h, read_w, write_d, write_h, write_w,
    first, chunks, chunk: tl.int64, channels: tl.int64, size: tl.int64,
    UP: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """`input` is the gradient that came."""
    sample, channel, piece = place(first, chunks, channels, False, TILE)
    address, exists = addresses(sample, channel, piece * chunk, channels, size, TILE)
    position = (piece * chunk + tl.arange(0, TILE.block_s)[None, :]).to(UP.index)
    d, h, w = split(position, write_h, write_w)
    positions = tl.full((), 1, tl.int64) * read_d * read_h * read_w
    total = tl.zeros(address.shape, TILE.wide)
    for number_d in range(_count_readers(d, write_d, 0, UP)):
        at_d, has_d = _reader(d, number_d, write_d, 0, UP)
        for number_h in range(_count_readers(h, write_h, 1, UP)):
            at_h, has_h = _reader(h, number_h, write_h, 1, UP)
            row = (at_d.to(tl.int64) * read_h + at_h) * read_w
            for number_w in range(_count_readers(w, write_w, 2, UP)):
                at_w, has_w = _reader(w, number_w, write_w, 2, UP)
                found = exists & has_d & has_h & has_w
                total += _load(input, row + at_w, positions, sample, channel, channels, found, TILE).to(TILE.wide)
    tl.store(output + address, total, mask=exists)


def forward(input, scale, padding, mode):
    size = [s * n + b + a for s, n, b, a in zip(scale, input.shape[2:], padding[::2], padding[1::2])]
    return _launch(_forward_kernel, input, size, scale, padding, mode)


def backward(grad, scale, padding, mode):
    size = [(n - b - a) // s for s, n, b, a in zip(scale, grad.shape[2:], padding[::2], padding[1::2])]
    return _launch(_backward_kernel, grad, size, scale, padding, mode)


def _launch(kernel, map, size, scale, padding, mode):
    """From a map to one of `size`, in the layout of the first."""
    planes = Planes.of(map)
    (map,) = planes.dense(map)
    output = map.new_empty(*map.shape[:2], *size).to(memory_format=planes.format)
    read, written = three(map.shape[2:]), three(size)
    plan = plan_map(replace(planes, size=math.prod(written)))
    # A tile may reach beyond the last position.
    positions = max(planes.size, plan.planes.size + plan.chunk)
    plan.launch(
        kernel, plan.programs, map, output=output,
        **{f"read_{side}": length for side, length in zip("dhw", read)},
        **{f"write_{side}": length for side, length in zip("dhw", written)},
        UP=Upsampling.of(scale, padding, mode, positions),
    )  # fmt: skip
    return output
