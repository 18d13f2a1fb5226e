"""Patches of a map: squares of pixels, one beginning at every `stride` pixels, none beyond a border."""

import torch

from . import _window


def grid(size, patch_size, stride):
    """How many patches lie below each other, and side by side."""
    return [(length - patch_size) // stride + 1 for length in size]


def taps(patch_size):
    """Every pixel of a patch."""
    return _window.taps([patch_size] * 2)


def seen_by(tap, map, patch_size, stride):
    """That pixel of every patch: (N, C, patches)."""
    return _window.seen_by(tap, map, grid(map.shape[2:], patch_size, stride), [stride] * 2, [1] * 2).flatten(2)


def put_back(tap, pixels, size, patch_size, stride):
    """The reverse: the pixels where they lie in a map of `size`, zero elsewhere."""
    return _window.put_back(tap, pixels.unflatten(2, grid(size, patch_size, stride)), size, [stride] * 2, [1] * 2)


def times_covered(size, patch_size, stride, device):
    """By how many patches each pixel is: (H, W)."""
    rows, columns = (_along(*side, patch_size, stride, device) for side in zip(size, grid(size, patch_size, stride)))
    return rows.unsqueeze(1) * columns


def _along(length, patches, patch_size, stride, device):
    pixel = torch.arange(length, device=device)
    last = (pixel // stride).clamp(max=patches - 1)
    before = (pixel - patch_size).clamp(min=-stride).div(stride, rounding_mode="floor")
    return (last - before).clamp(min=0)


def some_patch_size(plane):
    """For a map of any size."""
    return min(3, *plane)


def some_map(shape):
    """A map of images for a map of any shape: with channels enough that no two of its patches point the same way."""
    n, c, *lines, width = shape
    return n, c and max(c, 8), torch.Size(lines).numel(), width
