"""Where a convolution reads, in three dimensions: lines and images have leading ones of size 1.

Forward, position p of the output reads the input at p * stride + tap * dilation - before, which beyond the border is
nothing, or a position inside. The gradient of the input turns this round, so that it is a gather as well: position q
reads the output's gradient at (q + before - tap * dilation) / stride, where that is a position of it. Where padding
copied q beyond the border, the copies' gradients are its own too: it then reads for more pairs of (copy, tap). Those
that can meet anything are numbered here, in each dimension: first the taps for q itself, then for its copies before the
map, then for those after it.
"""

from dataclasses import dataclass

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
    transposed: bool = False  # for the gradient of the input

    @classmethod
    def of(cls, kernel, stride, padding, dilation, mode, transposed=False) -> "Window":
        sides = padding[::2], padding[1::2]
        # Without padding all modes are one.
        mode = mode if any(padding) else ZEROS.value
        return cls(three(kernel), three(stride), three(dilation), *(three(side, 0) for side in sides), mode, transposed)

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.kernel[2]

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
    def strided(self) -> bool:
        return self.stride != (1, 1, 1)

    @property
    def pointwise(self) -> bool:
        """Each position reads itself alone."""
        return self.taps == 1 and not self.strided and not any((*self.before, *self.after))


def three(sizes, fill: int = 1) -> Sizes:
    return (*[fill] * (3 - len(sizes)), *sizes)


@triton.jit
def count_pairs(first, last, written, AXIS: tl.constexpr, WINDOW: tl.constexpr):
    """How many pairs there are for positions `first` to `last` of `written`: more than taps only near to a border."""
    pairs = WINDOW.kernel[AXIS]
    if WINDOW.copies:
        reach: tl.constexpr = max(WINDOW.before[AXIS], WINDOW.after[AXIS])
        if reach > 0:
            near = (first <= reach) | (last >= written[AXIS] - 1 - reach)
            more: tl.constexpr = WINDOW.pairs_before[AXIS] + WINDOW.pairs_after[AXIS]
            pairs = WINDOW.kernel[AXIS] + tl.where(near, more, 0)
    return pairs


@triton.jit
def reads(at, pair, size, written, AXIS: tl.constexpr, WINDOW: tl.constexpr):
    """Where in a map of `size` the pair reads for position `at` of `written`, whether there is anything, and its tap."""
    if WINDOW.transposed:
        position, exists, tap = _original(at, pair, written, AXIS, WINDOW)
        position += WINDOW.before[AXIS] - tap * WINDOW.dilation[AXIS]
        exists = exists & (position >= 0) & (position < size[AXIS] * WINDOW.stride[AXIS])
        if WINDOW.stride[AXIS] != 1:
            exists = exists & (position % WINDOW.stride[AXIS] == 0)
            position = position // WINDOW.stride[AXIS]
    else:
        tap = pair
        position = at * WINDOW.stride[AXIS] + (tap * WINDOW.dilation[AXIS] - WINDOW.before[AXIS])
        if WINDOW.mode == ZEROS:
            exists = (at < written[AXIS]) & (position >= 0) & (position < size[AXIS])
        else:
            exists = at < written[AXIS]
            position = _inside(position, size[AXIS], WINDOW.mode)
    return position, exists, tap


@triton.jit
def _inside(position, size, MODE: tl.constexpr):
    """Of a position beyond the border, the one that it is a copy of."""
    if MODE == REFLECT:
        position = size - 1 - tl.abs(size - 1 - tl.abs(position))
    elif MODE == REPLICATE:
        position = tl.minimum(tl.maximum(position, 0), size - 1)
    else:
        position = tl.where(position < 0, position + size, position)
        position = tl.where(position < size, position, position - size)
    return position


@triton.jit
def _original(at, pair, written, AXIS: tl.constexpr, WINDOW: tl.constexpr):
    """Of which padded position the pair takes the gradient, whether that is a copy of `at`, and with which tap."""
    exists = at < written[AXIS]
    tap = pair
    position = at
    if WINDOW.copies:
        if WINDOW.pairs_before[AXIS] + WINDOW.pairs_after[AXIS] > 0:
            before: tl.constexpr = WINDOW.before[AXIS]
            after: tl.constexpr = WINDOW.after[AXIS]
            # The interpreter takes no truth value that is not a vector.
            pair += at * 0
            # At least one, to divide by: where there is none, no pair comes here.
            meet_before: tl.constexpr = max(1, WINDOW.meet_before[AXIS])
            meet_after: tl.constexpr = max(1, WINDOW.meet_after[AXIS])
            copy_before = pair - WINDOW.kernel[AXIS]
            copy_after = copy_before - WINDOW.pairs_before[AXIS]
            tap_before = copy_before % meet_before
            tap_after = WINDOW.kernel[AXIS] - 1 - copy_after % meet_after
            copy_before = copy_before // meet_before
            copy_after = copy_after // meet_after
            if WINDOW.mode == REFLECT:
                left, is_left = -at, (at >= 1) & (at <= before)
                right = 2 * (written[AXIS] - 1) - at
                is_right = (right >= written[AXIS]) & (right < written[AXIS] + after)
            elif WINDOW.mode == REPLICATE:
                left, is_left = -1 - copy_before, at == 0
                right, is_right = written[AXIS] + copy_after, at == written[AXIS] - 1
            else:
                left, is_left = at - written[AXIS], at >= written[AXIS] - before
                right, is_right = at + written[AXIS], at < after
            own = pair < WINDOW.kernel[AXIS]
            is_before = pair < WINDOW.kernel[AXIS] + WINDOW.pairs_before[AXIS]
            tap = tl.where(own, pair, tl.where(is_before, tap_before, tap_after))
            position = tl.where(own, at, tl.where(is_before, left, right))
            exists = exists & (own | tl.where(is_before, is_left, is_right))
    return position, exists, tap


@triton.jit
def stays_inside(first, last, size, written, AXIS: tl.constexpr, WINDOW: tl.constexpr):
    """Whether positions `first` to `last` all exist, and read the map alone."""
    reach: tl.constexpr = (WINDOW.kernel[AXIS] - 1) * WINDOW.dilation[AXIS]
    if WINDOW.transposed:
        lowest, highest = first + WINDOW.before[AXIS] - reach, last + WINDOW.before[AXIS]
    else:
        lowest = first * WINDOW.stride[AXIS] - WINDOW.before[AXIS]
        highest = last * WINDOW.stride[AXIS] - WINDOW.before[AXIS] + reach
    inside = (last < written[AXIS]) & (lowest >= 0) & (highest < size[AXIS])
    if WINDOW.copies:
        inside = inside & (count_pairs(first, last, written, AXIS, WINDOW) == WINDOW.kernel[AXIS])
    return inside
