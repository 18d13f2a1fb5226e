"""What every kernel does with a tile: `block_c` channels by `block_s` positions of one sample's planes.

A map is (N, C, S), planes of S positions, in one of two layouts: NCHW, plane after plane, or channels last, where
neighbours in memory are the channels of one position. Both are the same tile, only its addresses differ; Triton lays
the threads along whichever side is dense. Numbers per plane are columns, (block_c, 1).

Kernels declare `channels`, `size` and `chunk` as int64, so every address is. Numbers from Python arrive as float64, so
that none is rounded on the way.
"""

from dataclasses import dataclass

from ._triton import tl, triton

# Triton compiles anew for an integer that is 1 or a multiple of 16. It would gain nothing by these.
kernel = triton.jit(do_not_specialize=["first", "last", "chunks", "correction"])

# Numbers of chunks that a program reads at once: eight for each of 512 threads.
MERGED = tl.constexpr(4096)


@dataclass(frozen=True)
class Tile:
    """What a kernel is compiled for."""

    channels_last: bool
    block_c: int
    block_s: int
    whole: bool  # it holds its planes whole
    vector: int  # the dense side of the map is a multiple of this
    wide: tl.dtype  # computed in: float64 for float64, float32 for all else


@triton.jit
def place(first, chunks, channels, BACKWARDS: tl.constexpr, TILE: tl.constexpr):
    """The sample, channels and piece, one of `chunks`, of this program. Neighbours work on neighbouring memory."""
    program = tl.program_id(0)
    if BACKWARDS:
        program = tl.num_programs(0) - 1 - program
    program += first
    blocks = tl.cdiv(channels, TILE.block_c).to(tl.int32)
    if TILE.channels_last:
        block = program % blocks
        piece = program // blocks % chunks
    else:
        block = program // chunks % blocks
        piece = program % chunks
    sample = (program // (blocks * chunks)).to(tl.int64)
    channel = block * TILE.block_c + tl.arange(0, TILE.block_c)[:, None]
    return sample, channel, piece


@triton.jit
def addresses(sample, channel, start, channels, size, TILE: tl.constexpr):
    """Where the tile from position `start` on lies in a map, and which of it exists."""
    # The dense side, written as the multiple that it is, lets Triton read vectors in planes of, say, 750 x 500.
    if TILE.channels_last:
        channels = channels // TILE.vector * TILE.vector
    else:
        size = size // TILE.vector * TILE.vector
    position = start + tl.arange(0, TILE.block_s)[None, :]
    if TILE.channels_last:
        address = (sample * size + position) * channels + channel
    else:
        address = (sample * channels + channel) * size + position
    return address, (channel < channels) & (position < size)


@triton.jit
def load(map, address, exists, EVICT: tl.constexpr, TILE: tl.constexpr):
    return tl.load(map + address, mask=exists, other=0, eviction_policy=EVICT).to(TILE.wide)


@triton.jit
def per_plane(parameter, stride, sample, channel, channels, default: tl.constexpr, TILE: tl.constexpr):
    """A (C,) or (N, C) parameter of these planes; its samples lie `stride` apart, 0 where they share it."""
    if parameter is None:
        value = tl.full(channel.shape, default, TILE.wide)
    else:
        value = tl.load(parameter + (sample * stride + channel), mask=channel < channels, other=default).to(TILE.wide)
    return value


@triton.jit
def number(value, TILE: tl.constexpr):
    return tl.full((1, 1), value, TILE.wide)


@triton.jit
def plane_sum(x):
    """Of a tile, or of a patch: (channels, rows, columns)."""
    if len(x.shape) == 3:
        x = tl.sum(x, 2, keep_dims=True)
    return tl.sum(x, 1, keep_dims=True)


@triton.jit
def partials(sample, channel, first, chunks, channels, BLOCK: tl.constexpr):
    """The chunks from `first` on, where their numbers lie, (N, chunks, C), and which of them exist."""
    piece = first + tl.arange(0, BLOCK)[None, :]
    return piece, (sample * chunks + piece) * channels + channel, (channel < channels) & (piece < chunks)


@triton.jit
def merged_sums(sums, sample, channel, chunks, channels, TILE: tl.constexpr):
    """Sums over planes, from those over their chunks."""
    BLOCK: tl.constexpr = MERGED // TILE.block_c
    total = tl.zeros(channel.shape, TILE.wide)
    for first in range(0, chunks, BLOCK):
        _, address, exists = partials(sample, channel, first, chunks, channels, BLOCK)
        total += tl.sum(load(sums, address, exists, "", TILE), 1, keep_dims=True)
    return total
