"""What the tests here share: a model exchanged without being measured, what came out of it, and whether its numbers are right."""

from statistics import median

import torch
from torch import Tensor, nn

from fastnorm.swap._capture import Capture
from fastnorm.swap._classes import swapped
from fastnorm.swap._rewrite import Fused


def captured(model):
    """The model itself, its forward exchanged, whatever it takes."""
    model.__class__ = swapped(type(model), "captured")
    return model


def graphs(model, *inputs):
    """What the rewritten graphs of a forward call, in order: the words of what is fused, and the names of functions."""
    pieces = Capture(type(model).forward).recorded(model, *inputs)
    return [[_words(piece.after, node) for node in piece.after.graph.nodes if node.op.startswith("call")] for piece in pieces]


def _words(module, node):
    if node.op == "call_module" and isinstance(step := module.get_submodule(node.target), Fused):
        return step.extra_repr()
    return node.target if isinstance(node.target, str) else node.target.__name__


def doubled(value):
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def results(model, inputs):
    """Outputs, and the gradients of their sum, each times a random tensor, by inputs and parameters."""
    inputs = [_leaf(input) for input in inputs]
    named = dict(model.named_parameters()) | {f"input {at}": input for at, input in enumerate(inputs)}
    leaves = {name: leaf for name, leaf in named.items() if isinstance(leaf, Tensor) and leaf.requires_grad}
    found = model(*inputs)
    outputs = [output for output in (found if isinstance(found, (tuple, list)) else [found])]
    generator = torch.Generator().manual_seed(7)
    factors = [torch.randn(output.shape, generator=generator).to(output.dtype) for output in outputs]
    gradients = torch.autograd.grad(outputs, list(leaves.values()), factors, allow_unused=True)
    return [output.detach() for output in outputs], dict(zip(leaves, gradients))


def _leaf(input):
    if isinstance(input, Tensor) and input.is_floating_point():
        return input.detach().requires_grad_()
    return input


def assert_right(model, make, inputs, slack=2):
    """As `verify`, against what `make` makes, but without copies of the model, which capture anew.

    Each error may be twice the original's, and 2 ulps, times the slack: of few numbers it is a matter of luck.
    """
    exact, own, found = results(make().double(), map(doubled, inputs)), results(make(), inputs), results(model, inputs)
    with torch.no_grad():
        again = model(*inputs)
    again = list(again) if isinstance(again, (tuple, list)) else [again]
    for values in (found[0], again):
        _assert_near(exact[0], own[0], values, slack)
    names = [name for name, gradient in exact[1].items() if gradient is not None]
    assert names and [name for name, gradient in found[1].items() if gradient is not None] == names
    _assert_near(*[[gradients[name] for name in names] for _, gradients in (exact, own, found)], slack)


def _assert_near(exact, own, found, slack):
    assert [(one.shape, one.dtype) for one in found] == [(one.shape, one.dtype) for one in own]
    largest = max(one.abs().max().item() for one in exact)
    ulp = max(torch.finfo(own[0].dtype).eps, 1e-13) * largest
    for index, (right, its, ours) in enumerate(zip(exact, own, found)):
        error, original = ((one.double() - right).abs().max().item() for one in (ours, its))
        assert error <= slack * (2 * original + 2 * ulp), (index, error, original)


def words(*graph):
    """Of all that is called, what computes."""
    return [call for call in graph if call not in _ARRANGES]


_ARRANGES = "getitem", "reshape", "unsqueeze", "contiguous", "cat"


def assert_verified(found, slack=2):
    """Of few numbers the largest error is a matter of luck, the original's too.

    Each may be twice its limit, or twice what is usual among its kind; most are within their limit.
    """
    kinds = {entry.kind for entry in found.entries}
    usual = {kind: median(entry.limit for entry in found.entries if entry.kind == kind) for kind in kinds}
    wrong = [entry for entry in found.entries if entry.error > slack * max(entry.limit, usual[entry.kind]) or entry.note]
    assert not wrong and sum(entry.ok for entry in found.entries) >= 0.8 * len(found.entries), found


def same_tensors(model):
    """Names, and the very objects."""
    return {name: id(tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())}


class Calls(nn.Module):
    """A module of one function of itself and its arguments, with modules of its own."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)
