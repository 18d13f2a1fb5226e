"""verify: what it measures, what it lets pass, what it leaves as it was."""

import copy
import dataclasses
import importlib
import random
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastnorm.swap.verify import verify

module = importlib.import_module("fastnorm.swap.verify")  # By this name, its package has the function.


@pytest.fixture(autouse=True)
def no_module_here_is_swapped(monkeypatch):
    monkeypatch.setattr(module, "_original", copy.deepcopy)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Calls(nn.Module):
    """A module of one function of itself and its arguments."""

    def __init__(self, function, **parameters):
        super().__init__()
        self.function = function
        for name, tensor in parameters.items():
            setattr(self, name, nn.Parameter(tensor.clone()))

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


class GradientTimes(torch.autograd.Function):
    """The input, and its gradient times a factor."""

    @staticmethod
    def forward(ctx, input, factor):
        ctx.factor = factor
        return input.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


def affine(module, input):
    return input * module.weight + module.bias


WEIGHTS = {"weight": randn(5, seed=1), "bias": randn(5, seed=2)}
GRADIENTS = [("parameter gradient", "weight"), ("parameter gradient", "bias"), ("input gradient", "inputs")]


def wrong(found):
    return [(entry.kind, entry.name) for entry in found.entries if not entry.ok]


def test_errors_and_limit_are_those_of_the_definition():
    before = Calls(lambda self, x: (x * self.weight).exp(), weight=WEIGHTS["weight"])
    after = Calls(lambda self, x: (x * self.weight).exp() + 1e-3, weight=WEIGHTS["weight"])
    x = randn(4, 5)
    found = verify(before, after, x, gradients=False)
    exact = (x.double() * WEIGHTS["weight"].double()).exp()
    (entry,) = found.entries
    error, original_error = ((run(x).double() - exact).abs().max().item() for run in (after, before))
    assert (entry.kind, entry.name, entry.ok, found.ok, bool(found)) == ("output", "output", False, False, False)
    assert (entry.error, entry.original_error) == pytest.approx((error, original_error), rel=1e-6)
    ulps = 2 * torch.finfo(torch.float32).eps * exact.max().item()
    assert 0 < ulps and entry.limit == pytest.approx(2 * original_error + ulps, rel=1e-6)


def test_a_module_passes_against_itself_and_against_another_order_of_sums():
    before = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 2, 3))
    after = copy.deepcopy(before)
    weights = dict(before[0].named_parameters())
    after[0] = Calls(lambda self, x: F.conv2d(x.flip(1), self.weight.flip(1), self.bias), **weights)
    x = randn(2, 3, 9, 9)
    for twin in (before, after):
        found = verify(before, twin, x)
        assert found.ok, str(found)
        assert [(entry.kind, entry.name) for entry in found.entries] == [
            ("output", "output"),
            *(("parameter gradient", name) for name, _ in before.named_parameters()),
            ("input gradient", "inputs"),
        ]
        assert all(entry.original_error > 0 for entry in found.entries if entry.name != "3.bias")


@pytest.mark.parametrize(
    "function, expected",
    [
        (lambda self, x: affine(self, x) * 1.001, [("output", "output"), *GRADIENTS]),
        (lambda self, x: affine(self, GradientTimes.apply(x, 1.001)), GRADIENTS[2:]),
        (lambda self, x: x * GradientTimes.apply(self.weight, 1.001) + self.bias, GRADIENTS[:1]),
        (lambda self, x: x * self.weight + self.bias.detach(), GRADIENTS[1:2]),
        (lambda self, x: affine(self, x).detach(), GRADIENTS),
        (lambda self, x: affine(self, x) if torch.is_grad_enabled() else x, [("output", "output")]),
        (lambda self, x: affine(self, x) + (1e-3 if torch.is_grad_enabled() else 0), [("output", "output")]),
    ],
    ids=["forward", "input gradient", "weight gradient", "no bias gradient", "no gradient", "inference", "training"],
)
def test_the_wrong_tensor_is_named(function, expected):
    found = verify(Calls(affine, **WEIGHTS), Calls(function, **WEIGHTS), randn(4, 5))
    assert wrong(found) == expected and not found.ok


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("factor, ok", [(1.9, True), (3, False)])
def test_twice_the_error_of_the_original_and_no_more(dtype, factor, ok):
    """The original is off by `off` of what float64 gives, since it knows its type."""
    off = 64 * torch.finfo(dtype).eps

    def inexact(factor):
        return Calls(lambda self, x: x * (1 if x.dtype == torch.float64 else 1 + factor * off))

    found = verify(inexact(1), inexact(factor), randn(100, dtype=dtype))
    assert wrong(found) == ([] if ok else [("output", "output"), ("input gradient", "inputs")])
    assert found.entries[0].original_error == pytest.approx(off * randn(100).abs().max().item(), rel=0.1)


