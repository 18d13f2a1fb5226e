"""How published code convolves each sample with a filter of its own."""

import torch
import torch.nn.functional as F

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# The groups of DIN, AdaConv and StyleGAN2, by how many channels are in one.
KINDS = ("depthwise", "grouped", "dense")


def groups_of(kind, channels):
    """Groups of one channel, of four, or one group of all."""
    return {"depthwise": channels, "grouped": max(1, channels // 4), "dense": 1}[kind]


def filters(make, shape, groups, width=3):
    """A filter and a bias for each sample, as many channels out as in."""
    n, c, *sides = shape
    return make(n, c, c // groups, *[width] * len(sides)), make(n, c)


def loop(input, weight, bias, groups, padding_mode):
    """Sample by sample."""
    padded, convolve = _pad(input, weight, padding_mode), _CONVOLUTIONS[input.dim() - 2]
    return torch.cat([convolve(padded[n : n + 1], weight[n], bias[n], groups=groups) for n in range(len(input))])


def grouped(input, weight, bias, groups, padding_mode):
    """The samples as so many more groups of one."""
    n, c, *sides = input.shape
    padded, convolve = _pad(input, weight, padding_mode), _CONVOLUTIONS[input.dim() - 2]
    output = convolve(
        padded.reshape(1, n * c, *padded.shape[2:]), weight.flatten(0, 1), bias.flatten(), groups=n * groups
    )
    return output.reshape(n, -1, *sides)


def _pad(input, weight, padding_mode):
    sides = [side for width in reversed(weight.shape[3:]) for side in (width // 2, (width - 1) // 2)]
    return F.pad(input, sides, mode={"zeros": "constant"}.get(padding_mode, padding_mode)) if any(sides) else input
