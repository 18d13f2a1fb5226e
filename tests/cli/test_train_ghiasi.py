"""`fastnorm train ghiasi`: where the weights come from with which its style network begins."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastnorm.models import files
from fastnorm.models.inception import Inception

SIZES = dict(contract=[3, 4, 6], residual_blocks=1, expand=[4, 3], embedding=5, style_size=43, width_multiplier=1 / 16)
MOBILENET = dict(style_network="mobilenet", stem=4, head=9, style_size=16, blocks=[[1, 4, 1, 1]])
SHORT = "--resize", 20, "--crop", 16, "--batch-size", 2, "--workers", 0, "--vgg", "random"


@pytest.fixture
def train(command, tmp_path):
    """train(*arguments, sizes=) trains for a step, at a rate that changes nothing."""
    for folder in ("photos", "paintings"):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "0.png")

    def run(*arguments, sizes={}, system="ghiasi"):
        return command(
            "train", system, "--content", tmp_path / "photos", "--style", tmp_path / "paintings", "-o", tmp_path / "out",
            *SHORT, "--set-model", json.dumps(sizes), "--steps", 1, "--lr", 1e-30, *arguments,
        )  # fmt: skip

    return run


def public(path, seed=0):
    """A file in torchvision's layout; returns what is in it."""
    torch.manual_seed(seed)
    tensors = {key: tensor for key, tensor in Inception(5, 1 / 16).state_dict().items() if not key.startswith("embedding")}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return tensors


def begins_with(path, tensors):
    """Whether the convolutions of the model's style network are these."""
    found = files.read(path)[0]
    names = [name for name in tensors if name.endswith("conv.weight")]
    return len(names) > 50 and all(torch.equal(found[f"style_network.{name}"], tensors[name]) for name in names)


def test_public_weights(train, tmp_path, monkeypatch):
    """Of a file, or of that which torchvision keeps."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    tensors = public(tmp_path / "inception.pth")
    assert train("--inception", tmp_path / "inception.pth", sizes=SIZES)[0] == 0
    assert begins_with(tmp_path / "out/ghiasi.safetensors", tensors)
    kept = public(tmp_path / "hub/checkpoints/inception_v3_google-0cc3c7bd.pth", seed=1)
    assert train("-o", tmp_path / "kept", sizes=SIZES)[0] == 0
    assert begins_with(tmp_path / "kept/ghiasi.safetensors", kept)
    assert not begins_with(tmp_path / "kept/ghiasi.safetensors", tensors)


def test_without_public_weights(train, tmp_path, monkeypatch):
    """Random ones, if it is said so; those of --init, or of the training that goes on; or a MobileNet's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    code, out, err = train(sizes=SIZES)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"no Inception-v3 weights at {tmp_path}/hub/checkpoints/inception_v3_google-0cc3c7bd.pth" in err
    assert "https://download.pytorch.org/models/inception_v3" in err
    assert train("--inception", "random", sizes=SIZES)[0] == 0
    assert train("--resume", "--steps", 2, sizes=SIZES)[0] == 0
    model = tmp_path / "out/ghiasi.safetensors"
    assert train("--init", model, "-o", tmp_path / "init", sizes=SIZES)[0] == 0
    place = "style_network."
    network = {name.removeprefix(place): own for name, own in files.read(model)[0].items() if name.startswith(place)}
    assert begins_with(tmp_path / "init/ghiasi.safetensors", network)
    assert train("-o", tmp_path / "mobilenet", sizes=SIZES | MOBILENET)[0] == 0


def test_a_model_that_has_none(train):
    code, _, err = train("--inception", "random", system="adain", sizes=dict(widths=[4, 6, 8, 10]))
    assert code == 2 and "--inception random: the model has no Inception-v3, leave it out" in err
