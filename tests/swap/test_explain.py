"""explain: what it says of each layer, that its shares add up, and that the model stays as it is."""

import importlib
import json

import pytest
import torch
import torch.nn.functional as F
from checks import Calls, same_tensors
from forms import randn, randomized
from torch import nn

import fastnorm
from fastnorm.swap.explain import Explanation, Row

X = randn(2, 3, 12, 10)


@pytest.fixture(autouse=True)
def no_convolution_is_that_of_torch(monkeypatch):
    """Which of the two is faster depends on the machine."""
    take_turns(monkeypatch, ours=0.5)


def take_turns(monkeypatch, ours):
    """What a convolution here takes, of that of torch."""
    module = importlib.import_module("fastnorm.swap._capture")
    monkeypatch.setattr(module, "in_turns", lambda calls, *_, **__: {module.OURS: ours, module.TORCH: 1.0})


def forward(self, x):
    x = self.run(x)
    y = self.norm(x)
    return self.out(F.pad(F.leaky_relu(y + x, 0.2), (1, 1, 1, 1), mode="reflect")).softmax(1)


def make():
    run = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1))
    modules = dict(run=run, norm=nn.InstanceNorm2d(6, affine=True), out=nn.Conv2d(6, 4, 3))
    return randomized(lambda: Calls(forward, **modules)).eval()


def said(explanation):
    return [(row.name, row.was, row.becomes) for row in explanation.rows]


KERNELS = [
    ("run.1", "pad, conv2d", "reflect 1, conv 3x3"),
    ("run.4", "instance_norm, relu, conv2d", "norm, relu, conv 1x1"),
    ("out", "instance_norm, leaky_relu, pad, conv2d", "norm, add, leaky_relu, reflect 1, conv 3x3"),
]


def test_rows():
    found = fastnorm.explain(make(), X)
    kernels = [(name, was, becomes) for name, was, becomes in said(found) if becomes != "as it is"]
    assert kernels == KERNELS
    assert found.rows[-1].name == "the rest" and found.model == "Calls"
    by_name = {row.name: row for row in found.rows}
    assert by_name["out"].layers == ("norm", "add", "leaky_relu", "pad_1", "out")
    assert [row.why for row in found.rows if "softmax" in row.was] == ["its scores are no product of two matrices"]


def test_times_and_shares_add_up():
    found = fastnorm.explain(make(), X)
    assert found.before > 0 and found.after > 0
    for times in ([row.before for row in found.rows], [row.after for row in found.rows]):
        assert min(times) >= 0 and sum(times) > 0
    header, rows = found.cells()
    for column in (header.index("before") + 1, header.index("after") + 1):
        assert abs(sum(float(cells[column].rstrip("%")) for cells in rows) - 100) <= len(rows) / 2
    title, *lines = str(found).splitlines()
    assert title.startswith("Calls: ") and title.endswith(f"{found.before / found.after:.2f} times as fast")
    lines = lines if found.gains else lines[1:]
    assert [line.split()[0] for line in lines[1 : len(rows) + 1]] == [cells[0].split()[0] for cells in rows]


def test_a_table_is_some_110_wide_and_says_all():
    why = "no layer that is fused"
    kernel = "norm, add, leaky_relu, upsample 2, reflect 1, conv 3x3x3, stride 2x1x2, dilation 2"
    name = "decoder.stages.0.blocks.1.convolutions.second.inner.conv"
    rows = (
        Row(name, "batch_norm, add, leaky_relu, conv3d", kernel, "slower here", before=1.5, after=0.5),
        Row("softmax", "softmax", "as it is", why, before=0.5, after=0.25),
        Row("max", "max", "as it is", why, before=0.0, after=0.25),
        Row("the rest", "", "as it is", before=0.0, after=0.0),
    )
    shown = str(Explanation("Net", rows, 1.75, 0.875, ("a note",), gains=False)).splitlines()
    assert max(map(len, shown)) <= 112
    assert shown[:2] == [
        "Net: 1.75 s before, 875 ms after: 2.00 times as fast",
        "as a whole it does not gain, so swap leaves its forward as it is",
    ]
    assert shown[2].split() == ["layer", "becomes", "before", "after"]
    assert "".join(line[:32].strip() for line in shown[3:5]) == name
    assert " ".join(line[34:82].strip() for line in shown[3:5]) == f"{kernel} [1]"
    assert shown[3].split()[-6:] == ["1.5", "s", "75%", "500", "ms", "50%"]
    assert shown[5].startswith("softmax ") and "softmax, as it is [2]" in shown[5] and "max, as it is [2]" in shown[6]
    assert shown[7].split()[:5] == ["the", "rest", "as", "it", "is"]
    assert shown[8:] == [
        "[1] slower here",
        "[2] no layer that is fused",
        "the rest: calls of less than 0.5% of the time each, and what hands tensors from layer to layer",
        "layers are timed one at a time and do not add up to the whole",
        "a note",
    ]


