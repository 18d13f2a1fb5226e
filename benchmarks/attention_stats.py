"""attention_stats against torch's attention of values beside their squares, and against the published form.

Work is counted in flops: products of matrices, two for values and one for keys, are nine tenths of the time.

Learned on an AMD EPYC (AVX2, 90 GFLOP/s of multiply-adds a core, two cores of a shared machine):
- Keys and values stream from L3 for every task. Of 96 queries a task the products ran at 57 to 65 GFLOP/s, of 384 at 70
  to 75: each key that is brought to L2 meets four times as many.
- A tile of 4 by 3 vectors alone, its operands in L1 and L2, runs at 80 to 91: what is left is bringing them there.
- Both cores, 64x64 positions and 256 channels: 125 and 152 GFLOP/s in two runs, of 174 that the machine multiplies and adds
  at most. Eager took 1.3 and 1.5 times as long, so that at the peak itself 1.7 to 1.9 would be the ratio. At 32x32 and 512,
  where eager's scores fit in the caches, it is 0.9 to 1.1.
- Weights took 5% of the time with exponentials that were called; what they take in place was not told from noise.
- Keys whose weight is under a rounding of the sum, for all 24 queries of a panel, could be left out of the products of
  values. How many these are is up to the weights: of maps of noise 0 to 2%; of a whole AdaAttN at 512x512, VGG's weights
  random, 30% at relu3_1 and 25% at relu4_1, if all that is left out sums to 2**-21 of each query's weights, counted by the
  squares of values. It would save 15% of the products, 1.6 times eager becoming 1.9. Not built: not proved on trained weights.
- Forward at 24 queries or fewer a whole panel is computed, and all keys are packed for it: slower than bmm.
- Backward as products of matrices, each a call: half of eager's speed at 32x32 positions. As one kernel, that keeps weights
  and slopes of 2 million pairs and transposes them for the gradients of keys: 1.2 (64x64, 256 channels) to 1.75 (32x32, 512)
  of eager's, and 6 for many small samples; 47 to 56 GFLOP/s with two threads, beside other work.
"""

import math

import torch
import torch.nn.functional as F

# Channels of a value, and whether its map is half as large.
_KINDS = {"256 values": (256, False), "512 values": (512, False), "256 values of fewer keys": (256, True)}
KINDS = tuple(_KINDS)
SHAPES = {
    "256 values": ((1, 256, 128, 128), (1, 448, 64, 64), (1, 256, 64, 64)),
    "512 values": ((1, 512, 32, 32),),
    "256 values of fewer keys": ((1, 256, 64, 64),),
}


def arguments(make, shape, kind="256 values"):
    n, c = shape[:2]
    channels, size = _value(shape, kind)
    return dict(query=make(*shape), key=make(n, c, *size), value=make(n, channels, *size), scale=c**-0.5)


def flops(shape, kind, backward):
    """A backward has every product twice, and scores once more."""
    n, c = shape[:2]
    channels, size = _value(shape, kind)
    widths = 3 * c + 4 * channels if backward else c + 2 * channels
    return 2 * n * math.prod(shape[2:]) * math.prod(size) * widths


def _value(shape, kind):
    channels, halved = _KINDS[kind or KINDS[0]]
    return channels, [(side + 1) // 2 if halved else side for side in shape[2:]]


def eager(query, key, value, scale):
    both = torch.cat([value, value.square()], 1)
    found = F.scaled_dot_product_attention(*(map.flatten(2).mT.unsqueeze(1) for map in (query, key, both)), scale=scale)
    mean, second = found.squeeze(1).mT.chunk(2, 1)
    return _as_maps(query, mean, torch.sqrt(torch.relu(second - mean.square())))


def idiom(query, key, value, scale):
    value = value.flatten(2).mT
    weight = torch.softmax(torch.bmm(query.flatten(2).mT, key.flatten(2)) * scale, dim=-1)
    mean = torch.bmm(weight, value)
    std = torch.sqrt(torch.relu(torch.bmm(weight, value**2) - mean**2))
    return _as_maps(query, mean.mT, std.mT)


def _as_maps(query, *found):
    return tuple(rows.reshape(*rows.shape[:2], *query.shape[2:]).contiguous() for rows in found)
