"""Under autocast maps arrive in bfloat16, parameters in float32."""

import pytest
import torch
from accuracy import assert_accurate
from calls import DEVICE, cotangents, differentiate, double, every_call, filters_of, public, run, with_input

from fastnorm import functional


@every_call
def test_autocast(call):
    sample = with_input(call.sample(), torch.Tensor.bfloat16)

    def autocast(*args, **kwargs):
        with torch.autocast(DEVICE, torch.bfloat16):
            return public(call)(*args, **kwargs)

    def maps_in_bfloat16(*args, **kwargs):
        """What autocast does to the other maps, and to filters, by hand."""
        same = type(sample)("", args, kwargs)
        filters = [id(tensor) for tensor in filters_of(call, same)]
        same = same.map(lambda t: t.bfloat16() if t.shape == args[0].shape or id(t) in filters else t)
        return call.operator.reference(*same.args, **same.kwargs)

    expected, own = run(call.operator.reference, sample.map(double)), run(maps_in_bfloat16, sample)
    for index, output in enumerate(run(autocast, sample)):
        assert_accurate(output, expected[index], own[index], f"output {index}", scale=1.0)
    given = cotangents(own)
    expected = differentiate(call.operator.reference, sample.map(double), [gradient.double() for gradient in given])
    own = differentiate(maps_in_bfloat16, sample, given)
    for index, gradient in enumerate(differentiate(autocast, sample, given)):
        assert_accurate(gradient, expected[index], own[index], f"gradient {index}", scale=20.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_type_of_torch(dtype):
    input = torch.randn(2, 3, 5, 7, device=DEVICE).to(dtype)
    weight, bias = torch.randn(2, 3, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        expected = torch.nn.functional.instance_norm(input, weight=weight.to(dtype), bias=bias.to(dtype))
        assert functional.instance_norm(input, weight=weight, bias=bias).dtype == expected.dtype
