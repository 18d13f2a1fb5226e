"""AdaConv2d and KernelPredictor: two filters from a style's descriptor."""

import copy
import io

import pytest
import torch
from dynamic_by_hand import around, convolved, normalised, padded
from torch.nn.functional import adaptive_avg_pool2d, conv2d

from fastnorm import nn
from fastnorm.ops import adaconv2d


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


CONTENT, STYLE = random(2, 6, 7, 9), random(2, 5, 3, 3, seed=1)


def make_predictor(*arguments, **settings):
    torch.manual_seed(0)
    return nn.KernelPredictor(*arguments, **settings, dtype=torch.float64)


def random_filters(n, kernel=(3, 3), out_channels=8, groups=2):
    shapes = (n, 6, 6 // groups, *kernel), (n, out_channels, 6 // groups, 1, 1), (n, out_channels)
    return nn.AdaConvFilter(*(random(*shape, seed=seed) for seed, shape in enumerate(shapes)))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (2, 2)], ids=str)
@pytest.mark.parametrize("groups, out_channels", [(2, 8), (6, 6), (1, 4)])
@pytest.mark.parametrize("mode", ["reflect", "zeros"])
def test_is_the_formula(kernel, groups, out_channels, mode):
    module = nn.AdaConv2d(6, out_channels, groups, kernel, mode, eps=1e-3)
    spatial, pointwise, bias = random_filters(2, kernel, out_channels, groups)
    between = convolved(normalised(CONTENT, 1e-3), spatial, None, groups=groups, mode=mode)
    expected = convolved(between, pointwise, bias, groups=groups)
    torch.testing.assert_close(module(CONTENT, (spatial, pointwise, bias)), expected, rtol=1e-10, atol=1e-10)
    without_bias = nn.AdaConvFilter(spatial, pointwise)
    expected = expected - bias[..., None, None]
    torch.testing.assert_close(module(CONTENT, without_bias), expected, rtol=1e-10, atol=1e-10)


def test_the_gradients_of_depthwise_filters_are_summed_in_float32():
    """Of terms that float16 does not have: 90000 - 90000 + 300."""
    spatial = torch.tensor([300.0, -300.0, 1.0]).half().reshape(1, 1, 1, 3)
    pointwise = torch.ones(1, 1, 1, 1, dtype=torch.float16, requires_grad=True)
    both = adaconv2d.combined(spatial, pointwise, groups=1)
    assert torch.equal(both, spatial)
    assert torch.autograd.grad(both, pointwise, torch.full_like(both, 300))[0].item() == 300


