"""The command in this process, with a model that is quick and whose result can be told in advance."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastnorm import cli, models
from fastnorm.models.system import System


class Negative(System):
    """A stand-in for the published systems that needs no weights: every style is the negative of the picture."""

    def __init__(self, styles=26):
        super().__init__()
        self.typed = torch.nn.Parameter(torch.zeros(1))
        self.kept = []

    def encode(self, style):
        if isinstance(style, int):
            return {"weights": torch.eye(self.config["styles"])[style : style + 1]}
        self.kept.append(style)
        return {"painting": style}

    def paint(self, content, style, alpha):
        self.painted = style
        return torch.lerp(content, 1 - content, alpha)


@pytest.fixture
def negative(monkeypatch):
    """The stand-in, loaded for both systems; `negative.loaded` says for which it was."""
    model = Negative()
    model.loaded = []

    def load(name, weights=None):
        model.loaded.append(name)
        return model

    monkeypatch.setattr(models, "load", load)
    return model


@pytest.fixture
def command(capsys):
    """command(*arguments) runs `fastnorm` and returns its exit code, stdout and stderr."""

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def stylize(command, negative):
    return lambda *arguments: command("stylize", *arguments)


@pytest.fixture
def photo(tmp_path):
    """photo(name, width, height, mode) draws a picture, the same for the same name, and returns its path."""

    def draw(name="photo.png", width=12, height=10, mode="RGB"):
        rng = np.random.default_rng(list(name.encode()))
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return draw


@pytest.fixture
def tree(tmp_path):
    """tree() is every file and folder below tmp_path, with the bytes of the files."""

    def walk():
        return {path: path.read_bytes() if path.is_file() else None for path in sorted(tmp_path.rglob("*"))}

    return walk


@pytest.fixture
def python():
    """The start of a command line for a fresh interpreter."""
    return [sys.executable, "-m", "fastnorm"]
