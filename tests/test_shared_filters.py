"""Gradients of 3x3 convolutions whose filters all samples share, or are frozen: as of the formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as torchs

from fastnorm import functional as F
from fastnorm.nn import Chain
from fastnorm.ops import backends

by_kernels = pytest.mark.skipif(
    backends.which("norm_conv2d", "cpu") != "cpu", reason="definitions keep what torch's operators keep"
)

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
every_mode = pytest.mark.parametrize("mode", MODES)

# Samples, channels in and out, rows and columns: in tiles of 2 and of 4 columns, by a direct sum, by torch's own.
SHAPES = (2, 17, 18, 9, 31), (1, 128, 130, 9, 64), (2, 20, 3, 5, 7), (1, 128, 128, 9, 20)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(shape):
    n, channels, out_channels, rows, columns = shape
    weight = random(out_channels, channels, 3, 3, seed=1) / (3 * channels**0.5)
    return random(n, channels, rows, columns), weight, random(out_channels, seed=2)


def formula(input, weight, bias, padding, mode, kept=None):
    """`kept`: where ReLU lets through, of which float32 and float64 may be of two minds."""
    down, along = (padding, padding) if isinstance(padding, int) else padding
    output = torchs.conv2d(torchs.pad(input, (along, along, down, down), mode=MODES[mode]), weight, bias)
    return output if kept is None else output * kept


def assert_near(found, exact, own):
    error, own_error = ((tensor.double() - exact).abs().max() for tensor in (found, own))
    room = 8 * torch.finfo(found.dtype).eps * exact.abs().max()
    assert error <= 2 * own_error + room, f"off by {error:.3g}, torch by {own_error:.3g}"


def channels_last(map):
    return map.contiguous(memory_format=torch.channels_last)


def every_other(map):
    return torch.stack([map, map], -1)[..., 0]


@every_mode
@every_shape
@pytest.mark.parametrize("padding", [0, 1, (2, 1), 3], ids=str)
@pytest.mark.parametrize(
    "frozen, activation", [(False, None), (True, None), (True, "relu")], ids=["learned", "frozen", "relu"]
)
def test_gradients(frozen, activation, padding, shape, mode):
    tensors = layer(shape)

    def differentiated(function, dtype):
        inputs = [tensor.to(dtype).requires_grad_(index == 0 or not frozen) for index, tensor in enumerate(tensors)]
        output = function(*inputs)
        given = random(*output.shape, seed=3).to(dtype)
        return output, *torch.autograd.grad(output, [input for input in inputs if input.requires_grad], given)

    settings = dict(padding=padding, padding_mode=mode, output_activation=activation)
    found = differentiated(lambda *inputs: F.norm_conv2d(*inputs, **settings), torch.float32)
    kept = found[0].detach() > 0 if activation else None

    def of_torch(*inputs):
        return formula(*inputs, padding, mode, kept)

    exact, own = differentiated(of_torch, torch.float64), differentiated(of_torch, torch.float32)
    for each in zip(found, exact, own, strict=True):
        assert_near(*each)


@every_mode
@pytest.mark.parametrize("change", [channels_last, every_other, torch.clone])
@pytest.mark.parametrize("change_gradient", [channels_last, every_other])
def test_layouts(change_gradient, change, mode):
    input, weight, bias = (tensor.float() for tensor in layer(SHAPES[0]))
    settings = dict(padding=1, padding_mode=mode, output_activation="relu")

    def differentiated(change, change_gradient):
        changed = change(input).requires_grad_()
        output = F.norm_conv2d(changed, weight, bias, **settings)
        (gradient,) = torch.autograd.grad(output, changed, change_gradient(random(*output.shape, seed=3).float()))
        return output, gradient

    same = differentiated(lambda map: map.clone(), lambda map: map)
    torch.testing.assert_close(differentiated(change, change_gradient), same, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_mode
def test_low_precision(mode, dtype):
    shape = SHAPES[0]
    input, *others = (tensor.to(dtype) for tensor in layer(shape))
    exact_input, input = input.double().requires_grad_(), input.requires_grad_()
    output = F.norm_conv2d(input, *others, padding=1, padding_mode=mode)
    given = random(*output.shape, seed=3).to(dtype)
    (found,) = torch.autograd.grad(output, input, given)
    exact = formula(exact_input, *(tensor.double() for tensor in others), 1, mode)
    (expected,) = torch.autograd.grad(exact, exact_input, given.double())
    assert (found.double() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()


@every_mode
@pytest.mark.parametrize("activation", [None, "relu"])
def test_frozen_filters_twice_differentiated(activation, mode):
    input, weight, bias = layer((2, 3, 4, 5, 4))

    def function(input):
        return F.norm_conv2d(input, weight, bias, padding=1, padding_mode=mode, output_activation=activation)

    assert torch.autograd.gradcheck(function, input.requires_grad_(), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, input)


def test_frozen_filters_under_transforms():
    input, weight, bias = layer((2, 3, 4, 5, 4))

    def function(input):
        return F.norm_conv2d(input, weight, bias, padding=1, output_activation="relu").pow(3).sum()

    def expected(input):
        return formula(input, weight, bias, 1, "zeros").relu().pow(3).sum()

    for transform in (torch.func.grad, torch.func.jacfwd, torch.func.hessian):
        torch.testing.assert_close(transform(function)(input), transform(expected)(input))


def test_frozen_filters_without_samples():
    input = torch.ones(0, 3, 5, 6, requires_grad=True)
    output = F.norm_conv2d(input, torch.ones(4, 3, 3, 3), padding=1, padding_mode="reflect", output_activation="relu")
    output.sum().backward()
    assert output.shape == (0, 4, 5, 6) and input.grad.shape == input.shape


def kept_for_the_backward(function):
    """Bytes by storage; and the result."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function()
    return kept, result


