"""Every sample call of every operator, and ways to make, change and run one."""

import os
from dataclasses import dataclass

import pytest
import torch

from fastnorm import functional
from fastnorm.ops import OPERATORS, backends

DEVICE = os.environ.get("FASTNORM_TEST_DEVICE", "cpu")
DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16

# 19 channels and planes of 77: whole vectors of 16, of 8 and of 4 numbers, and a rest, along either.
SHAPE = 2, 19, 7, 11
TINY = 2, 2, 3, 2


@dataclass(frozen=True)
class Call:
    operator: "fastnorm.ops._operator.Operator"
    name: str

    def sample(self, shape=SHAPE, dtype=torch.float32, seed=0):
        """The call on random tensors, normally distributed."""
        generator = torch.Generator().manual_seed(seed)

        def make(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)

        return next(sample for sample in self.operator.samples(make, shape) if sample.name == self.name)

    def __str__(self):
        return f"{self.operator.name}: {self.name}"


CALLS = [
    Call(operator, sample.name)
    for operator in OPERATORS.values()
    for sample in operator.samples(torch.zeros, TINY)
]

every_call = pytest.mark.parametrize("call", CALLS, ids=str)
FIRST = [next(call for call in CALLS if call.operator is operator) for operator in OPERATORS.values()]
first_calls = pytest.mark.parametrize("call", FIRST, ids=str)
# Where a call takes seconds: the first of each operator, and with `-m long` the others, and those of operators that take
# the steps of gram_matrix, or spectral ones (half a minute where every size is a symbol).
SLOW = "covariance", "zca_whiten", "whiten_color", "color_stats", "recolor"
IN_TIME = [call for call in FIRST if call.operator.name not in SLOW]
calls_in_time = pytest.mark.parametrize(
    "call", [pytest.param(call, marks=() if call in IN_TIME else pytest.mark.long) for call in CALLS], ids=str
)
# What has an index for a result has no gradient.
DIFFERENTIABLE = [call for call in CALLS if call.operator.backward_maps]
differentiable_calls = pytest.mark.parametrize("call", DIFFERENTIABLE, ids=str)


def every_call_in(*dtypes):
    """The first type is that of every call; where others hardly matter, those of an operator's first alone are in time."""
    pairs = [
        pytest.param(call, dtype, marks=() if dtype is dtypes[0] or call in FIRST else pytest.mark.long)
        for call in CALLS
        for dtype in dtypes
    ]
    return pytest.mark.parametrize("call, dtype", pairs, ids=str)


every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def is_map(tensor):
    """Masks are none."""
    return tensor.dim() >= 3 and tensor.is_floating_point()


def hands_on(operator):
    """Whether it is made of other operators that hand on maps, in the input's type, from one to the next."""
    return operator.name in ("upsample_conv2d", "norm_conv2d", "norm_conv_transpose2d")


def keeps_maps(operator):
    """Whether its gradient is that of the operators that it is made of, and takes maps that these hand on, wide."""
    return operator.name in ("whiten_color", "zca_whiten", "color_stats", "recolor")


def filters_of(call, sample):
    """What has the type of the map beside it: filters, or a weight of them; keys and values; a style's patches; a
    target of numbers.
    """
    if call.operator.name == "match_histogram":
        return tensors(sample)[1:2]
    if call.operator.name in ("attention_stats", "patch_match", "style_swap"):
        return tensors(sample)[1:]
    if not any(kernel.startswith("dynamic_") for kernel in call.operator.kernels):
        return []
    return [tensor for tensor in tensors(sample)[1:] if tensor.dim() > 2]


def double(tensor):
    return tensor.double() if tensor.is_floating_point() else tensor


def public(call):
    """The function that users call."""
    return getattr(functional, call.operator.name)


def tensors(sample):
    found = []
    sample.map(found.append)
    return found


def with_tensors(sample, tensors):
    """The same call on other tensors, in the order of `tensors(sample)`."""
    given = iter(tensors)
    return sample.map(lambda _: next(given))


def with_input(sample, change):
    """The same call with its first tensor changed."""
    first, *others = tensors(sample)
    return with_tensors(sample, [change(first), *others])


def leaves(sample):
    """The call on leaves of their own, and those that are differentiated."""
    sample = sample.map(lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()))
    return sample, [tensor for tensor in tensors(sample) if tensor.requires_grad]


def of_inputs(function, sample):
    """`function` of the sample's differentiable inputs alone, and those."""
    sample, inputs = leaves(sample)

    def of_inputs(*inputs):
        given = iter(inputs)
        return run(function, sample.map(lambda tensor: next(given) if tensor.requires_grad else tensor))

    return of_inputs, inputs


def run(function, sample):
    """The outputs, always as a tuple."""
    output = function(*sample.args, **sample.kwargs)
    return output if isinstance(output, tuple) else (output,)


def bends(sample):
    """Whether its activation has a kink: a number near to it, float32 and float64 may see on different sides."""
    return sample.kwargs.get("activation") in ("relu", "leaky_relu")


def cotangents(outputs, layout=lambda gradient: gradient, seed=1):
    """A random gradient for each output that may have one."""
    generator = torch.Generator().manual_seed(seed)
    return [
        layout(torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.device, output.dtype))
        for output in outputs
        if output.is_floating_point()
    ]


def differentiate(function, sample, gradients):
    """The gradient of every differentiable input, given those of the outputs."""
    sample, inputs = leaves(sample)
    return gradients_of(run(function, sample), inputs, gradients)


def gradients_of(outputs, inputs, gradients):
    """Zeros where no output depends on an input as far as autograd knows."""
    outputs = [output for output in outputs if output.is_floating_point()]
    if not any(output.requires_grad for output in outputs):
        return tuple(map(torch.zeros_like, inputs))
    return torch.autograd.grad(outputs, inputs, gradients)


def backend(operator):
    """What runs the operator here: "cpu", "cuda", "triton", or "definition" where no kernel of its does."""
    found = (backends.which(kernel, DEVICE) for kernel in operator.kernels)
    return next((backend for backend in found if backend != "definition"), "definition")
