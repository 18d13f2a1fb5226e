"""LayerInstanceNorm2d: U-GAT-IT's LIN and AdaLIN."""

import copy

import pytest
import torch

from fastnorm import functional, nn

INPUT, RESIDUAL = torch.randn(2, 2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).double()


def published(input, rho, gamma, beta, eps=1e-5):
    """U-GAT-IT's ILN and adaILN: unbiased variances."""

    def normed(dim):
        mean, var = input.mean(dim, keepdim=True), input.var(dim, keepdim=True)
        return (input - mean) / (var + eps).sqrt()

    rho = rho.view(1, -1, 1, 1)
    blended = rho * normed((2, 3)) + (1 - rho) * normed((1, 2, 3))
    return blended * gamma.view(-1, 3, 1, 1) + beta.view(-1, 3, 1, 1)


def randomized(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    return module.double()


def test_lin():
    module = randomized(nn.LayerInstanceNorm2d(3, eps=1e-3, correction=1))
    expected = published(INPUT, module.rho, module.weight, module.bias, 1e-3)
    torch.testing.assert_close(module(INPUT), expected, rtol=1e-10, atol=1e-10)


def test_adalin_with_residual_and_activation():
    module = randomized(nn.LayerInstanceNorm2d(3, affine=False, correction=1, activation="leaky_relu", negative_slope=0.2))
    gamma, beta = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(2)).double()
    expected = torch.nn.functional.leaky_relu(published(INPUT, module.rho, gamma, beta) + RESIDUAL, 0.2)
    torch.testing.assert_close(module(INPUT, gamma, beta, RESIDUAL), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rho, kept", [(-0.5, 0.0), (1.5, 1.0)])
def test_rho_stays_between_layer_and_instance(rho, kept):
    module = nn.LayerInstanceNorm2d(3, rho=rho).double()
    expected = nn.LayerInstanceNorm2d(3, rho=kept).double()(INPUT)
    assert torch.equal(module(INPUT), expected)
    torch.testing.assert_close(
        expected,
        torch.nn.functional.instance_norm(INPUT) if kept else torch.nn.functional.layer_norm(INPUT, INPUT.shape[1:]),
    )


def test_rho_of_an_integer():
    assert nn.LayerInstanceNorm2d(3, rho=1).rho.equal(torch.ones(3))


def train(module, blend, steps):
    """Descend from the module's output to a blend of the two norms; the gradient is the distance of rho from `blend`."""
    instance = torch.nn.functional.instance_norm(INPUT)
    difference = instance - torch.nn.functional.layer_norm(INPUT, INPUT.shape[1:])
    scale = difference.square().sum((0, 2, 3)).rsqrt().view(3, 1, 1)
    target = instance - (1 - blend) * difference
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        ((module(INPUT) - target) * scale).square().sum().div(2).backward()
        optimizer.step()


@pytest.mark.parametrize("start, beyond, within", [(0, -0.3, 0.7), (1, 1.4, 0.2)], ids=["below 0", "above 1"])
def test_rho_comes_back_inside_when_the_loss_asks_for_it(start, beyond, within):
    module = nn.LayerInstanceNorm2d(3, affine=False, rho=start).double()
    train(module, beyond, steps=1)
    outside = module.rho.detach().clone()
    torch.testing.assert_close(outside, torch.full_like(outside, (start + beyond) / 2))
    train(module, beyond, steps=3)
    assert module.rho.equal(outside)  # No further out: so it is back as soon as it may be.
    train(module, within, steps=40)
    torch.testing.assert_close(module.rho, torch.full_like(module.rho, within))


def gradient_of(rho, output, seed):
    gradient = torch.randn(INPUT.shape, generator=torch.Generator().manual_seed(seed)).double()
    return torch.autograd.grad(output, rho, gradient)[0]


def with_rho(values):
    module = nn.LayerInstanceNorm2d(3, affine=False).double()
    with torch.no_grad():
        module.rho.copy_(torch.tensor(values))
    return module


def test_gradient_of_rho():
    """Inside and on the bounds, the formula's; outside, the bound's where a descent comes back, 0 where it leaves."""
    signs = set()
    for values in ([0.0, 0.4, 1.0], [-0.5, -2.0, -0.1], [1.5, 3.0, 1.1]):
        module = with_rho(values)
        bounded = module.rho.detach().clamp(0, 1).requires_grad_()
        for seed in range(8):
            expected = gradient_of(bounded, functional.layer_instance_norm(INPUT, bounded), seed)
            signs.update(zip(values, expected.sign().tolist()))
            for index, value in enumerate(values):
                leaves = value < 0 < expected[index] or value > 1 and expected[index] < 0
                expected[index] = 0 if leaves else expected[index]
            actual = gradient_of(module.rho, module(INPUT), seed)
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    assert len(signs) == 18  # Each value, with gradients up and down.


def test_compiles_whole_with_rho_outside():
    module = with_rho([-0.5, 0.4, 1.5])
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(INPUT), module(INPUT), rtol=1e-10, atol=1e-10)
    for seed in range(3):
        actual, expected = (gradient_of(module.rho, function(INPUT), seed) for function in (compiled, module))
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_two_calls_share_a_backward():
    module = randomized(nn.LayerInstanceNorm2d(3))
    first, second = module(INPUT), module(RESIDUAL)
    found = torch.autograd.grad(first.square().sum() + second.pow(3).sum(), module.rho)[0]
    expected = torch.autograd.grad(module(INPUT).square().sum(), module.rho)[0]
    expected = expected + torch.autograd.grad(module(RESIDUAL).pow(3).sum(), module.rho)[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("affine", [True, False])
def test_one_map_without_a_batch(affine):
    module = randomized(nn.LayerInstanceNorm2d(3, affine=affine))
    input, residual = INPUT[0], RESIDUAL[0]
    torch.testing.assert_close(module(input), module(input[None])[0], rtol=0, atol=0)
    gamma, beta = torch.randn(2, 3, generator=torch.Generator().manual_seed(2)).double()
    actual = module(input, gamma, beta, residual)
    torch.testing.assert_close(actual, module(input[None], gamma, beta, residual[None])[0], rtol=0, atol=0)
    # Four rows and as many channels: no batch of lines.
    square = INPUT[0, :, :3]
    torch.testing.assert_close(module(square), module(square[None])[0], rtol=0, atol=0)


def test_a_style_replaces_the_own_affine_map():
    module = randomized(nn.LayerInstanceNorm2d(3, correction=1))
    gamma = torch.full((2, 3), 2.0).double()
    expected = published(INPUT, module.rho, gamma, module.bias)
    torch.testing.assert_close(module(INPUT, gamma), expected, rtol=1e-10, atol=1e-10)


def test_every_parameter_learns():
    module = randomized(nn.LayerInstanceNorm2d(3))
    module(INPUT).square().sum().backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in module.parameters())


def test_state_copy_and_words():
    module = randomized(nn.LayerInstanceNorm2d(3, rho=0.9, activation="silu"))
    assert [*module.state_dict()] == ["rho", "weight", "bias"]
    assert [*nn.LayerInstanceNorm2d(3, affine=False).state_dict()] == ["rho"]
    assert nn.LayerInstanceNorm2d(3, rho=0.9).rho.tolist() == pytest.approx([0.9] * 3)
    assert torch.equal(copy.deepcopy(module)(INPUT), module(INPUT))
    assert repr(module) == "LayerInstanceNorm2d(3, eps=1e-05, affine=True, activation='silu')"
