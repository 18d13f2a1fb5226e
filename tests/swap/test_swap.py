"""swap and unswap: what a model keeps when it is swapped, and what people do with models afterwards."""

import copy
import io
import threading
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from checks import Calls, assert_right, captured, graphs, same_tensors
from forms import randn, randomized
from net import C, WAYS, X, Net, close, make, step_all, swap_all
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import fastnorm
from fastnorm.swap import _classes
from fastnorm.swap._classes import Swapped


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


# Hooks.


HOOKS = "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook"
PARTS = "", "run", "run.0", "run.2", "norm", "last"


def call_back(model):
    model.zero_grad()
    model(X.clone().requires_grad_()).square().mean().backward()


@WAYS
@pytest.mark.parametrize(
    "register, when",
    [
        # Those that come first are kept where the others are.
        pytest.param(register, when, marks=pytest.mark.long if "pre" in register and when != "before" else ())
        for register in HOOKS
        for when in ("before", "after", "called")
    ],
)
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


def test_the_mark_of_what_is_constant_is_torchs():
    def function():
        pass

    assert vars(_classes._is_capturing) == vars(torch.compiler.assume_constant_result(function))