def test_it_is_data_too():
    found = fastnorm.explain(make(), X)
    data = json.loads(json.dumps(found.as_dict()))
    assert data["model"] == "Calls" and data["before"] == found.before
    assert [(row["name"], row["was"], row["becomes"]) for row in data["rows"]] == said(found)


def test_the_model_stays_as_it_is():
    model = make().train()
    tensors, numbers = same_tensors(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = [(type(part), set(vars(part))) for part in model.modules()]
    fastnorm.explain(model, X)
    assert same_tensors(model) == tensors and [(type(part), set(vars(part))) for part in model.modules()] == attributes
    assert all(tensor.equal(numbers[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_of_a_swapped_model():
    model = fastnorm.swap(make(), X)
    types = [type(part) for part in model.modules()]
    found = fastnorm.explain(model, X)
    assert [row for row in said(found) if row[2] != "as it is"] == KERNELS
    assert [type(part) for part in model.modules()] == types


@pytest.mark.parametrize("inputs", [(), (X,)])
def test_of_a_swapped_model_without_inputs(inputs):
    model = make()
    expected = said(fastnorm.explain(model))
    fastnorm.swap(model, *inputs)
    types = [type(part) for part in model.modules()]
    assert said(fastnorm.explain(model)) == expected
    assert [type(part) for part in model.modules()] == types


def test_without_inputs():
    found = fastnorm.explain(make())
    assert said(found) == [
        ("run", "Sequential", "a Chain: a kernel a layer"),
        ("norm", "InstanceNorm2d", "fastnorm.nn.InstanceNorm2d"),
        ("out", "Conv2d", "as it is"),
    ]
    assert found.before is found.after is None and found.rows[2].why == "it stands in the code of a forward"
    assert found.notes == ("with example inputs, code in forward is swapped as well, and all is measured",)
    assert str(found).splitlines()[0] == "Calls" and "before" not in str(found)


def test_of_a_model_that_breaks_the_graph():
    def forward(self, x):
        x = F.relu(self.norm(x))
        torch._dynamo.graph_break()
        return self.conv(F.pad(x, (1, 1, 1, 1)))

    found = fastnorm.explain(Calls(forward, norm=nn.InstanceNorm2d(3), conv=nn.Conv2d(3, 4, 3)), X)
    assert [row[2] for row in said(found) if row[2] != "as it is"] == ["norm, relu", "zeros 1, conv 3x3"]
    assert "its forward breaks into 2 graphs: TORCH_LOGS=graph_breaks says where" in found.notes


def test_why_a_convolution_stays_that_of_torch(monkeypatch):
    take_turns(monkeypatch, ours=2.0)
    found = fastnorm.explain(make(), X)
    rows = {row.name: row for row in found.rows}
    assert rows["out"].becomes.endswith("conv 3x3, by torch") and rows["out"].why == "torch's convolution is faster here"


def test_a_model_that_does_not_gain(monkeypatch):
    monkeypatch.setattr(importlib.import_module("fastnorm.swap.explain"), "LEAST_GAIN", 0.0)
    found = fastnorm.explain(make(), X)
    assert found.gains is False and found.as_dict()["gains"] is False
    assert str(found).splitlines()[1] == "as a whole it does not gain, so swap leaves its forward as it is"


def test_a_model_with_nothing_to_fuse():
    found = fastnorm.explain(nn.Linear(10, 3), X)
    assert found.rows == () and found.notes == ("torch.compile finds nothing in its forward that is fused",)


def test_a_model_that_is_not_captured():
    class Own(nn.Sequential):
        def __call__(self, x):
            return super().__call__(x) + 1

    found = fastnorm.explain(Own(nn.InstanceNorm2d(3)), X)
    assert [row[2] for row in said(found)] == ["fastnorm.nn.InstanceNorm2d"]
    (note,) = found.notes
    assert note.startswith("its forward is not captured")


def test_inputs_that_do_not_fit():
    with pytest.raises(ValueError, match="^explain: example_inputs: Calls cannot be called with them: "):
        fastnorm.explain(make(), randn(2, 5, 12, 10))
