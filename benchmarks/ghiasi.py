"""The picture's way through `fastnorm.models.ghiasi`, by a given style vector, against the same in plain torch.

The published file runs at 384x384 only, in 8 bits: the runtimes run an export of the plain network.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fastnorm.models.ghiasi import Ghiasi as System

from ._networks import SHAPES, StyledNetwork, mirror_conv2d

__all__ = ["SHAPES", "System", "plain", "style"]


def style(model):
    """The vector (E,) of coarse stripes."""
    side, device = model.style_size, next(model.parameters()).device
    stripes = torch.arange(side, device=device).div(8).cos().expand(1, 3, side, side)
    with torch.no_grad():
        return model.encode(stripes * 0.4 + 0.5)[0]


def plain(model, embedding=100, contract=(8, 16, 32), residual_blocks=5, expand=(16, 8), **style_network):
    def unstyled(in_channels, out_channels, kernel_size, stride):
        return mirror_conv2d(in_channels, out_channels, kernel_size, stride, kind=Unstyled)

    def styled(in_channels, out_channels, kernel_size):
        return Styled(in_channels, out_channels, kernel_size, embedding)

    network = StyledNetwork(unstyled, styled, contract, residual_blocks, expand)
    network.load_state_dict(model.transformer.state_dict(), assign=True)
    return network.eval()


class Unstyled(nn.Conv2d):
    def forward(self, x, style):
        return super().forward(x)


class Styled(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, embedding):
        super().__init__()
        self.conv = mirror_conv2d(in_channels, out_channels, kernel_size, bias=False)
        self.gamma = nn.Linear(embedding, out_channels)
        self.beta = nn.Linear(embedding, out_channels)

    def forward(self, x, style):
        return F.instance_norm(self.conv(x), weight=self.gamma(style), bias=self.beta(style))
