"""InstanceNorm1d, 2d and 3d against those of torch.nn."""

import copy
import pickle

import pytest
import torch

from fastnorm import nn

SHAPES = {1: (2, 3, 17), 2: (2, 3, 5, 7), 3: (2, 3, 3, 4, 5)}
every_dims = pytest.mark.parametrize("dims", SHAPES, ids="{}-D".format)
every_affine = pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
every_tracking = pytest.mark.parametrize("track", [False, True], ids=["", "tracking"])


def pair(dims, affine=True, track=True, **arguments):
    """torch's module with numbers of its own, and ours with torch's state."""
    name = f"InstanceNorm{dims}d"
    arguments = dict(affine=affine, track_running_stats=track, dtype=torch.float64) | arguments
    theirs, ours = getattr(torch.nn, name)(3, **arguments), getattr(nn, name)(3, **arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*theirs.parameters(), *theirs.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def maps(dims, count=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPES[dims], generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]


def assert_same(actual, expected, inputs, other_inputs):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    gradient = torch.linspace(-1, 1, actual.numel(), dtype=actual.dtype).view_as(actual)
    found = torch.autograd.grad(actual, inputs, gradient)
    torch.testing.assert_close(found, torch.autograd.grad(expected, other_inputs, gradient), rtol=1e-9, atol=1e-9)


@every_dims
@every_affine
@every_tracking
@pytest.mark.parametrize("momentum", [0.1, 0.6, None])
def test_trains_and_evaluates_as_torch_does(dims, affine, track, momentum):
    theirs, ours = pair(dims, affine, track, momentum=momentum, eps=1e-3)
    for step in range(3):
        (input,) = maps(dims, seed=step)
        assert_same(ours(input), theirs(input), [input, *ours.parameters()], [input, *theirs.parameters()])
    theirs.eval(), ours.eval()
    assert_same(ours(input), theirs(input), [input, *ours.parameters()], [input, *theirs.parameters()])
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, expected in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], expected, rtol=1e-10, atol=1e-10)


@every_dims
@every_affine
@every_tracking
def test_state_goes_both_ways(dims, affine, track):
    theirs, ours = pair(dims, affine, track)
    with torch.no_grad():
        for tensor in [*ours.parameters(), *ours.buffers()]:
            tensor.add_(1)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    (input,) = maps(dims)
    theirs.eval(), ours.eval()
    torch.testing.assert_close(theirs(input), ours(input), rtol=1e-10, atol=1e-10)


@every_dims
@every_tracking
def test_unbatched(dims, track):
    theirs, ours = pair(dims, track=track)
    input = maps(dims)[0][0]
    torch.testing.assert_close(ours(input), theirs(input), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-10, atol=1e-10)
    residual = maps(dims, seed=2)[0][0]
    torch.testing.assert_close(ours(input, residual), theirs(input) + residual, rtol=1e-10, atol=1e-10)


@every_dims
@every_tracking
@pytest.mark.parametrize(
    "activation, function",
    [
        ("relu", torch.relu),
        ("leaky_relu", lambda x: torch.nn.functional.leaky_relu(x, 0.3)),
        ("silu", torch.nn.functional.silu),
        ("gelu", torch.nn.functional.gelu),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_residual_and_activation(dims, track, activation, function):
    theirs, _ = pair(dims, track=track)
    ours = getattr(nn, f"InstanceNorm{dims}d")(3, affine=True, track_running_stats=track, dtype=torch.float64,
                                                activation=activation, negative_slope=0.3)  # fmt: skip
    ours.load_state_dict(theirs.state_dict())
    input, residual = inputs = maps(dims, 2)
    for _ in range(2):
        assert_same(
            ours(input, residual),
            function(theirs(input) + residual),
            [*inputs, *ours.parameters()],
            [*inputs, *theirs.parameters()],
        )
        theirs.eval(), ours.eval()


@every_dims
def test_is_one_of_torch_in_type_and_words(dims):
    theirs, ours = pair(dims)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    activated = getattr(nn, f"InstanceNorm{dims}d")(3, activation="relu")
    assert repr(activated) == repr(type(theirs)(3))[:-1] + ", activation='relu')"


@every_dims
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"])
def test_a_copy_is_the_same_and_its_own(dims, copied):
    _, ours = pair(dims)
    ours.activation, ours.negative_slope = "leaky_relu", 0.3
    (input,) = maps(dims)
    other = copied(ours).eval()
    before = {key: tensor.clone() for key, tensor in other.state_dict().items()}
    expected = ours.eval()(input)
    assert torch.equal(other(input), expected)
    ours.train()(input)
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())


def test_another_number_of_channels_where_none_is_needed():
    """As in torch, which only warns of it."""
    input = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(nn.InstanceNorm2d(3)(input), torch.nn.functional.instance_norm(input))


def test_channels_last_stays():
    input = torch.randn(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    output = nn.InstanceNorm2d(3, activation="relu")(input)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, torch.nn.functional.instance_norm(input).relu())


def test_in_a_network_under_autocast():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True, activation="relu"))
    input = torch.randn(2, 3, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(input)
    assert output.dtype == torch.bfloat16
    # The convolution rounds its 27 products and their sum to 8 bits.
    torch.testing.assert_close(output.float(), network(input), rtol=0.02, atol=0.03)
    output.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_compiles_whole(training):
    theirs, ours = pair(2)
    ours.train(training), theirs.train(training)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    (input,) = maps(2)
    assert_same(compiled(input), theirs(input), [input, *ours.parameters()], [input, *theirs.parameters()])
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-10, atol=1e-10)
