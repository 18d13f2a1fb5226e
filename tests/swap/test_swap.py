"""swap and unswap: what a model keeps when it is swapped, all that people do with models afterwards, and bad input."""

import copy
import gc
import importlib
import io
import pickle
import threading
import warnings
import weakref
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from checks import Calls, assert_right, captured, graphs, same_tensors
from forms import randn, randomized
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from zoo import ZOO

import fastnorm
from fastnorm.swap._capture import Capture
from fastnorm.swap._classes import Swapped
from fastnorm.swap._rewrite import Choices

swap_module = importlib.import_module("fastnorm.swap.swap")  # By this name, its package has the function.

C = 6


class Net(nn.Module):
    """A run of modules, a norm alone, and code of its own; with running statistics."""

    def __init__(self):
        super().__init__()
        self.run = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, C, 3), nn.InstanceNorm2d(C, affine=True), nn.ReLU(), nn.Conv2d(C, C, 1)
        )
        self.norm = nn.InstanceNorm2d(C, affine=True)
        self.batch_norm = nn.BatchNorm2d(C)
        self.last = nn.Conv2d(C, 3, 3)

    def forward(self, x):
        x = x_run = self.run(x)
        x = F.relu(self.norm(x)) + x_run
        return self.last(F.pad(self.batch_norm(x), (1, 1, 1, 1), mode="reflect"))

    def features(self, x):
        return self.norm(self.run(x))


X = randn(2, 3, 9, 8)


def make(training=True):
    return randomized(Net).train(training)


def run_of_modules():
    return randomized(lambda: make().run)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def step_all(model, optimiser, steps=3, also=lambda: None):
    losses = []
    for index in range(steps):
        optimiser.zero_grad()
        loss = model(randn(2, 3, 9, 8, seed=index)).square().mean()
        loss.backward()
        optimiser.step()
        also()
        losses.append(loss.detach())
    return losses


def swap_all(model=None, inputs=X):
    """All levels, with inputs."""
    model = make() if model is None else model
    found = fastnorm.swap(model, inputs)
    assert found is model and isinstance(model, Swapped)
    return model


# By what it is exchanged: with inputs, the forward; without, its modules.
WAYS = pytest.mark.parametrize("inputs", [None, X], ids=["modules", "forward"])


@WAYS
def test_it_is_the_same_model_and_computes_the_same(inputs):
    model, original = make(), make()
    tensors, keys, text = same_tensors(model), list(model.state_dict()), repr(model)
    modules = list(model.modules())
    assert fastnorm.swap(model, inputs) is model
    assert any(isinstance(module, Swapped) for module in modules)
    assert same_tensors(model) == tensors and list(model.state_dict()) == keys and repr(model) == text
    assert [id(module) for module in model.modules()] == [id(module) for module in modules]
    assert isinstance(model, Net) and type(model).__name__ == "Net" and isinstance(model.norm, nn.InstanceNorm2d)
    for training in (True, False):
        close(model.train(training)(X), original.train(training)(X))
    close(model.batch_norm.running_mean, original.batch_norm.running_mean)


@WAYS
def test_unswap_gives_the_original_back(inputs):
    model = make()
    types, attributes = [type(part) for part in model.modules()], [set(vars(part)) for part in model.modules()]
    fastnorm.swap(model, inputs)(X)
    assert fastnorm.unswap(model) is model
    assert [type(part) for part in model.modules()] == types
    assert [set(vars(part)) for part in model.modules()] == attributes
    assert fastnorm.unswap(model) is model and type(model) is Net


@WAYS
def test_twice_is_once(inputs):
    model = fastnorm.swap(make(), inputs)
    types = [type(part) for part in model.modules()]
    assert [type(part) for part in fastnorm.swap(model, inputs).modules()] == types


def test_forward_after_modules():
    """Swapped without inputs, then with them."""
    model = fastnorm.swap(make())
    assert not isinstance(model, Swapped)
    close(swap_all(model)(X), make()(X))


def test_swap_leaves_everything_as_it_was():
    model = make()
    model.run[0].noise = 3
    model(X).sum().backward()
    state = copy.deepcopy(model.state_dict())
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    values = {name: gradient.clone() for name, gradient in gradients.items()}
    inputs, rng = X.clone().requires_grad_(), torch.get_rng_state()
    swap_all(model, inputs)
    assert inputs.equal(X) and inputs.grad is None and torch.get_rng_state().equal(rng)
    assert all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())
    for name, parameter in model.named_parameters():
        assert parameter.grad is gradients[name] and parameter.grad.equal(values[name])
    assert model.training and torch.is_grad_enabled()


