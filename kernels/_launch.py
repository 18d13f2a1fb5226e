"""How the planes of a map lie in memory, how programs share them, and how these are started.

A kernel that needs a plane twice, once for its sums and once to write, has three ways through it:

    held      the plane fits in the registers of one program: it is read once
    walked    one program goes through it twice; the second time it comes from L2
    split     many programs take a chunk each and leave partial sums; a second launch merges them and writes
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ._tile import Tile
from ._triton import tl


@dataclass(frozen=True)
class Heuristics:
    """The sizes that choose the way: fixed numbers, so that a shape has the same bits on every device.

    They are reasoned from an H100, 132 multiprocessors of 65536 registers and 50 MB of L2, and from what compiles
    without spills. None is measured on a GPU yet.
    """

    # Elements that a thread holds of one, two, three and four maps: what compiles without spills.
    held: tuple[int, ...] = (32, 16, 16, 8)
    # Elements that it takes at a time where it does not hold the plane: fewer, so that two programs fit on a
    # multiprocessor, of which one loads while the other reduces; still 16 bytes of bfloat16.
    taken: tuple[int, ...] = (16, 8, 8, 8)
    # A thread of 512 has 128 registers. One of 1024 has 64: too few for the above.
    fewest_threads: int = 128
    most_threads: int = 512
    # Planes smaller than this share a program.
    small: int = 2048
    # Bytes of neighbouring channels in a channels-last tile. Held: a line of L2; a half of it, or a sector of DRAM,
    # where the planes fit only so, or give too few programs. Otherwise the half.
    held_rows: tuple[int, ...] = (128, 64, 32)
    rows: int = 64
    # Fewer programs than this leave multiprocessors idle.
    busy: int = 128
    # Two walkers on each multiprocessor leave 34 MB in L2.
    walked_bytes: int = 128 << 10
    # Positions of a chunk, in sqrt(S): a merging program then reads at most one number for every eight elements that
    # it writes. A chunk is a tile at least.
    chunk_roots: int = 4
    # What both launches of a split go through before the next piece begins: L2 keeps it for the second.
    wave_bytes: int = 32 << 20
    # A kernel that reduces nothing: small programs, many to a multiprocessor, in which a warp reads one row.
    map_tile: int = 4096
    map_threads: int = 256
    map_rows: int = 512
    # Channels that a program takes at a time which goes through a sample's numbers per plane: eight for each thread.
    sample_tile: int = 1024


HEURISTICS = Heuristics()

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
# A warp of CDNA has 64 threads; one of RDNA has 32, as NVIDIA's, and gets half the threads that it could.
_WARP = 64 if torch.version.hip else 32


@dataclass(frozen=True)
class Planes:
    """The planes of a map, (N, C, S), and the layout in which kernels read and write them."""

    samples: int
    channels: int
    size: int
    itemsize: int
    format: torch.memory_format

    @classmethod
    def of(cls, input: Tensor) -> "Planes":
        samples, channels, *sides = input.shape
        channels_last = _CHANNELS_LAST.get(input.dim())
        if channels_last and not input.is_contiguous() and input.is_contiguous(memory_format=channels_last):
            format = channels_last
        else:
            format = torch.contiguous_format
        return cls(samples, channels, math.prod(sides), input.element_size(), format)

    @property
    def channels_last(self) -> bool:
        return self.format != torch.contiguous_format

    @property
    def wide(self) -> torch.dtype:
        return torch.float64 if self.itemsize == 8 else torch.float32

    @property
    def vector(self) -> int:
        """Elements of the widest access, 16 bytes at most, to which every row of memory is aligned."""
        return math.gcd(self.channels if self.channels_last else self.size, 16 // self.itemsize)

    def width(self, row_bytes: int) -> int:
        """Channels of a tile: as many as lie in `row_bytes`, or as many small planes as are worth a program."""
        if self.channels_last:
            width = row_bytes // self.itemsize
        else:
            width = max(1, HEURISTICS.small // _power_of_2(self.size))
        return min(width, _power_of_2(self.channels))

    def tile(self, block_c: int, block_s: int) -> Tile:
        wide = tl.float64 if self.itemsize == 8 else tl.float32
        return Tile(self.channels_last, block_c, block_s, block_s >= self.size, self.vector, wide)

    def dense(self, *maps: Tensor | None) -> list[Tensor | None]:
        return [None if map is None else map.contiguous(memory_format=self.format) for map in maps]

    def empty_map(self, input: Tensor, wanted: bool = True) -> Tensor:
        return torch.empty_like(input, memory_format=self.format) if wanted else input.new_empty(0)

    def empty_statistic(self, input: Tensor, wanted: bool = True) -> Tensor:
        return input.new_empty((self.samples, self.channels) if wanted else 0, dtype=self.wide)


@dataclass(frozen=True)
class Plan:
    """Who does what: a program takes `chunk` positions of the planes in its tile, tile by tile."""

    planes: Planes
    tile: Tile
    chunk: int
    threads: int

    @functools.cached_property
    def chunks(self) -> int:
        return max(1, _ceil_div(self.planes.size, self.chunk))

    @functools.cached_property
    def split(self) -> bool:
        return self.chunks > 1

    @functools.cached_property
    def programs(self) -> range:
        return range(self.planes.samples * _ceil_div(self.planes.channels, self.tile.block_c) * self.chunks)

    def waves(self, *maps: Tensor | None) -> Iterator[range]:
        """The programs, in pieces of whole planes so small that L2 keeps what one reads of `maps`."""
        programs = self.programs
        # Programs follow each other as their tiles lie in memory: channels-last planes end together.
        blocks = _ceil_div(self.planes.channels, self.tile.block_c) if self.tile.channels_last else 1
        together = self.chunks * blocks
        read = sum(map.numel() * map.element_size() for map in maps if map is not None)
        pieces = max(1, _ceil_div(read, HEURISTICS.wave_bytes)) if self.split else 1
        each = max(1, _ceil_div(len(programs), pieces * together) * together)
        return (programs[start : start + each] for start in programs[::each])

    def empty_partials(self, input: Tensor) -> Tensor:
        """A number for each chunk of each plane: (N, chunks, C)."""
        return input.new_empty((self.planes.samples, self.chunks, self.planes.channels), dtype=self.planes.wide)

    def launch(self, kernel, programs: range, input: Tensor, **arguments) -> None:
        if not programs:
            return
        with torch.cuda.device_of(input):
            kernel[(len(programs),)](
                input=input,
                **arguments,
                first=programs.start,
                chunks=self.chunks,
                chunk=self.chunk,
                channels=self.planes.channels,
                size=self.planes.size,
                TILE=self.tile,
                num_warps=self.threads // _WARP,
            )


@functools.lru_cache(4096)
def plan_reduction(planes: Planes, maps: int) -> Plan:
    """The way through each plane for a kernel that reads `maps` maps and reduces planes of them."""
    limits = HEURISTICS
    # float64 takes twice the registers, and long functions; where every access is one element, each has an address.
    share = (4 if planes.itemsize == 8 else 1) * (2 if planes.vector == 1 else 1)
    held, taken = (max(1, elements[maps - 1] // share) for elements in (limits.held, limits.taken))

    whole = _power_of_2(planes.size)
    widths = [planes.width(row_bytes) for row_bytes in limits.held_rows]
    widths = [width for width in widths if width * whole <= held * limits.most_threads]
    if widths:
        busy = (width for width in widths if planes.samples * _ceil_div(planes.channels, width) >= limits.busy)
        width = next(busy, widths[-1])
        threads = max(limits.fewest_threads, width * whole // held)
        # Triton knows that a multiple of 16 is one.
        return Plan(planes, planes.tile(width, whole), max(16, whole), threads)

    width = planes.width(limits.rows)
    tile = planes.tile(width, max(1, taken * limits.most_threads // width))
    walkers = planes.samples * _ceil_div(planes.channels, width)
    if walkers >= limits.busy and maps * width * planes.size * planes.itemsize <= limits.walked_bytes:
        chunk = whole
    else:
        chunk = _power_of_2(max(tile.block_s, limits.chunk_roots * math.isqrt(planes.size)))
    return Plan(planes, tile, max(16, chunk), limits.most_threads)


@functools.lru_cache(4096)
def plan_map(planes: Planes) -> Plan:
    """A tile for each program, for a kernel that reduces nothing."""
    width = planes.width(HEURISTICS.map_rows)
    block_s = min(HEURISTICS.map_tile // width, _power_of_2(planes.size))
    return Plan(planes, planes.tile(width, block_s), max(16, block_s), HEURISTICS.map_threads)


@functools.lru_cache(4096)
def sample_tile(channels: int, itemsize: int) -> Tile:
    wide = tl.float64 if itemsize == 8 else tl.float32
    return Tile(False, min(HEURISTICS.sample_tile, _power_of_2(channels)), 1, False, 1, wide)


def launch_samples(kernel, planes: Planes, mean: Tensor, **arguments) -> None:
    """A program for each sample, for a kernel that turns numbers per plane, as `mean` is, into others."""
    if not planes.samples:
        return
    with torch.cuda.device_of(mean):
        kernel[(planes.samples,)](
            mean=mean,
            **arguments,
            channels=planes.channels,
            size=planes.size,
            TILE=sample_tile(planes.channels, planes.itemsize),
            num_warps=HEURISTICS.fewest_threads // _WARP,
        )


def plane_arguments(**parameters: Tensor | None) -> dict:
    """Each (C,), (1, C) or (N, C) parameter, dense, and its stride: how far apart samples lie, 0 if they share it."""
    arguments = {}
    for name, parameter in parameters.items():
        own = parameter is not None and parameter.dim() == 2 and parameter.shape[0] > 1
        arguments[name] = None if parameter is None else parameter.contiguous()
        arguments[f"{name}_stride"] = parameter.shape[1] if own else 0
    return arguments


def given(output: Tensor) -> Tensor | None:
    """For a kernel, an output that nobody wants is None."""
    return output if output.numel() else None


# Triton's own of these take 5 us each outside a kernel.


def _ceil_div(size: int, part: int) -> int:
    return -(-size // part)


def _power_of_2(size: int) -> int:
    return 1 << (max(1, size) - 1).bit_length()
