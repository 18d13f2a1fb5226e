"""Attention in graphs: what is left alone, what it is called with, what comes out, and what measuring decides."""

import copy
import importlib
import pickle

import pytest
import torch
import torch.nn.functional as F
from checks import Calls, assert_right, captured, graphs
from forms import FORMS, NO_ATTENTION, C, NonLocal, SANet, adaattn, randn, randomized
from net import close

import fastnorm
from fastnorm.swap._capture import Capture
from fastnorm.swap._rewrite import rewrite

capture_module = importlib.import_module("fastnorm.swap._capture")
MAP, KEY, VALUE = randn(2, C, 5, 4), randn(2, C, 3, 6, seed=1), randn(2, 7, 3, 6, seed=2)


def calls_of(model, *inputs):
    return [call for graph in graphs(model, *inputs) for call in graph]


def model_of(function):
    return Calls(lambda self, *args: function(*args))


@pytest.mark.parametrize("name", NO_ATTENTION)
def test_what_is_none(name):
    form = FORMS[name]
    assert "attention_stats" not in calls_of(form.make(), *form.inputs(torch.float32))


def test_a_dropout_that_drops():
    calls = calls_of(randomized(NonLocal, C), MAP)
    assert "dropout" in calls and "attention_stats" not in calls
    # Another rate is a number no more, but an argument of the graph.
    calls = calls_of(randomized(NonLocal, C, dropout=0.0), MAP)
    assert "dropout" in calls and "attention_stats" not in calls
    torch._dynamo.reset()
    assert "attention_stats" in calls_of(randomized(NonLocal, C, dropout=0.0), MAP)


@pytest.mark.parametrize("settings", [dict(training=False), dict(p=0.0)], ids=str)
def test_a_dropout_by_name_that_drops_nothing(settings):
    def function(query, key, value):
        weights = torch.bmm(query.flatten(2).mT, key.flatten(2)).softmax(-1)
        return torch.bmm(F.dropout(weights, **settings), value.flatten(2).mT)

    assert "attention_stats" in calls_of(model_of(function), MAP, KEY, VALUE)


def changed_weights(query, key, value):
    """Those of the first key are taken out."""
    weights = torch.bmm(query.flatten(2).mT, key.flatten(2)).softmax(-1)
    weights[:, :, 0] = 0
    return torch.bmm(weights, value.flatten(2).mT)


def changed_values(query, key, value):
    """Between the mean and the second moment."""
    value = (value * 1).flatten(2).mT
    weights = torch.bmm(query.flatten(2).mT, key.flatten(2)).softmax(-1)
    mean = torch.bmm(weights, value)
    value[:, 0] = 2
    return torch.relu(torch.bmm(weights, value**2) - mean**2) + 1


def changed_queries(query, key, value):
    """Between the scores and the mean; what is transposed shares its numbers."""
    query = query * 1
    scores = torch.bmm(query.flatten(2).mT, key.flatten(2))
    query[:, 0] = 0
    return torch.bmm(scores.softmax(-1), value.flatten(2).mT) + query.sum()


@pytest.mark.parametrize("function", [changed_weights, changed_values, changed_queries])
def test_what_is_changed_in_place(function):
    with torch.no_grad():
        assert "attention_stats" not in calls_of(model_of(function), MAP, KEY, VALUE)
        assert torch.equal(captured(model_of(function))(MAP, KEY, VALUE), function(MAP, KEY, VALUE))


def test_weights_that_a_hook_looks_at():
    model, seen = randomized(SANet, C), []
    model.sm.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    style = randn(2, C, 3, 6, seed=1)
    assert "attention_stats" not in calls_of(model, MAP, style)
    seen.clear()
    close(captured(model)(MAP, style), randomized(SANet, C)(MAP, style))
    assert [weights.shape for weights in seen] == [(2, 20, 18)]


def test_under_no_gradient_for_a_part():
    """Scores are made without gradients, weights with them."""

    def function(query, key, value):
        with torch.no_grad():
            scores = torch.bmm(query.flatten(2).mT, key.flatten(2))
        return torch.bmm(value.flatten(2), scores.softmax(-1).mT)

    assert "attention_stats" not in calls_of(model_of(function), MAP, KEY, VALUE)


def test_results_that_are_changed_in_place():
    """Where the backward would need them; a sum that becomes one of its own is none."""

    def by_view(query, key, value):
        out = torch.bmm(value.flatten(2), torch.bmm(query.flatten(2).mT, key.flatten(2)).softmax(-1).mT)
        out = out.view(2, 7, 5, 4)
        out += 1
        return out

    def by_itself(query, key, value):
        out = torch.bmm(value.flatten(2), torch.bmm(query.flatten(2).mT, key.flatten(2)).softmax(-1).mT)
        out += 1
        return out.view(2, 7, 5, 4)

    def deviation(query, key, value):
        mean, std = adaattn(query, key, value)
        std += 1
        return mean, std

    for function, count in ((by_view, 0), (by_itself, 1), (deviation, 0)):
        assert calls_of(model_of(function), MAP, KEY, VALUE).count("attention_stats") == count
        assert_right(captured(model_of(function)), lambda: model_of(function), (MAP, KEY, VALUE))


