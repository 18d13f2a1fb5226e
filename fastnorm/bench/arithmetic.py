"""Arithmetic: how much a network does, and how fast the machine does it at best."""

import copy
import itertools

import torch
from torch import nn
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from .clock import Contender, take_turns, wall_clock

# Large enough that all cores are busy, small enough for a turn of some 50 ms on two; a GPU needs more.
SIDES = {"cpu": 2048, "cuda": 4096}


def flops(network: nn.Module, *inputs) -> int:
    """Of the convolutions and matrix products of a network on the meta device: two for each multiply-add.

    A convolution after an upsampling counts in full, whatever could be saved there.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network)(*inputs)
    return counter.get_total_flops()


def pace_flops(device: torch.device) -> int:
    return 2 * SIDES[device.type] ** 3


def pace(dtype: torch.dtype, device: torch.device) -> tuple[str, Contender]:
    """The fastest way that torch has to do `pace_flops` flops, and its name.

    Candidates are a matrix product and a 1x1 convolution: the library behind one or the other is slow on some machines.
    16-bit numbers may also be widened, and are on CPUs whose float32 arithmetic is the faster. On an AVX-512 Xeon the
    winner reached 0.8 to 0.9 of a loop of multiply-adds in registers: so much a fraction of this limit is flattered.
    """
    dtypes = {dtype, torch.float32} if dtype.itemsize == 2 else {dtype}
    candidates = {
        f"{name} in {str(each).removeprefix('torch.')}": make(each, device)
        for each, (name, make) in itertools.product(dtypes, _CANDIDATES.items())
    }
    timings = take_turns(candidates, rounds=3, clock=wall_clock(device))
    best = min(timings, key=lambda name: timings[name].median)
    return best, candidates[best]


def _matrix_product(dtype, device):
    side = SIDES[device.type]
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    return Contender(lambda: (left, right), lambda factors: factors[0] @ factors[1])


def _convolution(dtype, device):
    side = SIDES[device.type]
    input = torch.randn(1, side // 2, 64, side // 16, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(side // 2, side // 2, 1, 1, device=device).to(dtype, memory_format=torch.channels_last)
    return Contender(lambda: (input, weight), lambda operands: conv2d(*operands))


_CANDIDATES = {"matrix product": _matrix_product, "1x1 convolution": _convolution}
