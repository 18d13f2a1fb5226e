"""A training from start to end, interrupted, gone on with, diverged; and its folder."""

import json
import os
import pickle
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import toys
import torch
from PIL import Image

from fastnorm import _checkpoint
from fastnorm._errors import UserError
from fastnorm.models import files
from fastnorm.training import Batch, checkpoint
from fastnorm.training.loop import Every, train
from fastnorm.training.output import Output

TOLD = {"system": "tint", "--crop": 16, "--style": None}


def ignore(*_):
    pass


@pytest.fixture
def run(tmp_path, batches, trainer):
    """run(folder, steps, ...) trains until so many steps, from the checkpoint where one is there; returns the trainer."""

    def run(folder="out", steps=8, every=Every(2, 4, 8), workers=0, report=ignore, warn=ignore, **settings):
        now = trainer(replace(toys.SETTINGS, steps=steps, **settings))
        output = Output(tmp_path / folder, TOLD, batches.batch(range(3)))
        if path := output.newest():
            now.load(checkpoint.load(path, TOLD), path)
        output.begin(now.step)
        train(now, batches, output, every, workers, report, warn)
        return now

    return run


def entries(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(a, b):
    """Two states, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list) else a == b


# Going on.


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_goes_on_exactly(run, tmp_path, workers):
    straight = run("straight", steps=8)
    run("parts", steps=4)
    resumed = run("parts", steps=8, workers=workers)
    assert same(straight.state(), resumed.state())
    assert same(*(files.read(tmp_path / folder / "tint.safetensors")[0] for folder in ("straight", "parts")))
    for name in ("samples/000008.png", "log.jsonl"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on_exactly(run, tmp_path, number):
    def interrupt(step, losses):
        if step == 3:
            os.kill(os.getpid(), number)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    straight = run("straight", steps=8)
    with pytest.raises(KeyboardInterrupt):
        run("parts", steps=8, report=interrupt)
    stopped = checkpoint.newest(tmp_path / "parts/checkpoints")
    assert stopped.name == "000004.pt"  # The signal came after the third step had been asked for.
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert same(straight.state(), run("parts", steps=8).state())


def test_a_second_interrupt_does_not_wait(run):
    def interrupt(step, losses):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # What runs in the background may be deaf to it.
    try:
        with pytest.raises(KeyboardInterrupt):
            run(report=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)


# What is written.


def test_the_log_has_the_means_of_the_losses(run, tmp_path, trainer, batches):
    run(every=Every(4, 100, 100))
    alone = trainer(toys.SETTINGS)
    steps = [{name: loss.item() for name, loss in alone.train(batches[step][0]).items()} for step in range(8)]
    first, second = entries(tmp_path / "out")
    assert (first["step"], second["step"]) == (4, 8)
    assert first["lr"] == 0.01 / (1 + 0.1 * 3) and second["lr"] == 0.01 / (1 + 0.1 * 7)
    for entry, part in ((first, steps[:4]), (second, steps[4:])):
        for name, mean in entry["losses"].items():
            assert mean == pytest.approx(np.mean([losses[name] for losses in part if name in losses]), rel=1e-6)
    assert first["losses"].keys() == {"tint.square", "gain.square", "gain.gain"}


def test_the_log_forgets_what_came_after_the_checkpoint(run, tmp_path):
    """A training that was killed has logged steps that are done again."""
    run(steps=4)
    with open(tmp_path / "out/log.jsonl", "a") as log:
        log.write('{"step": 5, "lr": 1, "losses": {}}\n{"step": 6, "lr')
    run(steps=8)
    assert [entry["step"] for entry in entries(tmp_path / "out")] == [2, 4, 6, 8]


def test_the_newest_checkpoints_are_kept(run, tmp_path):
    run(every=Every(1, 1, 100))
    names = sorted(path.name for path in (tmp_path / "out/checkpoints").iterdir())
    assert names == ["000006.pt", "000007.pt", "000008.pt"]


def test_checkpoints_of_more_steps_are_left_alone(tmp_path):
    """As of another training: the one that was just written stays, too."""
    later = [f"{step:06d}.pt" for step in range(100, 105)]
    for name in later:
        (tmp_path / name).touch()
    for step in range(4, 9):
        checkpoint.save(tmp_path, {"step": step}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000006.pt", "000007.pt", "000008.pt", *later]


def test_the_model_has_the_averages(run, tmp_path):
    trainer = run()
    model = toys.Tint.load(tmp_path / "out/tint.safetensors")
    for name, average in trainer.average.tensors.items():
        assert torch.equal(model.get_parameter(name), average)
        assert not torch.equal(average, trainer.recipe.model.get_parameter(name))
    trainer = run("plain", ema=None)
    model = toys.Tint.load(tmp_path / "plain/tint.safetensors")
    assert torch.equal(model.conv.weight, trainer.recipe.model.conv.weight)


def test_samples_are_what_the_saved_model_makes(run, tmp_path, batches):
    run()
    picture = np.asarray(Image.open(tmp_path / "out/samples/000008.png"))
    content = batches.batch(range(3)).content
    with torch.no_grad():
        painted = toys.Tint.load(tmp_path / "out/tint.safetensors").stylize(content).clamp(0, 1)
    assert picture.shape == (34, 52, 3)
    for row, tiles in enumerate((content, painted)):
        for column, tile in enumerate(tiles):
            shown = picture[row * 18 : row * 18 + 16, column * 18 : column * 18 + 16] / 255
            assert np.abs(shown - tile.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6


def test_broken_pictures_are_told_once(run, batches, tmp_path):
    for name in ("x.png", "y.png"):
        (tmp_path / "content" / name).write_text("no picture")
    batches.content.__init__(batches.content.folder, 0, 0, 20, 16)
    told = []
    run(warn=told.append)
    assert sorted(line.split()[0][-5:] for line in told) == ["x.png", "y.png"]


# What goes wrong.


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_it(run, tmp_path, monkeypatch, number):
    run(steps=4)
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.suffix in (".pt", ".safetensors")}
    forward = toys.Negative.forward
    monkeypatch.setattr(toys.Negative, "forward", lambda *given: {k: v * number for k, v in forward(*given).items()})
    said = r"step 6: a loss is no number any more \(.*square is .*--lr.*000004.pt is from before"
    with pytest.raises(UserError, match=said):
        run(steps=8)
    assert kept == {path: path.read_bytes() for path in kept}
    assert checkpoint.newest(tmp_path / "out/checkpoints").name == "000004.pt"


def test_a_weight_that_is_no_number_stops_it(run, tmp_path, monkeypatch):
    """The gradient of the last step before a checkpoint shows in no loss yet."""

    forward = toys.Negative.forward

    def infinite_slope(recipe, phase, batch):
        losses = forward(recipe, phase, batch)
        losses["root"] = (recipe.gain - recipe.gain.detach()).abs().sqrt()  # 0, as long as gain is finite.
        return losses

    monkeypatch.setattr(toys.Negative, "forward", infinite_slope)
    with pytest.raises(UserError, match="step 2: a weight is no number any more: .*no checkpoint from before"):
        run(every=Every(100, 2, 100))
    assert checkpoint.newest(tmp_path / "out/checkpoints") is None
    assert not (tmp_path / "out/tint.safetensors").exists()


def test_a_checkpoint_of_another_training(run, tmp_path):
    run(steps=4)
    path = checkpoint.newest(tmp_path / "out/checkpoints")
    with pytest.raises(UserError, match=r"000004.pt is of a training with --crop 16, this one has 32: .*--init"):
        checkpoint.load(path, {**TOLD, "--crop": 32})
    with pytest.raises(UserError, match="with system tint, this one has adain"):
        checkpoint.load(path, {**TOLD, "system": "adain"})
    with pytest.raises(UserError, match="with --new None, this one has 1"):
        checkpoint.load(path, {**TOLD, "--new": 1})


class Code:
    def __reduce__(self):
        return (os.system, ("echo it ran > ran",))


@pytest.mark.parametrize("kind", ["cut short", "code", "code in a zip", "empty", "another file", "missing"])
def test_a_checkpoint_that_is_none(run, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    run(steps=4)
    path = checkpoint.newest(tmp_path / "out/checkpoints")
    whole = path.read_bytes()
    if kind == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "code":
        path.write_bytes(pickle.dumps(Code()))
    elif kind == "code in a zip":
        torch.save({"settings": "{}", "step": 1, "recipe": {}, "optimizers": Code()}, path)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "another file":
        torch.save({"weight": torch.zeros(1)}, path)
    else:
        path.unlink()
    said = {"another file": "000004.pt is no checkpoint of fastnorm train$", "missing": "there is no such file"}
    said["code in a zip"] = "000004.pt is refused, as damaged or as holding more than tensors"
    with pytest.raises(UserError, match=said.get(kind, "000004.pt: it is no checkpoint .* or not all of one$")) as raised:
        checkpoint.load(path, TOLD)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()


def test_a_disk_that_fails(run, tmp_path, monkeypatch):
    run(steps=4)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.pt")}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_checkpoint, "in_one_step", full)
    with pytest.raises(UserError, match="000008.pt cannot be written: No space left"):
        run(steps=8)
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.pt")}


# TensorBoard.


def test_tensorboard(tmp_path, batches, trainer):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = Output(tmp_path / "out", TOLD, batches.batch(range(3)), tensorboard=True)
    output.begin(0)
    train(trainer(), batches, output, Every(4, 8, 8))
    shown = EventAccumulator(str(tmp_path / "out/tensorboard")).Reload()
    for name, mean in entries(tmp_path / "out")[0]["losses"].items():
        scalars = shown.Scalars(f"loss/{name}")
        assert [scalar.step for scalar in scalars] == [4, 8]
        assert scalars[0].value == pytest.approx(mean, rel=1e-6)
    assert shown.Images("samples")[0].width == 52


def test_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="^--tensorboard needs tensorboard: pip install tensorboard$"):
        Output(tmp_path, TOLD, Batch(torch.zeros(1, 3, 4, 4)), tensorboard=True).begin(0)