@by_kernels
@every_shape
@pytest.mark.parametrize("activation, bytes_per_output", [(None, 0), ("relu", 1)])
def test_nothing_is_kept_but_where_relu_let_through(activation, bytes_per_output, shape):
    input, weight, bias = (tensor.float() for tensor in layer(shape))
    input.requires_grad_()
    kept, output = kept_for_the_backward(
        lambda: F.norm_conv2d(input, weight, bias, padding=1, padding_mode="reflect", output_activation=activation)
    )
    kept.pop(weight.untyped_storage().data_ptr())
    assert sum(kept.values()) == bytes_per_output * output.numel()


@by_kernels
def test_a_chain_of_frozen_modules():
    modules = [nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 20, 3, padding=1, padding_mode="reflect"), nn.ReLU()]
    chain = Chain(*modules).requires_grad_(False)
    input = random(2, 3, 12, 32).float().requires_grad_()
    kept, output = kept_for_the_backward(lambda: chain(input))
    for parameter in chain.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    assert sum(kept.values()) == 2 * output.numel()
    expected = nn.Sequential(*modules)(input)
    torch.testing.assert_close(output, expected)
    given = random(*output.shape, seed=1).float()
    torch.testing.assert_close(*(torch.autograd.grad(result, input, given) for result in (output, expected)))
    compiled = torch.compile(chain, backend="aot_eager")(input)
    torch.testing.assert_close(*(torch.autograd.grad(result, input, given) for result in (compiled, chain(input))))


@every_shape
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("frozen", [False, True], ids=["learned", "frozen"])
def test_the_same_bits_for_any_number_of_threads(frozen, mode, shape):
    input, weight, bias = (tensor.float() for tensor in layer(shape))
    inputs = [input.requires_grad_()] if frozen else [input.requires_grad_(), weight.requires_grad_()]

    def results():
        output = F.norm_conv2d(input, weight, bias, padding=1, padding_mode=mode, output_activation="relu")
        return output, *torch.autograd.grad(output, inputs, random(*output.shape, seed=3).float())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = results()
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert all(map(torch.equal, results(), expected)), f"{threads} threads"
    finally:
        torch.set_num_threads(before)
