"""`fastnorm train`: what it writes, how it goes on, and what a user can get wrong."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastnorm import models, training
from fastnorm.models import files
from fastnorm.models.vgg import VGG19
from fastnorm.training import Settings, recipe
from fastnorm.training.processes import Processes

ADAIN = "--vgg", "random", "--set-model", "widths=[4,6,8,10]"
SMALL = "--resize", 20, "--crop", 16, "--batch-size", 2, "--steps", 4, "--workers", 0


@pytest.fixture
def folders(tmp_path):
    for folder, count in (("photos", 4), ("paintings", 3)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            pixels = np.random.default_rng((count, i)).integers(0, 256, (24, 26 + i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    return tmp_path


@pytest.fixture
def train(command, folders):
    """train(*arguments, out=) trains a tiny AdaIN, unless told otherwise."""

    def run(*arguments, system="adain", out="out", style=folders / "paintings", model=ADAIN):
        styled = () if style is None else ("--style", style)
        return command(
            "train", system, "--content", folders / "photos", *styled, "-o", folders / out, *model, *SMALL, *arguments
        )

    return run


@pytest.fixture
def refused(train):
    """refused(*arguments, said=...) checks that it ends with one line that says so."""

    def check(*arguments, said, **options):
        code, out, err = train(*arguments, **options)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("fastnorm: ")
        for words in said:
            assert words in err, err

    return check


def weights(path):
    return files.read(path)[0]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# What it does.


def test_a_training(train, folders):
    code, out, err = train("--save-every", 2, "--log-every", 2, "--sample-every", 4)
    assert code == 0
    assert out.splitlines() == [
        "adain: 4 steps of 2 squares of 16x16 from a shorter side of 20, --lr 0.0001; 4 photos, 3 paintings, cpu",
        f"{folders}/out/adain.safetensors: adain after 4 steps",
    ]
    assert err.startswith("step 4 of 4: content ") and err.count("\n") == 1
    written = sorted(path.relative_to(folders / "out").as_posix() for path in (folders / "out").rglob("*.*"))
    assert written == [
        "adain.safetensors", "checkpoints/000002.pt", "checkpoints/000004.pt", "log.jsonl", "samples/000004.png"
    ]  # fmt: skip
    assert Image.open(folders / "out/samples/000004.png").size == (4 * 18 - 2, 3 * 18 - 2)
    entries = [json.loads(line) for line in (folders / "out/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [2, 4] and entries[0]["losses"].keys() == {"content", "style"}
    model = models.load("adain", folders / "out/adain.safetensors")
    photo = torch.rand(1, 3, 20, 17)
    assert model.stylize(photo, photo).shape == photo.shape


def test_going_on(train, folders):
    """Four steps, and two and two; by the newest checkpoint, or by one that is named."""
    assert train("--clip", 1)[0] == 0
    whole = weights(folders / "out/adain.safetensors")
    assert train("--clip", 1, "--steps", 2, out="parts")[0] == 0
    assert not same(whole, weights(folders / "parts/adain.safetensors"))
    checkpoint = folders / "parts/checkpoints/000002.pt"
    assert train("--clip", 1, "--resume", checkpoint, out="named")[0] == 0
    assert train("--clip", 1, "--resume", out="parts")[0] == 0
    assert same(whole, weights(folders / "parts/adain.safetensors"))
    assert same(whole, weights(folders / "named/adain.safetensors"))


def test_the_settings_are_the_recipes_unless_told(train, folders, monkeypatch):
    seen = {}
    init = training.trainer.Trainer.__init__

    def note(trainer, recipe, settings, *rest):
        seen.update(settings=settings, recipe=recipe)
        init(trainer, recipe, settings, *rest)

    monkeypatch.setattr(training.trainer.Trainer, "__init__", note)
    told = "--ema", "none", "--clip", 2.5, "--lr", 0.5, "--set", "style_weight=20", "--set", '{"content_weight": 3}'
    assert train(*told)[0] == 0
    assert seen["settings"] == Settings(4, 2, 20, 16, 0.5, lr_decay=5e-5, clip=2.5, ema=None)
    assert set(seen["recipe"].style.weights.values()) == {20} and set(seen["recipe"].content.weights.values()) == {3}


def test_the_weights_that_it_starts_from(train, folders):
    torch.manual_seed(5)
    model = models.build("adain", widths=(4, 6, 8, 10))
    model.save(folders / "start.safetensors")
    assert train("--init", folders / "start.safetensors", "--lr", 1e-30)[0] == 0
    assert same(weights(folders / "out/adain.safetensors"), model.state_dict())


def test_vgg_from_a_file(train, folders):
    """In the model, whose encoder it is. Torchvision's names, at the sizes of the model."""
    vgg = VGG19(("relu4_1",), (4, 6, 8, 10, 10))
    places = (0, 2, 5, 7, 10, 12, 14, 16, 19)
    tensors = [tensor for name, tensor in vgg.state_dict().items() if not name.startswith("preprocess")]
    public = {f"features.{place}.{kind}": tensors.pop(0) for place in places for kind in ("weight", "bias")}
    torch.save(public, folders / "vgg.pth")
    assert train("--vgg", folders / "vgg.pth")[0] == 0
    found = weights(folders / "out/adain.safetensors")
    encoder = {name.removeprefix("encoder."): tensor for name, tensor in found.items() if name.startswith("encoder")}
    assert same(encoder, vgg.state_dict())


