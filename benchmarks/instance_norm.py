"""instance_norm against F.instance_norm, and against the formula with its statistics written out.

On CPU the backward of F.instance_norm is wrong where the gradient comes in channels_last (torch 2.13): off by as much
as the largest number. A rival that runs into it, as eager SPADE in channels_last does, is reported and not timed.
"""

import torch.nn.functional as F

from ._forms import calc_mean_std, over_planes


def arguments(make, shape):
    return dict(input=make(*shape), weight=make(shape[1]), bias=make(shape[1]))


def eager(input, weight, bias):
    return F.instance_norm(input, weight=weight, bias=bias)


def idiom(input, weight, bias):
    mean, std = calc_mean_std(input)
    return (input - mean) / std * over_planes(weight, input) + over_planes(bias, input)
