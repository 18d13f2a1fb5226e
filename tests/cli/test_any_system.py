"""Systems of the registry by --model and --weights: what is written is what the model computes, and what is refused."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import init

from fastnorm import models
from fastnorm.models import cost, files
from fastnorm.models.system import System

safetensors_torch = pytest.importorskip("safetensors.torch", reason="weights are read and written by it")

ADAIN = dict(widths=(4, 6, 8, 10))
CIN = dict(styles=3, contract=(4, 5, 6), residual_blocks=1, expand=(4, 2))


def built(name, **sizes):
    """A system whose pictures lie in 0..1, so that nothing is clipped where they are written."""
    torch.manual_seed(3)
    model = models.build(name, **sizes).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" in key:
                init.normal_(parameter, mean=float(key.endswith("weight")), std=0.3)
        if name == "adain":
            for module in model.decoder:
                if isinstance(module, torch.nn.Conv2d):
                    init.kaiming_normal_(module.weight)
            last, output = model.decoder[-1], model(torch.rand(1, 3, 40, 33), torch.rand(1, 3, 30, 24))
            last.weight.mul_(0.15 / output.std())
            last.bias.copy_(0.5 + (last.bias - output.mean()) * 0.15 / output.std())
    return model


@pytest.fixture
def adain(tmp_path):
    """A model and the file of its weights."""
    model = built("adain", **ADAIN)
    model.save(tmp_path / "weights" / "adain.safetensors")
    return model, tmp_path / "weights" / "adain.safetensors"


@pytest.fixture
def cin(tmp_path):
    model = built("cin", **CIN)
    model.save(tmp_path / "weights" / "cin.safetensors")
    return model, tmp_path / "weights" / "cin.safetensors"


@pytest.fixture
def stylize(command, tmp_path):
    """stylize(*arguments) succeeds, and returns the picture that was written, (1, 3, H, W), and the report."""

    def run(*arguments):
        code, out, err = command("stylize", *arguments, "-o", tmp_path / "out.png", "--json")
        assert (code, err) == (0, "")
        return as_tensor(tmp_path / "out.png"), json.loads(out)

    return run


@pytest.fixture
def refused(command, tmp_path):
    """refused(*arguments, said=) checks how a command refuses."""

    def check(*arguments, said, output="out.png", of="stylize"):
        code, out, err = command(of, *arguments, "-o", tmp_path / output)
        assert (code, out) == (2, "")
        assert err.startswith("fastnorm: ") and err.count("\n") == 1
        for words in [said] if isinstance(said, str) else said:
            assert words in err
        assert not (tmp_path / output).exists()

    return check


def as_tensor(path):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 255


def differs(found, expected):
    """The largest difference in steps of 1/255."""
    assert found.shape == expected.shape
    return (found - expected.clamp(0, 1)).abs().max().item() * 255


@torch.no_grad()
def by_model(model, content, style=None, **settings):
    return model.stylize(as_tensor(content), style, **settings)


# Which system.


@pytest.mark.parametrize("named", [[], ["--model", "adain"]])
def test_weights_say_the_system(stylize, adain, photo, named):
    model, weights = adain
    content, painting = photo("photo.png", 40, 33), photo("painting.png", 30, 24)
    found, report = stylize(content, *named, "--weights", weights, "--style", painting, "--alpha", 0.7)
    assert differs(found, by_model(model, content, as_tensor(painting), alpha=0.7)) <= 0.51
    assert report["style"] == {"system": "adain", "painting": str(painting)}
    assert differs(found, by_model(model, content, as_tensor(content))) > 1, "the style changes nothing"


def test_numbers_of_other_weights(stylize, cin, photo):
    model, weights = cin
    content = photo("photo.png", 40, 33)
    found, _ = stylize(content, "--weights", weights, "--style", "2:1,0:3")
    assert differs(found, by_model(model, content, torch.tensor([0.75, 0, 0.25]))) <= 0.51


def test_one_style(stylize, refused, photo, tmp_path, monkeypatch):
    """A system of the registry that takes no style, made of one that does."""
    entry = models.Entry("one", "One", "one", "a stand-in")

    class One(System):
        def __init__(self, share: float = 0.5):
            super().__init__()
            self.share = torch.nn.Parameter(torch.tensor([share]))

        def encoded(self, style, samples):
            assert style is None

        def paint(self, content, style, alpha):
            return content * self.share

    monkeypatch.setitem(models.SYSTEMS, "one", entry)
    monkeypatch.setattr(models, "_class_of", lambda function, name: One)
    One().save(tmp_path / "one.safetensors")
    content = photo()
    found, report = stylize(content, "--weights", tmp_path / "one.safetensors")
    assert differs(found, as_tensor(content) / 2) <= 0.51
    assert report["style"] == {"system": "one"}
    (tmp_path / "out.png").unlink()
    given = ["--weights", tmp_path / "one.safetensors"]
    refused(content, *given, "--style", 7, said="one has the one style of its weights, and takes none")
    refused(7, *given, of="encode", output="style.safetensors", said="one has the one style of its weights")
    refused(content, *given, "--mask", content, said="repeat --style")


def test_bfloat16(stylize, adain, photo):
    model, weights = adain
    content, painting = photo("photo.png", 40, 33), photo("painting.png", 30, 24)
    exact = by_model(model, content, as_tensor(painting))
    found, report = stylize(content, "--weights", weights, "--style", painting, "--dtype", "bfloat16")
    assert report["dtype"] == "bfloat16"
    assert 0.51 < differs(found, exact) < 10


def test_preserve_color(stylize, adain, photo):
    model, weights = adain
    content, painting = photo("photo.png", 40, 33), photo("painting.png", 30, 24)
    found, _ = stylize(content, "--weights", weights, "--style", painting, "--preserve-color")
    plain = by_model(model, content, as_tensor(painting))
    picture, luma = as_tensor(content), torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert differs(found, picture + ((plain - picture) * luma).sum(1, keepdim=True)) <= 0.51


def test_larger_pictures(command, stylize, photo, tmp_path):
    """Of a system that makes more pixels: colours and transparency, too."""
    torch.manual_seed(3)
    model = models.build("super_resolution", scale=2, width=4, residual_blocks=1).eval()
    model.save(tmp_path / "larger.safetensors")
    content = photo("photo.png", 20, 12, "RGBA")
    found, report = stylize(content, "--weights", tmp_path / "larger.safetensors")
    assert differs(found, by_model(model, content)) <= 0.51
    assert (report["pictures"][0]["width"], report["pictures"][0]["height"]) == (40, 24)
    kept, _ = stylize(content, "--weights", tmp_path / "larger.safetensors", "--preserve-color")
    larger = torch.nn.functional.interpolate(as_tensor(content), scale_factor=2, mode="bicubic")
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert differs(kept, larger + ((by_model(model, content) - larger) * luma).sum(1, keepdim=True)) <= 0.51
    half = Image.open(content)
    half.putalpha(128)
    half.save(content)
    assert command("stylize", content, "--weights", tmp_path / "larger.safetensors", "-o", tmp_path / "half.png")[0] == 0
    assert np.unique(np.asarray(Image.open(tmp_path / "half.png").getchannel("A"))).tolist() == [128]
    given = ["--weights", tmp_path / "larger.safetensors", "--style", 7]
    code, _, err = command("stylize", content, *given, "-o", tmp_path / "n.png")
    assert code == 2 and "super_resolution has no style, and takes none" in err


# Mixtures and stored styles.


def test_mixture_of_paintings(stylize, adain, photo, tmp_path):
    model, weights = adain
    content, first, second = photo("photo.png", 40, 33), photo("a, b.png", 30, 24), photo("c.png", 26, 31)
    found, report = stylize(content, "--weights", weights, "--style", f"{first}:1,{second}:3")
    with torch.no_grad():
        mixed = model.mix([as_tensor(first), as_tensor(second)], [0.25, 0.75])
    assert differs(found, by_model(model, content, mixed)) <= 0.51
    assert report["style"] == {"system": "adain", "weights": {str(first): 0.25, str(second): 0.75}}


def test_stored_style(command, stylize, adain, photo, tmp_path):
    model, weights = adain
    content, first, second = photo("photo.png", 40, 33), photo("a.png", 30, 24), photo("b.png", 26, 31)
    code, out, err = command("encode", first, "--weights", weights, "-o", tmp_path / "a.safetensors")
    assert (code, out, err) == (0, f"{tmp_path / 'a.safetensors'}: a style of adain\n", "")
    first.rename(tmp_path / "gone.png")
    found, report = stylize(content, "--weights", weights, "--style", tmp_path / "a.safetensors")
    assert differs(found, by_model(model, content, as_tensor(tmp_path / "gone.png"))) <= 0.51
    assert report["style"] == {"system": "adain", "stored": str(tmp_path / "a.safetensors")}
    found, _ = stylize(content, "--weights", weights, "--style", f"{tmp_path / 'a.safetensors'}:0.5,{second}:0.5")
    with torch.no_grad():
        mixed = model.mix([as_tensor(tmp_path / "gone.png"), as_tensor(second)], [0.5, 0.5])
    assert differs(found, by_model(model, content, mixed)) <= 0.51


def test_encode_several_into_a_folder(command, stylize, adain, photo, tmp_path):
    model, weights = adain
    first, second = photo("a.png", 30, 24), photo("b.jpg", 26, 31)
    code, out, _ = command("encode", first, second, "--weights", weights, "-o", tmp_path / "styles", "--json")
    assert code == 0
    stored = [tmp_path / "styles" / name for name in ("a.safetensors", "b.safetensors")]
    assert sorted((tmp_path / "styles").iterdir()) == stored
    assert [each["output"] for each in json.loads(out)["styles"]] == list(map(str, stored))
    with torch.no_grad():
        expected = model.encode(as_tensor(second))
    for key, tensor in model.load_style(stored[1]).items():
        torch.testing.assert_close(tensor, expected[key])


def test_encode_a_mixture_of_numbers(command, stylize, cin, photo, tmp_path):
    model, weights = cin
    content = photo("photo.png", 40, 33)
    assert command("encode", "0:1,2:1", "--weights", weights, "-o", tmp_path / "half.safetensors")[0] == 0
    found, _ = stylize(content, "--weights", weights, "--style", tmp_path / "half.safetensors")
    assert differs(found, by_model(model, content, torch.tensor([0.5, 0, 0.5]))) <= 0.51


def test_encode_is_refused(refused, adain, photo, tmp_path):
    _, weights = adain
    first, again = photo("a.png", 30, 24), photo("in/a.png", 30, 24)
    given = ["--weights", weights]
    refused(first, *given, of="encode", said="stored under the ending .safetensors")
    refused(first, again, *given, of="encode", output="styles", said=["would both become", "a.safetensors"])
    refused(first, again, *given, of="encode", output="s.safetensors", said="several styles need a folder")
    refused(f"{first}:1,{again}:1", first, *given, of="encode", output="styles", said="a mixture has no name")
    refused(7, *given, of="encode", output="s.safetensors", said="adain takes paintings, not numbers")
    refused(tmp_path / "nowhere.png", *given, of="encode", output="s.safetensors", said="there is no such file")


# Regions.


def mask(path, levels):
    """A picture of gray levels, an array of rows."""
    Image.fromarray(np.array(levels, dtype=np.uint8)).save(path)
    return path


def test_regions_by_levels(stylize, adain, photo, tmp_path):
    model, weights = adain
    content, styles = photo("photo.png", 48, 32), [photo(f"{i}.png", 30, 24) for i in range(3)]
    number = np.zeros((32, 48), int)
    number[:, 16:], number[:, 32:] = 1, 2
    # Levels need not be exact: a JPEG's are not.
    gray = mask(tmp_path / "mask.png", number * 127 + np.random.default_rng(0).integers(0, 2, number.shape))
    named = [word for style in styles for word in ("--style", style)]
    found, report = stylize(content, "--weights", weights, *named, "--mask", gray)
    with torch.no_grad():
        expected = model.stylize_regions(
            as_tensor(content), [as_tensor(style) for style in styles], torch.from_numpy(number)[None]
        )
    assert differs(found, expected) <= 0.51
    assert report["style"]["regions"] == [{"painting": str(style)} for style in styles]
    assert differs(found, by_model(model, content, as_tensor(styles[0]))) > 1


def test_regions_by_a_mask_for_each(stylize, cin, photo, tmp_path):
    model, weights = cin
    content = photo("photo.png", 40, 24)
    left = np.tile(np.linspace(0, 255, 40).round(), (24, 1))
    masks = mask(tmp_path / "0.png", left), mask(tmp_path / "1.png", (255 - left) / 3)
    arguments = ["--weights", weights, "--style", 0, "--style", "1:1,2:1", "--mask", masks[0], "--mask", masks[1]]
    found, _ = stylize(content, *arguments)
    shares = torch.stack([as_tensor(each)[0, 0] for each in masks])
    shares = (shares / shares.sum(0)).unsqueeze(1)
    first, second = (by_model(model, content, style) for style in (0, torch.tensor([0, 0.5, 0.5])))
    assert differs(found, shares[0] * first + shares[1] * second) <= 0.51


def test_a_mask_of_the_picture_before_its_size(stylize, cin, photo, tmp_path):
    """Halves that end on a pixel after --size as well."""
    model, weights = cin
    content = photo("photo.png", 80, 48)
    number = np.zeros((48, 80), int)
    number[:, 40:] = 1
    given = ["--weights", weights, "--style", 0, "--style", 1, "--size", 40]
    before, _ = stylize(content, *given, "--mask", mask(tmp_path / "large.png", number * 255))
    after, _ = stylize(content, *given, "--mask", mask(tmp_path / "small.png", number[::2, ::2] * 255))
    assert before.shape == (1, 3, 24, 40)
    outside = torch.arange(40).sub(19.5).abs() > 2  # At the edge a resized mask is blended.
    assert (before - after)[..., outside].abs().max() * 255 <= 0.51


def test_masks_that_are_refused(refused, cin, photo, tmp_path):
    _, weights = cin
    content = photo("photo.png", 40, 24)
    fit, wrong = mask(tmp_path / "fit.png", np.full((24, 40), 255)), mask(tmp_path / "wrong.png", np.zeros((24, 41)))
    black = mask(tmp_path / "black.png", np.zeros((24, 40)))
    one, two = ["--weights", weights, "--style", 0], ["--weights", weights, "--style", 0, "--style", 1]
    refused(content, *two, "--mask", wrong, said=f"--mask {wrong} is 41x24 pixels, {content} 40x24: make a mask")
    tall = mask(tmp_path / "tall.png", np.zeros((40, 24)))
    refused(content, *two, "--mask", tall, "--size", 20, said=f"tall.png is 12x20 pixels at --size 20, {content} 20x12")
    refused(content, *one, "--mask", fit, said="repeat --style")
    refused(content, *two, said=["--style is repeated", "--mask"])
    refused(content, *two, *3 * ["--mask", fit], said="one for each of 2 styles, got 3")
    refused(content, *two, "--mask", black, "--mask", black, said=["at every pixel", "960 of 960"])
    refused(content, *two, "--mask", tmp_path / "no.png", said=f"--mask {tmp_path}/no.png: there is no such file")


# What is refused.


def test_unknown_model(refused, photo):
    refused(photo(), "--model", "picasso", "--style", 7, said=["picasso", "choose from", *models.SYSTEMS])


def test_weights_that_are_missing(refused, photo, tmp_path):
    painting = photo("painting.png", 20, 20)
    refused(photo(), "--model", "adain", "--style", painting, said=["fastnorm train adain", "give a file"])
    nowhere = tmp_path / "nowhere.safetensors"
    refused(photo(), "--weights", nowhere, "--style", painting, said=f"no weight file {nowhere}")
    refused(photo(), "--model", "adain", "--weights", nowhere, "--style", painting, said=f"no weight file {nowhere}")


def test_weights_of_another_system(refused, adain, photo):
    _, weights = adain
    refused(photo(), "--model", "cin", "--weights", weights, "--style", 0, said="is of the system adain, not of cin")


def test_files_that_are_no_weights(refused, adain, photo, tmp_path):
    model, weights = adain
    painting = photo("painting.png", 20, 20)
    given = [photo(), "--weights", weights, "--style", painting]
    whole = weights.read_bytes()
    for kept in (0, 100, len(whole) - 1):
        weights.write_bytes(whole[:kept])
        refused(*given, said="is not a whole safetensors file")
    torch.save(model.state_dict(), weights)
    refused(*given, said="is a pickle, which may run code")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    refused(photo(), "--weights", tmp_path / "weights.pth", "--style", painting, said="is a pickle")
    files.write(weights, model.state_dict(), "weights", "later", {})
    refused(*given, said="of a system later, which this fastnorm has not")
    safetensors_torch.save_file(model.state_dict(), weights)
    refused(*given, said="give --model NAME")
    with torch.no_grad():
        model.decoder[0].bias[1] = float("nan")
    model.save(weights)
    refused(*given, said="decoder.0.bias holds NaN")


def test_styles_of_another_system(refused, adain, cin, photo, tmp_path):
    model, weights = adain
    with torch.no_grad():
        model.save_style(tmp_path / "style.safetensors", model.encode(torch.rand(1, 3, 20, 20)))
    stored = tmp_path / "style.safetensors"
    refused(photo(), "--weights", cin[1], "--style", stored, said="is of the system adain, expected cin")
    refused(photo(), "--weights", stored, "--style", stored, said="it holds a style, not weights")
    refused(photo(), "--weights", weights, "--style", weights, said="holds weights of adain, expected style")
    refused(photo(), "--style", stored, said="fastnorm train adain")
    stored.write_bytes(stored.read_bytes()[:-1])
    refused(photo(), "--weights", weights, "--style", stored, said="is not a whole safetensors file")


def test_styles_that_are_refused(refused, adain, cin, photo, tmp_path):
    painting = photo("painting.png", 20, 20)
    refused(photo(), "--weights", adain[1], "--style", 3, said="adain takes paintings, not numbers")
    refused(photo(), "--weights", cin[1], "--style", painting, said="cin takes numbers, not paintings")
    refused(photo(), "--weights", cin[1], "--style", 3, said=["no such style", "choose from 0 to 2"])
    refused(photo(), "--weights", cin[1], said="--style is missing: cin takes numbers")
    refused(photo(), said="--style is missing")
    refused(photo(), "--style", f"3:1,{painting}:1", said="cannot be mixed")
    refused(photo(), "--style", f"{painting}:0,{photo()}:0", said="sum to 0")
    refused(photo(), "--style", f"{painting}:0.5,{tmp_path / 'no.png'}:0.5", said="there is no file")
    refused(photo("dot.png", 7, 30), "--weights", cin[1], "--style", 1, said=["7x30", "8x8"])


def test_neither_weights_nor_styles_are_written_over(command, adain, photo, tmp_path):
    _, weights = adain
    painting, before = photo("painting.png", 20, 20), weights.read_bytes()
    code, _, err = command("encode", painting, "--weights", weights, "-o", weights)
    assert code == 2 and "would be overwritten" in err and weights.read_bytes() == before


def test_without_safetensors(command, photo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "w.safetensors").write_bytes(b"12345678{")
    given = ["--weights", tmp_path / "w.safetensors", "--style", 7]
    code, out, err = command("stylize", photo(), *given, "-o", tmp_path / "o.png")
    assert (code, out) == (2, "") and "pip install safetensors" in err and err.count("\n") == 1


def test_every_system_of_numbers_says_how_many():
    """Which is what a number is held against."""
    for name, entry in models.SYSTEMS.items():
        if entry.styles == "numbers":
            assert cost.on_meta(name).config["styles"] > 0
