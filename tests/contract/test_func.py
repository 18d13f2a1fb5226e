"""torch.func and forward mode: every transform of an operator is that of its reference."""

import pytest
import torch
from calls import DIFFERENTIABLE, TINY, cotangents, every_call, of_inputs, public
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, vmap


def directions(inputs):
    return tuple(cotangents(inputs, seed=1))


def batch(inputs):
    """Three of each input."""
    return tuple(torch.stack([input, input + other, -input]) for input, other in zip(inputs, directions(inputs)))


def arguments(inputs):
    return tuple(range(len(inputs)))


def to_scalar(function):
    """A number, of which no derivative is a constant."""
    return lambda *inputs: sum((output**3).sum() for output in function(*inputs))


def jvp(function, inputs):
    return torch.func.jvp(function, inputs, directions(inputs))


def dual_numbers(function, inputs):
    with forward_ad.dual_level():
        outputs = function(*map(forward_ad.make_dual, inputs, directions(inputs)))
        return [tuple(forward_ad.unpack_dual(output)) for output in outputs]


def gradient_of_dual_numbers(function, inputs):
    with forward_ad.dual_level():
        inputs = [*map(forward_ad.make_dual, [input.clone().requires_grad_() for input in inputs], directions(inputs))]
        gradients = torch.autograd.grad(to_scalar(function)(*inputs), inputs, create_graph=True)
        return [tuple(forward_ad.unpack_dual(gradient)) for gradient in gradients]


def vmap_of_all(function, inputs):
    return vmap(function)(*batch(inputs))


def vmap_of_the_map(function, inputs):
    first, *others = inputs
    return vmap(lambda first: function(first, *others))(batch(inputs)[0])


def vmap_of_the_parameters(function, inputs):
    first, *others = inputs
    if not others:
        pytest.skip("no parameters")
    return vmap(lambda *others: function(first, *others))(*batch(inputs)[1:])


def grad_of_vmap(function, inputs):
    return grad(to_scalar(vmap(function)), arguments(inputs))(*batch(inputs))


def vmap_of_grad(function, inputs):
    return vmap(grad(to_scalar(function), arguments(inputs)))(*batch(inputs))


def jacobian_forward(function, inputs):
    return jacfwd(function, arguments(inputs))(*inputs)


def jacobian_reverse(function, inputs):
    return jacrev(function, arguments(inputs))(*inputs)


def along_directions(function, inputs):
    """The scalar of `function` as one of two numbers for each input, which move it in random directions, and those at 0.

    A wrong second derivative shows in any direction; the whole matrix of some hundred inputs would take minutes.
    """
    ways = [cotangents(inputs, seed=seed) for seed in (1, 2)]

    def of_numbers(*numbers):
        return to_scalar(function)(*(x + a * t[0] + b * t[1] for x, a, b, t in zip(inputs, *ways, numbers)))

    return of_numbers, tuple(input.new_zeros(2) for input in inputs)


def hessian_forward_over_reverse(function, inputs):
    function, numbers = along_directions(function, inputs)
    return hessian(function, arguments(numbers))(*numbers)


def hessian_reverse_over_reverse(function, inputs):
    function, numbers = along_directions(function, inputs)
    return jacrev(jacrev(function, arguments(numbers)), arguments(numbers))(*numbers)


def hessian_reverse_over_forward(function, inputs):
    function, numbers = along_directions(function, inputs)
    return jacrev(jacfwd(function, arguments(numbers)), arguments(numbers))(*numbers)


TRANSFORMS = (
    jvp,
    dual_numbers,
    gradient_of_dual_numbers,
    vmap_of_all,
    vmap_of_the_map,
    vmap_of_the_parameters,
    grad_of_vmap,
    vmap_of_grad,
    jacobian_forward,
    jacobian_reverse,
    hessian_forward_over_reverse,
    hessian_reverse_over_reverse,
    hessian_reverse_over_forward,
)
WITHOUT_DERIVATIVES = vmap_of_all, vmap_of_the_map, vmap_of_the_parameters


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: transform.__name__)
@every_call
def test_as_of_the_reference(call, transform):
    if call not in DIFFERENTIABLE and transform not in WITHOUT_DERIVATIVES:
        pytest.skip("has no derivative")

    def result(function):
        function, inputs = of_inputs(function, call.sample(TINY, torch.float64))
        return transform(function, tuple(input.detach() for input in inputs))

    torch.testing.assert_close(result(public(call)), result(call.operator.reference), rtol=1e-9, atol=1e-9)
