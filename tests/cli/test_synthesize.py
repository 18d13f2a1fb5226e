"""`fastnorm synthesize`: what it writes, how it goes on, and what a user can get wrong."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image

from fastnorm import models, pictures
from fastnorm.models import SYNTHESES
from fastnorm.models.pictures import keep_colors, resized

TINY = "--vgg", "random", "--set", "widths=[4,5,6,7,8]", "--size", 48


@pytest.fixture
def synthesize(command, photo):
    """synthesize(*arguments, content=, style=, out=) finds a picture with a tiny VGG, the same at every call."""
    inputs = photo("photo.png", 60, 48), photo("a.png", 50, 44)

    def run(*arguments, content=inputs[0], style=inputs[1], out="out.png"):
        contents = () if content is None else ("--content", *(content if isinstance(content, list) else [content]))
        output = f"{inputs[0].parent}/{out}"
        return command("synthesize", *contents, "--style", style, "-o", output, *TINY, *arguments)

    return run


@pytest.fixture
def refused(synthesize, tree):
    """refused(*arguments, said=...) checks that it ends with one line that says so, and writes nothing."""

    def check(*arguments, said, **options):
        before = tree()
        code, out, err = synthesize(*arguments, **options)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("fastnorm: ") and said in err, err
        assert tree() == before

    return check


def rgb(path):
    return pictures.read(path).rgb


def expected(name="gatys", content=None, style=None, **settings):
    """What the library finds of the same pictures."""
    torch.manual_seed(0)
    system = models.build(name, widths=(4, 5, 6, 7, 8))
    return system.synthesize(content, [style], **settings)


def close(path, picture):
    """Up to the rounding of a file's eight bits."""
    torch.testing.assert_close(rgb(path), picture, rtol=0, atol=0.51 / 255)


@pytest.mark.parametrize("name", SYNTHESES)
def test_finds_what_the_library_finds(synthesize, tmp_path, photo, name):
    code, out, err = synthesize("--system", name, "--steps", 2)
    content, style = (pictures.read(tmp_path / file, 48).rgb for file in ("photo.png", "a.png"))
    close(tmp_path / "out.png", expected(name, content, style, steps=2))
    levels = {"gatys": 2, "histogram": 3, "reshuffle": 3}.get(name, 1)
    assert code == 0 and out.startswith(f"{tmp_path}/out.png: 48x38, {2 * levels} steps, ") and "style" in out
    assert err == "" or "step" in err


def test_options(synthesize, tmp_path):
    content, style = pictures.read(tmp_path / "photo.png", 48).rgb, pictures.read(tmp_path / "a.png", 36).rgb
    options = "--optimizer", "adam", "--lr", 0.1, "--steps", "3,1", "--start", "noise", "--seed", 4, "--style-scale", 0.75
    assert synthesize(*options, "--set", "style_weight=7", "--set", '{"content_layers": ["relu3_1"]}')[0] == 0
    torch.manual_seed(4)
    system = models.build("gatys", widths=(4, 5, 6, 7, 8), style_weight=7.0, content_layers=["relu3_1"])
    found = system.synthesize(content, [style], optimizer="adam", lr=0.1, steps=[3, 1], start="noise", seed=4)
    close(tmp_path / "out.png", found)


def test_textures(synthesize, tmp_path):
    style = pictures.read(tmp_path / "a.png", 48).rgb
    assert synthesize("--steps", 2, content=None)[0] == 0
    close(tmp_path / "out.png", expected(style=style, steps=2))
    assert synthesize("--steps", 2, "--texture-size", "70x40", content=None, out="wide.png")[0] == 0
    close(tmp_path / "wide.png", expected(style=style, steps=2, size=(40, 70)))


def test_a_picture_to_start_from(synthesize, tmp_path, photo):
    other = photo("start.png", 33, 40)
    assert synthesize("--steps", 1, "--start", other)[0] == 0
    content, style = (pictures.read(tmp_path / file, 48).rgb for file in ("photo.png", "a.png"))
    close(tmp_path / "out.png", expected(content=content, style=style, steps=1, start=rgb(other)))


