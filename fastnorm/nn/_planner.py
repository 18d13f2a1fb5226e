"""How layers become kernels: parts are taken in one by one, and a convolution ends what can be done in one.

A map on its way into the next kernel is a `Stream`: as it lies in memory, and what is to become of it before it gets there:
norm, sum, activation, then upsampling, then padding. What comes in another order, or has no convolution behind it, is
written first. Where several read a map, the kernel of the first writes it for the others, or an earlier one has.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ._recognise import Activation, Convolution, Norm, Padding, Upsampling
from ._steps import Call, Convolve, Entry, Layer, ScaleShift, Step


@dataclass
class Skip:
    """What others read of a stream: a map, once there is one."""

    stream: Stream
    map: int | None = None


@dataclass
class Stream:
    entry: Entry
    upsampling: list[Layer] = field(default_factory=list)
    padding: list[Layer] = field(default_factory=list)
    # The convolution that makes the map, which may still do something to it on store.
    maker: Convolve | None = None
    # Those that begin at the entry, and wait for the convolution that writes it.
    skips: list[Skip] = field(default_factory=list)

    @property
    def bare(self) -> bool:
        return self.entry.bare and not self.upsampling and not self.padding

    @property
    def adds(self) -> bool:
        """Whether a sum can be its next part."""
        entry = self.entry
        taken = entry.residual is not None or entry.activation is not None
        return not (taken or self.upsampling or self.padding or self.skips)


class Planner:
    """Each of `normalise`, `activate`, ... takes a stream and a layer, and returns the stream that comes of it."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._maps = 0
        self._take = {
            Convolution: self.convolve,
            Norm: self.normalise,
            Activation: self.activate,
            Upsampling: self.upsample,
            Padding: self.pad,
        }

    def new_map(self) -> int:
        self._maps += 1
        return self._maps - 1

    def take(self, stream: Stream, layer: Layer) -> Stream:
        return self._take[type(layer.part)](stream, layer)

    # Parts.

    def normalise(self, stream, layer):
        if not stream.bare:
            stream = self.write(stream, "a norm follows")
        norm, maker = layer.part, stream.maker
        stream.entry.norm = layer
        same = maker is not None and (maker.statistics is None or maker.statistics.of_planes == norm.of_planes)
        if same and not norm.running:
            maker.statistics, stream.entry.takes_statistics = norm, True
            # What is the same for a whole plane, a norm by planes takes out again.
            plain = norm.over == "plane" and maker.activation is None and not maker.is_added
            maker.drops_bias = plain and maker.layer.module.bias is not None
        return stream

    def activate(self, stream, layer):
        if stream.entry.activation is not None or stream.padding or stream.skips:
            stream = self.write(stream, "an activation follows")
        maker = stream.maker
        if stream.entry.bare and maker is not None and maker.activation is None and not maker.is_added:
            maker.activation = layer
        else:
            stream.entry.activation = layer
        return stream

    def upsample(self, stream, layer):
        if stream.padding:
            stream = self.write(stream, "an upsampling follows")
        stream.upsampling.append(layer)
        return stream

    def pad(self, stream, layer):
        before = stream.padding
        if before and not before[0].part.mode == layer.part.mode == "zeros":
            stream = self.write(stream, "another padding follows")
        stream.padding.append(layer)
        return stream

    def convolve(self, stream, layer):
        if layer.part.padding == "same" and stream.padding:
            stream = self.write(stream, "another padding follows")
        if layer.part.transposed and (stream.upsampling or stream.padding):
            stream = self.write(stream, "a transposed convolution follows")
        step = Convolve(layer, stream.entry, self.new_map(), stream.upsampling, stream.padding)
        if stream.skips:
            step.entered = self.new_map()
            self._begin(stream.skips, step.entered)
        self.steps.append(step)
        return Stream(Entry(step.output), maker=step)

    # A map that several read.

    def split(self, stream: Stream) -> tuple[Stream, Skip]:
        """The stream of the first that reads it, and what the others read."""
        if stream.upsampling or stream.padding:
            stream = self.write(stream, "a residual stream begins")
        skip = Skip(stream)
        if not stream.entry.bare:
            stream.skips.append(skip)
            return stream, skip
        skip.map = stream.entry.map
        if stream.maker is not None:
            stream.maker.is_added = True
        return stream, skip

    def settle(self, skip: Skip) -> int:
        """The map that others read of a stream, now."""
        stream = skip.stream
        if skip.map is None:
            written = self.write(Stream(stream.entry, skips=stream.skips), "several read it")
            stream.entry, stream.skips, stream.maker = written.entry, [], None
        return skip.map

    def add(self, stream: Stream, skip: Skip, layer: Layer) -> Stream:
        if not stream.adds:
            stream = self.write(stream, "a sum follows")
        stream.entry.residual, stream.entry.sum = skip.map, layer
        return stream

    def _begin(self, skips, map):
        for skip in skips:
            skip.map = map

    # What no convolution takes.

    def write(self, stream: Stream, why: str) -> Stream:
        """The stream as a map."""
        entry, written = stream.entry, Stream(Entry(stream.entry.map), maker=stream.maker)
        if entry.norm is not None or entry.residual is not None:
            written = self._append(ScaleShift(entry, self.new_map()))
        elif entry.activation is not None:
            written = self._call_now(written, entry.activation, why)
        self._begin(stream.skips, written.entry.map)
        for layer in (*stream.upsampling, *stream.padding):
            written = self._call_now(written, layer, why)
        return written

    def call(self, stream: Stream, layer: Layer, reason: str) -> Stream:
        return self._call_now(self.write(stream, "what follows runs as it is"), layer, reason)

    def _call_now(self, stream, layer, reason):
        return self._append(Call(layer, reason, stream.entry.map, self.new_map()))

    def _append(self, step):
        self.steps.append(step)
        return Stream(Entry(step.output))
