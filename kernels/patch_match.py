"""patch_match: for each patch of a content the patch of a style that is most like it, by normalised cross-correlation.

At least: both maps read once, an index and a score written for each patch; 2 * C flops for each pair of pixels that are
the same pixel of two patches, and k * k additions for each pair of patches. Here the products of pixels are written once
and read k * k times, of which L1 and L2 serve most.

A product of patches is a sum of products of pixels, and each of these is in k * k products of patches: so pixels are
multiplied once, on tensor cores in 16 bits, which is 1 / (k * k) of what a convolution with all patches does. With a stride
only pixels of the same phase meet, a row y of the content and v of the style where y = v modulo the stride, and columns
alike. Maps are laid out phase by phase, so that no other products are made.

The products of some rows of the content with all of the style are held, row after row in a ring: as the patches move down,
rows that the next ones need again stay. A first kernel multiplies pixels; a second one adds up k * k products and keeps for
each patch of the content the largest score and its lowest index; a third one merges what programs found in parts of the
style. With a usage penalty the scores of these rows are written instead, and a program for each sample goes through its
patches one after the other: what one chooses the next one must know.
"""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import _launch
from ._launch import _ceil_div, _power_of_2
from ._tile import kernel
from ._triton import tl, triton


@dataclass(frozen=True)
class Heuristics:
    """What a program takes. Reasoned from an H100 and from what compiles without spills; none is measured on a GPU yet."""

    # Products of pixels, by the bytes of a number: pixels of the content, of the style, channels at a time, threads.
    products: tuple[tuple[int, tuple[int, int, int, int]], ...] = (
        (2, (128, 128, 32, 256)),
        (4, (64, 64, 16, 256)),
        (8, (32, 32, 16, 128)),
    )
    # Scores: patches of the content, and of the style, which are neighbours in memory. Neighbours of both share what L1
    # holds; a thread has 16 sums, of float64 8.
    content: int = 16
    style: int = 128
    threads: int = 128
    # Fewer programs than this leave multiprocessors idle, which wait for memory: the style is searched in parts.
    busy: int = 1024
    # Bytes of products that are held at a time, of all samples of a group, and of scores where there is a penalty: L2 is
    # about as large. Rows for one row of patches of one sample are held at least.
    scratch: int = 64 << 20
    # Patches of the style that a program takes at a time which chooses in turn, in float64, and its threads.
    chosen: int = 4096
    choosing_threads: int = 512


HEURISTICS = Heuristics()


@dataclass(frozen=True)
class Blocks:
    """What a kernel is compiled for: the patches, and what a program takes."""

    patch_size: int
    stride: int
    content: int
    style: int
    step: int  # channels, at a time
    wide: tl.dtype

    @property
    def phases(self) -> int:
        """In one dimension, of the pixels of a patch."""
        return min(self.patch_size, self.stride)

    @property
    def reach(self) -> int:
        """How many rows of its phase a patch has below its first."""
        return (self.patch_size - 1) // self.stride


# The products of pixels: (N, phases, ring of rows, columns, style pixels).


