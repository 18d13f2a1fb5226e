"""VGG-19 up to relu5_1: the encoder of many systems, and the eye of their losses.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, arXiv:1409.1556,
table 1, column E.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..nn import Chain
from ..nn._max_pool import MaxPool2x2
from . import MissingWeights, files

CONVOLUTIONS = 2, 2, 4, 4, 1  # Of each stage; of the fifth the first.
LAYERS = tuple(f"relu{stage}_{i}" for stage, count in enumerate(CONVOLUTIONS, 1) for i in range(1, count + 1))
POOLINGS = {"max": MaxPool2x2, "average": partial(nn.AvgPool2d, 2)}


class Layout(NamedTuple):
    """A public file: its usual name, the names of its modules, and where in it the convolutions stand."""

    file: str
    name: str
    places: tuple[int, ...]
    preprocess: str | None = None


TORCHVISION = Layout("vgg19-dcbb9e9d.pth", "features.{}", (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28))
NORMALISED = Layout("vgg_normalised.pth", "{}", (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42), preprocess="0")

# What torchvision's weights expect of a picture, by channel.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

NO_WEIGHTS = (
    "no VGG-19 weights at {}: give the path of one of the public files, "
    "torchvision's vgg19-dcbb9e9d.pth (https://download.pytorch.org/models/vgg19-dcbb9e9d.pth, "
    "or torchvision.models.vgg19(weights='DEFAULT'), which keeps it there), "
    "or vgg_normalised.pth, which comes with public code of AdaIN"
)


class VGG19(nn.Module):
    """Features of pictures in 0..1: `vgg(x)` is the last of `layers`, `vgg(x, layer)` any, `vgg.features(x)` all by name.

    Each convolution is 3x3 with a ReLU, each stage but the first begins with a 2x2 maximum. `preprocess`, a 1x1 convolution
    3 to 3, is what the weights expect of a picture: mean and deviation by channel, or BGR in 0..255. What leads to a
    layer is one `Chain`.

    Args:
        layers: in their order, of relu1_1, relu1_2, relu2_1 ... relu5_1; nothing after the last is computed or held.
        widths: channels of the five stages.
        padding_mode: "reflect", as style transfer has it, or "zeros", as it was trained.
        ceil_mode: whether a maximum is also taken of the odd last row and column.
        pooling: "max", as it was trained, or "average", which Gatys et al. (CVPR 2016) found to give the nicer pictures.
    """

    def __init__(
        self,
        layers: tuple[str, ...] = ("relu4_1",),
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        padding_mode: str = "reflect",
        ceil_mode: bool = True,
        pooling: str = "max",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"VGG19: pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
        self.layers = tuple(layers)
        if not self.layers or any(layer not in LAYERS for layer in layers) or sorted(set(layers)) != list(layers):
            raise ValueError(f"VGG19: layers: expected some of {', '.join(LAYERS)}, in this order, got {', '.join(layers)}")
        self.widths, stages = tuple(widths), int(self.layers[-1].removeprefix("relu")[0])
        if len(self.widths) < stages or not all(width >= 1 for width in self.widths):
            raise ValueError(f"VGG19: widths: expected channels of {stages} stages, each 1 at least, got {self.widths}")
        self.preprocess = nn.Conv2d(3, 3, 1)
        channels = 3
        for layer in LAYERS[: LAYERS.index(self.layers[-1]) + 1]:
            number = layer.removeprefix("relu")
            width = widths[int(number[0]) - 1]
            if number.endswith("_1") and channels != 3:
                self.add_module(f"pool{int(number[0]) - 1}", POOLINGS[pooling](ceil_mode=ceil_mode))
            self.add_module(f"conv{number}", nn.Conv2d(channels, width, 3, padding=1, padding_mode=padding_mode))
            self.add_module(layer, nn.ReLU())
            channels = width
        # No children, for their modules are known by their names here.
        parts = list(self._modules.items())
        ends = [0, *(1 + list(self._modules).index(layer) for layer in self.layers)]
        self._chains = [Chain(OrderedDict(parts[start:end])) for start, end in pairwise(ends)]
        # One after the other they would hold each layer while what comes after it is computed.
        self._up_to = {layer: Chain(OrderedDict(parts[:end])) for layer, end in zip(self.layers, ends[1:])}
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """He et al. 2015 (arXiv:1502.01852): a random VGG keeps the deviation of what it is given, at any depth."""
        with torch.no_grad():
            for name, tensor in _preprocessing().items():
                self.get_parameter(name).copy_(tensor)
        for name, module in self.named_children():
            if name.startswith("conv"):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, layer: str | None = None) -> Tensor:
        """The last layer, or that of `layers` which is named: (N, C, H / 8, W / 8) at relu4_1, of pictures (N, 3, H, W)."""
        if layer is not None and layer not in self.layers:
            raise ValueError(f"VGG19: layer: expected one of {', '.join(self.layers)}, got {layer}")
        return self._up_to[layer or self.layers[-1]](x)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """All layers, by name."""
        return dict(self.walk(x))

    def walk(self, x: Tensor, last: str | None = None) -> Iterator[tuple[str, Tensor]]:
        """Each layer's name and map in order, up to `last`: what nobody keeps is free before the next is there."""
        for layer, chain in zip(self.layers, self._chains):
            x = chain(x)
            yield layer, x
            if layer == last:
                return

    def load_public(self, path=None) -> VGG19:
        """Fill it from a public file; returns itself.

        Args:
            path: of a state_dict in torchvision's layout (features.0.weight ...) or the normalised one (0.weight ...), by
                torch.save or as safetensors; None for the file that torchvision keeps in torch.hub's folder.

        Raises MissingWeights where there is no file; ValueError for one that is neither, or does not fit.
        """
        path = Path(torch.hub.get_dir(), "checkpoints", TORCHVISION.file) if path is None else Path(path)
        if not path.is_file():
            raise MissingWeights(NO_WEIGHTS.format(path))
        tensors = files.read_public(path)
        for layout in (TORCHVISION, NORMALISED):
            if f"{layout.name.format(layout.places[0])}.weight" in tensors:
                break
        else:
            raise ValueError(f"{path} holds no VGG-19: expected features.0.weight, or 0.weight and 2.weight")
        found = {} if layout.preprocess else _preprocessing()
        for key, own in self.state_dict().items():
            if key not in found:
                there = _name_in(layout, key)
                if there not in tensors:
                    raise ValueError(f"{path}: expected {there} {tuple(own.shape)}, which is not there")
                found[key] = tensors[there]
        files.load_tensors(self, found, path)
        return self


def reach(layer: str) -> tuple[int, int]:
    """Pixels that a position of a layer stands for along each side, and how many more it sees on either side of them."""
    stage, number = map(int, layer.removeprefix("relu").split("_"))
    convolutions = [*CONVOLUTIONS[: stage - 1], number]
    return 2 ** (stage - 1), sum(count * 2**before for before, count in enumerate(convolutions))


def _name_in(layout: Layout, key: str) -> str:
    """`conv1_2.weight` is `features.2.weight` in torchvision's."""
    module, kind = key.split(".")
    if module == "preprocess":
        return f"{layout.preprocess}.{kind}"
    return f"{layout.name.format(layout.places[LAYERS.index('relu' + module.removeprefix('conv'))])}.{kind}"


def _preprocessing() -> dict[str, Tensor]:
    """(x - mean) / deviation as a 1x1 convolution."""
    deviation = torch.tensor(DEVIATION)
    weight = torch.diag(1 / deviation).view(3, 3, 1, 1)
    return {"preprocess.weight": weight, "preprocess.bias": -torch.tensor(MEAN) / deviation}
