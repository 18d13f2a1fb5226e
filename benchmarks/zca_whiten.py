"""zca_whiten against its form by torch.linalg.eigh, and that of public code. See `whiten_color`."""

import torch

from . import whiten_color

KINDS, SHAPES = whiten_color.KINDS, whiten_color.SHAPES


def arguments(make, shape, kind="eigenvalues"):
    called = whiten_color.arguments(make, shape, kind)
    return dict(input=called["content"], method=called["method"])


def eager(input, method):
    x, _ = whiten_color.centred(input)
    return torch.bmm(whiten_color.root(x, -0.5), x).view_as(input)


def idiom(input, method):
    x = [sample - sample.mean(1, keepdim=True) for sample in input.double().flatten(2)]
    found = torch.stack([whiten_color.root_by_singular_values(sample, -0.5) @ sample for sample in x])
    return found.view_as(input).to(input.dtype)
