"""Reading and writing: what every kind of picture means in RGB, and what of it is kept."""

import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

from fastnorm import pictures
from fastnorm._errors import UserError


def rgb(path, longest=None):
    """(H, W, 3) in 0..255."""
    return pictures.read(path, longest).rgb[0].permute(1, 2, 0).numpy() * 255


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".ppm"])
def test_rgb(tmp_path, noise, ending):
    path = tmp_path / f"a{ending}"
    Image.fromarray(noise).save(path)
    read = pictures.read(path)
    assert read.alpha is None
    assert read.rgb.dtype == torch.float32 and read.rgb.shape == (1, 3, 10, 12)
    assert np.abs(rgb(path) - noise).max() < 1e-4


def test_gray(tmp_path, noise):
    Image.fromarray(noise[..., 0]).save(tmp_path / "a.png")
    assert np.abs(rgb(tmp_path / "a.png") - noise[..., :1]).max() < 1e-4


def test_black_and_white(tmp_path, noise):
    bits = noise[..., 0] > 128
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert (rgb(tmp_path / "a.png") == 255 * bits[..., None]).all()


@pytest.mark.parametrize("ending", [".png", ".tif", ".pgm"])
def test_16_bits(tmp_path, ending):
    gray = np.linspace(0, 65535, 120, dtype=np.uint16).reshape(10, 12)
    Image.fromarray(gray).save(tmp_path / f"a{ending}")
    assert np.abs(rgb(tmp_path / f"a{ending}") - gray[..., None] / 257).max() <= 0.51


def test_palette(tmp_path, noise):
    indexed = Image.fromarray(noise).quantize(16)
    indexed.save(tmp_path / "a.png")
    assert np.abs(rgb(tmp_path / "a.png") - np.asarray(indexed.convert("RGB"))).max() < 1e-4


def test_cmyk(tmp_path):
    """Without a profile, ink is subtracted from white: (1 - c)(1 - k)."""
    path = tmp_path / "a.tif"
    Image.new("CMYK", (8, 8), (255, 102, 0, 51)).save(path)
    assert np.abs(rgb(path)[0, 0] - np.array([0, 153 * 204 / 255, 204])).max() <= 1


def test_exif_orientation(tmp_path, noise):
    """6: the camera was turned, the picture's top is on its left."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / "a.png", exif=exif)
    assert np.abs(rgb(tmp_path / "a.png") - np.rot90(noise, -1)).max() < 1e-4
    assert pictures.read(tmp_path / "a.png", 24).rgb.shape == (1, 3, 24, 20)


def test_colour_profile(tmp_path):
    """A profile whose red and green lights are exchanged: what it calls red is sRGB's green."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in (b"XYZ", b"TRC"):
        for old, new in ((b"r", b"?"), (b"g", b"r"), (b"?", b"g")):
            profile = profile.replace(old + kind, new + kind)
    for name, mode, colour in (("rgb.png", "RGB", (250, 20, 60)), ("rgba.png", "RGBA", (250, 20, 60, 255))):
        Image.new(mode, (8, 8), colour).save(tmp_path / name, icc_profile=profile)
        assert np.abs(rgb(tmp_path / name)[0, 0] - np.array([20, 250, 60])).max() <= 2


LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize("profile", [b"not a profile", LAB])
def test_colour_profile_that_says_nothing(tmp_path, noise, profile):
    Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=profile)
    assert np.abs(rgb(tmp_path / "a.png") - noise).max() < 1e-4


def test_alpha(tmp_path, noise):
    """Kept as it is; the colours are those over white."""
    alpha = np.random.default_rng(1).integers(0, 256, (10, 12), dtype=np.uint8)
    Image.fromarray(np.dstack([noise, alpha])).save(tmp_path / "a.png")
    read = pictures.read(tmp_path / "a.png")
    share = alpha[..., None] / 255
    assert (np.asarray(read.alpha) == alpha).all()
    assert np.abs(rgb(tmp_path / "a.png") - (noise * share + 255 * (1 - share))).max() <= 1


def test_transparent_colour(tmp_path):
    """A palette's colour, a gray, or an RGB may stand for transparent."""
    for mode, value in (("P", 3), ("L", 3), ("RGB", (3, 3, 3))):
        image = Image.new(mode, (10, 10), value)
        if mode == "P":
            image.putpalette([0] * 9 + [200, 0, 0] + [0] * 12)
        image.paste(Image.new(mode, (5, 10), 0))
        image.save(tmp_path / "a.png", transparency=value)
        read = pictures.read(tmp_path / "a.png")
        assert (np.asarray(read.alpha) == [255] * 5 + [0] * 5).all()
        assert (rgb(tmp_path / "a.png")[0] == [[0] * 3] * 5 + [[255] * 3] * 5).all()


def test_size(tmp_path):
    """Resizing keeps a smooth picture what it is, its alpha too."""
    ramp = np.linspace(0, 255, 64)
    plane = np.broadcast_to(ramp, (48, 64)).astype(np.uint8)
    Image.fromarray(np.dstack([plane] * 3 + [255 - plane])).save(tmp_path / "a.png")
    read = pictures.read(tmp_path / "a.png", 32)
    assert read.rgb.shape == (1, 3, 24, 32) and read.alpha.size == (32, 24)
    assert np.abs(np.asarray(read.alpha).astype(int)[:, 2:-2] - (255 - ramp.reshape(-1, 2).mean(1)[2:-2])).max() <= 2


