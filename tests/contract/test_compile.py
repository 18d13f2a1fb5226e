"""What torch's compilers ask of an operator: opcheck, torch.compile without breaks or recompiles, torch.export."""

import io

import pytest
import torch
from calls import calls_in_time, cotangents, every_call, filters_of, gradients_of, is_map, leaves, public, run, tensors
from layouts import contiguous, every_layout
from torch.utils._python_dispatch import TorchDispatchMode

# Sizes that differ from each other and from the three styles: dynamic sizes that are equal are taken for the same one.
SMALL, OTHER = (2, 4, 5, 7), (5, 6, 9, 8)


class Recorder(TorchDispatchMode):
    """The kernel operators that a call comes down to, with their arguments."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "fastnorm":
            self.calls.append((function, args))
        return function(*args, **(kwargs or {}))


EVERYTHING, THE_MAP, THE_REST, NOTHING = slice(None), slice(0, 1), slice(1, None), slice(0, 0)


def recorded(call, layout, wanted=EVERYTHING):
    """The kernels that a forward runs, and a backward for the `wanted` among its inputs, with their arguments."""
    sample, inputs = leaves(call.sample(SMALL).map(layout))
    for tensor in inputs:
        tensor.requires_grad_(False)
    for tensor in inputs[wanted]:
        tensor.requires_grad_()
    with Recorder() as recorder:
        outputs = run(call.operator.run, sample)
        if inputs[wanted]:
            gradients_of(outputs, inputs[wanted], cotangents(outputs, layout))
    # A kernel knows no gradient: the autograd.Function around it does.
    detached = [[arg.detach() if isinstance(arg, torch.Tensor) else arg for arg in args] for _, args in recorder.calls]
    return [(function, args) for (function, _), args in zip(recorder.calls, detached)]


@calls_in_time
def test_opcheck(call):
    for function, args in recorded(call, contiguous):
        torch.library.opcheck(function, args)


@pytest.mark.parametrize("wanted", [EVERYTHING, THE_MAP, THE_REST], ids=["everything", "the map", "the rest"])
@every_layout
@every_call
def test_fakes_promise_what_comes(call, layout, wanted):
    """An empty output, too, where none is wanted."""
    for function, args in recorded(call, layout, wanted):
        torch.library.opcheck(function, args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("wanted", [EVERYTHING, NOTHING], ids=["with gradients", "without"])
@every_call
def test_kernels_are_listed(call, wanted):
    kernels = {function.overloadpacket.__name__ for function, _ in recorded(call, contiguous, wanted)}
    assert kernels <= {*call.operator.kernels}


def forward_and_backward(function, call, shape):
    sample, inputs = leaves(call.sample(shape))
    outputs = run(function, sample)
    return *outputs, *gradients_of(outputs, inputs, cotangents(outputs))


def assert_compiled(call, backend):
    """One graph for every size, forward and backward, that gives what eager gives."""
    torch.compiler.reset()
    # The sizes of filters are small numbers, of which some are equal whatever the map's are.
    with torch.fx.experimental._config.patch(use_duck_shape=not filters_of(call, call.sample(SMALL))):
        compiled = torch.compile(public(call), fullgraph=True, dynamic=True, backend=backend)
        actual = forward_and_backward(compiled, call, SMALL)
        torch.testing.assert_close(actual, forward_and_backward(public(call), call, SMALL))
        with torch.compiler.set_stance("fail_on_recompile"):
            actual = forward_and_backward(compiled, call, OTHER)
        torch.testing.assert_close(actual, forward_and_backward(public(call), call, OTHER))


@calls_in_time
def test_compile(call):
    assert_compiled(call, "aot_eager")


@pytest.mark.long
@every_call
def test_compile_with_inductor(call):
    assert_compiled(call, "inductor")


class Layer(torch.nn.Module):
    """A sample call on given maps; what else it takes is learned, or an index."""

    def __init__(self, call):
        super().__init__()
        self.function, self.sample = public(call), call.sample(SMALL, torch.float64)
        numbers = [tensor for tensor in tensors(self.sample) if not is_map(tensor)]
        self.numbers = torch.nn.ParameterList(torch.nn.Parameter(t, t.is_floating_point()) for t in numbers)

    def forward(self, *maps):
        maps, numbers = iter(maps), iter(self.numbers)
        return run(self.function, self.sample.map(lambda tensor: next(maps if is_map(tensor) else numbers)))


def maps_of(sample):
    return tuple(tensor for tensor in tensors(sample) if is_map(tensor))


@calls_in_time
def test_an_exported_layer_learns_what_the_layer_does(call):
    """Saved and loaded, in a process that may have no fastnorm."""
    # In float64: the file holds the definition, which adds up in another order than the kernels do.
    layer = Layer(call)
    exported = torch.export.export(layer, maps_of(call.sample(SMALL, torch.float64)))
    assert "fastnorm" not in {*map(namespace, exported.graph.nodes)}
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()

    def learn(layer):
        sample, maps = leaves(call.sample(SMALL, torch.float64, seed=1))
        outputs = layer(*maps_of(sample))
        inputs = [tensor for tensor in (*maps_of(sample), *layer.parameters()) if tensor.requires_grad]
        return outputs, gradients_of(outputs, inputs, cotangents(outputs))

    torch.testing.assert_close(learn(loaded), learn(layer))


def namespace(node):
    return getattr(node.target, "namespace", None)
