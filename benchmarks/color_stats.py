"""color_stats against its form by torch.linalg.eigh, and that of public code. See `whiten_color`."""

import torch

from . import whiten_color

KINDS, SHAPES = whiten_color.KINDS, whiten_color.SHAPES


def arguments(make, shape, kind="eigenvalues"):
    called = whiten_color.arguments(make, shape, kind)
    return dict(input=called["content"], method=called["method"])


def eager(input, method):
    x, mean = whiten_color.centred(input)
    return mean.squeeze(2), whiten_color.root(x, 0.5)


def idiom(input, method):
    planes = input.double().flatten(2)
    mean = planes.mean(2, keepdim=True)
    root = torch.stack([whiten_color.root_by_singular_values(sample, 0.5) for sample in planes - mean])
    return mean.squeeze(2).to(input.dtype), root.to(input.dtype)
