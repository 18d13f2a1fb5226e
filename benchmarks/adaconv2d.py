"""adaconv2d, the four stages of its decoder, against F.instance_norm before two loops over samples, as its public code has
it, and before two convolutions of N times the groups.
"""

import torch
import torch.nn.functional as F

from ._filters import filters, grouped, loop

SHAPES = {"": ((4, 512, 32, 32), (4, 256, 64, 64), (4, 128, 128, 128), (4, 64, 256, 256))}

# Groups of a stage, by its channels.
_GROUPS = {512: 512, 256: 128, 128: 32, 64: 8}


def arguments(make, shape):
    channels = shape[1]
    groups = _GROUPS.get(channels, channels)
    spatial, bias = filters(make, shape, groups)
    pointwise, _ = filters(make, shape, groups, width=1)
    return dict(
        input=make(*shape), spatial=spatial, pointwise=pointwise, bias=bias, groups=groups, padding_mode="reflect"
    )


def eager(**arguments):
    return _both(loop, **arguments)


def idiom(**arguments):
    return _both(grouped, **arguments)


def _both(convolve, input, spatial, pointwise, bias, groups, padding_mode):
    between = convolve(F.instance_norm(input), spatial, torch.zeros_like(bias), groups, padding_mode)
    return convolve(between, pointwise, bias, groups, padding_mode)
