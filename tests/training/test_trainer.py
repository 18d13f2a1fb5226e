"""A step against its formulas, in float64."""

from dataclasses import replace

import pytest
import toys
import torch
from torch import nn

from fastnorm.training import Batch
from fastnorm.training.processes import Processes
from fastnorm.training.trainer import Trainer


class Slope(toys.recipe.Recipe):
    """A loss whose gradient is the same everywhere."""

    slope = torch.tensor([3.0, -4.0, 12.0])  # Of length 13.

    def __init__(self):
        super().__init__(nn.Module())
        self.model.weight = nn.Parameter(torch.tensor([0.5, 0.25, -1.0]))
        self.model.fixed = nn.Parameter(torch.tensor(2.0))

    def forward(self, phase, batch):
        return dict(slope=(self.model.weight * self.slope).sum() * self.model.fixed)

    def trained(self, phase):
        return [self.model.weight]


def batch(seed=0):
    return Batch(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))


def slope_trainer(**settings):
    return Trainer(Slope(), replace(toys.SETTINGS, **{"clip": None, "ema": None, **settings}))


def test_the_learning_rate_falls():
    """Adam on a constant gradient goes by exactly the rate, against its sign."""
    trainer = slope_trainer(lr=0.02, lr_decay=0.5)
    expected = torch.tensor([0.5, 0.25, -1.0], dtype=torch.float64)
    for k in range(6):
        expected -= 0.02 / (1 + 0.5 * k) * torch.tensor([1.0, -1.0, 1.0])
        trainer.train(None)
        assert torch.allclose(trainer.recipe.model.weight.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip, length", [(None, 26.0), (30.0, 26.0), (13.0, 13.0), (0.5, 0.5)])
def test_long_gradients_are_clipped(clip, length):
    trainer = slope_trainer(clip=clip)
    trainer.train(None)
    gradient = trainer.recipe.model.weight.grad.double()
    assert torch.allclose(gradient, Slope.slope.double() * length / 13, rtol=1e-5)


def test_what_no_phase_trains_stays():
    trainer = slope_trainer()
    trainer.train(None)
    assert trainer.recipe.model.fixed == 2 and trainer.recipe.model.fixed.grad is None


def test_the_average_of_the_weights():
    trainer = slope_trainer(ema=0.4)
    average = trainer.recipe.model.weight.detach().double()
    for k in range(1, 12):
        trainer.train(None)
        decay = min(0.4, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * trainer.recipe.model.weight.detach().double()
        assert torch.allclose(trainer.average.tensors["weight"].double(), average, rtol=1e-6)
    assert decay == 0.4 and trainer.average.tensors.keys() == {"weight"}


class Normed(toys.recipe.Recipe):
    def __init__(self):
        super().__init__(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))

    def forward(self, phase, batch):
        return dict(square=(self.model(batch.content) - 1).square().mean())


def test_statistics_of_batch_norms_are_averaged():
    trainer = Trainer(Normed(), replace(toys.SETTINGS, ema=0.4))
    average = torch.ones(3, dtype=torch.float64)
    for k in range(1, 6):
        trainer.train(batch(k))
        decay = min(0.4, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * trainer.recipe.model[1].running_var.double()
    own = trainer.recipe.model[1].running_var.clone()
    with trainer.averaged() as model:
        assert torch.allclose(model[1].running_var.double(), average, rtol=1e-6)
    assert torch.equal(model[1].running_var, own) and not torch.allclose(own.double(), average, rtol=1e-3)


def test_a_model_is_trained_in_training_mode():
    recipe = Normed().eval()
    trainer = Trainer(recipe, toys.SETTINGS)
    assert recipe.model.training
    with pytest.raises(KeyError), trainer.averaged() as model:
        assert not model.training
        raise KeyError
    assert recipe.model.training


def test_the_averages_are_the_models_weights_within(trainer):
    trainer = trainer()
    for _ in range(3):
        trainer.train(batch())
    weights = {name: parameter.detach().clone() for name, parameter in trainer.recipe.model.named_parameters()}
    with trainer.averaged() as model:
        assert not model.training
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, trainer.average.tensors[name]) and not torch.equal(parameter, weights[name])
    assert model.training
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_phases_take_turns(trainer):
    trainer = trainer()
    for step in range(4):
        before = {name: parameter.detach().clone() for name, parameter in trainer.recipe.named_parameters()}
        losses = trainer.train(batch())
        changed = {name for name, parameter in trainer.recipe.named_parameters() if not torch.equal(parameter, before[name])}
        if step % 2:
            assert changed == {"gain"} and losses.keys() == {"gain.square", "gain.gain"}
        else:
            assert changed == {"model.conv.weight", "model.conv.bias"} and losses.keys() == {"tint.square"}


def test_chance_depends_on_the_step_alone(trainer):
    """Whatever was drawn in between, by a picture of samples or by anything else."""
    first, second = trainer(), trainer()
    for step in range(4):
        first.train(batch(step))
        torch.rand(step + 1)
        second.train(batch(step))
    other = trainer(seed=1)
    for step in range(4):
        other.train(batch(step))
    assert torch.equal(first.recipe.model.conv.weight, second.recipe.model.conv.weight)
    assert not torch.equal(first.recipe.model.conv.weight, other.recipe.model.conv.weight)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_lowers_the_loss(trainer, precision):
    settings = replace(toys.SETTINGS, lr=0.02, lr_decay=0.0, clip=None)
    trainer, seen = trainer(settings, precision=precision), []
    trainer.recipe.model.conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = [trainer.train(batch())["tint.square" if step % 2 == 0 else "gain.square"].item() for step in range(8)]
    assert set(seen) == {getattr(torch, precision)}
    assert trainer.recipe.model.conv.weight.dtype == torch.float32
    assert losses[-2] < 0.7 * losses[0]


def test_float16_gradients_are_scaled(trainer):
    """A step whose scaled gradients overflow changes nothing, and halves the scale."""
    trainer = trainer(replace(toys.SETTINGS, clip=0.01), precision="float16")
    trainer.train(batch())  # The scale begins with the first step.
    trainer.scaler.update(3e38)
    trainer.step = 0
    before = trainer.recipe.model.conv.weight.detach().clone()
    trainer.train(batch())
    assert torch.equal(trainer.recipe.model.conv.weight, before) and trainer.scaler.get_scale() < 2e38
    for scale in (2.0**8, 2.0**4):  # Small enough; clipped to the same length, whatever the scale was.
        trainer.scaler.update(scale)
        trainer.step = 0
        trainer.train(batch())
        gradient = torch.cat([parameter.grad.flatten() for parameter in trainer.recipe.trained("tint")])
        assert gradient.norm().item() == pytest.approx(0.01, rel=1e-4)


def test_a_state_goes_on_exactly(trainer):
    straight, first, second = trainer(), trainer(), trainer()
    for step in range(6):
        straight.train(batch(step))
    for step in range(3):
        first.train(batch(step))
    second.load(first.state(), "the state")
    for step in range(3, 6):
        second.train(batch(step))
    for name, tensor in straight.recipe.state_dict().items():
        assert torch.equal(second.recipe.state_dict()[name], tensor), name
    for name, tensor in straight.average.tensors.items():
        assert torch.equal(second.average.tensors[name], tensor), name
    assert second.step == 6


def test_a_state_that_does_not_fit(trainer):
    state = trainer().state()
    with pytest.raises(ValueError, match="a.pt: expected gain .*not there"):
        trainer().load({**state, "recipe": {k: v for k, v in state["recipe"].items() if k != "gain"}}, "a.pt")


def test_batch_norms_of_several_gpus(monkeypatch):
    """Of the whole batch; weights and their names stay."""
    monkeypatch.setattr("fastnorm.training.processes.DistributedDataParallel", lambda recipe, **settings: recipe)
    recipe = Normed()
    before = recipe.state_dict(keep_vars=True)
    assert Processes(torch.device("cpu"), 0, 2).parallel(recipe) is recipe and type(recipe.model[1]) is nn.BatchNorm2d
    assert Processes(torch.device("cuda"), 0, 2).parallel(recipe) is recipe and type(recipe.model[1]) is nn.SyncBatchNorm
    after = recipe.state_dict(keep_vars=True)
    assert before.keys() == after.keys() and all(after[name] is before[name] for name in before)
