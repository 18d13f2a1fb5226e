"""The 26-style network of `fastnorm.models.cin` against the same in plain torch, and against the published file."""

import torch
import torch.nn.functional as F
from torch import nn

from fastnorm.models.cin import CIN as System
from fastnorm.models.onnx_weights import find_weights

from ._networks import SHAPES, StyledNetwork, mirror_conv2d

__all__ = ["SHAPES", "System", "plain", "published", "style"]


def style(model):
    """Any of them: they cost the same."""
    return 5 % model.styles


def published(content, style):
    """The file, which runs at any size, and its inputs by name."""
    weights = torch.zeros(26)
    weights[style] = 1
    return find_weights("multistyle26.onnx"), dict(image=content, style_weights=weights)


def plain(model, styles=26, contract=(32, 32, 32), residual_blocks=6, expand=(8, 4)):
    def layer(in_channels, out_channels, kernel_size, stride=1):
        return Layer(in_channels, out_channels, kernel_size, stride, styles)

    network = StyledNetwork(layer, layer, contract, residual_blocks, expand)
    network.load_state_dict(model.state_dict(), assign=True)
    return network.eval()


class Layer(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride, styles):
        super().__init__()
        self.conv = mirror_conv2d(in_channels, out_channels, kernel_size, stride, bias=False)
        self.norm = Norm(out_channels, styles)

    def forward(self, x, style):
        return self.norm(self.conv(x), style)


class Norm(nn.Module):
    """One style for all samples: torch's own norm takes its gamma and beta at no cost."""

    def __init__(self, channels, styles):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(styles, channels))
        self.bias = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, x, style):
        return F.instance_norm(x, weight=self.weight[style], bias=self.bias[style])