def test_mixtures_and_regions(synthesize, tmp_path, photo):
    a, b = tmp_path / "a.png", photo("b.png", 48, 48)
    content, first, second = (pictures.read(path, 48).rgb for path in (tmp_path / "photo.png", a, b))
    torch.manual_seed(0)
    system = models.build("gatys", widths=(4, 5, 6, 7, 8))
    assert synthesize("--steps", 1, style=f"{a}:1,{b}:3")[0] == 0
    close(tmp_path / "out.png", system.synthesize(content, [first, second], weights=[1, 3], steps=1))

    pixels = np.zeros((48, 60), np.uint8)
    pixels[:, 30:] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert synthesize("--style", b, "--mask", tmp_path / "mask.png", "--steps", 1)[0] == 0
    numbers = torch.zeros(1, 48, 60)
    numbers[..., 30:] = 1
    shares = torch.nn.functional.interpolate(
        torch.stack([1 - numbers, numbers], 1), (38, 48), mode="bilinear", antialias=True
    )
    close(tmp_path / "out.png", system.synthesize(content, [first, second], mask=shares, steps=1))

    assert synthesize("--style", f"{a}:1,{b}:1", "--mask", tmp_path / "mask.png", "--steps", 1)[0] == 0
    three = torch.cat([shares[:, :1], shares[:, 1:], shares[:, 1:]], 1)
    found = system.synthesize(content, [first, first, second], weights=[1, 0.5, 0.5], mask=three, steps=1)
    close(tmp_path / "out.png", found)


def test_colors(synthesize, tmp_path):
    content, style = (pictures.read(tmp_path / file, 48).rgb for file in ("photo.png", "a.png"))
    for option, kind in (((), "luminance"), (("histogram",), "histogram")):
        assert synthesize("--steps", 1, "--preserve-color", *option)[0] == 0
        close(tmp_path / "out.png", expected(content=content, style=style, steps=1, preserve_color=kind))


def test_the_original_size(synthesize, tmp_path):
    content, style = (pictures.read(tmp_path / file, 48).rgb for file in ("photo.png", "a.png"))
    found = resized(expected(content=content, style=style, steps=1), 48, 60)
    assert "60x48" in synthesize("--steps", 1, "--original-size")[1]
    close(tmp_path / "out.png", found)
    assert synthesize("--steps", 1, "--original-size", "--preserve-color", "luminance")[0] == 0
    plain = resized(expected(content=content, style=style, steps=1, preserve_color="luminance"), 48, 60)
    close(tmp_path / "out.png", keep_colors(rgb(tmp_path / "photo.png"), plain))


def test_tiles(synthesize, tmp_path):
    assert synthesize("--steps", 2)[0] == synthesize("--steps", 2, "--tile", 16, out="tiled.png")[0] == 0
    assert (rgb(tmp_path / "out.png") - rgb(tmp_path / "tiled.png")).abs().max() <= 2 / 255


def test_several_pictures(synthesize, tmp_path, photo):
    """One after the other, those of a size at once, as alone; those that are damaged stop no other."""
    sizes = dict(a=(60, 48), b=(60, 48), c=(48, 60))
    paths = [photo(f"in/{name}.png", *size) for name, size in sizes.items()]
    (tmp_path / "in" / "d.png").write_bytes(b"no picture")
    whole = photo("in/aa.png", 60, 48)
    whole.write_bytes(whole.read_bytes()[:-2000])
    alone = []
    for path in paths:
        assert synthesize("--steps", 2, content=path, out="alone.png")[0] == 0
        alone.append(rgb(tmp_path / "alone.png"))
    code, out, err = synthesize("--steps", 2, "--batch", 2, "--json", content=tmp_path / "in", out="found/")
    report = json.loads(out)
    failed = sorted(each["input"] for each in report["failed"])
    assert code == 2 and failed == [f"{tmp_path}/in/{name}.png" for name in ("aa", "d")]
    assert "d.png" in err and "aa.png is damaged or cut short" in err
    assert [each["output"] for each in report["pictures"]] == [f"{tmp_path}/found/{name}.png" for name in "abc"]
    for path, picture in zip("abc", alone):
        assert (rgb(tmp_path / "found" / f"{path}.png") - picture).abs().max() <= 1.01 / 255