@pytest.fixture
def toy(monkeypatch):
    """toy(kind) makes CIN a system of such styles, with a recipe that notes in `toy.found` what it is given."""

    class Toy(recipe.Recipe):
        def __init__(self, model, vgg=None, styles=()):
            super().__init__(model, vgg)
            self.styles = styles

        def forward(self, phase, batch):
            make.found.append((batch, [style.shape for style in self.styles], self.model.config["styles"]))
            return dict(mean=self.model.stylize(batch.content, 0).mean())

        def sample(self, batch):
            return batch.content

    def make(kind):
        monkeypatch.setitem(models.SYSTEMS, "cin", models.SYSTEMS["cin"]._replace(styles=kind))
        monkeypatch.setattr(training, "RECIPES", ("adain", "cin"))
        monkeypatch.setattr(training, "recipe_of", lambda name: Toy)

    make.found = []
    return make


CIN = "--set-model", '{"contract": [4, 5, 6], "residual_blocks": 1, "expand": [4, 2]}'


def test_numbered_styles(train, toy, folders):
    """Broken pictures of styles have no number."""
    toy("numbers")
    (folders / "paintings/1b.png").write_text("no picture")
    code, out, err = train(system="cin", model=CIN)
    assert code == 0 and "4 photos, 3 styles" in out and "1b.png is not a picture" in err
    assert weights(folders / "out/cin.safetensors")["contract.0.norm.weight"].shape[0] == 3
    for batch, shapes, styles in toy.found:
        assert batch.style is None and batch.index.shape == (2,) and styles == 3
        assert shapes == [(1, 3, 20, 22), (1, 3, 20, 22), (1, 3, 20, 23)]
    assert torch.cat([batch.index for batch, _, _ in toy.found]).bincount().min() >= 2
    assert Image.open(folders / "out/samples/000004.png").size[1] == 3 * 18 - 2


def test_one_style(train, toy, folders):
    toy("one")
    assert train(system="cin", model=CIN, style=folders / "paintings/0.png")[0] == 0
    assert all(batch.index is batch.style is None and shapes == [(1, 3, 20, 22)] for batch, shapes, _ in toy.found)
    code, _, err = train(system="cin", style=folders / "paintings", out="other", model=CIN)
    assert code == 2 and "paintings is not a file" in err


def test_no_style(train, toy, folders):
    toy(None)
    assert train(system="cin", model=CIN, style=None)[0] == 0
    assert all(batch.index is batch.style is None and shapes == [] for batch, shapes, _ in toy.found)
    assert Image.open(folders / "out/samples/000004.png").size[1] == 2 * 18 - 2
    code, _, err = train(system="cin", out="other", model=())
    assert code == 2 and "cin has no style, leave it out" in err