def test_attributes_that_a_forward_sets_come_of_calls_alone():
    def forward(self, x):
        self.last = self.norm(F.pad(x, (1, 1, 1, 1)))
        self.calls = getattr(self, "calls", 0) + 1
        return self.last.relu()

    model = fastnorm.swap(Calls(forward, norm=nn.InstanceNorm2d(3)), X)
    assert not {"last", "calls"} & set(vars(model))
    close(model(X), model.last.relu())
    model(X)
    assert model.calls == 2


def keeping_state(self, x):
    """In all ways but buffers."""
    self.calls.append(None)
    self.last["input"] = x
    self.rate.mul_(0.5)
    self.rates[0].mul_(0.5)
    self.code.data.mul_(0.5)
    with torch.no_grad():
        self.book.add_(x.mean())
    x = self.norm(F.pad(x, (1, 1, 1, 1))) * self.rate * self.rates[0] * self.code
    self.before = x + (0 if self.before is None else self.before.detach())
    return self.before.relu() + self.book


def with_state():
    model = Calls(keeping_state, norm=nn.InstanceNorm2d(3))
    model.calls, model.last, model.before = [], {}, None
    model.rate, model.rates = torch.ones(1), [torch.ones(1)]
    model.code, model.book = (nn.Parameter(torch.ones(1), requires_grad=False) for _ in range(2))
    return model


@pytest.mark.parametrize("gains", [True, False])
def test_state_of_any_kind_comes_of_calls_alone(monkeypatch, gains):
    """Whether the forward is captured, or in the end nothing is exchanged."""
    monkeypatch.setattr(swap_module, "LEAST_GAIN", float("inf") if gains else 0.0)
    model = with_state()
    tensors = model.rate, model.rates[0], model.code, model.book
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It breaks the graph.
        fastnorm.swap(model, X)
    assert isinstance(model, Swapped) == gains
    assert model.calls == [] and model.last == {} and model.before is None
    for found, its in zip((model.rate, model.rates[0], model.code, model.book), tensors):
        assert found is its
    assert [tensor.item() for tensor in tensors] == [1, 1, 1, 1]


def test_what_no_call_changed_is_not_written_to():
    """A graph made before may hold it: here what a norm by running statistics needs for its backward."""
    model = make(False)
    loss = model(X).sum()
    swap_all(model)
    loss.backward()
    assert model.run[1].weight.grad is not None


def test_a_model_made_in_inference_mode():
    with torch.inference_mode():
        model, original = make(False), make(False)
    with torch.no_grad():
        close(swap_all(model)(X), original(X))
    assert model.batch_norm.running_mean.is_inference()


def test_example_inputs_are_not_written_to():
    model = nn.Sequential(nn.LeakyReLU(0.2, inplace=True), nn.InstanceNorm2d(3), nn.ReLU(inplace=True))
    inputs = X.clone()
    fastnorm.swap(model, inputs)
    assert inputs.equal(X)
    close(model(inputs), F.relu(F.instance_norm(F.leaky_relu(X, 0.2))))
    close(inputs, F.leaky_relu(X, 0.2))  # As the original does.


# Checkpoints, optimisers, averages, modes.


