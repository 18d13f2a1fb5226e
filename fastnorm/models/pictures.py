"""What every system asks of a picture: a float tensor (N, 3, H, W), with sides that the network's strides divide."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, affine_grid, grid_sample, interpolate

from .. import functional


def check_picture(system: str, name: str, picture: Tensor) -> None:
    if not isinstance(picture, Tensor):
        raise TypeError(f"{system}: {name}: expected a tensor, got {type(picture).__name__}")
    if not picture.is_floating_point():
        raise TypeError(f"{system}: {name}: expected a floating-point tensor in 0..1, got {picture.dtype}")
    if picture.dim() != 4 or picture.shape[1] != 3 or 0 in picture.shape[2:]:
        raise ValueError(f"{system}: {name}: expected shape (N, 3, H, W), got {tuple(picture.shape)}")


def check_alpha(system: str, alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"{system}: alpha: expected a number from 0 to 1, got {alpha}")


def mirror_to_multiple(picture: Tensor, multiple: int, least: int) -> Tensor:
    """`picture` continued by its mirror image, right and below, until H and W are multiples, and at least `least`.

    A side too short for that is mirrored again and again, as in numpy.pad(mode="reflect"), so one pixel will do.
    Where the sides fit already, this is the picture itself, not a copy.
    """
    for dim in (2, 3):
        size = picture.shape[dim]
        wanted, turn = (size + multiple - 1) // multiple * multiple, 2 * size - 2
        if torch.compiler.is_exporting():  # One program for all sizes that have to turn at most once.
            position = torch.arange(wanted, device=picture.device)
            picture = picture.index_select(dim, torch.minimum(position, turn - position))
        elif size != max(wanted, least):
            position = torch.arange(max(wanted, least), device=picture.device) % max(turn, 1)
            picture = picture.index_select(dim, torch.minimum(position, turn - position))
    return picture


def middle_square(picture: Tensor, side: int) -> Tensor:
    """The middle square of `picture`, resized to side x side (bicubic, antialiased): strokes keep their shape."""
    height, width = picture.shape[2:]
    least = min(height, width)
    return resized(picture[..., (height - least) // 2 :, (width - least) // 2 :][..., :least, :least], side, side)


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    """`picture` in another size, bicubic and antialiased; itself where it has that size."""
    if tuple(picture.shape[2:]) == (height, width):
        return picture
    # torch resizes with antialiasing in float32 and float64 only.
    wide = picture.to(torch.promote_types(picture.dtype, torch.float32))
    return interpolate(wide, (height, width), mode="bicubic", antialias=True).clamp(0, 1).to(picture.dtype)


def turned(picture: Tensor, angle: float) -> Tensor:
    """`picture` turned about its middle, by radians: of what then stands upright the largest rectangle within it."""
    height, width = picture.shape[2:]
    size = _upright(height, width, abs(angle))
    cosine, sine = math.cos(angle), math.sin(angle)
    # From an output's pixel to the input's, both as torch counts them: from -1 to 1.
    across, down = size[1] / width, size[0] / height
    turn = picture.new_tensor([
        [cosine * across, -sine * size[0] / width, 0],
        [sine * size[1] / height, cosine * down, 0],
    ])  # fmt: skip
    grid = affine_grid(turn.expand(picture.shape[0], 2, 3), (picture.shape[0], 3, *size), align_corners=False)
    return grid_sample(picture, grid, padding_mode="border", align_corners=False)


def _upright(height, width, angle):
    """Sides of the largest upright rectangle within one that is turned by less than a right angle."""
    sine, cosine = math.sin(angle), math.cos(angle)
    if min(height, width) <= 2 * sine * cosine * max(height, width):  # Two of its corners lie on the longer sides.
        half = min(height, width) / 2
        sides = (half / cosine, half / sine) if width >= height else (half / sine, half / cosine)
    else:
        double = cosine**2 - sine**2
        sides = (height * cosine - width * sine) / double, (width * cosine - height * sine) / double
    return tuple(max(1, int(side + 1e-6)) for side in sides)


def check_mask(system: str, mask: Tensor, styles: int, content: Tensor) -> Tensor:
    """A mask of weights (N or 1, S, H, W), or of indices (N or 1, H, W), as weights of the content's type."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{system}: mask: expected a tensor, got {type(mask).__name__}")
    indices = not (mask.is_floating_point() or mask.dtype == torch.bool)
    samples, _, height, width = content.shape
    middle = () if indices else (styles,)
    if tuple(mask.shape) not in {(n, *middle, height, width) for n in (1, samples)}:
        kind, sizes = "indices" if indices else "weights", ", ".join(map(str, (f"{samples} or 1", *middle, height, width)))
        raise ValueError(f"{system}: mask: expected {kind} ({sizes}), got {tuple(mask.shape)}")
    if not indices:
        return mask.to(content.dtype)
    if mask.numel() and not (0 <= mask.min() and mask.max() < styles):
        least, most = mask.min().item(), mask.max().item()
        raise ValueError(f"{system}: mask: expected indices in 0..{styles - 1}, got {least}..{most}")
    return (mask.unsqueeze(1) == torch.arange(styles, device=mask.device).view(-1, 1, 1)).to(content.dtype)