def test_help_says_what_the_recipes_say(command, capsys):
    with pytest.raises(SystemExit):
        command("train", "--help")
    shown = capsys.readouterr().out
    assert "  adain: 160000 steps of 8 squares of 256x256 from a shorter side of 512, --lr 0.0001\n" in shown
    assert "torchrun" in shown and "--resume" in shown


# What a user can get wrong.


def test_systems(refused, monkeypatch):
    refused(system="adin", said=["there is no system 'adin'", "one of adaattn, adaconv, adain"])
    monkeypatch.setattr(training, "RECIPES", ("adain",))
    refused(system="din", said=["din is a system, but not one that is trained", "adain"])


def test_folders(refused, folders):
    (folders / "empty").mkdir()
    (folders / "letters").mkdir()
    (folders / "letters/a.png").write_text("no picture")
    for option in ("--content", "--style"):
        refused(option, folders / "empty", said=["empty holds no picture", ".png"])
        refused(option, folders / "letters", said=["letters holds no picture that can be read", "a.png is not a picture"])
        refused(option, folders / "nowhere", said=[f"{option} {folders}/nowhere: there is no such folder"])
        refused(option, folders / "photos/0.png", said=[option, "0.png: is a file, expected a folder"])
    refused(style=None, said=["adain needs --style, a folder of paintings"])
    assert not (folders / "out").exists()


def test_output(refused, folders, train):
    (folders / "file").write_text("")
    refused(out="file", said=["file is not a folder"])
    refused("-o", "/proc/out", said=["/proc/out cannot be written", "choose another"])
    assert train()[0] == 0
    refused(said=["out holds a training already", "000004.pt", "--resume"])


def test_weights_of_two(refused):
    for value in ("1", "[1]", "[1, 2, 3]", "[1, -1]", "[1, null]"):
        said = f"--set identity_weights: expected a list such as [50.0, 1.0], got {value}"
        refused("--set", f"identity_weights={value}", system="sanet", said=[said])


def test_the_crop_of_super_resolution_is_what_comes_out(refused, train):
    sizes = "--vgg", "random", "--set-model", "scale=2", "--set-model", "width=6", "--set-model", "residual_blocks=1"
    model = dict(system="super_resolution", style=None, model=sizes)
    refused("--crop", 17, said=["--crop 17: super_resolution needs a multiple of 2, from 16 up"], **model)
    refused("--crop", 14, said=["--crop 14: super_resolution needs a multiple of 2, from 16 up"], **model)
    assert train("--crop", 18, **model)[0] == 0


def test_a_start_that_fails_leaves_nothing(train, folders, monkeypatch):
    monkeypatch.setattr(training.trainer.Trainer, "train", lambda *_: torch.empty(2**60, dtype=torch.uint8))
    assert train()[0] == 2
    assert not (folders / "out").exists()


def test_sizes(refused):
    refused("--crop", 24, said=["--crop 24: expected at most --resize, which is 20"])
    refused("--crop", 20, said=["--crop 20: adain needs a multiple of 8, from 16 up"])
    refused("--crop", 8, said=["--crop 8: adain needs a multiple of 8, from 16 up"])