@WAYS
def test_checkpoints_load_before_and_after(inputs):
    other = randomized(Net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    checkpoint = copy.deepcopy(other.state_dict())
    before, after = make(), make()
    before.load_state_dict(checkpoint)
    fastnorm.swap(before, inputs)
    fastnorm.swap(after, inputs).load_state_dict(checkpoint)
    expected = other.eval()(X)
    close(before.eval()(X), expected)
    close(after.eval()(X), expected)
    fresh = make()
    fresh.load_state_dict(after.state_dict())
    close(fresh.eval()(X), expected)


@WAYS
def test_an_optimiser_made_before_goes_on(inputs):
    model, original = make(), make()
    optimisers = [torch.optim.SGD(one.parameters(), lr=0.05, momentum=0.9) for one in (model, original)]
    for one, optimiser in zip((model, original), optimisers):
        step_all(one, optimiser, 1)
    fastnorm.swap(model, inputs)
    for found, expected in zip(step_all(model, optimisers[0]), step_all(original, optimisers[1])):
        close(found, expected)
    for found, expected in zip(model.state_dict().values(), original.state_dict().values()):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_moving_averages_go_on():
    averages = []
    for swapped in (False, True):
        model = make()
        average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
        if swapped:
            swap_all(model)
        step_all(model, optimiser, also=lambda: average.update_parameters(model))
        averages.append(average)
    close(averages[1].eval()(X), averages[0].eval()(X))


def test_a_moving_average_of_a_swapped_model():
    model = swap_all()
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    assert isinstance(average.module, Swapped)
    close(average.eval()(X), make(False)(X))


def test_modes_are_those_of_the_call():
    """Swapped in training, called in eval, and back; statistics run in training alone."""
    model, original = swap_all(), make()
    for training in (False, True, False):
        close(model.train(training)(X), original.train(training)(X))
        close(model.batch_norm.running_var, original.batch_norm.running_var)
    assert model.batch_norm.num_batches_tracked == 1


# Copies.


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


# Hooks.


HOOKS = "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook"
PARTS = "", "run", "run.0", "run.2", "norm", "last"


def call_back(model):
    model.zero_grad()
    model(X.clone().requires_grad_()).square().mean().backward()


@WAYS
@pytest.mark.parametrize("register", HOOKS)
@pytest.mark.parametrize("when", ["before", "after", "called"])
def test_hooks(register, when, inputs):
    """Registered before the swap, after it, and after the first call; all see what they see of the original."""
    seen = []
    for swapped in (False, True):
        model = make()
        record = []

        def hook(part, *tensors):
            flat = [one for tensor in tensors for one in (tensor if isinstance(tensor, tuple) else (tensor,))]
            record.append([one.detach().clone() for one in flat if one is not None])

        def swap():
            if swapped:
                fastnorm.swap(model, inputs)

        if when != "before":
            swap()
        if when == "called":
            call_back(model)
        handles = [getattr(model.get_submodule(part), register)(hook) for part in PARTS]
        if when == "before":
            swap()
        record.clear()
        call_back(model)
        count = len(record)
        for handle in handles:
            handle.remove()
        call_back(model)
        assert len(record) == count
        seen.append(record)
    expected, found = seen
    assert len(found) == len(expected) == len(PARTS)
    for ours, its in zip(found, expected):
        close(ours, its)


@WAYS
def test_hooks_that_change_what_they_see(inputs):
    outputs = []
    for model in (make(False), fastnorm.swap(make(False), inputs)):
        model.run[2].register_forward_hook(lambda part, args, output: output * 0.5)
        handle = model.norm.register_forward_pre_hook(lambda part, args: (args[0] + 1 + args[0] ** 2,))
        outputs.append([model(X)])
        handle.remove()
        outputs[-1].append(model(X))
    close(outputs[1], outputs[0])
    assert not torch.allclose(*outputs[0])


def test_hooks_on_modules_that_came_later():
    """In the place of another one, or as well."""
    model = Calls(lambda self, x: [x := part(x) for part in self.parts][-1], parts=nn.ModuleList(make(False).run)).eval()
    fastnorm.swap(model, X)
    model(X)
    model.parts[4] = nn.Conv2d(C, C, 1)
    model.parts.append(nn.Identity())
    model(X)
    fired = []
    for part in model.parts[4:]:
        part.register_forward_hook(lambda part, args, output: fired.append(type(part)))
    model(X)
    assert fired == [nn.Conv2d, nn.Identity]


# Parametrisations.


class Halved(nn.Module):
    def forward(self, weight):
        return weight * 0.5


@WAYS
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("part, name", [("last", "weight"), ("run.1", "weight"), ("norm", "bias"), ("run.2", "weight")])
def test_parametrisations(before, part, name, inputs):
    model, original = make(False), make(False)
    for one in (model, original):
        if one is model and not before:
            fastnorm.swap(model, inputs)(X)
        parametrize.register_parametrization(one.get_submodule(part), name, Halved())
        if one is model and before:
            fastnorm.swap(model, inputs)
    close(model(X), original(X))
    assert list(model.state_dict()) == list(original.state_dict())
    parametrize.remove_parametrizations(model.get_submodule(part), name)
    parametrize.remove_parametrizations(original.get_submodule(part), name)
    close(model(X), original(X))
    fastnorm.unswap(model)
    assert [type(part) for part in model.modules()] == [type(part) for part in original.modules()]
    close(model(X), original(X))


@WAYS
@pytest.mark.parametrize(
    "register", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.spectral_norm]
)
@pytest.mark.parametrize("before", [True, False])
def test_norms_of_weights(register, before, inputs):
    losses = []
    for swapped in (False, True):
        model = make()
        if swapped and not before:
            fastnorm.swap(model, inputs)(X)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            register(model.run[1])
        if swapped and before:
            fastnorm.swap(model, inputs)
        losses.append(step_all(model, torch.optim.SGD(model.parameters(), lr=0.05), 2))
    close(losses[1], losses[0])


