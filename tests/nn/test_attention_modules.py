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
