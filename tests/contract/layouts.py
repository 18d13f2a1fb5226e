"""Ways for a tensor to lie in memory. Each function takes a tensor of any dimensions."""

import pytest
import torch


def contiguous(tensor):
    return tensor.contiguous()


def channels_last(tensor):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=formats.get(tensor.dim(), torch.contiguous_format))


every_layout = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)

# The same numbers elsewhere.


def every_other(tensor):
    return tensor.repeat_interleave(2, dim=-1)[..., ::2]


def every_other_channel(tensor):
    channel = min(1, tensor.dim() - 1)
    return tensor.repeat_interleave(2, dim=channel)[(slice(None),) * channel + (slice(None, None, 2),)]


def misaligned(tensor):
    """One number into its storage."""
    return torch.cat([tensor.new_ones(1), tensor.flatten()])[1:].view(tensor.shape)


def transposed(tensor):
    return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor


def reversed_dims(tensor):
    order = tuple(reversed(range(tensor.dim())))
    return tensor.permute(order).contiguous().permute(order)


def cropped(tensor):
    """The inside of a larger tensor."""
    larger = torch.nn.functional.pad(tensor, [1, 2] * tensor.dim(), value=3)
    return larger[tuple(slice(1, 1 + size) for size in tensor.shape)]


def channels_last_cropped(tensor):
    larger = channels_last(torch.nn.functional.pad(tensor, [1, 2] * tensor.dim(), value=3))
    return larger[tuple(slice(1, 1 + size) for size in tensor.shape)]


STRIDED = every_other, every_other_channel, misaligned, transposed, reversed_dims, cropped, channels_last_cropped

# One number in several places, by a stride of 0.


def one_sample(tensor):
    return tensor[:1].expand_as(tensor)


def one_channel(tensor):
    return tensor[:, :1].expand_as(tensor) if tensor.dim() > 1 else tensor


def one_column(tensor):
    return tensor[..., :1].expand_as(tensor)


EXPANDED = one_sample, one_channel, one_column


def one_number(tensor):
    """What `output.sum().backward()` sends back."""
    return tensor.flatten()[:1].view([1] * tensor.dim()).expand_as(tensor)


def expected_format(tensor):
    """The layout of an output: channels_last where its input is dense in that order alone, else contiguous."""
    for dims, format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.dim() == dims and tensor.is_contiguous(memory_format=format) and not tensor.is_contiguous():
            return format
    return torch.contiguous_format