# torch.func, tracers, exporters, compilers.


@WAYS
def test_functional_call_and_grad(inputs):
    model, original = fastnorm.swap(make(False), inputs), make(False)
    parameters = {name: parameter.detach() * 1.1 for name, parameter in original.named_parameters()}
    close(torch.func.functional_call(model, parameters, (X,)), torch.func.functional_call(original, parameters, (X,)))

    def loss(model):
        return lambda parameters: torch.func.functional_call(model, parameters, (X,)).square().mean()

    close(torch.func.grad(loss(model))(parameters), torch.func.grad(loss(original))(parameters))


@WAYS
def test_vmap(inputs):
    model, original = fastnorm.swap(make(False), inputs), make(False)
    with torch.no_grad():
        close(torch.func.vmap(model)(X[:, None])[:, 0], original(X))


@WAYS
def test_jit_trace(inputs):
    model = fastnorm.swap(make(False), inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, X)
    close(traced(X), make(False)(X))
    assert "fastnorm" not in str(traced.inlined_graph)


@WAYS
def test_export(inputs):
    program = torch.export.export(fastnorm.swap(make(False), inputs), (X,))
    close(program.module()(X), make(False)(X))
    assert not any("fastnorm" in str(node.target) for node in program.graph.nodes)


@WAYS
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx(inputs, dynamo):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(fastnorm.swap(make(False), inputs), (X,), file, dynamo=dynamo, input_names=["x"], **QUIET[dynamo])
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": X.numpy()})
    close(torch.from_numpy(found), make(False)(X).detach())


QUIET = {False: {}, True: {"verbose": False}}


@WAYS
def test_compile(inputs):
    model = torch.compile(fastnorm.swap(make(False), inputs), backend="eager")
    close(model(X), make(False)(X))
    input = X.clone().requires_grad_()
    model(input).sum().backward()
    (expected,) = torch.autograd.grad(make(False)(input).sum(), input)
    close(input.grad, expected)


@WAYS
def test_autocast(inputs):
    model, original = fastnorm.swap(make(False), inputs), make(False)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = model(X), original(X)
    assert found.dtype == expected.dtype == torch.bfloat16
    exact = make(False).double()(X.double())
    assert (found - exact).abs().max() <= 2 * (expected - exact).abs().max()


@WAYS
def test_channels_last(inputs):
    model, original = fastnorm.swap(make(False), inputs), make(False)
    close(model(X.to(memory_format=torch.channels_last)), original(X))
    close(model.to(memory_format=torch.channels_last)(X.to(memory_format=torch.channels_last)), original(X))


@WAYS
def test_a_picture_without_a_batch(inputs):
    run = nn.Sequential(*list(make(False).run))
    close(fastnorm.swap(run, inputs)(X[0]), make(False).run(X[0]))


@WAYS
def test_no_batch_and_no_gradients(inputs):
    model = fastnorm.swap(make(False), inputs)
    with torch.inference_mode():
        close(model(X), make(False)(X))
    close(model(X[:1]), make(False)(X[:1]))


def test_to_another_type():
    model = swap_all(make(False)).double()
    assert model(X.double()).dtype == torch.float64
    torch.testing.assert_close(model(X.double()), make(False).double()(X.double()))


@WAYS
def test_other_methods(inputs):
    model = fastnorm.swap(make(False), inputs)
    close(model.features(X), make(False).features(X))


