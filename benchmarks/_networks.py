"""Whole networks as people write them in torch: what those of several systems share."""

import torch
import torch.nn.functional as F
from torch import nn

SHAPES = (1, 3, 256, 256), (1, 3, 512, 512), (1, 3, 1024, 1024)


def mirror_conv2d(in_channels, out_channels, kernel_size, stride=1, bias=True, kind=nn.Conv2d):
    return kind(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=bias, padding_mode="reflect")


class StyledNetwork(nn.Module):
    """Contract, residual blocks, expand, sigmoid (Johnson et al. 2016), where a layer takes the style as well.

    Args:
        unstyled: makes a layer of the contracting part from (in_channels, out_channels, kernel_size, stride).
        styled: makes any other layer from (in_channels, out_channels, kernel_size).
        contract, residual_blocks, expand: sizes, as in `fastnorm.models`.
    """

    def __init__(self, unstyled, styled, contract, residual_blocks, expand):
        super().__init__()
        first, second, width = contract
        wide, narrow = expand
        self.contract = nn.ModuleList(
            [unstyled(3, first, 9, 1), unstyled(first, second, 3, 2), unstyled(second, width, 3, 2)]
        )
        self.residual = nn.ModuleList(
            nn.ModuleList([styled(width, width, 3), styled(width, width, 3)]) for _ in range(residual_blocks)
        )
        self.expand = nn.ModuleList([styled(width, wide, 3), styled(wide, narrow, 3), styled(narrow, 3, 9)])

    def forward(self, content, style):
        x = content
        for layer in self.contract:
            x = F.relu(layer(x, style))
        for first, second in self.residual:
            x = x + second(F.relu(first(x, style)), style)
        *upsampling, last = self.expand
        for layer in upsampling:
            x = F.relu(layer(F.interpolate(x, scale_factor=2, mode="nearest"), style))
        return torch.sigmoid(last(x, style))