# What it is called with, and what comes out.


def arguments_of(model, *inputs):
    (piece,) = Capture(type(model).forward).recorded(model, *inputs)
    (node,) = (node for node in piece.after.graph.nodes if node.target is fastnorm.functional.attention_stats)
    return node


@pytest.mark.parametrize("name", ["AdaAttN", "SANet", "self-attention", "non-local"])
def test_maps_are_taken_without_a_copy(name):
    """As they were before they were transposed."""
    form = FORMS[name]
    node = arguments_of(form.make(), *form.inputs(torch.float32))
    assert {argument.target for argument in node.args} <= {"reshape", "flatten"}
    assert dict(node.kwargs) == {
        "AdaAttN": {}, "non-local": dict(scale=0.5, return_std=False)
    }.get(name, dict(return_std=False))  # fmt: skip


def test_factors_of_the_scores():
    form = FORMS["attention of rows"]
    assert arguments_of(form.make(), *form.inputs(torch.float32)).kwargs == dict(scale=2.0, return_std=False)


@pytest.mark.parametrize("name", ["attention of rows", "AdaAttN", "self-attention keys first", "attention einsum"])
def test_results_are_laid_out_as_before(name):
    form = FORMS[name]
    inputs = form.inputs(torch.float32)
    for found, its in zip(captured(form.make())(*inputs), form.make()(*inputs)):
        assert found.stride() == its.stride()


def test_a_deviation_of_nothing_has_no_gradient():
    """The written root has an infinite one."""
    inputs = [MAP, KEY, torch.ones_like(VALUE)]
    leaves = [map.clone().requires_grad_() for map in inputs]
    mean, std = captured(model_of(adaattn))(*leaves)
    assert mean.detach().allclose(torch.ones(())) and std.abs().max() == 0
    for gradient in torch.autograd.grad(mean.sum() + std.sum(), leaves):
        assert gradient.isfinite().all()


def test_autocast():
    model, style = randomized(SANet, C), randn(2, C, 3, 6, seed=1)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert "attention_stats" in calls_of(model, MAP, style)
        found, expected = captured(randomized(SANet, C))(MAP, style), model(MAP, style)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_autocast_of_maps_in_float32():
    """The products are in bfloat16, what enters and leaves is not."""
    model = FORMS["attention einsum"].make()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = captured(FORMS["attention einsum"].make())(MAP, KEY, VALUE)
        assert torch.equal(found, model(MAP, KEY, VALUE))


def test_sizes_that_are_arguments():
    """Batches, too."""
    model, inputs = randomized(SANet, C), (MAP, randn(2, C, 3, 6, seed=1))
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(rewrite(graph))
        return graphs[-1].forward

    compiled = torch.compile(model, backend=backend, dynamic=True)
    for n, size in ((2, (5, 4)), (3, (6, 9)), (4, (2, 7))):
        inputs = randn(n, C, *size), randn(n, C, 3, size[1], seed=1)
        close(compiled(*inputs), model(*inputs))
    (graph,) = graphs
    assert "attention_stats" in graph.code and "bmm" not in graph.code


def twice(self, content, style):
    return self.second(self.first(content, style), style)


def test_two_in_a_model():
    def make():
        return randomized(lambda: Calls(twice, first=SANet(C), second=SANet(C)))

    inputs = MAP, randn(2, C, 3, 6, seed=1)
    assert calls_of(make(), *inputs).count("attention_stats") == 2
    assert_right(captured(make()), make, inputs)


# Measuring.


def take_turns(monkeypatch, ours):
    """What an attention here takes, of that of torch; convolutions take half."""

    def in_turns(calls, *_, **__):
        for call in calls.values():
            call()
        return {capture_module.OURS: ours, capture_module.TORCH: 1.0}

    monkeypatch.setattr(capture_module, "in_turns", in_turns)


INPUTS = MAP, randn(2, C, 3, 6, seed=1)


@pytest.mark.parametrize("training", [True, False])
def test_one_that_is_slower_stays_as_it_is_written(monkeypatch, training):
    """The choice goes with copies."""
    take_turns(monkeypatch, ours=2.0)
    model = fastnorm.swap(randomized(SANet, C).train(training), INPUTS)
    assert "sm" in model._fastnorm_choices.by_torch
    for found in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        close(found(*INPUTS), randomized(SANet, C)(*INPUTS))
        (piece,) = Capture(SANet.forward, found._fastnorm_choices).recorded(found, *INPUTS)
        assert not piece.attentions and "softmax" in piece.after.code