@WAYS
def test_attributes_set_later(inputs):
    """Another layer, another setting, another parameter; what was captured goes by them."""
    outputs = []
    for model in (make(False), fastnorm.swap(make(False), inputs)):
        model(X)
        model.norm = randomized(nn.InstanceNorm2d, C, eps=0.5)
        outputs.append([model(X)])
        model.run[2].eps = 0.25
        outputs[-1].append(model(X))
        model.last.bias = None
        outputs[-1].append(model(X))
    close(outputs[1], outputs[0])


# Parts of models.


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", [torch.jit.script, partial(torch.jit.trace, example_inputs=randn(2, C, 9, 8))], ids=["script", "trace"])
def test_scripted_and_traced_modules_are_left_alone(way):
    part = way(nn.Sequential(nn.InstanceNorm2d(C), nn.ReLU()).eval())
    model = nn.Sequential(*make(False).run, part, nn.ReflectionPad2d(1), nn.Conv2d(C, 3, 3)).eval()
    expected, kind = model(X), type(part)
    for inputs in (None, X):
        assert fastnorm.explain(model, inputs).rows
        fastnorm.swap(model, inputs)
        assert isinstance(model, Swapped) and type(part) is kind and model[5] is part
        close(model(X), expected)
    within = Calls(lambda self, x: self.part(F.instance_norm(self.conv(x))), conv=nn.Conv2d(3, C, 3), part=part)
    expected = within(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        close(fastnorm.swap(within, X)(X), expected)
    for function in (fastnorm.swap, fastnorm.explain, fastnorm.unswap):
        name = function.__name__
        with pytest.raises(TypeError, match=f"^{name}: model: .* got a scripted or traced one: {name} the module"):
            function(part)


def test_a_submodule_alone():
    model = make(False)
    fastnorm.swap(model.run, X)
    assert isinstance(model.run, Swapped) and not isinstance(model, Swapped)
    close(model(X), make(False)(X))
    swap_all(model)
    close(model(X), make(False)(X))


@WAYS
def test_shared_modules(inputs):
    def shared():
        run = Net().run
        block = nn.Sequential(nn.InstanceNorm2d(C, affine=True), nn.ReLU(), nn.ReflectionPad2d(1), nn.Conv2d(C, C, 3))
        return nn.Sequential(run, block, block, block[0])

    close(fastnorm.swap(randomized(shared), inputs)(X), randomized(shared)(X))


def test_a_sequence_that_begins_in_place_is_left_alone():
    block = nn.Sequential(nn.ReLU(inplace=True), nn.ReflectionPad2d(1), nn.Conv2d(C, C, 3), nn.InstanceNorm2d(C), nn.ReLU())
    fastnorm.swap(block)
    assert type(block) is nn.Sequential and isinstance(block[3], Swapped)
    input = randn(2, C, 5, 6)
    block(seen := input.clone())
    assert seen.equal(input.relu())


@pytest.mark.parametrize("training, p", [(True, 0.0), (False, 0.5)])
def test_a_dropout_that_drops_nothing_is_no_layer(training, p):
    def run():
        dropped = nn.InstanceNorm2d(C, affine=True), nn.Dropout(p), nn.LeakyReLU(0.1, inplace=True)
        return Calls(lambda self, x: self.run(self.conv(x)), conv=nn.Conv2d(3, C, 3), run=nn.Sequential(*dropped)).train(training)

    make = partial(randomized, run)
    ((*calls, last),) = graphs(make(), X)
    assert last == "norm, leaky_relu"
    assert_right(captured(make()), make, (X,))


@WAYS
def test_threads(inputs):
    model, expected = fastnorm.swap(make(False), inputs), make(False)(X).detach()
    found = {}

    def run(index):
        with torch.no_grad():
            found[index] = model(X)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]
    for output in found.values():
        close(output, expected)


def test_keyword_arguments_and_other_results():
    def forward(self, x, *, scale=2.0, named=False):
        found = self.norm(F.pad(x, (1, 1, 1, 1))) * scale
        return {"out": found.relu(), "scale": scale} if named else (found, None)

    model, original = (Calls(forward, norm=nn.InstanceNorm2d(3, affine=True)) for _ in range(2))
    swap_all(model)
    close(model(X, scale=0.5)[0], original(X, scale=0.5)[0])
    found, expected = model(x=X, named=True), original(x=X, named=True)
    assert found.keys() == expected.keys() and found["scale"] == expected["scale"]
    close(found["out"], expected["out"])


