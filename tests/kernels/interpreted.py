"""What the tests of values share, which run in Triton's interpreter: tensors, their layouts, and how they may lie."""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run by test_triton_interpreter.py under TRITON_INTERPRET=1", allow_module_level=True)

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def make(*shape, dtype=torch.float32, layout="nchw", seed=0):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return tensor.to(memory_format=LAYOUTS[layout]) if tensor.dim() == 4 else tensor


def double(values):
    return [value.double() if isinstance(value, torch.Tensor) else value for value in values]


def laid_out(tensor, how):
    if how == "every other":
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]
    if how == "transposed":
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    if how == "misaligned":
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)
    return tensor[:1].expand_as(tensor)
