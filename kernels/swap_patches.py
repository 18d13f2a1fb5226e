"""swap_patches: a map made of patches of a style, each where an index says; where patches overlap, their average.

At least: one read of the style and one write of the output, and the reverse backward; k * k additions for each number. Here
the style is read k * k times, of which L2 serves most.

All gather, and neighbouring threads take neighbouring channels of a pixel: what is read lies channels last, and a map in the
other layout is turned first. Forward a program takes a block of pixels and channels of the output, and reads what each
patch that covers them has there. Backward it takes one pixel of the style. Patches of the output are sorted by the patch of
the style that they chose, those of one choice in their order; the gradients that a pixel gets are then a list, as long as
the patches that cover it were chosen often, and a program sums it in blocks, always the same ones: nothing is added by
several programs, and one patch that all have chosen costs no more than a long list.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import _launch
from ._launch import Planes, _ceil_div, _power_of_2
from ._tile import kernel
from ._triton import tl, triton


@dataclass(frozen=True)
class Heuristics:
    """What a program takes. Reasoned from an H100 and from what compiles without spills; none is measured on a GPU yet."""

    # Channels that a program takes; forward with pixels, to so many numbers, backward with gradients of one pixel: of 3 x 3
    # patches, each chosen once, it gets nine.
    channels: int = 128
    numbers: int = 2048
    gradients: int = 16
    threads: int = 128


HEURISTICS = Heuristics()


@dataclass(frozen=True)
class Blocks:
    """What a kernel is compiled for: the patches, and what a program takes."""

    patch_size: int
    stride: int
    channels: int
    pixels: int  # or gradients of one pixel
    channels_last: bool  # the map that is written
    wide: tl.dtype

    @property
    def covers(self) -> int:
        """Patches that cover a pixel, in one dimension, at most."""
        return -(-self.patch_size // self.stride)

    @property
    def lists(self) -> int:
        """In both, rounded up."""
        return _power_of_2(self.covers**2)


# In one dimension, patch p covers the pixels from p * stride on.


@triton.jit
def _cover(at, number, patches, BLOCKS: tl.constexpr):
    """The `number`th of the patches that may cover a pixel, and whether it does."""
    patch = at // BLOCKS.stride - number
    return patch, (patch >= 0) & (patch < patches) & (at - patch * BLOCKS.stride < BLOCKS.patch_size)


@triton.jit
def _shares(at, patches, BLOCKS: tl.constexpr):
    """Among how many patches a pixel is divided; at least one."""
    first = tl.maximum(at - BLOCKS.patch_size + BLOCKS.stride, 0) // BLOCKS.stride
    last = tl.minimum(at // BLOCKS.stride, patches - 1)
    return tl.maximum(last - first + 1, 1)


@kernel
def _forward_kernel(
    style, index, output, channels: tl.int64, pixels: tl.int64, width, rows, columns, style_width, style_columns,
    style_patches, style_stride: tl.int64, blocks_c, blocks_p,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    # Neighbours work on neighbouring memory of the style.
    program = tl.program_id(0)
    block_c, block_p = program % blocks_c, program // blocks_c % blocks_p
    sample = (program // (blocks_c * blocks_p)).to(tl.int64)
    c = block_c * BLOCKS.channels + tl.arange(0, BLOCKS.channels).to(tl.int64)[None, :]
    pixel = block_p * BLOCKS.pixels + tl.arange(0, BLOCKS.pixels)[:, None]
    h, w, exists = pixel // width, pixel % width, pixel < pixels
    index += sample * rows * columns
    style += sample * style_stride + c
    total = tl.full((BLOCKS.pixels, BLOCKS.channels), 0.0, BLOCKS.wide)
    for number in range(0, BLOCKS.covers * BLOCKS.covers):
        row, has_row = _cover(h, number // BLOCKS.covers, rows, BLOCKS)
        column, has_column = _cover(w, number % BLOCKS.covers, columns, BLOCKS)
        covered = exists & has_row & has_column
        chosen = tl.load(index + (row.to(tl.int64) * columns + column), mask=covered, other=0)
        y = chosen // style_columns * BLOCKS.stride + (h - row * BLOCKS.stride)
        x = chosen % style_columns * BLOCKS.stride + (w - column * BLOCKS.stride)
        # An index of no patch reads nothing that is not the style's.
        is_patch = (chosen >= 0) & (chosen < style_patches)
        address = style + (y * style_width + x) * channels
        value = tl.load(address, mask=covered & is_patch & (c < channels), other=float("nan"))
        total += tl.where(covered, value.to(BLOCKS.wide), 0.0)
    total /= (_shares(h, rows, BLOCKS) * _shares(w, columns, BLOCKS)).to(BLOCKS.wide)
    if BLOCKS.channels_last:
        address = (sample * pixels + pixel) * channels + c
    else:
        address = (sample * channels + c) * pixels + pixel
    tl.store(output + address, total, mask=exists & (c < channels))


@kernel
def _backward_kernel(
    grad, order, bounds, output, channels: tl.int64, pixels: tl.int64, width, rows, columns, style_pixels: tl.int64,
    style_width, style_rows, style_columns, blocks_c,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """`order` are the patches, (N, patches), and of each patch of the style `bounds` is where those begin that chose it."""
    COVERS: tl.constexpr = BLOCKS.covers * BLOCKS.covers
    program = tl.program_id(0)
    block_c, pixel = program % blocks_c, (program // blocks_c).to(tl.int64)
    sample, pixel = pixel // style_pixels, (pixel % style_pixels).to(tl.int32)
    h, w = pixel // style_width, pixel % style_width
    c = block_c * BLOCKS.channels + tl.arange(0, BLOCKS.channels).to(tl.int64)[None, :]

    # The lists of those patches of the style that cover the pixel, and their ends in one list of all.
    number = tl.arange(0, BLOCKS.lists)[None, :]
    row, has_row = _cover(h, number // BLOCKS.covers, style_rows, BLOCKS)
    column, has_column = _cover(w, number % BLOCKS.covers, style_columns, BLOCKS)
    covers = (number < COVERS) & has_row & has_column
    bounds += sample * (style_rows * style_columns + 1)
    patch = row.to(tl.int64) * style_columns + column
    begin = tl.load(bounds + patch, mask=covers, other=0)
    count = tl.load(bounds + (patch + 1), mask=covers, other=0) - begin
    end = tl.cumsum(count, 1)
    y, x = h - row * BLOCKS.stride, w - column * BLOCKS.stride

    order += sample * rows * columns
    grad += sample * pixels * channels + c
    total = tl.full((1, BLOCKS.channels), 0.0, BLOCKS.wide)
    for start in range(0, tl.sum(count), BLOCKS.pixels):
        place = start + tl.arange(0, BLOCKS.pixels)[:, None]
        own = (place >= end - count) & (place < end)
        exists = place < tl.sum(count)
        user = tl.load(order + (place + _of_own(own, begin - (end - count))), mask=exists, other=0)
        at_h = user // columns * BLOCKS.stride + _of_own(own, y)
        at_w = user % columns * BLOCKS.stride + _of_own(own, x)
        shares = _shares(at_h.to(tl.int32), rows, BLOCKS) * _shares(at_w.to(tl.int32), columns, BLOCKS)
        value = tl.load(grad + (at_h * width + at_w) * channels, mask=exists & (c < channels), other=0).to(BLOCKS.wide)
        total += tl.sum(value / shares.to(BLOCKS.wide), 0, keep_dims=True)
    tl.store(output + ((sample * style_pixels + pixel) * channels + c), total, mask=c < channels)


@triton.jit
def _of_own(own, numbers):
    """For each place the number of the list that it is in."""
    return tl.sum(tl.where(own, numbers, 0), 1, keep_dims=True)


# Launchers.


def forward(style, index, size, patch_size, stride):
    planes = Planes.of(style)
    height, width = size
    output = _empty(planes, style, size)
    if not output.numel():
        return output
    if len(style) > 1 and style.stride(0) == 0:
        style = style[:1]
    style = style.contiguous(memory_format=torch.channels_last)
    channels = min(HEURISTICS.channels, _power_of_2(planes.channels))
    blocks = _blocks(planes, channels, min(HEURISTICS.numbers // channels, _power_of_2(height * width)), patch_size, stride)
    rows, columns = _grid(style.shape[2:], patch_size, stride)
    _launch_blocks(
        _forward_kernel, planes, len(output) * _ceil_div(height * width, blocks.pixels), blocks,
        style=style, index=index.contiguous(), output=output, blocks_p=_ceil_div(height * width, blocks.pixels),
        pixels=height * width, width=width, rows=index.shape[1], columns=index.shape[2],
        style_width=style.shape[3], style_columns=columns, style_patches=rows * columns,
        style_stride=style[0].numel() if len(style) > 1 else 0,
    )  # fmt: skip
    return output


def backward(grad, index, style_size, patch_size, stride):
    """The gradient of a style of that size, laid out as the one that comes."""
    planes = Planes.of(grad)
    height, width = style_size
    output = _empty(planes, grad, style_size)
    if not output.numel():
        return output
    grad = grad.contiguous(memory_format=torch.channels_last)
    found = output if planes.channels_last else torch.empty_like(output, memory_format=torch.channels_last)
    channels = min(HEURISTICS.channels, _power_of_2(planes.channels))
    blocks = _blocks(planes, channels, HEURISTICS.gradients, patch_size, stride)
    rows, columns = _grid(style_size, patch_size, stride)
    order, bounds = _by_choice(index, rows * columns)
    _launch_blocks(
        _backward_kernel, planes, len(grad) * height * width, blocks,
        grad=grad, order=order, bounds=bounds, output=found,
        pixels=planes.size, width=grad.shape[3], rows=index.shape[1], columns=index.shape[2],
        style_pixels=height * width, style_width=width, style_rows=rows, style_columns=columns,
    )  # fmt: skip
    return output if found is output else output.copy_(found)


def _empty(planes: Planes, map: Tensor, size) -> Tensor:
    return map.new_empty((*map.shape[:2], *size)).to(memory_format=planes.format)


def _grid(size, patch_size: int, stride: int) -> tuple[int, int]:
    rows, columns = ((length - patch_size) // stride + 1 for length in size)
    return rows, columns


def _blocks(planes: Planes, channels: int, pixels: int, patch_size: int, stride: int) -> Blocks:
    wide = tl.float64 if planes.itemsize == 8 else tl.float32
    return Blocks(patch_size, stride, channels, pixels, planes.channels_last, wide)


def _by_choice(index: Tensor, patches: int) -> tuple[Tensor, Tensor]:
    """Patches by what they chose, and then in their order; and where those of each choice begin, and the last end."""
    chosen, order = index.flatten(1).sort(dim=1, stable=True)
    choices = torch.arange(patches + 1, device=index.device).expand(len(index), -1).contiguous()
    return order, torch.searchsorted(chosen, choices)


def _launch_blocks(kernel, planes: Planes, programs: int, blocks: Blocks, **arguments) -> None:
    """So many programs for each block of channels."""
    blocks_c = _ceil_div(planes.channels, blocks.channels)
    with torch.cuda.device_of(arguments["output"]):
        kernel[(programs * blocks_c,)](
            **arguments, channels=planes.channels, blocks_c=blocks_c, BLOCKS=blocks,
            num_warps=HEURISTICS.threads // _launch._WARP,
        )  # fmt: skip
