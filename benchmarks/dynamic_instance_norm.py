"""dynamic_instance_norm against F.instance_norm before a loop over samples, and before one convolution of N times the groups."""

import torch.nn.functional as F

from ._filters import KINDS, filters, groups_of, grouped, loop
from .dynamic_conv2d import SHAPES

__all__ = ["KINDS", "SHAPES", "arguments", "eager", "idiom"]


def arguments(make, shape, kind="depthwise"):
    groups = groups_of(kind, shape[1])
    weight, bias = filters(make, shape, groups)
    return dict(input=make(*shape), weight=weight, bias=bias, groups=groups, padding_mode="reflect")


def eager(input, **arguments):
    return loop(F.instance_norm(input), **arguments)


def idiom(input, **arguments):
    return grouped(F.instance_norm(input), **arguments)