@pytest.mark.parametrize(
    "option, value, said",
    [
        ("--steps", "0", "from 1 up"),
        ("--lr", "0", "above 0"),
        ("--lr", "nan", "above 0"),
        ("--clip", "-1", "above 0"),
        ("--ema", "1", "from 0 up and below 1"),
        ("--seed", "-1", "from 0 up"),
        ("--precision", "float8", "bfloat16"),
        ("--set", "style_weight", "NAME=VALUE"),
        ("--set", "style=1", "--set style: adain's recipe has content_weight, style_weight"),
        ("--set", "betas=[0.5,0.9]", "style_weight; steps, rate and other settings have options of their own"),
        ("--set", "style_weight=x", 'style_weight: expected a number from 0 up, got "x"'),
        *(("--set", f"style_weight={value}", f"--set style_weight: expected a number from 0 up, got {value}") for value in (
            "null", "NaN", "Infinity", "-1", "true", "[1]"
        )),
        ("--set-model", "width=3", "--set-model width: adain has widths, eps"),
        *(("--set-model", f"widths={value}", f"--set-model widths: expected a list such as [64, 128, 256, 512], got {value}")
          for value in ("3", "[]", "null", "[4, 6, 8, -1]", "[4, 6, 8, 1.5]", '["a", "b", "c", "d"]')),
        ("--set-model", "widths=[4, 6]", "[4, 6]: adain cannot be built so, the default is widths=[64, 128, 256, 512]: "),
        ("--set-model", "widths=[4,6,8,0]", "widths=[4, 6, 8, 0]: adain cannot be built so, the default is "),
        ("--set-model", "eps=null", "--set-model eps: expected a number from 0 up, got null"),
        ("--set-model", "{widths: 3}", "JSON"),
        ("--vgg", "nowhere.pth", "--vgg: no VGG-19 weights at nowhere.pth: "),
        ("--init", "nowhere.safetensors", "no weight file nowhere.safetensors"),
        ("--resume", "nowhere.pt", "nowhere.pt: there is no such file"),
    ],
)
def test_arguments(refused, option, value, said):
    refused(f"{option}={value}", said=[said])


