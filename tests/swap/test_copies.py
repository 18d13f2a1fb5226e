"""Swapped models copied, pickled and wrapped."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from net import WAYS, X, Net, close, make, step_all, swap_all
from torch import nn

import fastnorm
from fastnorm.swap._classes import Swapped


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@WAYS
@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_a_file, copy.copy])
def test_copies_are_swapped_and_their_own(copied, inputs):
    model = fastnorm.swap(make(False), inputs)
    model(X)
    found = copied(model)
    assert [type(part) for part in found.modules()] == [type(part) for part in model.modules()]
    close(found(X), make(False)(X))
    if copied is not copy.copy:  # Which shares all tensors.
        with torch.no_grad():
            found.last.bias += 1
        close(found(X) - 1, model(X))
    assert type(fastnorm.unswap(found)) is Net


class Named(nn.Module):
    """Its subclasses are registered, each name once; it keeps its state in a way of its own."""

    names = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        assert cls.__name__ not in Named.names
        Named.names[cls.__name__] = cls

    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm2d(3, affine=True)

    def forward(self, x):
        return F.relu(self.norm(F.pad(x, (1, 1, 1, 1))))


class Stated(Named):
    def __getstate__(self):
        return self.__dict__, "and more"

    def __setstate__(self, state):
        self.__dict__.update(state[0])
        self.more = state[1]


class Reduced(Named):
    def __reduce__(self):
        return _reduced, (self.norm.weight.detach(),)


def _reduced(weight):
    model = Reduced()
    model.norm.weight = nn.Parameter(weight)
    model.more = "and more"
    return model


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
@pytest.mark.parametrize("kind", [Stated, Reduced])
def test_copies_are_made_as_the_original_says(kind, copied):
    model, names = swap_all(kind()), dict(Named.names)
    with torch.no_grad():
        model.norm.weight.mul_(2)
    model(X)
    found = copied(model)
    assert type(found) is type(model) and found.more == "and more" and Named.names == names
    assert "_fastnorm_captured" in vars(model) and "_fastnorm_captured" not in vars(found)
    close(found(X), 2 * F.relu(F.instance_norm(F.pad(X, (1, 1, 1, 1)))))
    assert type(fastnorm.unswap(model)) is kind and names[kind.__name__] is kind


def test_a_copy_lets_go_of_the_original():
    model = swap_all(make(False))
    model(X)
    watched = weakref.ref(model)
    found = copy.deepcopy(model)
    del model
    torch._dynamo.reset()
    gc.collect()
    assert watched() is None and isinstance(found, Swapped)


# Wrappers.


@WAYS
def test_data_parallel(inputs):
    model = nn.DataParallel(fastnorm.swap(make(False), inputs))
    close(model(X), make(False)(X))


@WAYS
def test_distributed_data_parallel(inputs, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(fastnorm.swap(make(), inputs))
        original = make()
        found = step_all(model, torch.optim.SGD(model.parameters(), lr=0.05))
        for loss, expected in zip(found, step_all(original, torch.optim.SGD(original.parameters(), lr=0.05))):
            close(loss, expected)
    finally:
        dist.destroy_process_group()


@WAYS
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(inputs, reentrant):
    gradients = []
    for model in (make(), fastnorm.swap(make(), inputs)):
        input = X.clone().requires_grad_()
        torch.utils.checkpoint.checkpoint(model, input, use_reentrant=reentrant).square().mean().backward()
        gradients.append([input.grad, *(parameter.grad for parameter in model.parameters())])
    for found, expected in zip(*reversed(gradients)):
        close(found, expected)