def composed(maps: Iterable[Tensor], mask: Tensor) -> Tensor:
    """S maps (N, C, h, w), pictures or features, each as much as its mask says; its sum over them should be 1.

    Args:
        mask: (N or 1, S, H, W), H and W being any: averaged over what a position of the maps covers.
    """
    return sum(adaptive_avg_pool2d(mask[:, s : s + 1], map.shape[2:]) * map for s, map in enumerate(maps))


def between(own: Tensor, styled: Tensor, alpha: float) -> Tensor:
    """From `own` at 0 to `styled` at 1; of two types, as autocast makes them, the wider."""
    return styled if alpha == 1 else own + alpha * (styled - own)


def masks_of_levels(gray: Tensor, styles: int) -> Tensor:
    """Masks (styles, H, W) of a picture (H, W) in 0..1 whose gray levels number the styles: evenly from black, the first."""
    number = (gray.clamp(0, 1) * (styles - 1)).round()
    return (number == torch.arange(styles, device=gray.device).view(-1, 1, 1)).to(gray.dtype)


def masks_that_sum_to_1(masks: Tensor) -> Tensor:
    """Masks (S, H, W) from 0 up, divided by their sum; raises ValueError where all are 0."""
    total = masks.sum(0)
    if empty := int((total == 0).sum()):
        raise ValueError(f"masks: expected a style at every pixel, got {empty} of {total.numel()} at which all are 0")
    return masks / total


def resize_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks (S, H, W) of another size, blended at the edges: what sums to 1 still does."""
    if masks.shape[1:] == (height, width):
        return masks
    return interpolate(masks[None], (height, width), mode="bilinear", antialias=True)[0]


def keep_colors(content: Tensor, stylized: Tensor) -> Tensor:
    """The luma of `stylized` with the chroma of `content`, both (N, 3, H, W) RGB; ITU-R BT.601, as in JPEG.

    Cb and Cr are multiples of B - Y and R - Y, so they stay when every channel moves by the change of Y.
    """
    luma = content.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (content + ((stylized - content) * luma).sum(1, keepdim=True)).clamp(0, 1)


def match_colors(style: Tensor, content: Tensor) -> Tensor:
    """`style` in the colours of `content`: by the linear map that gives its pixels the mean and covariance of the other's.

    Gatys et al., "Preserving Color in Neural Artistic Style Transfer", 2016, arXiv:1606.05897, section 4.1.

    Args:
        style, content: (N or 1, 3, h, w), RGB in 0..1, each of its own size.
    """
    samples = max(style.shape[0], content.shape[0])
    style, content = (picture.expand(samples, -1, -1, -1) for picture in (style, content))
    return functional.whiten_color(style, content).clamp(0, 1)
