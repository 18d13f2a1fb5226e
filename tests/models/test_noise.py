"""Noise by a formula: its numbers, and that they are noise."""

import pytest
import torch

from fastnorm.models.noise import uniform


def number(seeds, place):
    """In Python's integers, which have no width."""
    prime, value = 2**31 - 1, 0
    for seed in seeds:
        value = pow(value + seed + 0x9E3779B9, 5, prime)
    for index in place:
        value = pow(value * (index + 1) + 0x9E3779B9, 5, prime)
    return value / prime


@pytest.mark.parametrize("seeds", [(0,), (-3, 5), (2**40 + 1, 0)], ids=str)
def test_is_the_formula(seeds):
    noise = uniform(torch.zeros(1, dtype=torch.float64), (2, 3, 5, 700), *seeds)
    for place in ((0, 0, 0, 0), (1, 2, 4, 699), (1, 0, 3, 17), (0, 2, 0, 512)):
        assert noise[place].item() == pytest.approx(number(seeds, place), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_of_any_type_it_is_the_same_rounded(dtype):
    exact = uniform(torch.zeros(1, dtype=torch.float64), (1, 2, 30, 40), 3)
    noise = uniform(torch.zeros(1, dtype=dtype), exact.shape, 3)
    assert noise.dtype == dtype and (noise.double() - exact).abs().max() <= torch.finfo(dtype).eps


def test_seeds_may_be_tensors():
    like = torch.zeros(1, dtype=torch.float64)
    assert torch.equal(uniform(like, (1, 2, 3, 4), torch.tensor(7), 1), uniform(like, (1, 2, 3, 4), 7, 1))


def test_a_larger_map_begins_with_the_smaller():
    like = torch.zeros(1)
    assert torch.equal(uniform(like, (3, 4, 9, 17), 5)[:2, :3, :8, :5], uniform(like, (2, 3, 8, 5), 5))


def test_is_even_and_white():
    noise = uniform(torch.zeros(1, dtype=torch.float64), (2, 3, 128, 128), 0)
    assert 0 <= noise.min() and noise.max() < 1
    share = torch.histc(noise, 16, 0, 1) / noise.numel()
    assert (share - 1 / 16).abs().max() < 0.003  # Four deviations of a fair one.
    centred = (noise - 0.5) * 12**0.5
    other = (uniform(noise, noise.shape, 1) - 0.5) * 12**0.5
    pairs = {"seeds": centred * other, "samples": centred[0] * centred[1], "channels": centred[:, 0] * centred[:, 1]}
    for step in (1, 2, 8):
        pairs |= {f"{step} down": centred[..., step:, :] * centred[..., :-step, :]}
        pairs |= {f"{step} right": centred[..., step:] * centred[..., :-step]}
    for name, product in pairs.items():
        assert product.mean().abs() < 4 * product.numel() ** -0.5, name