def test_regions_of_a_texture(synthesize, tmp_path, photo):
    """A mask of its size."""
    pixels = np.zeros((40, 64), np.uint8)
    pixels[:, 32:] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    options = "--style", photo("b.png", 48, 48), "--mask", tmp_path / "mask.png", "--texture-size", "64x40"
    assert synthesize(*options, "--steps", 1, content=None)[0] == 0


def test_the_same_command_gives_the_same_picture(synthesize, tmp_path):
    """Random weights of VGG are the seed's, too."""
    found = []
    for seed in (3, 3, 4):
        assert synthesize("--steps", 2, "--seed", seed)[0] == 0
        found.append(rgb(tmp_path / "out.png"))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_ctrl_c_in_the_last_step(synthesize, tmp_path, photo, monkeypatch):
    """The picture is there; those after it are not."""
    from fastnorm.models.descent import Descent

    result = Descent.result

    def stop(self):
        os.kill(os.getpid(), signal.SIGINT)
        return result(self)

    monkeypatch.setattr(Descent, "result", stop)
    code, _, err = synthesize("--steps", 1, content=[tmp_path / "photo.png", photo("z.png", 50, 50)], out="x/")
    assert code == 130 and [path.name for path in (tmp_path / "x").iterdir()] == ["photo.png"]


def test_a_photo_on_its_side(synthesize, tmp_path):
    picture, exif = Image.open(tmp_path / "photo.png"), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "side.jpg", exif=exif)
    assert "38x48" in synthesize("--steps", 1, content=tmp_path / "side.jpg")[1]


def test_the_picture_so_far(synthesize, tmp_path):
    assert synthesize("--steps", "4,2", "--save-every", 2)[0] == 0
    names = sorted(path.name for path in tmp_path.glob("out*"))
    assert names == ["out-1-0002.png", "out-1-0004.png", "out-2-0002.png", "out.png"]
    assert all(Image.open(tmp_path / name).size == (48, 38) for name in names)
    assert torch.equal(rgb(tmp_path / "out-2-0002.png"), rgb(tmp_path / "out.png"))


def test_pictures_so_far_replace_no_result(synthesize, tmp_path, photo):
    folder = photo("both/a.png", 60, 48).parent
    photo("both/a-1-0001.png", 60, 48)
    code, _, err = synthesize("--save-every", 1, "--steps", 1, content=folder, out="found/")
    assert code == 2 and "found/a-1-0001.png would be overwritten" in err
    assert [path.name for path in (tmp_path / "found").glob("a.png")] == []
    assert len(list((tmp_path / "found").glob("a-1-0001*.png"))) == 3  # The other's, and those on its way.


def test_a_checkpoint_that_cannot_be_written_is_told(synthesize, tmp_path, monkeypatch):
    """And the picture is found all the same."""
    from fastnorm import _checkpoint
    from fastnorm.cli import synthesize as module

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "KEEP_EVERY", 1)
    monkeypatch.setattr(_checkpoint, "in_one_step", full)
    code, _, err = synthesize("--steps", 1, "--checkpoint", tmp_path / "kept.pt")
    assert code == 0 and f"--checkpoint {tmp_path}/kept.pt cannot be written: No space left on device" in err
    assert (tmp_path / "out.png").exists()


def test_json(synthesize, tmp_path):
    report = json.loads(synthesize("--json", "--steps", 2, "--set", "style_weight=5")[1])
    assert report["system"] == "gatys" and report["settings"]["style_weight"] == 5
    (done,) = report["pictures"]
    assert done["losses"].keys() == {"content", "style"} and done["steps"] == 4 and done["diverged"] is None
    assert (done["width"], done["height"]) == (48, 38) and report["failed"] == []


