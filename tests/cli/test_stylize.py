"""`fastnorm stylize` against the stand-in, whose result is the negative: what is written, where, and what is said."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastnorm.cli import progress
from fastnorm.models.pictures import keep_colors
from fastnorm.ops import backends


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


# The style.


def test_number(stylize, negative, photo, tmp_path):
    assert stylize(photo(), "--style", 7, "-o", tmp_path / "out.png")[0] == 0
    assert negative.loaded == ["cin"]
    assert negative.painted["weights"][0].tolist() == [float(style == 7) for style in range(26)]
    assert (pixels(tmp_path / "out.png") == 255 - pixels(photo())).all()


@pytest.mark.parametrize(
    "mixture, weights",
    [
        ("3:0.5,12:0.5", {3: 0.5, 12: 0.5}),
        ("3:1,12:3", {3: 0.25, 12: 0.75}),
        ("3: 0.5, 12: 0.5", {3: 0.5, 12: 0.5}),
        ("0:1,25:0", {0: 1}),
        ("4:1,5:2,4:1", {4: 0.5, 5: 0.5}),
    ],
)
def test_mixture_sums_to_1(stylize, negative, photo, tmp_path, mixture, weights):
    assert stylize(photo(), "--style", mixture, "-o", tmp_path / "out.png")[0] == 0
    assert negative.loaded == ["cin"]
    assert negative.painted["weights"][0].tolist() == [weights.get(style, 0.0) for style in range(26)]


def test_painting_is_encoded_once(stylize, negative, photo, tmp_path):
    painting = photo("painting.png", 20, 30)
    assert stylize(photo("a.png"), photo("b.png"), "--style", painting, "-o", tmp_path / "out")[0] == 0
    assert negative.loaded == ["ghiasi"]
    (encoded,) = negative.kept
    assert torch.equal(encoded[0].permute(1, 2, 0), torch.from_numpy(pixels(painting)) / 255)


def test_a_painting_of_any_size(stylize, negative, photo, tmp_path):
    assert stylize(photo(), "--style", photo("dot.png", 1, 1), "-o", tmp_path / "out.png")[0] == 0
    assert negative.painted["painting"].shape == (1, 3, 1, 1)


def test_painting_named_like_a_style(stylize, negative, photo, tmp_path, monkeypatch):
    picture = photo()
    photo("7.png", 20, 20).rename(tmp_path / "7")
    monkeypatch.chdir(tmp_path)
    stylize(picture, "--style", "./7", "-o", "out.png")
    stylize(picture, "--style", "7", "-o", "out.png")
    assert negative.loaded == ["ghiasi", "cin"]


# The picture.


def test_alpha(stylize, photo, tmp_path):
    assert stylize(photo(), "--style", 7, "--alpha", 0.25, "-o", tmp_path / "out.png")[0] == 0
    content = pixels(photo())
    expected = 0.75 * content + 0.25 * (255 - content)
    assert np.abs(pixels(tmp_path / "out.png") - expected).max() <= 0.51


def test_preserve_color(stylize, photo, tmp_path):
    assert stylize(photo(), "--style", 7, "--preserve-color", "-o", tmp_path / "out.png")[0] == 0
    to_ycc = np.array(
        [[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.5], [0.5, -0.587 / 1.402, -0.114 / 1.402]]
    )
    content = pixels(photo()) / 255.0
    ycc = content @ to_ycc.T
    ycc[..., 0] = (1 - content) @ to_ycc[0]
    expected = (ycc @ np.linalg.inv(to_ycc).T).clip(0, 1) * 255
    assert np.abs(pixels(tmp_path / "out.png") - expected).max() <= 0.51


def test_preserved_chroma_is_jpegs():
    """Where nothing has to be clipped, Cb and Cr as Pillow computes them are the content's."""
    generator = torch.Generator().manual_seed(1)
    content, stylized = 0.3 + 0.4 * torch.rand(2, 1, 3, 32, 32, generator=generator)
    kept = keep_colors(content, stylized)

    def ycc(picture):
        rgb = (picture[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        return np.asarray(Image.fromarray(rgb).convert("YCbCr")).astype(int)

    inside = ((kept > 0) & (kept < 1)).all(1)[0].numpy()
    assert inside.mean() > 0.9
    assert np.abs(ycc(kept)[..., 1:] - ycc(content)[..., 1:])[inside].max() <= 1
    assert np.abs(ycc(kept)[..., 0] - ycc(stylized)[..., 0])[inside].max() <= 1


@pytest.mark.parametrize("longest, size", [(None, (40, 30)), (20, (20, 15)), (80, (80, 60)), (40, (40, 30))])
def test_size_is_the_longer_side(stylize, photo, tmp_path, longest, size):
    asked = ["--size", longest] if longest else []
    assert stylize(photo("wide.png", 40, 30), *asked, "--style", 7, "-o", tmp_path / "wide_out.png")[0] == 0
    assert stylize(photo("tall.png", 30, 40), *asked, "--style", 7, "-o", tmp_path / "tall_out.png")[0] == 0
    assert Image.open(tmp_path / "wide_out.png").size == size
    assert Image.open(tmp_path / "tall_out.png").size == size[::-1]


def test_threads(stylize, photo, tmp_path):
    before = torch.get_num_threads()
    try:
        _, out, _ = stylize(photo(), "--style", 7, "--threads", 1, "--json", "-o", tmp_path / "out.png")
        assert (torch.get_num_threads(), json.loads(out)["threads"]) == (1, 1)
    finally:
        torch.set_num_threads(before)


# Where it is written.


@pytest.mark.parametrize("name, kind", [("o.png", "PNG"), ("o.jpg", "JPEG"), ("o.JPEG", "JPEG"), ("o.webp", "WEBP")])
def test_the_ending_is_the_format(stylize, photo, tmp_path, name, kind):
    assert stylize(photo("flat.png", 64, 64), "--size", 640, "--style", 7, "-o", tmp_path / name)[0] == 0
    written = Image.open(tmp_path / name)
    assert written.format == kind
    expected = Image.open(photo("flat.png", 64, 64)).resize((640, 640), Image.Resampling.LANCZOS)
    assert np.abs(255 - np.asarray(expected).astype(int) - pixels(tmp_path / name)).mean() < 4


def test_a_file_that_exists_is_replaced(stylize, photo, tmp_path):
    (tmp_path / "out.png").write_text("the last result")
    assert stylize(photo(), "--style", 7, "-o", tmp_path / "out.png")[0] == 0
    assert (pixels(tmp_path / "out.png") == 255 - pixels(photo())).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "photo.png"]


def test_folder(stylize, photo, tmp_path):
    """Its pictures sorted, not those of folders in it; a name keeps its ending where that is written."""
    for name in ("in/b.png", "in/a.bmp", "in/c.jpg", "in/deeper/d.png", "in/.e.png"):
        photo(name)
    (tmp_path / "in/notes.txt").write_text("not a picture")
    code, out, err = stylize(tmp_path / "in", "--style", 7, "-o", tmp_path / "far" / "out", "--json")
    assert (code, err) == (0, "")
    written = [tmp_path / "far" / "out" / name for name in ("a.png", "b.png", "c.jpg")]
    assert [done["output"] for done in json.loads(out)["pictures"]] == [str(path) for path in written]
    assert sorted((tmp_path / "far" / "out").iterdir()) == written
    assert (pixels(written[0]) == 255 - pixels(tmp_path / "in/a.bmp")).all()


@pytest.mark.parametrize("exists", [True, False])
def test_one_picture_into_a_folder(stylize, photo, tmp_path, exists):
    folder = tmp_path / "out"
    if exists:
        folder.mkdir()
    assert stylize(photo(), "--style", 7, "-o", folder if exists else f"{folder}/")[0] == 0
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


def test_output_without_a_folder(stylize, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert stylize(photo("a.png"), "--style", 7, "-o", "out.png")[0] == 0
    assert stylize(photo("a.png"), photo("b.png"), "--style", 7, "-o", "out")[0] == 0
    assert (tmp_path / "out.png").is_file() and (tmp_path / "out" / "b.png").is_file()


# What is said.


def test_summary(stylize, photo, tmp_path):
    code, out, err = stylize(photo(), "--style", 7, "-o", tmp_path / "out.png")
    assert (code, err) == (0, "")
    path, rest = out.rsplit(": ", 1)
    assert path == str(tmp_path / "out.png") and rest.startswith("12x10, ") and rest.endswith(" s\n")


def test_json(stylize, photo, tmp_path):
    (tmp_path / "broken.png").write_text("not a picture")
    inputs = [tmp_path / "broken.png", photo("a.png"), photo("b.png", 20, 16)]
    arguments = ["--style", "3:1,12:3", "--alpha", 0.5, "--preserve-color", "--device", "cpu"]
    code, out, err = stylize(*inputs, *arguments, "-o", tmp_path / "out", "--json")
    found = json.loads(out)
    assert code == 2
    assert found["style"] == {"system": "cin", "weights": {"3": 0.25, "12": 0.75}}
    assert (found["alpha"], found["preserve_color"], found["device"]) == (0.5, True, "cpu")
    assert found["backend"] == backends.which("instance_norm", "cpu")
    assert [(done["input"], done["width"], done["height"]) for done in found["pictures"]] == [
        (str(inputs[1]), 12, 10),
        (str(inputs[2]), 20, 16),
    ]
    assert all(done["seconds"] >= 0 for done in found["pictures"])
    (failed,) = found["failed"]
    assert failed["input"] == str(inputs[0])
    assert err == f"fastnorm: {failed['error']}\n"


def test_json_of_a_painting(stylize, photo, tmp_path):
    painting = photo("painting.png", 20, 20)
    _, out, _ = stylize(photo(), "--style", painting, "-o", tmp_path / "out.png", "--json")
    assert json.loads(out)["style"] == {"system": "ghiasi", "painting": str(painting)}


def test_json_where_nothing_could_be_done(stylize, tmp_path):
    code, out, err = stylize(tmp_path / "nowhere.png", "--style", 7, "-o", tmp_path / "out.png", "--json")
    found = json.loads(out)
    assert (code, found["pictures"]) == (2, [])
    assert err == f"fastnorm: {found['failed'][0]['error']}\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """terminal() makes stderr one, and returns it. Not on setting up: pytest exchanges stderr after that."""

    def start():
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return start


def test_bar_on_a_terminal(terminal):
    pytest.importorskip("rich", reason="the bar is drawn by rich")
    shown = terminal()
    with progress.bar("stylize", 3) as advance:
        advance()
        advance()
    assert "stylize" in shown.getvalue() and "2/3" in shown.getvalue()


def test_no_bar_without_rich(terminal, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    shown = terminal()
    with progress.bar("stylize", 3) as advance:
        advance()
    assert shown.getvalue() == ""


def test_no_bar_in_a_pipe(capsys):
    with progress.bar("stylize", 3) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