@pytest.mark.parametrize("ulps, ok", [(2, True), (3, False)])
def test_where_the_original_is_exact_two_ulps_are_left(ulps, ok):
    before, after = Calls(lambda self, x: x), Calls(lambda self, x: x + ulps * 2.0**-23)
    assert verify(before, after, torch.tensor([1.0, 0.25]), gradients=False).ok == ok


def test_a_bias_that_the_norm_takes_away_may_be_as_inexact_as_the_weight():
    x, weights = randn(3, 2, 8), {"weight": randn(2, 1, seed=1), "bias": randn(2, 1, seed=2)}
    before = Calls(lambda self, x: affine(self, x) - self.bias, **weights)
    stray = 1e-7 * randn(2, 1, seed=3)
    slightly = Calls(lambda self, x: affine(self, x) - self.bias + (self.bias - self.bias.detach()) * stray, **weights)
    found = {entry.name: entry for entry in verify(before, slightly, x).entries}
    assert found["bias"].original_error == 0 < found["bias"].error <= found["bias"].limit
    assert found["bias"].limit == pytest.approx(found["weight"].limit - 2 * found["weight"].original_error, rel=1e-6)


def test_structures_are_compared_by_path():
    Pair = namedtuple("Pair", "mean std")

    @dataclasses.dataclass
    class Result:
        image: torch.Tensor
        maps: dict

    def structured(wrong):
        def forward(self, x):
            return Result(x, {"mask": x > 0, 3: [x.exp() + wrong]}), Pair(x.mean(), "words"), 7, x.sum().item()

        return Calls(forward)

    found = verify(structured(0), structured(1), randn(9))
    names = ["output[0].image", "output[0].maps['mask']", "output[0].maps[3][0]", "output[1].mean", "output[3]"]
    assert [entry.name for entry in found.entries] == [*names, "inputs"]
    assert wrong(found) == [("output", "output[0].maps[3][0]")]
    assert found.entries[2].error == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    "before, after, name, note",
    [
        (lambda x: x, lambda x: x[:1], "output", "expected float32 (2, 3) on cpu, got float32 (1, 3) on cpu"),
        (lambda x: x, lambda x: x.half(), "output", "expected float32 (2, 3) on cpu, got float16 (2, 3) on cpu"),
        (lambda x: (x, x), lambda x: (x,), "output[1]", "expected float32 (2, 3) on cpu, got nothing"),
        (lambda x: {"a": x}, lambda x: {"a": x, "b": x}, "output['b']", "expected nothing, got float32 (2, 3) on cpu"),
        (lambda x: (x, None), lambda x: (x, 0), "output[1]", "expected None, got 0"),
        (lambda x: (x, "ab"), lambda x: (x, "ac"), "output[1]", "expected 'ab', got 'ac'"),
        (lambda x: (x,), lambda x: [x], "output", "expected a tuple, got a list"),
        (lambda x: x, lambda x: x / (x != x[0, 0]), "output", "NaN or infinities elsewhere"),
        (lambda x: x / 0, lambda x: -x / 0, "output", "NaN or infinities elsewhere"),
        (lambda x: x > 0, lambda x: x > 0.8, "output", ""),
    ],
)
def test_what_has_no_error_must_be_equal(before, after, name, note):
    modules = Calls(lambda self, x: before(x)), Calls(lambda self, x: after(x))
    found = verify(*modules, torch.eye(2, 3) - 0.25, gradients=False)
    (entry,) = [entry for entry in found.entries if not entry.ok]
    assert (entry.kind, entry.name, entry.note) == ("output", name, note)