def test_a_run_that_diverges_keeps_its_picture(synthesize, tmp_path):
    code, out, err = synthesize("--optimizer", "adam", "--lr", 1e18, "--steps", 9, "--system", "laplacian")
    last = err.splitlines()[-1]
    assert code == 2 and last.startswith("fastnorm: level 1, step ") and last.endswith(f"is kept, {tmp_path}/out.png")
    assert rgb(tmp_path / "out.png").shape == (1, 3, 38, 48) and "out.png: 48x38" in out


# Checkpoints.


def test_goes_on_from_a_checkpoint(synthesize, tmp_path, monkeypatch):
    """Where the run before was stopped, with the same result; the file is removed in the end."""
    assert synthesize("--steps", "6,3")[0] == 0
    whole, steps = rgb(tmp_path / "out.png"), []
    from fastnorm.cli import synthesize as module
    from fastnorm.models.descent import Descent

    advance = Descent.advance

    def stop_at_8(self):
        found = advance(self)
        steps.append(found)
        if len(steps) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return found

    monkeypatch.setattr(module.Descent, "advance", stop_at_8)
    checkpoint = "--checkpoint", tmp_path / "kept.pt"
    code, _, err = synthesize("--steps", "6,3", *checkpoint, out="again.png")
    assert code == 130 and f"the same command goes on from {tmp_path}/kept.pt" in err
    assert (tmp_path / "kept.pt").exists() and not (tmp_path / "again.png").exists()
    assert synthesize("--steps", "6,3", *checkpoint, out="again.png")[0] == 0
    assert len(steps) == 9 and torch.equal(rgb(tmp_path / "again.png"), whole) and not (tmp_path / "kept.pt").exists()


def test_a_checkpoint_that_is_none(synthesize, refused, tmp_path, monkeypatch, capsys):
    from fastnorm.cli import synthesize as module

    monkeypatch.setattr(module, "KEEP_EVERY", 1)
    monkeypatch.setattr(module._Run, "_write", lambda *_: 1 / 0)
    kept = tmp_path / "kept.pt"
    with pytest.raises(ZeroDivisionError):
        synthesize("--steps", 2, "--checkpoint", kept)
    monkeypatch.undo()
    capsys.readouterr()
    other = "kept.pt is of a synthesis with --steps [2, 2], this one has [3, 3]: go on with the same"
    refused("--steps", 3, "--checkpoint", kept, said=other)
    kept.write_bytes(b"nothing")
    refused("--checkpoint", kept, said="kept.pt: it is no checkpoint of fastnorm synthesize, or not all of one")
    for settings in ("nonsense", "[]", "{}"):
        torch.save({"settings": settings, **dict.fromkeys(module.CHECKPOINT.parts, ())}, kept)
        refused("--checkpoint", kept, said="kept.pt is ")
    torch.save({"settings": "{}"}, kept)
    refused("--checkpoint", kept, said="kept.pt is no checkpoint of fastnorm synthesize")


def test_ctrl_c(python, tmp_path, photo):
    """In a process of its own, at any time: one line, and nothing half written."""
    command = [*python, "synthesize", "--content", photo("p.png", 60, 48), "--style", photo("s.png", 50, 44), "-o",
               tmp_path / "out.png", *TINY, "--steps", "100000", "--checkpoint", tmp_path / "kept.pt"]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "kept.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and err.splitlines()[-1] == "fastnorm: interrupted"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.pt", "p.png", "s.png"]


# What a user can get wrong.