@pytest.mark.parametrize("training", [True, False])
def test_one_that_is_faster_is_exchanged(monkeypatch, training):
    take_turns(monkeypatch, ours=0.5)
    model = fastnorm.swap(randomized(SANet, C).train(training), INPUTS)
    assert "sm" not in model._fastnorm_choices.by_torch
    (piece,) = Capture(SANet.forward, model._fastnorm_choices).recorded(model, *INPUTS)
    assert piece.attentions == {"sm"}


@pytest.mark.parametrize(
    "ours, becomes, why", [(0.5, "attention_stats", ""), (2.0, "as it is", "torch's attention is faster here")]
)
def test_explain_says_what_becomes_of_it(monkeypatch, ours, becomes, why):
    take_turns(monkeypatch, ours)
    rows = fastnorm.explain(randomized(SANet, C), INPUTS).rows
    (row,) = (row for row in rows if row.name == "sm")
    assert (row.becomes, row.why) == (becomes, why)
    assert row.was == ("softmax, bmm" if becomes == "attention_stats" else "softmax")


def test_what_is_measured_computes_the_same():
    maps = [map.flatten(2).double() for map in (MAP, KEY, VALUE)]
    for settings in ({}, dict(scale=0.3), dict(return_std=False)):
        found, expected = (
            function(*maps, **settings)
            for function in (capture_module.written_out, fastnorm.functional.attention_stats)
        )
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


ROWS = randn(2, 30, 8), randn(2, 8, 20, seed=1), randn(2, 20, 16, seed=2)


def of_rows(query, key, value):
    return torch.bmm(torch.bmm(query, key).softmax(-1), value)


EINSUMS = {
    "masked scores": ("bqc,bck,bqk->bqk", (2, 30, 20), "bqk,bkd->bqd"),
    "a temperature": ("bqc,bck,b->bqk", (2,), "bqk,bkd->bqd"),
    "weights of channels": ("bqc,bck,c->bqk", (8,), "bqk,bkd->bqd"),
    "the same letters twice": ("bqc,bck,bqc->bqk", (2, 30, 8), "bqk,bkd->bqd"),
    "masked keys": ("bqc,bck->bqk", (2, 20), "bqk,bkd,bk->bqd"),
}


@pytest.mark.parametrize("name", EINSUMS)
def test_an_einsum_of_more_than_two(name):
    of_scores, size, of_values = EINSUMS[name]

    def function(query, key, value, third):
        scores = torch.einsum(of_scores, query, key, *([third] if of_scores.count(",") == 2 else []))
        return torch.einsum(of_values, scores.softmax(-1), value, *([third] if of_values.count(",") == 2 else []))

    inputs = *ROWS, randn(*size, seed=3).abs()
    assert "attention_stats" not in calls_of(model_of(function), *inputs)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_an_einsum_that_broadcasts(part):
    def function(query, key, value):
        return torch.einsum("bqk,bkd->bqd", torch.einsum("bqc,bck->bqk", query, key).softmax(-1), value)

    inputs = list(ROWS)
    inputs[part] = inputs[part][:, :1] if part else inputs[part][..., :1]
    assert "attention_stats" not in calls_of(model_of(function), *inputs)


def test_an_infinite_factor():
    def function(query, key, value):
        return torch.bmm((torch.bmm(query, key) * float("inf")).softmax(-1), value)

    assert "attention_stats" not in calls_of(model_of(function), *ROWS)


LAYOUTS = {
    "viewed": lambda found: found.view(2, 5, 6, 16),
    "viewed as another": lambda found: found.view_as(torch.empty(2, 480)),
    "as complex numbers": lambda found: torch.view_as_complex(found.view(2, 30, 8, 2).contiguous()).real,
    "strided": lambda found: torch.as_strided(found, (10,), (1,)),
    "copied": lambda found: found.contiguous(),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_reads_its_layout(name):
    def function(*matrices):
        return LAYOUTS[name](of_rows(*matrices))

    assert "attention_stats" in calls_of(model_of(function), *ROWS)
    fused = torch.compile(model_of(function), backend="fastnorm", options={"then": "eager"})
    with torch.no_grad():
        expected, found = function(*ROWS), fused(*ROWS)
    close(found, expected)
    assert found.stride() == expected.stride()


def test_a_mean_that_is_changed_behind_the_graph():
    def function(*matrices):
        found = of_rows(*matrices)
        torch._dynamo.graph_break()
        found += 1
        return found

    fused = torch.compile(function, backend="fastnorm", options={"then": "eager"})
    # In float64: of float32 gradients of 40 differ by last places.
    inputs = [matrix.double().requires_grad_() for matrix in ROWS]
    gradients, expected = (torch.autograd.grad(call(*inputs).square().sum(), inputs) for call in (fused, function))
    close(gradients, expected)