@pytest.mark.parametrize("kernel, size", [((3, 3), (3, 3)), ((3, 3), (7, 4)), ((1, 1), (1, 1)), ((5, 2), (5, 6))], ids=str)
def test_predicts_by_three_convolutions(kernel, size):
    predictor, style = make_predictor(5, 6, 8, kernel, groups=2), random(2, 5, *size, seed=1)
    state, mean = predictor.state_dict(), style.mean((2, 3), keepdim=True)
    spatial = conv2d(padded(style, around(kernel, (1, 1)), "reflect"), state["spatial.weight"], state["spatial.bias"])
    expected = (
        adaptive_avg_pool2d(spatial, kernel).reshape(2, 6, 3, *kernel),
        conv2d(mean, state["pointwise.weight"], state["pointwise.bias"]).reshape(2, 8, 3, 1, 1),
        conv2d(mean, state["bias.weight"], state["bias.bias"]).flatten(1),
    )
    torch.testing.assert_close(tuple(predictor(style)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels, groups", [(512, 512), (256, 128), (128, 32), (64, 8)])
def test_the_sizes_of_the_paper(channels, groups):
    predictor = nn.KernelPredictor(512, channels, channels, 3, groups, device="meta")
    filters = predictor(torch.empty(4, 512, 3, 3, device="meta"))
    assert {name: tuple(tensor.shape) for name, tensor in filters._asdict().items()} == {
        "spatial": (4, channels, channels // groups, 3, 3),
        "pointwise": (4, channels, channels // groups, 1, 1),
        "bias": (4, channels),
    }


def test_both_learn():
    predictor, module = make_predictor(5, 6, 8, groups=2), nn.AdaConv2d(6, 8, 2)
    module(CONTENT, predictor(STYLE)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in predictor.parameters())
    content, style = CONTENT[:1, :, :3, :4].clone().requires_grad_(), STYLE[:1].clone().requires_grad_()
    stylised = lambda content, style: module(content, predictor(style))  # noqa: E731
    assert torch.autograd.gradcheck(stylised, (content, style), fast_mode=True)


def test_filters_are_saved_mixed_and_serve_any_batch():
    predictor, module = make_predictor(5, 6, 8, groups=2), nn.AdaConv2d(6, 8, 2)
    file = io.BytesIO()
    torch.save(predictor(STYLE[:1]), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded) is nn.AdaConvFilter
    for content in (CONTENT, random(3, 6, 4, 5)):
        expected = module(content, predictor(STYLE[:1].expand(len(content), -1, -1, -1)))
        torch.testing.assert_close(module(content, loaded), expected, rtol=1e-10, atol=1e-10)
    other = predictor(STYLE[1:])
    mixed = nn.AdaConvFilter.mix([loaded, other], [0.2, 0.8])
    for tensor, first, second in zip(mixed, loaded, other):
        torch.testing.assert_close(tensor, 0.2 * first + 0.8 * second)
    assert {tensor.dtype for tensor in mixed.to(torch.float32)} == {torch.float32}


def test_one_map_without_a_batch():
    predictor, module = make_predictor(5, 6, 8, groups=2), nn.AdaConv2d(6, 8, 2)
    expected = module(CONTENT[:1], predictor(STYLE[:1]))[0]
    torch.testing.assert_close(module(CONTENT[0], predictor(STYLE[0])), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.long)], ids=["fixed", "dynamic"])
def test_compiles_whole(dynamic):
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.predictor, self.module = make_predictor(5, 6, 8, groups=2), nn.AdaConv2d(6, 8, 2)

        def forward(self, content, style):
            return self.module(content, self.predictor(style))

    both = Both()
    torch.compiler.reset()
    compiled = torch.compile(both, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    torch.testing.assert_close(compiled(CONTENT, STYLE), both(CONTENT, STYLE))


@pytest.mark.parametrize(
    "content, filters, error, words",
    [
        (CONTENT[:, :5], random_filters(2), ValueError, "content: expected 6 channels, got 5"),
        (CONTENT, random(2, 6, 3, 3, 3), TypeError, r"style: expected \(spatial, pointwise, bias\), got Tensor"),
        (CONTENT, random_filters(2)[:2], TypeError, r"style: expected \(spatial, pointwise, bias\), got tuple"),
        (
            CONTENT, random_filters(3), ValueError,
            r"style spatial: expected shape \(2 or 1, 6, 3, 3, 3\), got \(3, 6, 3, 3, 3\)",
        ),
        (
            CONTENT, random_filters(2)._replace(pointwise=random(2, 8, 6, 1, 1)), ValueError,
            r"style pointwise: expected shape \(2 or 1, 8, 3, 1, 1\), got \(2, 8, 6, 1, 1\)",
        ),
        (
            CONTENT, random_filters(2)._replace(bias=random(2, 6)), ValueError,
            r"style bias: expected shape \(2 or 1, 8\), got \(2, 6\)",
        ),
        (CONTENT, random_filters(2)._replace(pointwise=None), TypeError, "style pointwise: expected a tensor, got None"),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_call(content, filters, error, words):
    with pytest.raises(error, match=f"^AdaConv2d: {words}$"):
        nn.AdaConv2d(6, 8, 2)(content, filters)


@pytest.mark.parametrize(
    "style, error, words",
    [
        (STYLE[:, :, :2], ValueError, "style: expected a map of at least 3 x 3, got 2 x 3"),
        (STYLE[:, :4], ValueError, "style: expected 5 channels, got 4"),
        (STYLE[0, 0], ValueError, r"style: expected 3 or 4 dimensions, got \(3, 3\)"),
        (STYLE.float(), TypeError, "style: expected the weights' type torch.float64, got torch.float32"),
        (None, TypeError, "style: expected a tensor, got None"),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)
def test_what_is_no_descriptor(style, error, words):
    with pytest.raises(error, match=f"^KernelPredictor: {words}$"):
        make_predictor(5, 6, 8, groups=2)(style)


def test_groups_that_do_not_divide():
    for module, arguments in [(nn.AdaConv2d, (6, 8, 4)), (nn.KernelPredictor, (5, 6, 8, 3, 4))]:
        words = f"^{module.__name__}: groups: expected a divisor of the input's 6 channels, got 4$"
        with pytest.raises(ValueError, match=words):
            module(*arguments)
    with pytest.raises(ValueError, match="^AdaConv2d: groups: expected a divisor of the 8 output channels, got 3$"):
        nn.AdaConv2d(6, 8, 3)


def test_state_copy_and_words():
    predictor, module = make_predictor(5, 6, 8, groups=2), nn.AdaConv2d(6, 8, 2, (1, 3), "zeros")
    assert {key: tuple(tensor.shape) for key, tensor in predictor.state_dict().items()} == {
        "spatial.weight": (18, 5, 3, 3),
        "spatial.bias": (18,),
        "pointwise.weight": (24, 5, 1, 1),
        "pointwise.bias": (24,),
        "bias.weight": (8, 5, 1, 1),
        "bias.bias": (8,),
    }
    assert all(map(torch.equal, copy.deepcopy(predictor)(STYLE), predictor(STYLE)))
    assert module.state_dict() == {}
    assert repr(module) == "AdaConv2d(6, 8, groups=2, kernel_size=(1, 3), padding_mode='zeros', eps=1e-05)"