def test_measure_agrees_with_read(tmp_path):
    for width, height, longest in ((640, 427, 100), (427, 640, 33), (10, 9, 1000), (31, 8, 31)):
        Image.new("RGB", (width, height)).save(tmp_path / "a.png")
        read = pictures.read(tmp_path / "a.png", longest).rgb
        assert pictures.measure(tmp_path / "a.png", longest) == (read.shape[3], read.shape[2])


# Writing.


def picture(alpha=None):
    values = torch.tensor([-0.1, 0.0, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 0.25, 0.999, 1.0, 1.2])
    return pictures.Picture(values.expand(1, 3, 4, 8), alpha)


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_write_rounds_and_clips(tmp_path, name, monkeypatch):
    monkeypatch.setitem(pictures.WRITABLE, ".webp", ("WEBP", {"lossless": True}))
    pictures.write(tmp_path / name, picture())
    assert np.asarray(Image.open(tmp_path / name))[2, :, 1].tolist() == [0, 0, 0, 1, 64, 255, 255, 255]


@pytest.mark.parametrize("name, mode", [("a.png", "RGBA"), ("a.webp", "RGBA"), ("a.jpg", "RGB")])
def test_write_alpha(tmp_path, name, mode):
    alpha = Image.fromarray(np.arange(32, dtype=np.uint8).reshape(4, 8) * 8)
    pictures.write(tmp_path / name, picture(alpha))
    written = Image.open(tmp_path / name)
    assert written.mode == mode
    if mode == "RGBA":
        assert (np.asarray(written.getchannel("A")) == np.asarray(alpha)).all()


def test_written_with_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        pictures.write(tmp_path / "a.png", picture())
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "a.png").st_mode & 0o777 == 0o640


def test_where_a_photo_was_taken_is_not_written(stylize, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "my home"
    extra = PngImagePlugin.PngInfo()
    extra.add_text("Location", "my home")
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png", exif=exif, pnginfo=extra)
    assert b"my home" in (tmp_path / "a.png").read_bytes()
    for name in ("out.png", "out.jpg", "out.webp"):
        assert stylize(tmp_path / "a.png", "--style", 7, "-o", tmp_path / name)[0] == 0
        assert b"my home" not in (tmp_path / name).read_bytes()


# What training reads.


def resized(pixels, size):
    """By the same filter, all of it."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def test_shorter_side(tmp_path, noise):
    Image.fromarray(noise).save(tmp_path / "a.png")
    read = pictures.read(tmp_path / "a.png", shorter=5)
    assert np.array_equal((read.rgb[0] * 255).round().permute(1, 2, 0).numpy(), resized(noise, (6, 5)))


@pytest.mark.parametrize("across, down, left, top", [(0, 0, 0, 0), (1, 1, 5, 3), (0.49, 0.26, 2, 1), (0.999, 0, 5, 0)])
def test_a_square_is_cut_from_the_resized_picture(tmp_path, noise, across, down, left, top):
    pixels = np.kron(noise, np.ones((2, 2, 1), dtype=np.uint8))  # 24x20 pixels, of which 12x10 are left.
    Image.fromarray(pixels).save(tmp_path / "a.png")
    square = pictures.read_square(tmp_path / "a.png", 10, 7, across, down)
    assert square.dtype == torch.float32 and square.shape == (3, 7, 7)
    wanted = resized(pixels, (12, 10))[top : top + 7, left : left + 7]
    assert np.abs((square * 255).permute(1, 2, 0).numpy() - wanted).max() <= 1  # Roundings between the filter's two passes.


def test_a_square_of_awkward_sizes_lies_in_the_picture(tmp_path):
    """Corners computed in floating point never leave it."""
    for width, height, shorter in ((8, 1111, 7), (33, 97, 31), (101, 103, 64), (8, 8, 511)):
        Image.new("RGB", (width, height), (255, 0, 0)).save(tmp_path / "a.png")
        for share in (0, 0.5, 1):
            square = pictures.read_square(tmp_path / "a.png", shorter, min(shorter, 7), share, share)
            assert torch.equal(square, torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand_as(square))


def test_a_square_shows_white_where_it_is_transparent(tmp_path):
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert torch.equal(pictures.read_square(tmp_path / "a.png", 9, 4, 0, 0), torch.ones(3, 4, 4))


def test_pictures_below_a_folder(tmp_path, noise):
    for name in ("b/2.png", "a.JPG", "b/c/1.png", ".hidden/3.png", "b/.4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "b/notes.txt").write_text("no picture")
    names = [path.relative_to(tmp_path).as_posix() for path in pictures.find_below(tmp_path)]
    assert names == ["a.JPG", "b/2.png", "b/c/1.png"]
    with pytest.raises(UserError, match="nowhere cannot be read"):
        pictures.find_below(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no picture"):
        pictures.find_below(tmp_path / "empty")


def test_of_an_animation_the_first_picture_is_taken_and_it_is_said(stylize, tmp_path):
    stills = [Image.new("L", (20, 16), gray) for gray in (40, 80, 120)]
    stills[0].save(tmp_path / "moving.gif", save_all=True, append_images=stills[1:])
    code, _, err = stylize(tmp_path / "moving.gif", "--style", 7, "-o", tmp_path / "out.png")
    assert (code, err) == (0, f"fastnorm: {tmp_path}/moving.gif holds 3 pictures, of which the first is taken\n")
    assert Image.open(tmp_path / "out.png").convert("RGB").getpixel((3, 3)) == (215, 215, 215)
    whole = (tmp_path / "moving.gif").read_bytes()
    (tmp_path / "moving.gif").write_bytes(whole[:-45])  # In the last picture.
    assert stylize(tmp_path / "moving.gif", "--style", 7, "-o", tmp_path / "out.png")[0] == 0