# What measuring decides.


def with_times(monkeypatch, seconds):
    """`seconds` says what each call of those measured takes, of a dict by name."""

    def in_turns(calls, *args, **kwargs):
        for call in calls.values():
            call()
        return {who: seconds(who) for who in calls}

    monkeypatch.setattr(swap_module, "in_turns", in_turns)
    monkeypatch.setattr(importlib.import_module("fastnorm.swap._capture"), "in_turns", in_turns)
    monkeypatch.setattr(swap_module, "LEAST_GAIN", 0.98)


def test_a_model_that_does_not_gain_is_left_as_it_is(monkeypatch):
    with_times(monkeypatch, lambda who: 1.0)
    model = make()
    types = [type(part) for part in model.modules()]
    assert fastnorm.swap(model, X) is model
    assert [type(part) for part in model.modules()] == types and "_fastnorm_captured" not in vars(model)


def test_modules_that_gain_where_the_forward_does_not(monkeypatch):
    """The forward takes longer captured; with its modules exchanged, less."""
    with_times(monkeypatch, lambda who: 1.0 if who is None else 0.5 if isinstance(who, nn.Module) else 2.0)
    model = fastnorm.swap(make(), X)
    assert type(model) is Net and isinstance(model.run, Swapped) and isinstance(model.norm, Swapped)
    close(model(X), make()(X))


def test_only_what_does_not_gain_is_taken_back(monkeypatch):
    """What was swapped before stays: a part, or the forward to which a layer was added later."""
    part = make(False)
    whole = Calls(lambda self, x: self.part(self.norm(x)), part=swap_all(part).eval(), norm=nn.InstanceNorm2d(3)).eval()
    later = swap_all(make(False))
    later.norm = randomized(nn.InstanceNorm2d, C, eps=0.5)
    with_times(monkeypatch, lambda who: 1.0)
    for model in (whole, later):
        fastnorm.swap(model, X)
        assert isinstance(part, Swapped) and isinstance(later, Swapped) and "_fastnorm_choices" in vars(later)
        assert type(model.norm) is nn.InstanceNorm2d


def test_layers_that_are_slower_stay_those_of_torch(monkeypatch):
    """The choice goes with copies, and the numbers are right."""
    with_times(monkeypatch, lambda who: {None: 1.0, False: 1.0, True: 0.5}.get(who, 0.1))
    model = swap_all(make(False))
    assert model._fastnorm_choices == Choices(frozenset({"last", "run.1", "run.4"}))
    for found in (model, copy.deepcopy(model), through_pickle(model)):
        close(found(X), make(False)(X))
        (piece,) = Capture(Net.forward, found._fastnorm_choices).recorded(found, X)
        assert {step.name for step in piece.fused if step.by_torch} == {"last", "run.1", "run.4"}


def test_volumes_are_put_in_channels_last_where_that_is_faster(monkeypatch):
    with_times(monkeypatch, lambda who: 0.5 if isinstance(who, Capture) and who.choices.channels_last else 1.0)
    system = ZOO["nnunet-3d"]
    inputs = system.tiny_inputs(torch.float32, batch=1)
    model = fastnorm.swap(system.make_tiny(), inputs)
    assert isinstance(model, Swapped) and model._fastnorm_choices.channels_last
    assert model(*inputs).is_contiguous() and system.make_tiny()(*inputs).is_contiguous()
    assert_right(model, system.make_tiny, inputs)


# Bad input.


@pytest.mark.parametrize("function", [fastnorm.swap, fastnorm.unswap, fastnorm.explain])
@pytest.mark.parametrize("model", [None, torch.relu, Net, {}])
def test_what_is_no_module(function, model):
    with pytest.raises(TypeError, match=rf"^{function.__name__}: model: expected a torch.nn.Module, got \w+$"):
        function(model)


@pytest.mark.parametrize("inputs", [randn(2, 4, 9, 8), (X, X), (), "x", torch.ones(2, 3, 9, 8, dtype=torch.long)])
def test_inputs_that_do_not_fit(inputs):
    model = make()
    types, state = [type(part) for part in model.modules()], copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"^swap: example_inputs: Net cannot be called with them: .+") as raised:
        fastnorm.swap(model, inputs)
    assert "\n" not in str(raised.value)
    assert [type(part) for part in model.modules()] == types
    assert all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())
    close(model(X), make()(X))


