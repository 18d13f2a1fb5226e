import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))

import toys

from fastnorm.training.data import CONTENT, Batches, Squares


@pytest.fixture
def batches(tmp_path):
    folder = toys.draw(tmp_path / "content", 5)
    return Batches(Squares(folder, CONTENT, 0, toys.SETTINGS.resize, toys.SETTINGS.crop), None, 0, toys.SETTINGS.batch_size)


@pytest.fixture
def trainer():
    """trainer(**arguments) is always the same at its start."""
    from fastnorm.training.trainer import Trainer

    def make(settings=toys.SETTINGS, recipe=toys.Negative, **arguments):
        torch.manual_seed(0)
        return Trainer(recipe(toys.Tint()), settings, **arguments)

    return make
