"""What all modules of attention to a style have in common."""

import pytest
import torch
from attention_by_hand import AdaAttN, SANet, leaves

every_module = pytest.mark.parametrize("case", [AdaAttN, SANet], ids=lambda case: case.__name__)


@every_module
def test_constant_channels_have_gradients(case):
    module, inputs = case.make(dtype=torch.float32), case.maps(dtype=torch.float32)
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
@every_module
def test_types_and_layouts_are_kept(case, dtype, tolerance, layout):
    module = case.make(dtype=dtype)
    inputs = [map.to(memory_format=layout) for map in case.maps(dtype=dtype)]
    found = module(*inputs)
    assert found.dtype == dtype and found.is_contiguous(memory_format=layout)
    expected = case.by_hand(module.double().state_dict(), *(map.double() for map in inputs))
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("narrow", [-2, -1])
@every_module
def test_autocast(case, narrow):
    """Of maps of which one comes in bfloat16 already."""
    module, inputs = case.make(dtype=torch.float32), case.maps(dtype=torch.float32)
    mixed = list(inputs)
    mixed[narrow] = mixed[narrow].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = module(*mixed)
    torch.testing.assert_close(found.float(), module(*inputs), rtol=0.06, atol=0.06)


@every_module
def test_one_map_without_a_batch(case):
    module, inputs = case.make(), case.maps(n=1)
    torch.testing.assert_close(module(*(map[0] for map in inputs)), module(*inputs)[0], rtol=1e-12, atol=1e-12)


@every_module
def test_an_empty_batch(case):
    """Has no numbers, and teaches nothing."""
    module, inputs = case.make(), case.maps(n=0)
    tensors = leaves(module, inputs)
    output = module(*inputs)
    assert output.shape == (0, *case.output)
    for tensor, gradient in zip(tensors, torch.autograd.grad(output.sum(), tensors)):
        assert torch.equal(gradient, torch.zeros_like(tensor))


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@every_module
def test_compiles_whole(case, dynamic):
    module = case.make()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for inputs in (case.maps(), case.maps(3, (4, 6), (5, 5))):
        torch.testing.assert_close(compiled(*inputs), module(*inputs))


@every_module
def test_a_style_that_was_encoded_once(case):
    """For each content as many rows, or one for all; with gradients to what made it."""
    module, maps = case.make(), case.maps()
    contents, styles = maps[::2], maps[1::2]
    tensors = leaves(module, maps)
    found, expected = module.attend(*contents, *module.encode(*styles)), module(*maps)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for actual, right in zip(*(torch.autograd.grad(output.square().sum(), tensors) for output in (found, expected))):
        torch.testing.assert_close(actual, right, rtol=1e-9, atol=1e-9)

    first = module.encode(*(map[:1] for map in styles))
    maps[1::2] = [map[:1].expand_as(map) for map in styles]
    torch.testing.assert_close(module.attend(*contents, *first), module(*maps), rtol=1e-12, atol=1e-12)
    alone = module.attend(*(map[0] for map in contents), *(map[0] for map in first))
    torch.testing.assert_close(alone, module(*maps)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "replaced, words",
    [
        (lambda key, value: (key[:, 1:], value), r"key: expected 4 channels, got 3"),
        (lambda key, value: (key, value[0, 0, 0]), r"value: expected 3 or 4 dimensions, got \(7,\)"),
        (lambda key, value: (key.expand(3, *key.shape[1:]), value.expand(3, *value.shape[1:])),
         "key: expected as many samples as of content, 2, or 1, got 3"),
        (lambda key, value: (key, value.expand(2, *value.shape[1:])), "value: expected as many samples as of key, 1, got 2"),
    ],
    ids=["channels", "dimensions", "samples", "rows"],
)  # fmt: skip
@every_module
def test_what_was_not_encoded_so(case, replaced, words):
    module, maps = case.make(), case.maps()
    kept = module.encode(*(map[:1] for map in maps[1::2]))
    with pytest.raises(ValueError, match=f"^{case.__name__}: {words}$"):
        module.attend(*maps[::2], *replaced(*kept))