def test_a_forward_that_raises():
    def forward(self, x):
        self.norm(x)
        raise KeyError

    model = Calls(forward, norm=nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="^swap: example_inputs: Calls cannot be called with them: KeyError$"):
        fastnorm.swap(model, X)
    assert type(model) is Calls and model.norm.num_batches_tracked == 0


class Fails(nn.Module):
    """Once, when it is called for the `at`th time."""

    def __init__(self, error, at):
        super().__init__()
        self.error, self.at, self.calls = error, at, []

    @torch._dynamo.disable
    def count(self):
        self.calls.append(None)
        if len(self.calls) == self.at:
            raise self.error

    def forward(self, x):
        self.count()
        return x * 1


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no way back")


def through_modules(fails):
    return nn.Sequential(*make().run, fails)


def through_forward(fails):
    return Calls(lambda self, x: self.fails(self.run(x)), run=make().run, fails=fails)


@pytest.mark.parametrize("of", [through_modules, through_forward])
@pytest.mark.parametrize("error", [KeyboardInterrupt, AssertionError], ids=lambda error: error.__name__)
def test_whatever_call_fails_nothing_is_left_half_changed(of, error):
    """Without a word; in the first call, in those that are measured, or in none."""
    ends = []
    for at in range(1, 6):
        torch._dynamo.reset()
        model = of(Fails(error, at))
        was = [(type(part), set(vars(part))) for part in model.modules()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fastnorm.swap(model, X)
                ends.append(any(isinstance(part, Swapped) for part in model.modules()))
            except (KeyboardInterrupt, ValueError) as raised:
                ends.append(type(raised))
        if ends[-1] is not True:
            assert [(type(part), set(vars(part))) for part in model.modules()] == was
    assert ends[:2] == ([KeyboardInterrupt] * 2 if error is KeyboardInterrupt else [ValueError, False])


def test_a_backward_that_raises():
    model = through_modules(Calls(lambda self, x: FailsBackward.apply(x)))
    with pytest.warns(UserWarning, match="^swap: Sequential is left as it was, for measuring it fails: no way back$"):
        fastnorm.swap(model, X)
    assert not any(isinstance(part, Swapped) for part in model.modules())


def test_a_state_that_gradients_go_through():
    """Its second backward in training raises, by itself as well."""

    def forward(self, x):
        self.state = self.norm(x) + (0 if self.state is None else self.state)
        return self.state.relu()

    model = Calls(forward, norm=nn.InstanceNorm2d(3, affine=True))
    model.state = None
    with pytest.warns(UserWarning, match="^swap: Calls is left as it was, for measuring it fails: .*second time"):
        fastnorm.swap(model, X)
    assert type(model) is Calls and type(model.norm) is nn.InstanceNorm2d and model.state is None
    (note,) = fastnorm.explain(model, X).notes
    assert note.startswith("swap leaves it as it is, for measuring it fails: ")


def test_a_forward_that_breaks_the_graph():
    def forward(self, x):
        x = self.run(x)
        if x.mean() > 100:
            x = -x
        return F.relu(F.instance_norm(x))

    model = Calls(forward, run=make().run)
    with pytest.warns(UserWarning, match="^swap: Calls.forward breaks into 2 graphs, each swapped by itself"):
        fastnorm.swap(model, X)
    assert isinstance(model, Swapped)
    assert_right(model, lambda: Calls(forward, run=make().run), (X,))


def test_a_forward_that_cannot_be_captured(monkeypatch):
    """It is left; what can be exchanged by itself is."""
    def fail(*args, **kwargs):
        raise RuntimeError("no such luck\nand more")

    monkeypatch.setattr(swap_module, "captures_of", fail)
    model = make()
    with pytest.warns(UserWarning, match="^swap: Net.forward is left as it is, torch.compile fails: no such luck$"):
        fastnorm.swap(model, X)
    assert type(model) is Net and isinstance(model.run, Swapped)
    close(model(X), make()(X))


def test_errors_of_a_swapped_model():
    """Inputs that fit neither before nor after raise, and do no harm."""
    model = swap_all(make(False))
    with pytest.raises(Exception):
        model(randn(2, 4, 9, 8))
    close(model(X), make(False)(X))
