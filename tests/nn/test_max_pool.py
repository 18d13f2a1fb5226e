"""The maximum of each 2x2, bit by bit torch's, with a byte for each kept."""

import itertools

import pytest
import torch
from torch import nn

from fastnorm.nn._max_pool import MaxPool2x2
from fastnorm.ops import backends

every_size = pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 9), (7, 9), (2, 3)], ids=str)
every_rounding = pytest.mark.parametrize("ceil_mode", [False, True], ids=["floor", "ceil"])


def both(ceil_mode):
    return MaxPool2x2(ceil_mode), nn.MaxPool2d(2, ceil_mode=ceil_mode)


def few_numbers(*shape):
    """So that many are equal."""
    return torch.randint(-3, 3, shape, generator=torch.Generator().manual_seed(0))


@every_size
@every_rounding
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_as_torch(dtype, ceil_mode, size):
    contiguous = few_numbers(2, 3, *size).to(dtype)
    layouts = contiguous, contiguous.contiguous(memory_format=torch.channels_last), torch.stack([contiguous] * 2, -1)[..., 0]
    for input in (*layouts, contiguous[0]):
        with torch.no_grad():
            assert torch.equal(*(pool(input) for pool in both(ceil_mode)))
        input.requires_grad_()
        outputs = [pool(input) for pool in both(ceil_mode)]
        assert torch.equal(*outputs)
        given = torch.arange(outputs[0].numel()).reshape(outputs[0].shape).to(dtype)
        assert torch.equal(*(torch.autograd.grad(output, input, given)[0] for output in outputs))


@every_rounding
def test_derivatives(ceil_mode):
    pool, theirs = both(ceil_mode)
    input = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pool, input, check_batched_grad=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(pool, input)
    several = torch.stack([input, -input]).detach()
    for transform in (torch.func.grad, torch.func.hessian):
        found, expected = (torch.func.vmap(transform(lambda x: each(x).pow(3).sum()))(several) for each in (pool, theirs))
        torch.testing.assert_close(found, expected)


@pytest.mark.skipif(backends.reference(), reason="torch's keeps more")
def test_a_byte_is_kept():
    kept = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = MaxPool2x2()(torch.randn(2, 3, 8, 8, requires_grad=True))
    assert sum(kept) == output.numel()


def test_planes_that_are_too_small_are_refused_as_by_torch():
    for pool, size in itertools.product(both(False), ((1, 4), (4, 1))):
        with pytest.raises(RuntimeError, match="Output size is too small"):
            pool(torch.ones(1, 1, *size))
    assert MaxPool2x2(True)(torch.ones(1, 1, 1, 4)).shape == (1, 1, 1, 2)


def test_it_reads_as_torch():
    assert repr(MaxPool2x2(True)) == "MaxPool2x2(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=True)"