def test_infinities_in_the_same_places_leave_the_rest_to_be_compared():
    x = torch.tensor([0.0, 1, 2, -1])
    before, same = Calls(lambda self, x: x.log()), Calls(lambda self, x: x.log())
    assert verify(before, same, x).ok
    found = verify(before, Calls(lambda self, x: x.log() * 1.01), x, gradients=False)
    assert found.entries[0].error == pytest.approx(0.01 * torch.tensor(2.0).log().item(), rel=1e-4)


def test_where_only_float64_is_not_finite_the_original_is_the_reference():
    before, after = (Calls(lambda self, x, f=f: x / 0 if x.dtype == torch.float64 else x * f) for f in (1, 1.01))
    assert verify(before, before, randn(5), gradients=False).ok
    assert wrong(verify(before, after, randn(5), gradients=False)) == [("output", "output")]


def test_the_arguments_of_forward():
    def forward(self, x, index, pair=None, *, scale):
        return F.embedding(index, self.weight) * x + pair["shift"][0] * scale

    before = Calls(forward, weight=WEIGHTS["weight"][:, None])
    x, index, shift = randn(3, 1), torch.tensor([4, 0, 4]), randn(3, 1, seed=4)
    found = verify(before, before, (x, index), {"pair": {"shift": (shift, None)}, "scale": 3})
    assert found.ok, str(found)
    names = ["output", "weight", "inputs[0]", "kwargs['pair']['shift'][0]"]
    assert [entry.name for entry in found.entries] == names
    twice = verify(Calls(lambda self, x, y: x * y), Calls(lambda self, x, y: x * y.detach()), (x, x))
    assert wrong(twice) == [("input gradient", "inputs[0]")]


def test_sparse_and_complex_tensors():
    embedding = nn.Embedding(6, 3, sparse=True)
    assert verify(embedding, embedding, torch.tensor([1, 5, 1])).ok
    before, after = (Calls(lambda self, x, f=f: torch.fft.fft(x) * f) for f in (1, 1j))
    assert verify(before, before, randn(16)).ok and verify(before, before, torch.tensor([1, torch.nan, torch.inf])).ok
    assert wrong(verify(before, after, randn(16))) == [("output", "output"), ("input gradient", "inputs")]


class Forgetful(nn.BatchNorm1d):
    def forward(self, input):
        return F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)


def test_running_statistics_are_outputs():
    before, forgetful = nn.BatchNorm1d(4), Forgetful(4)
    x = randn(8, 4) + 3
    found = verify(before, before, x)
    buffers = [("buffer", name) for name in ("running_mean", "running_var", "num_batches_tracked")]
    assert found.ok and [(entry.kind, entry.name) for entry in found.entries if entry.kind == "buffer"] == buffers
    assert wrong(verify(before, forgetful, x)) == buffers
    found = verify(before.eval(), forgetful.eval(), x)
    assert wrong(found)[0] == ("output", "output") and all(entry.kind != "buffer" for entry in found.entries)


