"""The pictures in examples/ are what its scripts make."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("script, drawn", [
    pytest.param("photo", {"astronaut.jpg"}, id="photo"),
    pytest.param("draw_styles", {"brush.jpg", "woodcut.jpg", "glass.jpg"}, id="styles", marks=pytest.mark.long),
])
def test_scripts_make_the_pictures(tmp_path, script, drawn):
    if script == "photo":
        pytest.importorskip("skimage", reason="scikit-image, which carries the photo, is not installed")
    runpy.run_path(str(EXAMPLES / f"{script}.py"))["main"](tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == drawn
    for name in drawn:
        again, shipped = (np.asarray(Image.open(folder / name)).astype(int) for folder in (tmp_path, EXAMPLES))
        assert np.abs(again - shipped).mean() < 1  # Another libjpeg may round otherwise.


def test_they_are_small():
    pictures = list(EXAMPLES.glob("*.jpg"))
    assert len(pictures) == 5
    assert all(picture.stat().st_size < 200_000 for picture in pictures)