def test_no_vgg(refused, monkeypatch, tmp_path):
    """Where it is looked for, and where it comes from."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = f"{tmp_path}/checkpoints/vgg19-dcbb9e9d.pth"
    refused(model=(), said=[f"no VGG-19 weights at {place}", "https://download.pytorch.org"])


def test_weights_of_another_system(refused, folders):
    models.build("cin", styles=2).save(folders / "cin.safetensors")
    refused("--init", folders / "cin.safetensors", said=["is of the system cin, expected adain"])


def test_going_on_with_something_else(refused, train, folders):
    refused("--resume", said=["--resume: there is no checkpoint in"])
    assert train()[0] == 0
    refused("--resume", said=["000004.pt has 4 steps done already", "more --steps than 4"])
    longer = "--resume", "--steps", 8
    refused(*longer, "--batch-size", 4, said=["000004.pt is of a training with --batch-size 2, this one has 4"])
    refused(*longer, "--seed", 1, said=["--seed 0, this one has 1"])
    refused(*longer, "--set", "style_weight=1", said=["--set {}, this one has {'style_weight': 1}"])
    refused(*longer, "--set-model", "eps=1", said=["--set-model"])
    (folders / "photos/0.png").rename(folders / "photos/zero.png")
    refused(*longer, said=["with --content 4 pictures"])
    (folders / "photos/zero.png").rename(folders / "photos/0.png")
    torch.manual_seed(1)
    models.build("adain", widths=(4, 6, 8, 10)).save(folders / "other.safetensors")
    refused(*longer, "--init", folders / "other.safetensors", said=["untrained weights (--vgg, --init)"])
    path = folders / "out/checkpoints/000004.pt"
    earlier = path.with_name("000002.pt")
    for other in (earlier, "nowhere.pt"):
        refused("--resume", other, said=[f"--resume {other}: -o", f"holds another checkpoint, {path}: move it away"])
    state = torch.load(path)
    state["average"].popitem()
    torch.save(state, path)
    refused(*longer, said=["000004.pt is no whole checkpoint of this training: "])
    path.write_bytes(path.read_bytes()[:2000])
    refused(*longer, said=["000004.pt: it is no checkpoint of fastnorm train, or not all of one"])


def test_a_loss_that_is_no_number(train):
    code, _, err = train("--lr", 1e30)
    assert code == 2 and err.count("\n") == 1
    assert "step 4: a loss is no number any more (" in err and "a smaller --lr" in err


def test_memory_that_runs_out(train, monkeypatch):
    monkeypatch.setattr(training.trainer.Trainer, "train", lambda *_: torch.empty(2**60, dtype=torch.uint8))
    code, _, err = train()
    assert code == 2 and err.count("\n") == 1
    assert "not enough memory" in err and "--batch-size than 2" in err and "--crop than 16" in err


def test_without_safetensors(refused, monkeypatch):
    monkeypatch.setattr("fastnorm.cli.train.find_spec", lambda name: None)
    refused(said=["the model is written by a package: pip install safetensors"])


# More than one process.


def arguments(folders, *more):
    paths = "--content", folders / "photos", "--style", folders / "paintings"
    return [str(a) for a in ("train", "adain", *paths, *ADAIN, *SMALL, "--ema", "none", "--lr", 1e-2, *more)]


@pytest.mark.long
@pytest.mark.parametrize("by, words", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_signals(python, folders, by, words):
    """Ctrl-C, as of a terminal, and SIGTERM, to a process that reads by workers: it ends with a checkpoint, and goes on."""
    line = [*python, *arguments(folders, "-o", folders / "out", "--steps", 10000, "--workers", 1, "--log-every", 1)]
    hears = dict(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), start_new_session=True)
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **hears)
    try:
        assert "adain: 10000 steps" in running.stdout.readline()
        log = folders / "out/log.jsonl"
        while running.poll() is None and not (log.exists() and log.read_text().count("\n") >= 3):
            time.sleep(0.05)
        os.killpg(running.pid, by)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    (path,) = (folders / "out/checkpoints").iterdir()
    assert running.returncode == 128 + by and (out, err.splitlines()[-2:]) == ("", [
        f"fastnorm: --resume goes on from {path}", f"fastnorm: {words}"
    ])  # fmt: skip
    assert (folders / "out/adain.safetensors").exists()


PROBE = """
import sys, torch
from fastnorm.training import trainer
from fastnorm.cli import main
made, init = [], trainer.Trainer.__init__
trainer.Trainer.__init__ = lambda self, *a: (init(self, *a), made.append(self))[0]
code = main(sys.argv[2:])
torch.save(made[0].state()["recipe"], sys.argv[1])
sys.exit(code)
"""


@pytest.mark.long
def test_two_processes_train_as_one(folders):
    """Each on half of the batch: the gradients are averaged, and so the losses in the log."""

    def processes(count, out):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = []
        for rank in range(count):
            world = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=count, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            line = [sys.executable, "-c", PROBE, folders / f"{out}{rank}.pt", *arguments(folders, "-o", folders / out)]
            line = [str(part) for part in (*line, "--batch-size", 4, "--log-every", 2)]
            environment = os.environ | {name: str(value) for name, value in world.items()}
            pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            started.append(subprocess.Popen(line, env=environment, **pipes))
        outputs = [process.communicate(timeout=300) for process in started]
        assert [process.returncode for process in started] == [0] * count, outputs
        assert all(out == "" for out, _ in outputs[1:]), outputs
        entries = [json.loads(line) for line in (folders / out / "log.jsonl").read_text().splitlines()]
        return [torch.load(folders / f"{out}{rank}.pt") for rank in range(count)], entries

    (alone,), log = processes(1, "one")
    (first, second), shared_log = processes(2, "two")
    assert same(first, second)
    torch.manual_seed(0)
    start = models.build("adain", widths=(4, 6, 8, 10)).state_dict()
    for name, tensor in alone.items():
        moved = (tensor - start[name.removeprefix("model.").replace("vgg.", "encoder.")]).abs().max()
        assert (tensor - first[name]).abs().max() <= 1e-3 * moved, name
    for entry, shared in zip(log, shared_log, strict=True):
        assert shared["losses"] == pytest.approx(entry["losses"], rel=1e-4)
    assert Path(folders / "two/adain.safetensors").exists()


def test_a_batch_that_the_processes_cannot_share(refused, monkeypatch):
    monkeypatch.setattr("fastnorm.cli.train.joined", lambda device: nullcontext(Processes(size=3)))
    refused(said=["--batch-size 2: expected a multiple of 3, the number of processes"])