def test_inputs_that_are_written_to_are_outputs():
    def writing(factor):
        def forward(module, input):
            output = input * module.weight
            with torch.no_grad():
                input.mul_(factor)
            return output

        return Calls(forward, weight=torch.ones(5))

    with torch.no_grad():
        twice, thrice, once = map(writing, (2, 3, 1))
        inputs = (randn(4, 5),)
        assert verify(twice, copy.deepcopy(twice), inputs, gradients=False)
        for other in (thrice, once):
            found = verify(twice, other, inputs, gradients=False)
            assert [(entry.kind, entry.name) for entry in found.entries if not entry.ok] == [("input", "inputs[0]")]
            assert not verify(other, twice, inputs, gradients=False)
    torch.testing.assert_close(inputs[0], randn(4, 5), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_run_draws_the_same_random_numbers(dtype):
    """Also in float64, where the generator has other normal numbers; errors are therefore of a rounding, not of 1."""

    def forward(self, x):
        noise = torch.randn_like(x) + torch.randn(4, 40) * random.random() + torch.empty_like(x).uniform_()
        return F.dropout(x, 0.5, self.training) + noise.to(x.dtype) + torch.bernoulli(torch.full_like(x, 0.5))

    before = Calls(forward).to(dtype)
    found = verify(before, before, randn(4, 40, dtype=dtype))
    assert found.ok and 0 < found.entries[0].original_error < 16 * torch.finfo(dtype).eps


def test_casts_inside_a_model_are_float64_in_the_reference():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = randn(1, 1, 3, seed=5)  # Neither a parameter nor a buffer.

        def forward(self, x):
            x = F.conv1d(x, self.kernel).float().to(torch.float32) + torch.zeros(1, dtype=torch.float32)
            return F.softmax(x, -1, dtype=torch.float32) * torch.linspace(0, 1, x.shape[-1])

    x, default = randn(1, 1, 50), torch.get_default_dtype()
    found = verify(Model(), Model(), x)
    convolved = F.conv1d(x.double(), randn(1, 1, 3, seed=5).double())
    exact = F.softmax(convolved, -1) * torch.linspace(0, 1, 48, dtype=torch.float64)
    assert found.ok and torch.get_default_dtype() == default
    assert found.entries[0].original_error == pytest.approx((Model()(x) - exact).abs().max().item(), rel=1e-6)


@pytest.mark.parametrize("fails", [False, True], ids=["passes", "raises"])
def test_everything_is_left_as_it_was(fails):
    def forward(self, x, seen):
        seen.append(1)
        if self.raises:
            raise KeyError("raised")
        return F.relu_(x) * self.weight + self.norm(x) + torch.rand(1)

    before = Calls(forward, weight=WEIGHTS["weight"])
    before.raises, before.norm = False, nn.BatchNorm1d(5)
    after = copy.deepcopy(before)
    after.raises = fails
    after.norm.eval()
    before.weight.grad = torch.ones(5)
    x, seen = randn(4, 5).requires_grad_(), []
    x.grad = torch.ones(4, 5)

    def state():
        tensors = [*before.state_dict().values(), *after.state_dict().values(), x, torch.get_rng_state()]
        gradients = [each.grad for each in (*before.parameters(), *after.parameters(), x) if each.grad is not None]
        plain = [part.training for each in (before, after) for part in each.modules()], seen, random.getstate()
        return copy.deepcopy([*tensors, *gradients]), copy.deepcopy(plain)

    untouched = state()
    if fails:
        with pytest.raises(RuntimeError, match="^verify: after: it raised, .*: KeyError: 'raised'"):
            verify(before, after, (x, seen))
    else:
        assert not verify(before, after, (x, seen)).ok
    torch.testing.assert_close(state()[0], untouched[0], rtol=0, atol=0)
    assert state()[1] == untouched[1]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_gradients_are_taken_where_the_caller_takes_none(context):
    with context():
        x = randn(4, 5)
        found = verify(Calls(affine, **WEIGHTS), Calls(affine, **WEIGHTS), x)
        assert len(found.entries) == 4 and found.ok and torch.is_inference(x) == torch.is_inference_mode_enabled()


def test_a_frozen_parameter_and_no_gradient_at_all():
    before = Calls(affine, **WEIGHTS)
    before.bias.requires_grad_(False)
    assert [entry.name for entry in verify(before, before, randn(4, 5)).entries] == ["output", "weight", "inputs"]
    indices = Calls(lambda self, x: x.argsort())
    assert [entry.name for entry in verify(indices, indices, randn(9)).entries] == ["output"]
    zero = Calls(lambda self, x: affine(self, x) * 1.0 + 0 * self.unused.sum(), **WEIGHTS, unused=randn(3))
    assert verify(Calls(affine, **WEIGHTS, unused=randn(3)), zero, randn(4, 5)).ok


def test_a_compiled_module_keeps_its_names():
    before = Calls(affine, **WEIGHTS)
    found = verify(before, torch.compile(before, backend="eager"), randn(4, 5))
    assert found.ok and [entry.name for entry in found.entries] == ["output", "weight", "bias", "inputs"]


def test_a_swapped_original_is_unswapped(monkeypatch):
    monkeypatch.setattr(module, "_original", lambda swapped: Calls(affine, **WEIGHTS))
    swapped = Calls(lambda self, x: affine(self, x) * 2, **WEIGHTS)
    assert ("output", "output") in wrong(verify(swapped, swapped, randn(4, 5)))


def test_as_a_dict_and_as_a_table():
    found = verify(Calls(affine, **WEIGHTS), Calls(lambda self, x: affine(self, x).half(), **WEIGHTS), randn(4, 5))
    described, note = found.as_dict(), "expected float32 (4, 5) on cpu, got float16 (4, 5) on cpu"
    assert [entry["name"] for entry in described["entries"]] == ["output", "weight", "bias", "inputs"]
    assert described["ok"] is False and described["entries"][0]["note"] == note
    title, header, *rows = str(found).splitlines()
    assert title.startswith(f"{len(wrong(found))} of 4 beyond the limit")
    assert header.split() == ["name", "error", "original's", "limit"]
    assert rows[0].split(maxsplit=5) == ["output", "output", "inf", "0.00e+00", "0.00e+00", note]
    assert rows[3].startswith("input gradient      inputs")
    assert str(verify(Calls(affine, **WEIGHTS), Calls(affine, **WEIGHTS), randn(4, 5))).startswith("all 4 within")


@pytest.mark.parametrize(
    "error, words, arguments",
    [
        (TypeError, "before: expected a torch.nn.Module, got function", (affine, nn.ReLU(), randn(3))),
        (TypeError, "after: expected a torch.nn.Module, got NoneType", (nn.ReLU(), None, randn(3))),
        (TypeError, "kwargs: expected a dict of keyword arguments, got list", (nn.ReLU(), nn.ReLU(), (), [3])),
        (ValueError, "inputs: the original raised: RuntimeError: mat1", (nn.Linear(3, 2), nn.Linear(3, 2), randn(4))),
        (ValueError, "inputs: the original raised: TypeError: .*positional", (nn.ReLU(), nn.ReLU())),
        (ValueError, "before: expected a model below float64", (nn.ReLU(), nn.ReLU(), randn(3).double())),
        (RuntimeError, "after: it raised, and the original did not: ", (nn.ReLU(), nn.Linear(2, 2), randn(3))),
    ],
)
def test_errors(error, words, arguments):
    if len(arguments) == 2:
        arguments = (*arguments, ())
    with pytest.raises(error, match=f"^verify: {words}") as raised:
        verify(*arguments)
    assert "\n" not in str(raised.value) and (error is TypeError or "expected" in words or raised.value.__cause__)


def test_a_model_that_float64_does_not_reach():
    kernels = [randn(1, 1, 3)]
    hidden = Calls(lambda self, x: F.conv1d(x, kernels[0]))
    with pytest.raises(RuntimeError, match="^verify: before: not to be run in float64, .*neither a parameter nor a"):
        verify(hidden, hidden, randn(1, 1, 9))
    narrow = Calls(lambda self, x: x.type("torch.FloatTensor"))
    with pytest.raises(RuntimeError, match="^verify: before: expected output in float64 .*got torch.float32"):
        verify(narrow, narrow, randn(3))
    longer = Calls(lambda self, x: x[: x.element_size()])
    with pytest.raises(RuntimeError, match="^verify: before: expected the same output in float64, got float64 .8,."):
        verify(longer, longer, randn(9))


def test_a_module_that_cannot_be_copied():
    before = nn.ReLU()
    before.tensor = nn.Parameter(randn(3)) * 2
    for arguments in ((before, nn.ReLU()), (nn.ReLU(), before)):
        with pytest.raises(RuntimeError, match="^verify: (before|after): not to be copied: RuntimeError"):
            verify(*arguments, randn(3))
