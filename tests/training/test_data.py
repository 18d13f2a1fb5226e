"""Which pictures a step sees: by seed and number alone, each as often as the others, broken ones never."""

import numpy as np
import pytest
import toys
import torch
from PIL import Image

from fastnorm import pictures
from fastnorm._errors import UserError
from fastnorm.training.data import CONTENT, STYLE, Batches, Squares, drawn


def squares(folder, stream=CONTENT, seed=0, resize=20, crop=16):
    return Squares(folder, stream, seed, resize, crop)


def equal(a, b):
    return all(x is y is None or torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_each_comes_once_before_any_comes_again():
    orders = [[drawn(3, CONTENT, 7, n) for n in range(first, first + 7)] for first in range(0, 70, 7)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) == 10
    assert orders[0] != [drawn(4, CONTENT, 7, n) for n in range(7)]
    assert orders[0] != [drawn(3, STYLE, 7, n) for n in range(7)]


def test_a_square_is_of_the_drawn_picture_mirrored_every_other_time(tmp_path):
    """Each sample is some square of the resized picture, found by trying all."""
    toys.draw(tmp_path, 3)
    found = squares(tmp_path)
    places, mirrored = set(), 0
    for n in range(20):
        path = found.paths[drawn(0, CONTENT, 3, n)]
        whole = pictures.read(path, shorter=20).rgb[0]
        height, width = whole.shape[1:]
        squares_of_it = whole.unfold(1, 16, 1).unfold(2, 16, 1)  # (3, rows, columns, 16, 16)
        errors = [
            (square[:, None, None] - squares_of_it).square().mean((0, 3, 4)) for square in (found[n], found[n].flip(2))
        ]
        best = int(errors[1].min() < errors[0].min())
        assert errors[best].min() < 1e-3 < errors[1 - best].min()  # Resized as a whole, sides are rounded.
        places.add(int(errors[best].argmin()))
        mirrored += best
    assert len(places) > 10
    assert 5 < mirrored < 15


def test_a_batch_depends_on_the_step_alone(tmp_path):
    """From the start in this process, and from the middle by workers."""
    content, style = squares(toys.draw(tmp_path / "c", 5)), squares(toys.draw(tmp_path / "s", 4, 1), STYLE)
    batches = Batches(content, style, 3, 4)
    straight = [batch for batch, _ in batches.loader(range(8), 0)]
    for workers in (1, 2):
        resumed = [batch for batch, _ in batches.loader(range(3, 8), workers)]
        assert all(equal(a, b) for a, b in zip(straight[3:], resumed, strict=True))
    assert not torch.equal(straight[0].content, straight[1].content)
    assert not torch.equal(straight[0].content, straight[0].style)
    other = Batches(squares(tmp_path / "c", seed=1), None, 0, 4)
    assert not torch.equal(other[0][0].content, straight[0].content)


def test_processes_share_a_batch(tmp_path):
    content = squares(toys.draw(tmp_path, 5))
    whole = Batches(content, None, 3, 6)[2][0]
    shares = [Batches(content, None, 3, 6, rank, 3)[2][0] for rank in range(3)]
    assert torch.equal(torch.cat([share.content for share in shares]), whole.content)
    assert torch.equal(torch.cat([share.index for share in shares]), whole.index)


def test_numbers_of_styles(tmp_path):
    content = squares(toys.draw(tmp_path, 2))
    index = torch.cat([Batches(content, None, 3, 4)[step][0].index for step in range(3)])
    assert index.dtype == torch.int64 and index.bincount().tolist() == [4, 4, 4]
    assert Batches(content, None, 0, 4)[0][0].index is None


def test_numbers_of_styles_that_are_chosen(tmp_path):
    content = squares(toys.draw(tmp_path, 2))
    chosen = lambda step, samples, styles: [step % styles] * samples
    indices = [Batches(content, None, 3, 4, rank, 2, chosen)[step][0].index.tolist() for step in (1, 5) for rank in (0, 1)]
    assert indices == [[1, 1], [1, 1], [2, 2], [2, 2]]


@pytest.fixture
def damaged(tmp_path):
    """A folder of pictures 0, 1, 2, which are good, a letter and one that is tiny."""
    toys.draw(tmp_path, 3)
    (tmp_path / "letter.png").write_text("no picture")
    Image.new("RGB", (5, 50)).save(tmp_path / "tiny.png")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_are_passed_over(damaged, workers):
    batches = Batches(squares(damaged), None, 0, 4)
    told = {}
    for batch, broken in batches.loader(range(5), workers):
        told |= broken
        assert batch.content.shape == (4, 3, 16, 16)
    assert sorted(path.name for path in told) == ["letter.png", "tiny.png"]
    assert "is not a picture" in told[damaged / "letter.png"] and "5x50" in told[damaged / "tiny.png"]


def test_what_is_known_to_be_broken_changes_nothing(damaged):
    """A worker that met them before gives the same as one that did not."""
    experienced = squares(damaged)
    straight = [experienced[n] for n in range(20)]
    assert len(experienced.broken) == 2
    assert all(torch.equal(squares(damaged)[n], straight[n]) for n in range(20))


def test_one_good_picture_will_do(tmp_path):
    toys.draw(tmp_path, 1)
    for i in range(6):
        (tmp_path / f"letter{i}.png").write_text("no picture")
    found = squares(tmp_path, resize=16)
    assert all(np.isclose(found[n].mean(), found[0].mean(), atol=0.1) for n in range(14))
    assert len(found.broken) == 6


def test_a_folder_without_a_good_picture(tmp_path):
    for i in range(3):
        (tmp_path / f"letter{i}.png").write_text("no picture")
    found = squares(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match="holds no picture that can be read, of 3: .*letter"):
            found[0]
    with pytest.raises(UserError, match="nowhere cannot be read"):
        squares(tmp_path / "nowhere")
