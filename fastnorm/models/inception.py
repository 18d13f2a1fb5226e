"""Inception-v3 up to Mixed_6e: the style network of Ghiasi et al.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
arXiv:1512.00567. Modules have torchvision's names, so that its public weights can be read.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from ..nn import Chain
from . import MissingWeights, files

PUBLIC = "inception_v3_google-0cc3c7bd.pth"
NO_WEIGHTS = (
    f"no Inception-v3 weights at {{}}: give the path of torchvision's {PUBLIC} "
    f"(https://download.pytorch.org/models/{PUBLIC}, "
    "or torchvision.models.inception_v3(weights='DEFAULT'), which keeps it there)"
)
ROW, COLUMN = (1, 7), (7, 1)


class BasicConv2d(Chain):
    """Convolution of a side or of (height, width), batch norm, ReLU; `padded` by zeros it keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride: int = 1, padded: bool = False) -> None:
        height, width = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        padding = (height // 2, width // 2) if padded else 0
        super().__init__(OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=False),
            bn=nn.BatchNorm2d(out_channels, eps=1e-3),
            relu=nn.ReLU(),
        ))  # fmt: skip
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")  # As VGG19: random ones keep the deviation.


class Mixed(nn.Module):
    """Branches of one input, side by side in the output.

    Args:
        in_channels: of what it is given; `out_channels` is that of what comes out.
        pooling: what the branch `branch_pool` begins with.
        branches: layers (channels, kernel size) by the branch's name; those of stride 1 keep the size.
        stride: of the last layer of each branch.
    """

    def __init__(self, in_channels: int, pooling: nn.Module, branches: dict[str, list[tuple]], stride: int = 1) -> None:
        super().__init__()
        self.out_channels = 0
        self._branches = []  # No children, for their modules are known by their names here.
        for name, layers in branches.items():
            parts, channels = [pooling] if name == "branch_pool" else [], in_channels
            for number, (width, kernel_size) in enumerate(layers, 1):
                own = stride if number == len(layers) else 1
                parts.append(BasicConv2d(channels, width, kernel_size, own, padded=own == 1))
                self.add_module(name if len(layers) == 1 else f"{name}_{number}", parts[-1])
                channels = width
            self._branches.append(Chain(*parts))
            self.out_channels += channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self._branches], 1)


class Inception(nn.Module):
    """Paintings (N, 3, h, w) in 0..1 to style vectors (N, E): the mean of Mixed_6e's features, and a linear map of it.

    Sides are 43 at least. `load_public` fills all but the linear map.

    Args:
        embedding: length of the style vector, E.
        width_multiplier: of all channels.
    """

    least = 43

    def __init__(self, embedding: int, width_multiplier: float = 1.0) -> None:
        super().__init__()

        def wide(channels):
            return max(1, int(channels * width_multiplier))

        def layers(*of):
            return [(wide(channels), kernel_size) for channels, kernel_size in of]

        def mixed_5(in_channels, pooled):
            return Mixed(in_channels, nn.AvgPool2d(3, 1, 1), dict(
                branch1x1=layers((64, 1)),
                branch5x5=layers((48, 1), (64, 5)),
                branch3x3dbl=layers((64, 1), (96, 3), (96, 3)),
                branch_pool=layers((pooled, 1)),
            ))  # fmt: skip

        def mixed_6a(in_channels):
            return Mixed(in_channels, nn.MaxPool2d(3, 2), stride=2, branches=dict(
                branch3x3=layers((384, 3)),
                branch3x3dbl=layers((64, 1), (96, 3), (96, 3)),
                branch_pool=[],
            ))  # fmt: skip

        def mixed_6(in_channels, width):
            return Mixed(in_channels, nn.AvgPool2d(3, 1, 1), dict(
                branch1x1=layers((192, 1)),
                branch7x7=layers((width, 1), (width, ROW), (192, COLUMN)),
                branch7x7dbl=layers((width, 1), (width, COLUMN), (width, ROW), (width, COLUMN), (192, ROW)),
                branch_pool=layers((192, 1)),
            ))  # fmt: skip

        self.Conv2d_1a_3x3 = BasicConv2d(3, wide(32), 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(wide(32), wide(32), 3)
        self.Conv2d_2b_3x3 = BasicConv2d(wide(32), wide(64), 3, padded=True)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = BasicConv2d(wide(64), wide(80), 1)
        self.Conv2d_4a_3x3 = BasicConv2d(wide(80), wide(192), 3)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = mixed_5(wide(192), 32)
        self.Mixed_5c = mixed_5(self.Mixed_5b.out_channels, 64)
        self.Mixed_5d = mixed_5(self.Mixed_5c.out_channels, 64)
        self.Mixed_6a = mixed_6a(self.Mixed_5d.out_channels)
        self.Mixed_6b = mixed_6(self.Mixed_6a.out_channels, 128)
        self.Mixed_6c = mixed_6(self.Mixed_6b.out_channels, 160)
        self.Mixed_6d = mixed_6(self.Mixed_6c.out_channels, 160)
        self.Mixed_6e = mixed_6(self.Mixed_6d.out_channels, 192)
        # No child, for its modules are known by their names here.
        self._layers = [Chain(*self.children())]
        self.embedding = nn.Linear(self.Mixed_6e.out_channels, embedding)

    def forward(self, style: Tensor) -> Tensor:
        # The public weights expect -1..1.
        return self.embedding(self._layers[0](2 * style - 1).mean((2, 3)))

    def load_public(self, path=None) -> Inception:
        """Fill all but the linear map from torchvision's file; returns itself.

        Args:
            path: of its state_dict, by torch.save or as safetensors; None for the file that torchvision keeps in torch.hub's
                folder. What is behind Mixed_6e in it is left.

        Raises MissingWeights where there is no file, ValueError for one that does not fit.
        """
        path = Path(torch.hub.get_dir(), "checkpoints", PUBLIC) if path is None else Path(path)
        if not path.is_file():
            raise MissingWeights(NO_WEIGHTS.format(path))
        public, found = files.read_public(path), {}
        for key, own in self.state_dict().items():
            if key.startswith("embedding."):
                found[key] = own
            elif key in public:
                found[key] = public[key]
        files.load_tensors(self, found, path)
        return self
