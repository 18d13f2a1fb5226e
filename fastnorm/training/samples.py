"""Pictures that show how far a training is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

GAP = 2  # White pixels between the pictures.


def grid(rows: list[Tensor]) -> Tensor:
    """Rows of pictures (N, 3, h, w) as one picture (3, H, W), a column for each; all of the size of the first row's."""
    side = tuple(rows[0].shape[2:])
    rows = [row.float().cpu().clamp(0, 1) for row in rows]
    rows = [row if row.shape[2:] == side else interpolate(row, side, mode="area") for row in rows]
    height, width = side[0] + GAP, side[1] + GAP
    columns = max(row.shape[0] for row in rows)
    picture = torch.ones(3, len(rows) * height - GAP, columns * width - GAP)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            picture[:, i * height : i * height + side[0], j * width : j * width + side[1]] = tile
    return picture
