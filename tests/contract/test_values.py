"""Values and gradients against the float64 reference, in every type, for lines, images and volumes."""

import pytest
import torch
from accuracy import assert_gradients, assert_values
from calls import (
    DTYPES,
    differentiable_calls,
    differentiate,
    every_call,
    every_dtype,
    is_map,
    public,
    run,
    tensors,
    with_tensors,
)
from layouts import channels_last, contiguous

MAPS = {
    "1-D": ((2, 19, 77), contiguous),
    "2-D": ((2, 19, 7, 11), contiguous),
    "2-D channels_last": ((2, 19, 7, 11), channels_last),
    "3-D": ((2, 19, 3, 5, 5), contiguous),
    "3-D channels_last": ((2, 19, 3, 5, 5), channels_last),
}

every_map = pytest.mark.parametrize("shape, layout", MAPS.values(), ids=MAPS)


@pytest.mark.core
@every_map
@every_dtype
@every_call
def test_values(call, dtype, shape, layout):
    assert_values(call.operator, call.sample(shape, dtype).map(layout))


@pytest.mark.core
@every_map
@every_dtype
@every_call
def test_gradients(call, dtype, shape, layout):
    assert_gradients(call.operator, call.sample(shape, dtype).map(layout), layout)


@pytest.mark.parametrize("parameters", DTYPES, ids=str)
@pytest.mark.parametrize("maps", [torch.float32, torch.bfloat16], ids=str)
@every_call
def test_parameters_of_another_type(call, maps, parameters):
    sample = call.sample(dtype=maps)
    sample = sample.map(lambda t: t if is_map(t) or not t.is_floating_point() else t.to(parameters))
    assert_values(call.operator, sample)
    assert_gradients(call.operator, sample)


@every_call
def test_public_function_runs_the_operator(call):
    sample = call.sample()
    outputs = run(public(call), sample)
    assert all(map(torch.equal, outputs, run(call.operator.run, sample)))


@differentiable_calls
def test_each_input_alone_has_the_same_gradient(call):
    sample = call.sample(dtype=torch.float64)
    given = [torch.randn_like(output) for output in run(call.operator.run, sample)]
    together = differentiate(call.operator.run, sample, given)
    differentiable = [index for index, tensor in enumerate(tensors(sample)) if tensor.is_floating_point()]
    for index, expected in zip(differentiable, together):
        inputs = [tensor.detach() for tensor in tensors(sample)]
        inputs[index].requires_grad_()
        outputs = run(call.operator.run, with_tensors(sample, inputs))
        # Not every output depends on every input.
        outputs, wanted = zip(*((output, grad) for output, grad in zip(outputs, given) if output.requires_grad))
        (gradient,) = torch.autograd.grad(outputs, inputs[index], wanted)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
