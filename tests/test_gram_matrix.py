"""gram_matrix and covariance against float64 and torch.cov, around the edges of tiles, and where numbers end."""

import re

import pytest
import torch

from fastnorm.functional import covariance, gram_matrix


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def formula(input, centred=False, normalized=False):
    """By the sum over positions, in float64."""
    x = input.double().flatten(2)
    if centred:
        x = x - x.mean(2, keepdim=True)
    gram = torch.einsum("nip,njp->nij", x, x)
    return gram / (x.shape[1] * x.shape[2]) if normalized else gram


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 3, 4, 5), (1, 4, 2, 3, 5)], ids=str)
def test_formula(randn, shape, centered, normalized):
    input = randn(*shape)
    torch.testing.assert_close(gram_matrix(input, centered=centered, normalized=normalized), formula(input, centered, normalized))


@pytest.mark.parametrize("correction", [0, 1])
def test_torch_cov(randn, correction):
    input = randn(3, 5, 4, 6)
    expected = torch.stack([torch.cov(sample.flatten(1), correction=correction) for sample in input])
    torch.testing.assert_close(covariance(input, correction), expected)


def test_normalized_float16_does_not_overflow(randn):
    input = (100 * randn(1, 8, 32, 32)).half()
    assert gram_matrix(input).diagonal(dim1=1, dim2=2).isinf().all()
    torch.testing.assert_close(gram_matrix(input, normalized=True).double(), formula(input, False, True), rtol=1e-3, atol=0.1)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: gram_matrix(torch.zeros(2, 3)), "gram_matrix: input: expected shape (N, C, *) with at least one spatial"),
        (lambda: gram_matrix(torch.zeros(1, 1, 1, 1, 1, 1)), "gram_matrix: input: expected one to three spatial dimensions"),
        (lambda: gram_matrix(torch.zeros(1, 2, 0)), "gram_matrix: input: expected planes of at least one element"),
        (lambda: gram_matrix(torch.zeros(1, 2, 3), centered=1), "gram_matrix: centered: expected True or False, got 1"),
        (lambda: gram_matrix(torch.zeros(1, 2, 3), normalized=None), "gram_matrix: normalized: expected True or False"),
        (lambda: gram_matrix(torch.zeros(1, 2, 3, dtype=torch.int32)), "gram_matrix: input: expected float32"),
        (lambda: covariance(torch.zeros(1, 2, 3), correction=2), "covariance: correction: expected 0 (biased) or 1 (unbiased)"),
        (lambda: covariance(torch.zeros(1, 2, 1)), "covariance: correction: an unbiased variance needs planes of 2 elements"),
    ],
)
def test_errors(call, words):
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(words)}"):
        call()


@pytest.mark.parametrize("shape", [(2, 16, 32, 32), (2, 33, 43, 3)], ids=str)
def test_gradients_far_from_zero(randn, shape):
    """As of deviations alone: what a mean of float32 lacks in last places is put right."""
    input, factor = (randn(*shape) + 1e4).float(), randn(shape[0], shape[1], shape[1]).float()
    found, expected = (
        torch.autograd.grad(gram_matrix(map, centered=True), map, factor.to(map.dtype))[0]
        for map in (input.clone().requires_grad_(), input.double().requires_grad_())
    )
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-6 * expected.abs().max().item())
