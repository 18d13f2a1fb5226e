"""AdaAttN: the content by the mean and deviation that attention finds in the style."""

import copy
import re

import pytest
import torch
from attention_by_hand import attended, conv_1x1, normalised

from fastnorm import nn


def maps(n=2, content_size=(5, 4), style_size=(3, 7), planes=3, key_planes=4, dtype=torch.float64):
    """Content, style and their keys."""
    shapes = [(planes, *content_size), (planes, *style_size), (key_planes, *content_size), (key_planes, *style_size)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, *shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def make(*arguments, key_planes=4, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    return nn.AdaAttN(*(arguments or (3,)), key_planes=key_planes, dtype=dtype, **settings)


def by_hand(state, content, style, content_key, style_key, eps=1e-5, min_var=0.0):
    query, key = conv_1x1(state, "f", content_key), conv_1x1(state, "g", style_key)
    mean, std = attended(query, key, conv_1x1(state, "h", style), min_var)
    return std * normalised(content, eps) + mean


def leaves(module, inputs):
    return [tensor.requires_grad_() for tensor in (*inputs, *module.parameters())]


@pytest.mark.parametrize("rule", [{}, dict(eps=0.1), dict(min_var=0.6)], ids=str)
@pytest.mark.parametrize("style_size", [(3, 7), (5, 4), (1, 1)], ids=str)
def test_is_the_formula(style_size, rule):
    """And its gradients, those of no deviation at all too."""
    module, inputs = make(**rule), maps(style_size=style_size)
    tensors = leaves(module, inputs)
    found, expected = module(*inputs), by_hand(dict(module.named_parameters()), *inputs, **rule)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    factor = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for actual, right in zip(*(torch.autograd.grad(output, tensors, factor) for output in (found, expected))):
        torch.testing.assert_close(actual, right, rtol=1e-8, atol=1e-9)


def test_every_key_counts_and_nothing_is_drawn():
    module, inputs = make(3, 1), maps()
    assert torch.equal(module(*inputs, seed=1), module(*inputs))
    torch.testing.assert_close(module(*inputs), by_hand(module.state_dict(), *inputs), rtol=1e-10, atol=1e-10)


def test_constant_channels_have_gradients():
    module, inputs = make(dtype=torch.float32), maps(dtype=torch.float32)
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
    module = make(dtype=dtype)
    inputs = [map.to(memory_format=layout) for map in maps(dtype=dtype)]
    found = module(*inputs)
    assert found.dtype == dtype and found.is_contiguous(memory_format=layout)
    expected = by_hand(module.double().state_dict(), *(map.double() for map in inputs))
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_autocast():
    module, inputs = make(dtype=torch.float32), maps(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(*inputs[:2], inputs[2].bfloat16(), inputs[3])
    torch.testing.assert_close(found.float(), module(*inputs), rtol=0.06, atol=0.06)


def test_one_map_without_a_batch():
    module, inputs = make(), maps(n=1)
    torch.testing.assert_close(module(*(map[0] for map in inputs)), module(*inputs)[0], rtol=1e-12, atol=1e-12)


def test_an_empty_batch():
    assert make()(*maps(n=0)).shape == (0, 3, 5, 4)


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_compiles_whole(dynamic):
    module = make()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for inputs in (maps(), maps(3, (4, 6), (5, 5))):
        torch.testing.assert_close(compiled(*inputs), module(*inputs))


CONTENT, STYLE, CONTENT_KEY, STYLE_KEY = maps()


@pytest.mark.parametrize(
    "replaced, error, words",
    [
        (dict(content=[1]), TypeError, "content: expected a tensor, got list"),
        (dict(content=CONTENT[:, :2]), ValueError, "content: expected 3 channels, got 2"),
        (dict(content=CONTENT.float()), TypeError, "content: expected the weights' type torch.float64, got torch.float32"),
        (dict(style=STYLE[0, 0]), ValueError, "style: expected 3 or 4 dimensions, got (3, 7)"),
        (dict(style=STYLE[:1]), ValueError, "style: expected as many samples as of content, 2, got 1"),
        (dict(style=STYLE[..., :0]), ValueError, "style: expected a map of at least 1 x 1, got 3 x 0"),
        (dict(content_key=CONTENT), ValueError, "content_key: expected 4 channels, got 3"),
        (dict(content_key=STYLE_KEY), ValueError, "content_key: expected the size of content, 5 x 4, got 3 x 7"),
        (dict(style_key=CONTENT_KEY), ValueError, "style_key: expected the size of style, 3 x 7, got 5 x 4"),
        (dict(style_key=None), TypeError, "style_key: expected a tensor, got None"),
        (
            dict(content=CONTENT[..., :1, :1], content_key=CONTENT_KEY[..., :1, :1]), ValueError,
            "content: expected more than one position, to normalise by",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_call(replaced, error, words):
    arguments = dict(content=CONTENT, style=STYLE, content_key=CONTENT_KEY, style_key=STYLE_KEY) | replaced
    with pytest.raises(error, match=f"^{re.escape(f'AdaAttN: {words}')}$"):
        make()(**arguments)


@pytest.mark.parametrize("name, arguments", [("in_planes", (0,)), ("key_planes", (3, 4, 2.5))])
def test_what_is_no_width(name, arguments):
    with pytest.raises(ValueError, match=f"^AdaAttN: {name}: expected an integer of at least 1, got {arguments[-1]}$"):
        nn.AdaAttN(*arguments)


def test_state_copy_and_words():
    """The names of the authors' checkpoints."""
    module = nn.AdaAttN(3, 64 * 64, 4)
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == {
        "f.weight": (4, 4, 1, 1),
        "f.bias": (4,),
        "g.weight": (4, 4, 1, 1),
        "g.bias": (4,),
        "h.weight": (3, 3, 1, 1),
        "h.bias": (3,),
    }
    assert nn.AdaAttN(3).f.weight.shape == (3, 3, 1, 1)
    inputs = maps(dtype=torch.float32)
    assert torch.equal(copy.deepcopy(module)(*inputs), module(*inputs))
    assert repr(module).startswith("AdaAttN(\n  3, key_planes=4, eps=1e-05, min_var=0.0\n")


@pytest.mark.parametrize("name, value", [("eps", -1.0), ("eps", "x"), ("min_var", -1.0), ("min_var", None)])
def test_numbers_that_are_none(name, value):
    with pytest.raises((ValueError, TypeError), match=f"^AdaAttN: {name}: expected a"):
        nn.AdaAttN(4, **{name: value})
