"""What swap decides by measuring, that this leaves no trace, and what happens where a call fails."""

import copy
import importlib
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from checks import Calls, assert_right
from forms import randn, randomized
from net import C, X, Net, close, make, swap_all, swap_module
from torch import nn
from zoo import ZOO

import fastnorm
from fastnorm.swap._capture import Capture
from fastnorm.swap._classes import Swapped
from fastnorm.swap._rewrite import Choices


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
    for found in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
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
