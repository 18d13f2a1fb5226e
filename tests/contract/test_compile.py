"""What torch's compilers ask of an operator: opcheck, torch.compile without breaks or recompiles, torch.export."""

import io

import pytest
import torch
from calls import cotangents, differentiate, every_call, leaves, public, run, tensors, with_tensors
from layouts import channels_last, contiguous
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
            # A kernel knows no gradient: the autograd.Function around it does.
            self.calls.append((function, [arg.detach() if isinstance(arg, torch.Tensor) else arg for arg in args]))
        return function(*args, **(kwargs or {}))


def recorded(call, layout):
    sample = call.sample(SMALL).map(layout)
    given = cotangents(run(call.operator.reference, sample), layout)
    with Recorder() as recorder:
        differentiate(call.operator.run, sample, given)
    return recorder.calls


@every_call
def test_opcheck(call):
    for function, args in recorded(call, contiguous):
        torch.library.opcheck(function, args)


@every_call
def test_opcheck_channels_last(call):
    for function, args in recorded(call, channels_last):
        torch.library.opcheck(function, args, test_utils=("test_schema", "test_faketensor"))


@every_call
def test_kernels_are_listed(call):
    assert {function.overloadpacket.__name__ for function, _ in recorded(call, contiguous)} <= {*call.operator.kernels}


def forward_and_backward(function, call, shape):
    sample, inputs = leaves(call.sample(shape))
    outputs = run(function, sample)
    return *outputs, *torch.autograd.grad(outputs, inputs, cotangents(outputs))


def assert_compiled(call, backend):
    """One graph for every size, forward and backward, that gives what eager gives."""
    torch.compiler.reset()
    compiled = torch.compile(public(call), fullgraph=True, dynamic=True, backend=backend)
    actual = forward_and_backward(compiled, call, SMALL)
    torch.testing.assert_close(actual, forward_and_backward(public(call), call, SMALL))
    with torch.compiler.set_stance("fail_on_recompile"):
        actual = forward_and_backward(compiled, call, OTHER)
    torch.testing.assert_close(actual, forward_and_backward(public(call), call, OTHER))


@every_call
def test_compile(call):
    assert_compiled(call, "aot_eager")


@pytest.mark.long
@every_call
def test_compile_with_inductor(call):
    assert_compiled(call, "inductor")


class Exportable(torch.nn.Module):
    """A sample call as a module of its tensors."""

    def __init__(self, call):
        super().__init__()
        self.function, self.sample = public(call), call.sample(SMALL)

    def forward(self, *inputs):
        return run(self.function, with_tensors(self.sample, inputs))


@every_call
def test_export(call):
    inputs = tuple(tensors(call.sample(SMALL)))
    exported = torch.export.export(Exportable(call), inputs)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    other = tuple(tensors(call.sample(SMALL, seed=1)))
    torch.testing.assert_close(loaded(*other), run(public(call), with_tensors(call.sample(SMALL), other)))
