"""swap_patches against unfold, gather and fold, and against a transposed convolution of a one-hot map.

Learned: with channels as lanes, both layouts transposed on the way, a thread takes 2.9 ms for 256 channels of 64x64 in
NCHW, 2% of what it takes to find the index.
"""

import torch

from ._patches import SHAPES as SHAPES
from ._patches import SIZE
from ._patches import swap_by_columns as eager
from ._patches import swap_by_filters as idiom


def arguments(make, shape):
    n, _, height, width = shape
    style, rows, columns = make(*shape), height - SIZE + 1, width - SIZE + 1
    generator = torch.Generator(style.device).manual_seed(0)
    index = torch.randint(rows * columns, (n, rows, columns), generator=generator, device=style.device)
    return dict(style=style, index=index, size=(height, width))
