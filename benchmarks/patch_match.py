"""patch_match against a product of matrices of patches, and against a convolution with all patches as filters.

Work is counted in flops, of products of pixels.

Learned on an AMD EPYC (AVX2, 16 multiply-adds a cycle), of one thread beside others that were busy:
- At 256 channels of 64x64 the kernel ran at 64 GFLOP/s of products of pixels where the machine's own product of matrices
  had 70: shifts and comparisons are 7% of the time there, and a third with 32 channels.
- Weights that lie in the order in which they are met, of 96 channels after the other, took it from 53 to 64.
- Divisions by the stride in the innermost loop were half of what is not products.
- style_swap, on two threads, takes 1/14 of the convolutions' time and 1/8 of the matrices', at 64x64; at 32x32 with 512
  channels 1/10 and 1/7.
- In turn, each line of patches is two parts for all threads and one for a single one: 1.6 times the time on quiet cores,
  6 times where threads wait for their turn.
- Of 1, 2, 4 or 8 diagonals side by side none was told from noise: lines come from L2 and L3 in time.
"""

from ._patches import SHAPES as SHAPES
from ._patches import match_by_columns as eager
from ._patches import match_by_filters as idiom
from ._patches import match_flops


def arguments(make, shape):
    return dict(content=make(*shape), style=make(*shape))


def flops(shape, kind, backward):
    return match_flops(shape)
