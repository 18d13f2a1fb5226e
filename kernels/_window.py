"""Where a convolution reads, in three dimensions: lines and images have leading ones of size 1.

Forward, position p of the output reads the input at p * stride + tap * dilation - before, which beyond the border is
nothing, or a position inside. The gradient of the input turns this round, so that it is a gather as well: position q
reads the output's gradient at (q + before - tap * dilation) / stride, where that is a position of it. Where padding
copied q beyond the border, the copies' gradients are its own too: it then reads for more pairs of (copy, tap). Those
that can meet anything are numbered here, in each dimension: first the taps for q itself, then for its copies before the
map, then for those after it.

A map may lie on a lattice, its elements some positions apart and zeros between them: the output's gradient of a
convolution with a stride does, and so does a map that is upsampled by phases. Forward, outputs as far apart as the
elements are of one phase: they meet elements with the same taps. These are numbered from the first on, and no others.
"""

import math
from dataclasses import dataclass, replace

from ._triton import tl, triton

# The order of `fastnorm/ops/_window.py`.
ZEROS = tl.constexpr(0)
REFLECT = tl.constexpr(1)
REPLICATE = tl.constexpr(2)
CIRCULAR = tl.constexpr(3)

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """What a convolution is compiled for."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes
    after: Sizes
    mode: int
    apart: Sizes = (1, 1, 1)  # elements of the map that is read
    transposed: bool = False  # for the gradient of the input

    @classmethod
    def of(cls, kernel, stride, padding, dilation, mode, apart=()) -> "Window":
        sides = padding[::2], padding[1::2]
        # Without padding all modes are one.
        mode = mode if any(padding) else ZEROS.value
        before, after = (three(side, 0) for side in sides)
        return cls(three(kernel), three(stride), three(dilation), before, after, mode, three(apart))

    @property
    def reversed(self) -> "Window":
        """The gather of the input's gradient: what it reads lies a stride apart."""
        return replace(self, stride=(1, 1, 1), apart=self.stride, transposed=True)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def phases(self) -> Sizes:
        """Of the outputs; one, where each tap is asked whether it meets an element."""
        plain = not self.transposed and self.stride == self.dilation == (1, 1, 1)
        return self.apart if plain else (1, 1, 1)

    @property
    def met(self) -> Sizes:
        """Taps that an output meets elements with, at most."""
        return tuple(-(-size // phases) for size, phases in zip(self.kernel, self.phases))

    @property
    def even(self) -> bool:
        """Outputs of every phase meet elements with as many taps."""
        return not any(size % phases for size, phases in zip(self.kernel, self.phases))

    @property
    def copies(self) -> bool:
        """Whether there are pairs of copies."""
        return self.transposed and self.mode != ZEROS.value

    @property
    def meet_before(self) -> Sizes:
        """The taps, from the first on, that reach beyond the first position."""
        return tuple(min(size, -(-side // step)) for size, side, step in zip(self.kernel, self.before, self.dilation))

    @property
    def meet_after(self) -> Sizes:
        """The taps, from the last on, that reach beyond the last position."""
        return tuple(min(size, -(-side // step)) for size, side, step in zip(self.kernel, self.after, self.dilation))

    @property
    def pairs_before(self) -> Sizes:
        return self._pairs(self.meet_before, self.before)

    @property
    def pairs_after(self) -> Sizes:
        return self._pairs(self.meet_after, self.after)

    def _pairs(self, meet: Sizes, side: Sizes) -> Sizes:
        """Replication makes of one position many, every other mode one of one."""
        return tuple(taps * (copies if self.mode == REPLICATE.value else 1) for taps, copies in zip(meet, side))

    @property
    def pointwise(self) -> bool:
        """Each position reads itself alone."""
        return self.taps == 1 and self.stride == self.apart == (1, 1, 1) and not any((*self.before, *self.after))


def three(sizes, fill: int = 1) -> Sizes:
    return (*[fill] * (3 - len(sizes)), *sizes)


# In kernels a position is (depth, row, column), a size too. Each is one function for all three dimensions: Triton's
# interpreter takes a millisecond for every call.


@triton.jit
def index_of(at, size):
    """The number of a position in its plane."""
    return (at[0].to(tl.int64) * size[1] + at[1]) * size[2] + at[2]


@triton.jit
def _first_tap(first, axis: tl.constexpr, WINDOW: tl.constexpr):
    """In one dimension, of the taps with which outputs of the phase of `first` meet elements."""
    PHASES: tl.constexpr = WINDOW.phases[axis]
    return (WINDOW.before[axis] + PHASES - first[axis] % PHASES) % PHASES


@triton.jit
def first_tap(first, WINDOW: tl.constexpr):
    """Its number among all taps. What `reads` returns is counted from there."""
    row = _first_tap(first, 0, WINDOW) * WINDOW.kernel[1] + _first_tap(first, 1, WINDOW)
    return row * WINDOW.kernel[2] + _first_tap(first, 2, WINDOW)


@triton.jit
def split_of(pair, pairs):
    """The number of a pair in each dimension."""
    return pair // (pairs[1] * pairs[2]), pair // pairs[2] % pairs[1], pair % pairs[2]


@triton.jit
def tap_of(split, WINDOW: tl.constexpr):
    """The number among all taps, from the first one on, of those numbered in each dimension."""
    row = split[0] * WINDOW.phases[0] * WINDOW.kernel[1] + split[1] * WINDOW.phases[1]
    return row * WINDOW.kernel[2] + split[2] * WINDOW.phases[2]


@triton.jit
def count_pairs(first, last, written, WINDOW: tl.constexpr):
    """How many pairs there are in each dimension, for positions `first` to `last`: of copies only near to a border."""
    pairs = ()
    for axis in tl.static_range(3):
        count = WINDOW.met[axis]
        if WINDOW.copies and max(WINDOW.before[axis], WINDOW.after[axis]) > 0:
            reach = max(WINDOW.before[axis], WINDOW.after[axis])
            near = (first[axis] <= reach) | (last[axis] >= written[axis] - 1 - reach)
            count = WINDOW.kernel[axis] + tl.where(near, WINDOW.pairs_before[axis] + WINDOW.pairs_after[axis], 0)
        elif WINDOW.kernel[axis] % WINDOW.phases[axis] != 0:
            count = tl.cdiv(WINDOW.kernel[axis] - _first_tap(first, axis, WINDOW), WINDOW.phases[axis])
        pairs = pairs + (count,)
    return pairs


@triton.jit
def _first_read(at, axis: tl.constexpr, WINDOW: tl.constexpr):
    """Where in one dimension the first tap reads, forward."""
    position = at[axis] * WINDOW.stride[axis] - WINDOW.before[axis]
    PHASES: tl.constexpr = WINDOW.phases[axis]
    if PHASES != 1:
        # Rounded up, from above 0: below, a division in C rounds the other way.
        BEYOND: tl.constexpr = (WINDOW.before[axis] + PHASES - 1) // PHASES
        position = (position + (BEYOND * PHASES + PHASES - 1)) // PHASES - BEYOND
    return position


@triton.jit
def stay_inside(first, last, size, written, pairs, WINDOW: tl.constexpr):
    """Whether positions `first` to `last` all exist, and read the map alone."""
    inside = True
    for axis in tl.static_range(3):
        reach = (pairs[axis] - 1) * WINDOW.dilation[axis]
        if WINDOW.transposed:
            lowest = first[axis] + WINDOW.before[axis] - reach
            highest = last[axis] + WINDOW.before[axis]
            inside = inside & (pairs[axis] == WINDOW.kernel[axis])
        else:
            lowest = _first_read(first, axis, WINDOW)
            highest = _first_read(last, axis, WINDOW) + reach
        inside = inside & (last[axis] < written[axis]) & (lowest >= 0) & (highest < size[axis])
        if WINDOW.apart[axis] != WINDOW.phases[axis]:
            # Not every tap meets an element.
            inside = inside & False
    return inside


@triton.jit
def reads(at, pair, pairs, size, written, WINDOW: tl.constexpr):
    """Where in a map of `size` a pair reads for positions `at` of `written`, whether there is anything, and its tap."""
    split = split_of(pair, pairs)
    found = ()
    taps = ()
    exists = at[0] < written[0]
    for axis in tl.static_range(3):
        exists = exists & (at[axis] < written[axis])
        tap = split[axis]
        if WINDOW.transposed:
            position = at[axis]
            if WINDOW.copies and WINDOW.pairs_before[axis] + WINDOW.pairs_after[axis] > 0:
                position, is_copy, tap = _copied(position, tap, written[axis], axis, WINDOW)
                exists = exists & is_copy
            position += WINDOW.before[axis] - tap * WINDOW.dilation[axis]
        else:
            position = _first_read(at, axis, WINDOW) + tap * WINDOW.dilation[axis]
        if WINDOW.apart[axis] != WINDOW.phases[axis]:
            exists = exists & (position % WINDOW.apart[axis] == 0)
            position = position // WINDOW.apart[axis]
        if WINDOW.transposed:
            exists = exists & (position >= 0) & (position < size[axis])
        elif WINDOW.before[axis] + WINDOW.after[axis] == 0:
            pass
        elif WINDOW.mode == ZEROS:
            exists = exists & (position >= 0) & (position < size[axis])
        elif WINDOW.mode == REFLECT:
            position = size[axis] - 1 - tl.abs(size[axis] - 1 - tl.abs(position))
        elif WINDOW.mode == REPLICATE:
            position = tl.minimum(tl.maximum(position, 0), size[axis] - 1)
        else:
            position = tl.where(position < 0, position + size[axis], position)
            position = tl.where(position < size[axis], position, position - size[axis])
        found = found + (position,)
        taps = taps + (tap,)
    index = (found[0].to(tl.int64) * size[1] + found[1]) * size[2] + found[2]
    return index, exists, tap_of(taps, WINDOW)


@triton.jit
def _copied(at, pair, written, axis: tl.constexpr, WINDOW: tl.constexpr):
    """Of which padded position a pair takes the gradient, whether that is a copy of `at`, or `at`, and with which tap."""
    copy_before = pair - WINDOW.kernel[axis]
    copy_after = copy_before - WINDOW.pairs_before[axis]
    # At least one, to divide by: where there is none, no pair comes here.
    meet_before: tl.constexpr = max(1, WINDOW.meet_before[axis])
    meet_after: tl.constexpr = max(1, WINDOW.meet_after[axis])
    if WINDOW.mode == REFLECT:
        before, is_before = -at, (at >= 1) & (at <= WINDOW.before[axis])
        after = 2 * (written - 1) - at
        is_after = (after >= written) & (after < written + WINDOW.after[axis])
    elif WINDOW.mode == REPLICATE:
        before, is_before = at * 0 - 1 - copy_before // meet_before, at == 0
        after, is_after = at * 0 + written + copy_after // meet_after, at == written - 1
    else:
        before, is_before = at - written, at >= written - WINDOW.before[axis]
        after, is_after = at + written, at < WINDOW.after[axis]
    tap_after = WINDOW.kernel[axis] - 1 - copy_after % meet_after
    tap = tl.where(copy_before < 0, pair, tl.where(copy_after < 0, copy_before % meet_before, tap_after))
    # As vectors: the interpreter takes no other truth values.
    own, left = copy_before + at * 0 < 0, copy_after + at * 0 < 0
    position = tl.where(own, at, tl.where(left, before, after))
    return position, own | tl.where(left, is_before, is_after), tap
