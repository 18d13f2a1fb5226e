"""gram_matrix against torch.bmm of the map with itself, which computes both halves.

Work is counted in flops, of one half.

Learned on an AMD EPYC (AVX2, 90 GFLOP/s of multiply-adds a core, two cores of a shared machine), of one thread:
- Products run at 80 GFLOP/s of 512 channels; packing a panel from rows in L1 instead of from planes that are a power of two
  apart took a quarter less of the whole time, of 64x64 planes.
- 1.8 times as fast as bmm of 512 channels, 1.1 to 1.2 of 64, where a third of the tiles at the diagonal is computed in vain;
  centred 1.7 and 2.4 times, for the mean comes off while packing.
- In panels, 32 channels took 1.2 of bmm's time and 3 channels 3 times as long: most of a tile of 4 by 24 was nothing. With
  positions as lanes 0.85 and 1. What is left behind bmm: tiny planes (16x16, 0.5: the call), and pictures in channels_last.
- A barrier for every few pieces that all threads had packed together cost several times what it saved on a busy machine:
  each task packs what it needs.
"""

import math

import torch

_CENTERED = {"plain": False, "centered": True}
KINDS = tuple(_CENTERED)
SHAPES = {kind: ((1, 512, 64, 64), (1, 256, 128, 128), (1, 64, 512, 512), (4, 128, 64, 64)) for kind in KINDS}


def arguments(make, shape, kind="plain"):
    return dict(input=make(*shape), centered=_CENTERED[kind], normalized=True)


def flops(shape, kind, backward):
    """A backward is a product with a whole matrix."""
    n, c = shape[:2]
    return n * c * c * math.prod(shape[2:]) * (3 if backward else 1)


def eager(input, centered, normalized):
    planes = input.flatten(2)
    if centered:
        planes = planes - planes.mean(2, keepdim=True)
    return torch.bmm(planes, planes.mT) / (planes.shape[1] * planes.shape[2])


def idiom(input, centered, normalized):
    features = input.reshape(*input.shape[:2], -1)
    if centered:
        features = features - features.mean(dim=2, keepdim=True)
    gram = features.bmm(features.transpose(1, 2))
    return gram.div(features.shape[1] * features.shape[2])
