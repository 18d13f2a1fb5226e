"""torch.compile(backend="fastnorm"): the graph level by itself, for modules and for functions, with sizes that change."""

import importlib
import logging

import pytest
import torch
import torch.nn.functional as F
from checks import assert_right
from forms import FORMS, adain, randn
from zoo import ZOO

module = importlib.import_module("fastnorm.swap.backend")
EAGER = {"then": "eager"}


@pytest.fixture
def rewritten(monkeypatch):
    """The graphs that were rewritten, in order."""
    found = []

    def rewrite(*args):
        found.append(real(*args))
        return found[-1]

    real = module.rewrite
    monkeypatch.setattr(module, "rewrite", rewrite)
    return found


@pytest.mark.parametrize("name", ["cyclegan", "adaconv-block", "adaattn"])
def test_systems(name, rewritten):
    system = ZOO[name]
    model = torch.compile(system.make_tiny(), backend="fastnorm", options=EAGER, fullgraph=True)
    model.named_parameters = model._orig_mod.named_parameters  # Under the names of the original.
    assert_right(model, system.make_tiny, system.tiny_inputs(torch.float32))
    assert len(rewritten) == 2  # With gradients, and without.
    assert all("attention_stats" in graph.code for graph in rewritten) == (name == "adaattn")


def test_functions(rewritten):
    compiled = torch.compile(adain, backend="fastnorm", options=EAGER, fullgraph=True)
    content, style = randn(2, 6, 12, 10), randn(2, 6, 7, 8, seed=1)
    torch.testing.assert_close(compiled(content, style), adain(content, style), rtol=1e-5, atol=1e-5)
    (graph,) = rewritten
    assert sum("fused" in node.name for node in graph.graph.nodes) == 1
    for style in (randn(2, 6, 5, 9, seed=2), randn(2, 6, 4, 4, seed=3)):
        torch.testing.assert_close(compiled(content, style), adain(content, style), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["residual block", "norm planes", "F.interpolate pad conv", "filters groups padded", "SPADE", "SANet"])
def test_sizes_that_change_are_captured_twice(name, rewritten):
    form = FORMS[name]
    model = form.make()
    compiled = torch.compile(model, backend="fastnorm", options=EAGER)
    map, *others = form.inputs(torch.float32)
    with torch.no_grad():
        for count, size in enumerate([(12, 10), (9, 14), (8, 8), (16, 6), (10, 20), (11, 7), (7, 13)]):
            inputs = randn(*map.shape[:2], *size, seed=count), *others
            torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)
            assert len(rewritten) == min(count + 1, 2)


def test_a_graph_that_breaks(rewritten):
    def function(x):
        x = F.instance_norm(x)
        torch._dynamo.graph_break()
        return F.relu(F.instance_norm(x * x))

    x = randn(2, 3, 6, 5)
    found = torch.compile(function, backend="fastnorm", options=EAGER)(x)
    torch.testing.assert_close(found, function(x), rtol=1e-4, atol=1e-5)
    assert len(rewritten) == 2


@pytest.mark.long
@pytest.mark.parametrize("settings", [{}, {"options": {"then": "inductor", "max_autotune": False}}, {"mode": "default"}])
def test_inductor_takes_the_rest(settings, rewritten):
    form = FORMS["residual block"]
    model = form.make()
    compiled = torch.compile(model, backend="fastnorm", **settings)
    (x,) = form.inputs(torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert len(rewritten) == 1
    compiled(x).square().sum().backward()
    found = [parameter.grad for parameter in model.parameters()]
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    torch.testing.assert_close(found, list(expected), rtol=1e-3, atol=1e-3)


def test_nothing_is_logged_of_caches(rewritten):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("torch._inductor.codecache")
    logger.addHandler(handler)
    try:
        x = randn(2, 3, 6, 5)
        found = torch.compile(lambda x: F.relu(F.instance_norm(x)), backend="fastnorm")(x)
    finally:
        logger.removeHandler(handler)
    torch.testing.assert_close(found, F.relu(F.instance_norm(x)), rtol=1e-4, atol=1e-5)
    assert len(rewritten) == 1 and [record.getMessage() for record in records] == []


@pytest.mark.parametrize("options", [{"than": "eager"}, {"then": "eager", "than": 3}])
def test_an_option_that_nobody_knows(options):
    compiled = torch.compile(FORMS["residual block"].make(), backend="fastnorm", options=options)
    with pytest.raises(Exception, match="fastnorm backend: options: expected 'then' or options of inductor, got 'than'"):
        compiled(randn(2, 6, 5, 5))


def test_another_then():
    compiled = torch.compile(FORMS["residual block"].make(), backend="fastnorm", options={"then": "fast"})
    with pytest.raises(Exception, match="fastnorm backend: then: expected one of inductor, eager, got 'fast'"):
        compiled(randn(2, 6, 5, 5))


def test_a_rate_of_dropout_that_changes():
    """It is a number at first, and then an argument of the graph."""

    def function(x, rate):
        return F.dropout(F.instance_norm(x), rate)

    compiled, x = torch.compile(function, backend="fastnorm", options=EAGER), randn(2, 3, 6, 5)
    for rate in (0.1, 0.3, 0.6):
        found, expected = (seeded(call, x, rate) for call in (compiled, function))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def seeded(call, *args):
    torch.manual_seed(0)
    return call(*args)