def test_bad_input(refused, tmp_path, photo):
    refused("--system", "gats", said="--system gats: there is no such system: choose from cnnmrf, gatys, histogram")
    refused("--system", "adain", said="--system adain: it is a network, of fastnorm stylize: choose from cnnmrf")
    refused("--set", "style_weight=-1", said="--set style_weight: expected a number from 0 up, got -1")
    refused("--set", "style_wieght=1", said="--set style_wieght: gatys has content_weight, style_weight")
    refused("--set", 'style_layers=["relu9_9"]', said="Gatys: style_layers: expected some of relu1_1, relu1_2, relu2_1")
    refused("--vgg", tmp_path / "none.pth", said=f"--vgg: no VGG-19 weights at {tmp_path}/none.pth: give the path")
    refused("--preserve-color", content=None, said="--preserve-color: it is of a content, and there is none: give --content")
    refused("--original-size", content=None, said="--original-size: it is of a content, and there is none")
    refused("--start", "content", content=None, said="--start content: there is none: give --content, or choose noise")
    refused("--start", tmp_path / "none.png", said="none.png: there is no such file")
    refused("--texture-size", "9x9", said="--texture-size: with --content the result is of its size")
    refused("--texture-size", "9", content=None, said="--texture-size: expected sizes such as 640x480, got '9'")
    refused("--steps", "0", said="argument --steps: must be a whole number from 1 up, got '0'")
    refused("--steps", "1,2,3", said="Gatys: steps: expected one number, or 2 for as many levels, got [1, 2, 3]")
    refused("--style", photo("b.png"), said="--style is repeated: say by --mask where each goes")
    refused(style="7", said="style 7: expected a painting, or a mixture of them, as a.jpg:0.3,b.jpg:0.7")
    refused(style=tmp_path / "none.png", said="none.png: there is no such file")
    refused(content=tmp_path / "none.png", said="none.png: there is no such file")
    refused(out="out.gif", said="out.gif: no format is written under the ending '.gif'")
    refused(out="a.png", said="a.png would be overwritten, and it is an input")
    refused(out="photo.png", said="photo.png would be overwritten, and it is an input")
    refused(out="nowhere/", content=None, said="a texture is one picture, this names a folder")
    refused(content=photo("small.png", 60, 12), said="Gatys: content: expected sides of 16 pixels at least, got 48x10")
    (tmp_path / "clip.mp4").write_bytes(b"")
    said = "is a video: synthesize takes pictures, fastnorm stylize videos"
    refused(content=tmp_path / "clip.mp4", out="x.mp4", said=said)
    refused("--checkpoint", tmp_path / "x.pt", content=[photo("1/a.png"), photo("2/b.png", 10, 12)], out="x/",
            said="expected one picture, or a --batch of one size, got 2 runs")  # fmt: skip
    refused("--size", 3000000, said="photo.png at 3000000x2400000 pixels needs")
    refused("--texture-size", "3000000x4000000", content=None, said="choose --tile 512, or a smaller --size")
    said = "a.png would be overwritten, and it is an input: choose another --checkpoint"
    refused("--checkpoint", tmp_path / "a.png", said=said)
    refused("--checkpoint", tmp_path / "out.png", said="out.png: -o names the same file, choose another")
    start = photo("start.png", 40, 40)
    refused("--start", start, out="start.png", said="start.png would be overwritten, and it is an input")
    said = "WEBP holds at most 16383 pixels a side: use .png"
    refused("--texture-size", "16400x16", content=None, out="t.webp", said=said)
    refused("--checkpoint", tmp_path, said="is a folder, name a file in it")
    refused("--checkpoint", tmp_path / "nowhere" / "x.pt", said="nowhere is not a folder: make it one, or choose another")
    beside = photo("out-2-0003.png", 60, 48)
    said = "out-2-0003.png would be overwritten, and it is an input or a result"
    refused("--save-every", 3, "--steps", 6, content=beside, said=said)
    folder = photo("both/a.png", 60, 48).parent
    photo("both/a-1-0001.png", 60, 48)
    refused("--save-every", 1, "--steps", 1, content=folder, out="both", said="both/a-1-0001.png would be overwritten")
    mask = photo("mask.png", 33, 33)
    refused("--style", photo("b.png"), "--mask", mask, said="make a mask of that size")
