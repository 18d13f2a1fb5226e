"""DynamicInstanceNorm: a filter from a style, and what it is good for."""

import copy
import io

import pytest
import torch
from dynamic_by_hand import convolved, normalised, style_net

from fastnorm import functional, nn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


CONTENT, STYLE = random(2, 4, 7, 9), random(2, 5, 8, 11, seed=1)


def make(*arguments, **settings):
    torch.manual_seed(0)
    return nn.DynamicInstanceNorm(*arguments, hidden_channels=6, dtype=torch.float64, **settings)


@pytest.fixture
def module():
    return make(4, 6, 3, 5, groups=2, eps=1e-3)


@pytest.mark.parametrize(
    "out_channels, kernel, groups, stride, dilation, mode, style_size",
    [
        (4, (3, 3), 4, 1, (1, 1), "reflect", (8, 11)),
        (6, (3, 3), 2, 2, (1, 1), "zeros", (3, 3)),
        (3, (1, 1), 1, 1, (1, 1), "reflect", (1, 1)),
        (8, (2, 5), 4, (2, 1), (1, 1), "circular", (5, 13)),
        (2, (3, 3), 2, 1, (2, 1), "replicate", (4, 3)),
    ],
    ids=str,
)
def test_is_the_formula(out_channels, kernel, groups, stride, dilation, mode, style_size):
    module = make(4, out_channels, kernel, 5, groups, stride, dilation=dilation, padding_mode=mode, eps=1e-3)
    state, style = module.state_dict(), random(2, 5, *style_size, seed=1)
    weight = state["weight"] + style_net(state, "weight_net", style, kernel).reshape(2, out_channels, 4 // groups, *kernel)
    bias = style_net(state, "bias_net", style, 1).flatten(1)
    expected = convolved(normalised(CONTENT, 1e-3), weight, bias, stride, dilation, groups, mode)
    torch.testing.assert_close(module(CONTENT, style), expected, rtol=1e-9, atol=1e-9)
    style_filter = module.encode(style)
    torch.testing.assert_close(style_filter.weight, weight, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(style_filter.bias, bias, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padding, sides", [("valid", [(0, 0), (0, 0)]), ((2, 1), [(2, 2), (1, 1)])], ids=str)
def test_padding(padding, sides):
    module = make(4, 4, 3, 5, padding=padding)
    weight, bias = module.encode(STYLE)
    expected = convolved(normalised(CONTENT), weight, bias, groups=4, sides=sides)
    torch.testing.assert_close(module(CONTENT, STYLE), expected, rtol=1e-9, atol=1e-9)


def test_without_a_bias_net():
    module = make(4, 4, 3, 5, bias=False)
    assert module.encode(STYLE).bias is None
    assert not any(name.startswith("bias") for name in module.state_dict())
    weight = module.encode(STYLE).weight
    expected = convolved(normalised(CONTENT), weight, None, groups=4)
    torch.testing.assert_close(module(CONTENT, STYLE), expected, rtol=1e-9, atol=1e-9)


def test_as_many_groups_as_the_channels_allow():
    shapes = {pair: tuple(make(*pair, 3, 5).weight.shape) for pair in [(4, 4), (4, 6), (3, 4)]}
    assert shapes == {(4, 4): (4, 1, 3, 3), (4, 6): (6, 2, 3, 3), (3, 4): (4, 3, 3, 3)}


@pytest.mark.parametrize("kernel", [1, 2, 3, (5, 2)], ids=str)
def test_starts_near_instance_normalisation(kernel):
    module = make(4, 4, kernel, 5)
    # Of unit variance, so this is how far it is off beside what it is.
    assert (module(CONTENT, STYLE) - normalised(CONTENT)).square().mean().sqrt() < 0.3
    with torch.no_grad():
        module.weight_net.last.weight.zero_()
        module.bias_net.last.weight.zero_()
    torch.testing.assert_close(module(CONTENT, STYLE), normalised(CONTENT), rtol=1e-9, atol=1e-9)


def test_starts_by_passing_channels_on_within_their_groups():
    module = make(4, 8, 1, 5, groups=2)
    passed = module.weight[:, :, 0, 0]
    assert torch.equal(passed.detach(), torch.eye(2).double().repeat(4, 1))


def test_both_nets_learn(module):
    module(CONTENT, STYLE).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


def test_the_style_learns():
    module = make(4, 4, 3, 5, groups=1)
    content, style = random(1, 4, 4, 5).requires_grad_(), random(1, 5, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(module, (content, style), fast_mode=True)


def test_a_filter_of_one_and_zero_is_an_instance_norm():
    module = make(4, 4, 1, 5)
    one = nn.DynamicFilter(torch.ones(1, 4, 1, 1, 1).double(), torch.zeros(1, 4).double())
    torch.testing.assert_close(module(CONTENT, one), functional.instance_norm(CONTENT), rtol=1e-10, atol=1e-10)


def test_a_filter_of_deviation_and_mean_is_adain():
    style = random(2, 4, 6, 5, seed=2) * 3 + 1
    var, mean = torch.var_mean(style, dim=(2, 3), correction=0)
    filters = nn.DynamicFilter((var + 1e-5).sqrt()[..., None, None, None], mean)
    torch.testing.assert_close(make(4, 4, 1, 5)(CONTENT, filters), functional.adain(CONTENT, style), rtol=1e-10, atol=1e-10)


def test_a_filter_is_saved_and_serves_any_content(module):
    file = io.BytesIO()
    torch.save(module.encode(STYLE[:1]), file)
    file.seek(0)
    style_filter = torch.load(file, weights_only=True)
    assert type(style_filter) is nn.DynamicFilter
    for size in [(3, 4, 7, 9), (1, 4, 5, 4)]:
        content = random(*size, seed=3)
        expected = module(content, STYLE[:1].expand(size[0], -1, -1, -1))
        torch.testing.assert_close(module(content, style_filter), expected, rtol=1e-12, atol=1e-12)


def test_a_filter_in_safetensors(module, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    style_filter = module.encode(STYLE)
    safetensors.save_file({name: tensor.detach() for name, tensor in style_filter._asdict().items()}, tmp_path / "style")
    loaded = nn.DynamicFilter(**safetensors.load_file(tmp_path / "style"))
    assert torch.equal(module(CONTENT, loaded), module(CONTENT, style_filter))


@pytest.mark.parametrize("weights", [[0.3, 0.7], torch.tensor([2.0, -0.5])], ids=["numbers", "tensor"])
def test_a_mixture_does_what_its_parts_do(module, weights):
    filters = [module.encode(STYLE), module.encode(STYLE.flip(3)[:1])]
    parts = [module(CONTENT, style_filter) for style_filter in filters]
    expected = weights[0] * parts[0] + weights[1] * parts[1]
    torch.testing.assert_close(module(CONTENT, nn.DynamicFilter.mix(filters, weights)), expected, rtol=1e-10, atol=1e-10)


def test_a_mixture_learns_its_weights(module):
    weights = torch.tensor([0.3, 0.7]).double().requires_grad_()
    filters = [module.encode(STYLE), module.encode(STYLE.flip(3))]
    nn.DynamicFilter.mix(filters, weights).bias.sum().backward()
    expected = torch.stack([style_filter.bias.sum() for style_filter in filters])
    torch.testing.assert_close(weights.grad, expected)


def test_a_filter_without_a_bias_is_moved_and_mixed():
    style_filter = nn.DynamicFilter(random(1, 4, 1, 1, 1)).to(torch.float32)
    assert style_filter.weight.dtype is torch.float32 and style_filter.bias is None
    with_bias = nn.DynamicFilter(style_filter.weight, torch.ones(1, 4))
    doubled = nn.DynamicFilter.mix([style_filter, style_filter], [1, 1])
    assert torch.equal(doubled.weight, 2 * style_filter.weight) and doubled.bias is None
    assert torch.equal(nn.DynamicFilter.mix([style_filter, with_bias], [1, 3]).bias, torch.full((1, 4), 3.0))
    assert {tensor.device.type for tensor in with_bias.to("meta")} == {"meta"}


@pytest.mark.parametrize(
    "filters, weights, error, words",
    [
        ([], [], ValueError, "weights: expected a number for each of one filter or more, 0, got 0"),
        ([(1, 1)], [0.5, 0.5], ValueError, "expected a number for each of one filter or more, 1, got 2"),
        ([(1, 1)], torch.ones(1, 1), ValueError, r"1, got \(1, 1\)"),
        ([(1, 3), (1, 1)], [1, 1], ValueError, r"weight: expected filters of one shape, got \(1, 4, 1, 3, 3\), \(1, 4, 1"),
        ([(2, 1), (3, 1)], [1, 1], ValueError, r"weight: expected filters of one shape, got \(2, 4, 1, 1, 1\), \(3, 4, 1"),
    ],
    ids=str,
)
def test_what_cannot_be_mixed(filters, weights, error, words):
    filters = [nn.DynamicFilter(torch.ones(n, 4, 1, size, size), torch.ones(n, 4)) for n, size in filters]
    with pytest.raises(error, match=f"^DynamicFilter.mix: .*{words}"):
        nn.DynamicFilter.mix(filters, weights)


def test_only_filters_are_mixed():
    with pytest.raises(TypeError, match="^DynamicFilter.mix: filters: expected each to be a DynamicFilter, got a tuple$"):
        nn.DynamicFilter.mix([(torch.ones(1, 4, 1, 1, 1), None)], [1])


def test_one_filter_for_all_is_not_copied(module):
    style_filter = module.encode(STYLE[:1])
    served = module._filter_for(random(64, 4, 2, 2), style_filter)
    assert served.weight.shape[0] == 64 and served.weight.data_ptr() == style_filter.weight.data_ptr()


def test_one_map_without_a_batch(module):
    expected = module(CONTENT[:1], STYLE[:1])[0]
    for style in (STYLE[0], STYLE[:1], module.encode(STYLE[0])):
        torch.testing.assert_close(module(CONTENT[0], style), expected, rtol=1e-12, atol=1e-12)


def test_one_style_for_a_batch(module):
    expected = module(CONTENT, STYLE[:1].expand(2, -1, -1, -1))
    torch.testing.assert_close(module(CONTENT, STYLE[0]), expected, rtol=1e-12, atol=1e-12)


def test_an_empty_batch(module):
    assert module(CONTENT[:0], STYLE[:0]).shape == module(CONTENT[:0], STYLE[0]).shape == (0, 6, 7, 9)
    module(CONTENT[:0], STYLE[0]).sum().backward()
    assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in module.parameters())


def test_nan_filters_propagate(module):
    style_filter = module.encode(STYLE)
    bias = style_filter.bias.detach().clone()
    bias[0, 2] = torch.nan
    nan = module(CONTENT, style_filter._replace(bias=bias)).isnan()
    assert nan[0, 2].all() and nan.sum() == 7 * 9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types_meet_under_autocast(module, dtype):
    module, content, style = module.float(), CONTENT.float(), STYLE.float()
    with torch.autocast("cpu", dtype):
        actual = module(content, style)
    # The nets' convolutions round to 8 or 11 bits, what they predict is a tenth of the filter.
    torch.testing.assert_close(actual.float(), module(content, style), rtol=0.02, atol=0.02)


def test_compiles_whole(module):
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
    for size in (10, 11):
        content, style = random(2, 4, size, 9), random(2, 5, size + 3, 8)
        torch.testing.assert_close(compiled(content, style), module(content, style))
    torch.testing.assert_close(compiled(content, module.encode(style)), module(content, style))


@pytest.mark.parametrize(
    "content, style, error, words",
    [
        (CONTENT[:, :3], STYLE, ValueError, "content: expected 4 channels, got 3"),
        (CONTENT[0, 0], STYLE, ValueError, r"content: expected 3 or 4 dimensions, got \(7, 9\)"),
        (CONTENT, STYLE[:, :4], ValueError, "style: expected 5 channels, got 4"),
        (CONTENT, STYLE[:, :, :2], ValueError, "style: expected a map of at least 3 x 3, got 2 x 11"),
        (CONTENT, STYLE[0, 0], ValueError, r"style: expected 3 or 4 dimensions, got \(8, 11\)"),
        (CONTENT, STYLE.float(), TypeError, "style: expected the weights' type torch.float64, got torch.float32"),
        (CONTENT, STYLE.long(), TypeError, "style: expected float32, float64, bfloat16 or float16, got torch.int64"),
        (CONTENT, (STYLE, STYLE), TypeError, "style: expected a map or a DynamicFilter, got tuple"),
        (CONTENT, None, TypeError, "style: expected a map or a DynamicFilter, got NoneType"),
        (
            random(3, 4, 7, 9), STYLE, ValueError,
            r"style weight: expected shape \(3 or 1, 6, 2, 3, 3\), got \(2, 6, 2, 3, 3\)",
        ),
        (
            CONTENT, nn.DynamicFilter(random(2, 6, 2, 3, 3), random(6)), ValueError,
            r"style bias: expected shape \(2 or 1, 6\), got \(6,\)",
        ),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_call(module, content, style, error, words):
    with pytest.raises(error, match=f"^DynamicInstanceNorm: {words}$"):
        module(content, style)


def test_reflect_padding_of_a_map_too_small(module):
    with pytest.raises(ValueError, match="padding: reflect padding must be smaller than the input"):
        module(CONTENT[:, :, :1], STYLE)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(groups=3), "groups: expected a divisor of the input's 4 channels, got 3"),
        (dict(groups=4), "groups: expected a divisor of the 6 output channels, got 4"),
        (dict(kernel_size=0), "kernel_size: expected an integer of at least 1, or 2 of them, got 0"),
        (dict(in_channels=0), "in_channels: expected an integer of at least 1, got 0"),
        (dict(out_channels=0), "out_channels: expected an integer of at least 1, got 0"),
        (dict(style_channels=0), "style_channels: expected an integer of at least 1, got 0"),
        (dict(hidden_channels=0), "hidden_channels: expected an integer of at least 1, got 0"),
    ],
    ids=str,
)
def test_what_is_no_module(arguments, words):
    with pytest.raises(ValueError, match=f"^DynamicInstanceNorm: {words}$"):
        nn.DynamicInstanceNorm(**dict(in_channels=4, out_channels=6, kernel_size=3, style_channels=5) | arguments)


def test_state_copy_device_and_words(module):
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == {
        "weight": (6, 2, 3, 3),
        "weight_net.first.weight": (6, 5, 3, 3),
        "weight_net.first.bias": (6,),
        "weight_net.last.weight": (12, 6, 1, 1),
        "bias_net.first.weight": (6, 5, 3, 3),
        "bias_net.first.bias": (6,),
        "bias_net.last.weight": (6, 6, 1, 1),
        "bias_net.last.bias": (6,),
    }
    assert torch.equal(copy.deepcopy(module)(CONTENT, STYLE), module(CONTENT, STYLE))
    nowhere = nn.DynamicInstanceNorm(4, 4, 3, 5, device="meta")
    assert {parameter.device.type for parameter in nowhere.parameters()} == {"meta"}
    assert "4, 6, kernel_size=(3, 3), style_channels=5, groups=2, stride=1, padding='same'" in repr(module)
