"""SANet: what attention finds in the style, added to the content."""

import copy
import re

import pytest
import torch
from attention_by_hand import attended, conv_1x1, normalised

from fastnorm import nn


def maps(n=2, content_size=(5, 4), style_size=(3, 7), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(n, 4, *size, generator=generator, dtype=torch.float64).to(dtype)
        for size in (content_size, style_size)
    ]


def make(dtype=torch.float64, **settings):
    torch.manual_seed(0)
    return nn.SANet(4, dtype=dtype, **settings)


def by_hand(state, content, style, eps=1e-5):
    query, key = conv_1x1(state, "f", normalised(content, eps)), conv_1x1(state, "g", normalised(style, eps))
    mean, _ = attended(query, key, conv_1x1(state, "h", style), 0.0)
    return conv_1x1(state, "out_conv", mean) + content


def leaves(module, inputs):
    return [tensor.requires_grad_() for tensor in (*inputs, *module.parameters())]


@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("style_size", [(3, 7), (5, 4), (1, 2)], ids=str)
def test_is_the_formula(style_size, eps):
    """And its gradients."""
    module, inputs = make(eps=eps), maps(style_size=style_size)
    tensors = leaves(module, inputs)
    found, expected = module(*inputs), by_hand(dict(module.named_parameters()), *inputs, eps)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    factor = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for actual, right in zip(*(torch.autograd.grad(output, tensors, factor) for output in (found, expected))):
        torch.testing.assert_close(actual, right, rtol=1e-8, atol=1e-9)


def test_constant_channels_have_gradients():
    module, inputs = make(torch.float32), maps(dtype=torch.float32)
    for map in inputs:
        map[:, 0] = 7.0
        map[0] = -3.0
    tensors = leaves(module, inputs)
    output = module(*inputs)
    assert output.isfinite().all()
    for gradient in torch.autograd.grad(output.square().sum(), tensors):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.06)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_types_and_layouts_are_kept(dtype, tolerance, layout):
    module = make(dtype)
    inputs = [map.to(memory_format=layout) for map in maps(dtype=dtype)]
    found = module(*inputs)
    assert found.dtype == dtype and found.is_contiguous(memory_format=layout)
    expected = by_hand(module.double().state_dict(), *(map.double() for map in inputs))
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_autocast():
    module, inputs = make(torch.float32), maps(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(inputs[0], inputs[1].bfloat16())
    torch.testing.assert_close(found.float(), module(*inputs), rtol=0.06, atol=0.06)


def test_one_map_without_a_batch():
    module, inputs = make(), maps(n=1)
    torch.testing.assert_close(module(*(map[0] for map in inputs)), module(*inputs)[0], rtol=1e-12, atol=1e-12)


def test_an_empty_batch():
    assert make()(*maps(n=0)).shape == (0, 4, 5, 4)


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_compiles_whole(dynamic):
    module = make()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for inputs in (maps(), maps(3, (4, 6), (5, 5))):
        torch.testing.assert_close(compiled(*inputs), module(*inputs))


CONTENT, STYLE = maps()


@pytest.mark.parametrize(
    "content, style, error, words",
    [
        ("x", STYLE, TypeError, "content: expected a tensor, got str"),
        (CONTENT[:, :2], STYLE, ValueError, "content: expected 4 channels, got 2"),
        (CONTENT.float(), STYLE, TypeError, "content: expected the weights' type torch.float64, got torch.float32"),
        (CONTENT[..., :1, :1], STYLE, ValueError, "content: expected more than one position, to normalise by"),
        (CONTENT, STYLE[:1], ValueError, "style: expected as many samples as of content, 2, got 1"),
        (CONTENT, STYLE[..., :1, :1], ValueError, "style: expected more than one position, to normalise by"),
        (CONTENT, STYLE.flatten(2)[0, 0], ValueError, "style: expected 3 or 4 dimensions, got (21,)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_call(content, style, error, words):
    with pytest.raises(error, match=f"^{re.escape(f'SANet: {words}')}$"):
        make()(content, style)


def test_what_is_no_width():
    with pytest.raises(ValueError, match="^SANet: in_planes: expected an integer of at least 1, got 0$"):
        nn.SANet(0)


def test_state_copy_and_words():
    """The names of the authors' checkpoints."""
    module = nn.SANet(4)
    layers = "f", "g", "h", "out_conv"
    expected = {f"{name}.{part}": shape for name in layers for part, shape in (("weight", (4, 4, 1, 1)), ("bias", (4,)))}
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == expected
    inputs = maps(dtype=torch.float32)
    assert torch.equal(copy.deepcopy(module)(*inputs), module(*inputs))
    assert repr(module).startswith("SANet(\n  4, eps=1e-05\n")