@kernel
def _products_kernel(
    content, style, products, first: tl.int64, last: tl.int64, ring: tl.int64, content_pixels: tl.int64,
    style_pixels: tl.int64, steps: tl.int64, style_stride: tl.int64, blocks_c, blocks_s,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Of the pixels `first` to `last` of each phase of the content with all of the same one of the style."""
    PHASES: tl.constexpr = BLOCKS.phases * BLOCKS.phases
    # Neighbours read the same pixels of the style.
    program = tl.program_id(0)
    block_c, block_s = program % blocks_c, program // blocks_c % blocks_s
    map = (program // (blocks_c * blocks_s)).to(tl.int64)
    sample, phase = map // PHASES, map % PHASES
    c = first + block_c * BLOCKS.content + tl.arange(0, BLOCKS.content)[:, None]
    s = block_s * BLOCKS.style + tl.arange(0, BLOCKS.style)[None, :]
    # What is not there reads the last that is.
    row = steps * BLOCKS.step
    content += (map * content_pixels + tl.minimum(c, last - 1)) * row
    style += sample * style_stride + (phase * style_pixels + tl.minimum(s, style_pixels - 1)) * row
    channel = tl.arange(0, BLOCKS.step).to(tl.int64)
    content, style = content + channel[None, :], style + channel[:, None]
    sums = tl.full((BLOCKS.content, BLOCKS.style), 0.0, BLOCKS.wide)
    for start in range(0, row, BLOCKS.step):
        # Tensor cores would round float32 to 10 bits.
        x, y = tl.load(content + start), tl.load(style + start)
        sums = tl.dot(x, y, sums, input_precision="ieee", out_dtype=BLOCKS.wide)
    products += (map * ring + c % ring) * style_pixels + s
    tl.store(products, sums, mask=(c < last) & (s < style_pixels))


# The lengths of patches.


@triton.jit
def _tap_of(tap, columns, BLOCKS: tl.constexpr):
    """The phase of a pixel of a patch, and how far in a map of that phase it is from the first."""
    row, column = tap // BLOCKS.patch_size, tap % BLOCKS.patch_size
    phase = row % BLOCKS.stride * BLOCKS.phases + column % BLOCKS.stride
    return phase, row // BLOCKS.stride * columns + column // BLOCKS.stride


@triton.jit
def _pixel_of(patch, patches_w, columns):
    """The first pixel of a patch, in a map of its phase."""
    return patch // patches_w * columns + patch % patches_w


@kernel
def _lengths_kernel(
    map, inverse, patches: tl.int64, patches_w, columns, pixels: tl.int64, steps: tl.int64, blocks,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """1 / |patch|, and 0 of one without length."""
    PHASES: tl.constexpr = BLOCKS.phases * BLOCKS.phases
    program = tl.program_id(0)
    sample, block = (program // blocks).to(tl.int64), program % blocks
    patch = block * BLOCKS.content + tl.arange(0, BLOCKS.content)[:, None]
    row = steps * BLOCKS.step
    pixel = _pixel_of(tl.minimum(patch, patches - 1), patches_w, columns)
    map += sample * PHASES * pixels * row + tl.arange(0, BLOCKS.step).to(tl.int64)[None, :]
    squares = tl.full((BLOCKS.content, BLOCKS.step), 0.0, BLOCKS.wide)
    for tap in range(0, BLOCKS.patch_size * BLOCKS.patch_size):
        phase, offset = _tap_of(tap, columns, BLOCKS)
        address = map + (phase * pixels + pixel + offset) * row
        for start in range(0, row, BLOCKS.step):
            x = tl.load(address + start).to(BLOCKS.wide)
            squares += x * x
    total = tl.sum(squares, 1, keep_dims=True)
    length = tl.sqrt(total) if BLOCKS.wide == tl.float64 else tl.sqrt_rn(total)
    tl.store(inverse + (sample * patches + patch), tl.where(length > 0, 1 / length, 0.0), mask=patch < patches)


# The scores. What is no number is less than all numbers.


@triton.jit
def _likeness(
    products, of_style, pixel, style_patch, exists, ring, columns, style_columns, style_pixels, style_patches_w,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Of patches of the content that begin at `pixel` with patches of the style, of which some exist."""
    style_pixel = _pixel_of(style_patch, style_patches_w, style_columns)
    pixel %= ring
    total = tl.full(exists.shape, 0.0, BLOCKS.wide)
    for tap in range(0, BLOCKS.patch_size * BLOCKS.patch_size):
        phase, offset = _tap_of(tap, columns, BLOCKS)
        _, style_offset = _tap_of(tap, style_columns, BLOCKS)
        at = pixel + offset
        at = tl.where(at < ring, at, at - ring)
        row = (tl.cast(phase, tl.int64) * ring + at) * style_pixels
        total += tl.load(products + (row + (style_pixel + style_offset)), mask=exists, other=0)
    return total * tl.load(of_style + style_patch.to(tl.int64), mask=exists, other=0)


@triton.jit
def _compared(value, exists):
    return tl.where(exists & (value == value), value, float("-inf"))


@triton.jit
def _first_of_largest(best, patch):
    """Of each row the largest number, and the lowest of the patches that have it."""
    largest = tl.max(best, 1, keep_dims=True)
    return largest, tl.min(tl.where(best == largest, patch, 0x7FFFFFFF), 1, keep_dims=True)


@kernel
def _search_kernel(
    products, of_style, largest, chosen, first, last, patches_w, columns, ring, style_patches, style_patches_w,
    style_columns, style_pixels: tl.int64, style_stride: tl.int64, blocks, parts, part,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """For the patches `first` to `last` of the content the best of each part of the style: (N, parts, patches)."""
    PHASES: tl.constexpr = BLOCKS.phases * BLOCKS.phases
    program = tl.program_id(0)
    block, piece = program % blocks, program // blocks % parts
    sample = (program // (blocks * parts)).to(tl.int64)
    patch = first + block * BLOCKS.content + tl.arange(0, BLOCKS.content)[:, None]
    pixel = _pixel_of(tl.minimum(patch, last - 1), patches_w, columns)
    products += sample * PHASES * ring * style_pixels
    of_style += sample * style_stride
    lane = piece * part + tl.arange(0, BLOCKS.style)[None, :]
    best = tl.full((BLOCKS.content, BLOCKS.style), float("-inf"), BLOCKS.wide)
    index = tl.zeros_like(patch) + lane
    for start in range(0, tl.minimum(part, style_patches - piece * part), BLOCKS.style):
        style_patch = lane + start
        exists = (patch < last) & (style_patch < style_patches)
        value = _likeness(
            products, of_style, pixel, style_patch, exists, ring, columns, style_columns, style_pixels, style_patches_w,
            BLOCKS,
        )  # fmt: skip
        value = _compared(value, exists)
        index = tl.where(value > best, style_patch, index)
        best = tl.maximum(value, best)
    best, index = _first_of_largest(best, index)
    place = (sample * parts + piece) * (last - first) + (patch - first)
    tl.store(largest + place, best, mask=patch < last)
    tl.store(chosen + place, index, mask=patch < last)


@kernel
def _merge_kernel(
    products, of_content, of_style, largest, chosen, index, score, first, last, patches: tl.int64, patches_w, columns, ring,
    style_patches_w, style_columns, style_pixels: tl.int64, style_stride: tl.int64, blocks, parts,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """The best of all parts, in their order, and its score."""
    PHASES: tl.constexpr = BLOCKS.phases * BLOCKS.phases
    program = tl.program_id(0)
    sample, block = (program // blocks).to(tl.int64), program % blocks
    patch = first + block * BLOCKS.style + tl.arange(0, BLOCKS.style)
    exists = patch < last
    place = sample * parts * (last - first) + (patch - first)
    best = tl.load(largest + place, mask=exists, other=0)
    found = tl.load(chosen + place, mask=exists, other=0)
    for _ in range(1, parts):
        place += last - first
        value = tl.load(largest + place, mask=exists, other=0)
        other = tl.load(chosen + place, mask=exists, other=0)
        found = tl.where(value > best, other, found)
        best = tl.maximum(value, best)
    value = _likeness(
        products + sample * PHASES * ring * style_pixels, of_style + sample * style_stride,
        _pixel_of(patch, patches_w, columns), found, exists, ring, columns, style_columns, style_pixels, style_patches_w,
        BLOCKS,
    )  # fmt: skip
    place = sample * patches + patch
    value *= tl.load(of_content + place, mask=exists, other=0)
    tl.store(index + place, found.to(tl.int64), mask=exists)
    tl.store(score + place, value, mask=exists)


# With a usage penalty.


@kernel
def _scores_kernel(
    products, of_content, of_style, scores, first, last, patches: tl.int64, patches_w, columns, ring,
    style_patches, style_patches_w, style_columns, style_pixels: tl.int64, style_stride: tl.int64, blocks, blocks_s,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Of the patches `first` to `last` of the content with all of the style: (N, patches, style patches)."""
    PHASES: tl.constexpr = BLOCKS.phases * BLOCKS.phases
    program = tl.program_id(0)
    block, block_s = program % blocks, program // blocks % blocks_s
    sample = (program // (blocks * blocks_s)).to(tl.int64)
    patch = first + block * BLOCKS.content + tl.arange(0, BLOCKS.content)[:, None]
    style_patch = block_s * BLOCKS.style + tl.arange(0, BLOCKS.style)[None, :]
    exists = (patch < last) & (style_patch < style_patches)
    value = _likeness(
        products + sample * PHASES * ring * style_pixels, of_style + sample * style_stride,
        _pixel_of(tl.minimum(patch, last - 1), patches_w, columns), style_patch, exists, ring, columns, style_columns,
        style_pixels, style_patches_w, BLOCKS,
    )  # fmt: skip
    value *= tl.load(of_content + (sample * patches + patch), mask=patch < last, other=0)
    place = (sample * (last - first) + (patch - first)) * style_patches + style_patch
    tl.store(scores + place, value, mask=exists)


@kernel
def _choose_kernel(
    scores, used, index, score, usage_penalty: tl.float64, first, last, patches: tl.int64, style_patches,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """The patches `first` to `last` of a sample, one after the other. Penalties may be large: in float64."""
    sample = tl.program_id(0).to(tl.int64)
    used += sample * style_patches
    scores += sample * (last - first) * style_patches
    lane = tl.arange(0, BLOCKS.style)[None, :]
    for patch in range(first, last):
        best = tl.full((1, BLOCKS.style), float("-inf"), tl.float64)
        found = lane
        for start in range(0, style_patches, BLOCKS.style):
            style_patch = lane + start
            exists = style_patch < style_patches
            place = style_patch.to(tl.int64)
            value = tl.load(scores + place, mask=exists, other=0).to(tl.float64)
            value -= usage_penalty * tl.load(used + place, mask=exists, other=0).to(tl.float64)
            value = _compared(value, exists)
            found = tl.where(value > best, style_patch, found)
            best = tl.maximum(value, best)
        _, found = _first_of_largest(best, found)
        place = found.to(tl.int64)
        tl.store(used + place, tl.load(used + place) + 1)
        tl.store(index + (sample * patches + patch + tl.zeros_like(place)), place)
        tl.store(score + (sample * patches + patch + tl.zeros_like(place)), tl.load(scores + place))
        scores += style_patches
        # The next patch sees what this one used.
        tl.debug_barrier()


# Launchers.


def forward(content, style, patch_size, stride, usage_penalty):
    patches, style_patches = (_grid(map, patch_size, stride) for map in (content, style))
    blocks, products, threads = _plan(patch_size, stride, content.shape[1], content.element_size())
    wide = torch.float64 if content.dtype == torch.float64 else torch.float32
    index = content.new_empty((len(content), *patches), dtype=torch.int64)
    score = content.new_empty((len(content), *patches), dtype=wide)
    if not index.numel():
        return index, score
    with torch.cuda.device_of(content):
        content, style = _by_phase(content, patches, blocks), _by_phase(style, style_patches, blocks)
        maps = content, style, _inverse_lengths(content, patches, blocks), _inverse_lengths(style, style_patches, blocks)
        some = _samples_at_a_time(content, style, blocks)
        for first in range(0, len(content), some):
            group = [map if len(map) == 1 else map[first : first + some] for map in maps]
            found = index[first : first + some], score[first : first + some]
            _match(*group, *found, usage_penalty, blocks, products, threads)
    return index, score


def _grid(map: Tensor, patch_size: int, stride: int) -> tuple[int, int]:
    return tuple((length - patch_size) // stride + 1 for length in map.shape[2:])


@functools.lru_cache(4096)
def _plan(patch_size: int, stride: int, channels: int, itemsize: int) -> tuple[Blocks, Blocks, int]:
    """What programs take of patches, and of pixels, and the threads of the latter."""
    limits = HEURISTICS
    content, style, step, threads = dict(limits.products)[itemsize]
    step = max(16, min(step, _power_of_2(channels)))
    wide = tl.float64 if itemsize == 8 else tl.float32
    blocks = Blocks(patch_size, stride, limits.content, limits.style * 4 // max(4, itemsize), step, wide)
    return blocks, Blocks(patch_size, stride, content, style, step, wide), threads


def _by_phase(map: Tensor, patches: tuple[int, int], blocks: Blocks) -> Tensor:
    """The pixels that are of patches, (N, phases, rows, columns, channels), with zeros beside them to whole steps."""
    height, width = ((count + blocks.reach) * blocks.stride for count in patches)
    missing = -map.shape[1] % blocks.step if map.shape[1] else blocks.step
    rows = map.movedim(1, 3)
    around = 0, missing, 0, width - map.shape[3], 0, height - map.shape[2]
    if any(around):
        rows = torch.nn.functional.pad(rows, around)
    phases = rows.unflatten(2, (-1, blocks.stride)).unflatten(1, (-1, blocks.stride))
    phases = phases[:, :, : blocks.phases, :, : blocks.phases].permute(0, 2, 4, 1, 3, 5)
    return phases.flatten(1, 2).contiguous()


def _inverse_lengths(map: Tensor, patches: tuple[int, int], blocks: Blocks) -> Tensor:
    """(N, patches)."""
    samples, _, rows, columns, row = map.shape
    count = patches[0] * patches[1]
    inverse = map.new_empty((samples, count), dtype=torch.float64 if map.dtype == torch.float64 else torch.float32)
    programs = _ceil_div(count, blocks.content)
    _lengths_kernel[(samples * programs,)](
        map=map, inverse=inverse, patches=count, patches_w=patches[1], columns=columns, pixels=rows * columns,
        steps=row // blocks.step, blocks=programs, BLOCKS=blocks, num_warps=HEURISTICS.threads // _launch._WARP,
    )  # fmt: skip
    return inverse


def _pixels_bytes(content: Tensor, style: Tensor) -> int:
    """Of the products of a row of each phase of one sample with the style."""
    _, phases, _, columns, _ = content.shape
    return phases * columns * style.shape[2] * style.shape[3] * max(4, content.element_size())


def _samples_at_a_time(content: Tensor, style: Tensor, blocks: Blocks) -> int:
    return max(1, HEURISTICS.scratch // ((blocks.reach + 1) * _pixels_bytes(content, style)))


def _match(
    content: Tensor, style: Tensor, of_content: Tensor, of_style: Tensor, index: Tensor, score: Tensor,
    usage_penalty: float, blocks: Blocks, products_blocks: Blocks, threads: int,
) -> None:  # fmt: skip
    """Fills `index` and `score`, some rows of patches at a time."""
    samples, phases, rows, columns, _ = content.shape
    rows_held = HEURISTICS.scratch // (samples * _pixels_bytes(content, style))
    rows_held = min(rows, max(blocks.reach + 1, rows_held))
    products = score.new_empty((samples, phases, rows_held, columns, style.shape[2] * style.shape[3]))
    held = dict(
        products=products, of_content=of_content, of_style=of_style, patches_w=index.shape[2], columns=columns,
        ring=rows_held * columns, style_patches=of_style.shape[1],
        style_patches_w=style.shape[3] - blocks.reach, style_columns=style.shape[3], style_pixels=products.shape[4],
        style_stride=of_style.shape[1] if len(of_style) > 1 else 0, BLOCKS=blocks,
    )  # fmt: skip
    used = torch.zeros((samples, of_style.shape[1]), dtype=torch.int32, device=score.device) if usage_penalty else None
    made = 0
    for first in range(0, index.shape[1], rows_held - blocks.reach):
        last = min(first + rows_held - blocks.reach, index.shape[1])
        _multiply(content, style, products, made, last + blocks.reach, products_blocks, threads)
        made = last + blocks.reach
        patches = dict(first=first * index.shape[2], last=last * index.shape[2])
        if usage_penalty:
            _choose(held, patches, used, index, score, usage_penalty)
        else:
            _search(held, patches, index, score)


def _multiply(content, style, products, first: int, last: int, blocks: Blocks, threads: int) -> None:
    """The pixels in rows `first` to `last` of each phase."""
    samples, phases, rows, columns, row = content.shape
    blocks_c, blocks_s = _ceil_div((last - first) * columns, blocks.content), _ceil_div(products.shape[4], blocks.style)
    _products_kernel[(samples * phases * blocks_c * blocks_s,)](
        content=content, style=style, products=products, first=first * columns, last=last * columns,
        ring=products.shape[2] * columns, content_pixels=rows * columns, style_pixels=products.shape[4],
        steps=row // blocks.step, style_stride=style[0].numel() if len(style) > 1 else 0,
        blocks_c=blocks_c, blocks_s=blocks_s, BLOCKS=blocks, num_warps=threads // _launch._WARP,
    )  # fmt: skip


def _search(held: dict, patches: dict, index: Tensor, score: Tensor) -> None:
    blocks, style_patches = held["BLOCKS"], held["style_patches"]
    samples, count = len(index), patches["last"] - patches["first"]
    programs = _ceil_div(count, blocks.content)
    blocks_s = _ceil_div(style_patches, blocks.style)
    part = blocks.style * _ceil_div(blocks_s, max(1, HEURISTICS.busy // (samples * programs)))
    parts = _ceil_div(style_patches, part)
    found = dict(
        largest=score.new_empty((samples, parts, count)),
        chosen=torch.empty((samples, parts, count), dtype=torch.int32, device=score.device),
        parts=parts,
    )
    search = {name: value for name, value in held.items() if name != "of_content"}
    _search_kernel[(samples * programs * parts,)](
        **search, **patches, **found, blocks=programs, part=part, num_warps=HEURISTICS.threads // _launch._WARP
    )
    programs = _ceil_div(count, blocks.style)
    merge = {name: value for name, value in held.items() if name != "style_patches"}
    _merge_kernel[(samples * programs,)](
        **merge, **patches, **found, index=index, score=score, patches=score[0].numel(), blocks=programs,
        num_warps=HEURISTICS.threads // _launch._WARP,
    )  # fmt: skip


def _choose(held: dict, patches: dict, used: Tensor, index: Tensor, score: Tensor, usage_penalty: float) -> None:
    blocks, style_patches = held["BLOCKS"], held["style_patches"]
    samples, count = len(index), patches["last"] - patches["first"]
    scores = score.new_empty((samples, count, style_patches))
    programs, blocks_s = _ceil_div(count, blocks.content), _ceil_div(style_patches, blocks.style)
    _scores_kernel[(samples * programs * blocks_s,)](
        **held, **patches, scores=scores, patches=score[0].numel(), blocks=programs, blocks_s=blocks_s,
        num_warps=HEURISTICS.threads // _launch._WARP,
    )  # fmt: skip
    at_a_time = min(HEURISTICS.chosen, _power_of_2(style_patches))
    threads = max(_launch._WARP, min(HEURISTICS.choosing_threads, at_a_time // 8))
    _choose_kernel[(samples,)](
        scores=scores, used=used, index=index, score=score, usage_penalty=usage_penalty, **patches,
        patches=score[0].numel(), style_patches=style_patches,
        BLOCKS=replace(blocks, style=at_a_time), num_warps=threads // _launch._WARP,
    )  # fmt: skip
