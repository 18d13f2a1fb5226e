"""ConditionalInstanceNorm2d: a row of weight and bias for each style."""

import pickle

import pytest
import torch

from fastnorm import nn


@pytest.fixture
def module():
    module = nn.ConditionalInstanceNorm2d(3, 4, eps=1e-3, activation="relu", dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 5, 7, generator=generator).double() for _ in range(2)]


@pytest.mark.parametrize("styles", [[3, 0], [2, 2]], ids=str)
def test_each_sample_has_the_affine_map_of_its_style(module, maps, styles):
    input, residual = maps
    expected = torch.cat([
        torch.nn.functional.instance_norm(input[n : n + 1], weight=module.weight[s], bias=module.bias[s], eps=1e-3)
        for n, s in enumerate(styles)
    ])  # fmt: skip
    style = torch.tensor(styles)
    torch.testing.assert_close(module(input, style), expected.relu(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(module(input, style, residual), (expected + residual).relu(), rtol=1e-10, atol=1e-10)


def test_a_mixture_is_the_mixture_of_affine_maps(module, maps):
    mixture = torch.tensor([[0.2, 0.0, 0.5, 0.3], [1.0, 0.0, 0.0, 0.0]]).double()
    weight, bias = ((mixture.unsqueeze(2) * table).sum(1)[..., None, None] for table in (module.weight, module.bias))
    expected = (torch.nn.functional.instance_norm(maps[0], eps=1e-3) * weight + bias).relu()
    torch.testing.assert_close(module(maps[0], mixture), expected, rtol=1e-10, atol=1e-10)


def test_only_the_styles_in_use_learn(module, maps):
    module(maps[0], torch.tensor([3, 1])).sum().backward()
    assert module.bias.grad.abs().sum(1).bool().tolist() == [False, True, False, True]


def test_one_map_without_a_batch(module, maps):
    input, residual = (map[0] for map in maps)
    for style in (torch.tensor(3), torch.tensor(3, dtype=torch.int32), torch.tensor([0.2, 0.0, 0.5, 0.3]).double()):
        expected = module(input[None], style[None])[0]
        torch.testing.assert_close(module(input, style), expected, rtol=0, atol=0)
        expected = module(input[None], style[None], residual[None])[0]
        torch.testing.assert_close(module(input, style, residual), expected, rtol=0, atol=0)


@pytest.mark.parametrize("style", [torch.tensor([3, 0]), torch.tensor(2)], ids=["batch", "one map"])
def test_compiles_whole(module, style):
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (5, 6):
        input = torch.randn(*style.shape, 3, size, 7).double()
        torch.testing.assert_close(compiled(input, style), module(input, style))


def test_starts_as_an_instance_norm(maps):
    module = nn.ConditionalInstanceNorm2d(3, 4).double()
    expected = torch.nn.functional.instance_norm(maps[0])
    torch.testing.assert_close(module(maps[0], torch.tensor([1, 2])), expected, rtol=1e-10, atol=1e-10)


def test_state_copy_and_words(module, maps):
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == {"weight": (4, 3), "bias": (4, 3)}
    other = pickle.loads(pickle.dumps(module))
    style = torch.tensor([0, 3])
    assert torch.equal(other(maps[0], style), module(maps[0], style))
    assert repr(module) == "ConditionalInstanceNorm2d(3, num_styles=4, eps=0.001, activation='relu')"
