"""Videos: against a stand-in for ffmpeg, whose streams can be told in advance, and against ffmpeg where there is one."""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from fastnorm.cli import video

WIDTH, HEIGHT, FRAMES = 17, 13, 5

STAND_IN = f"""\
#!{sys.executable}
\"\"\"ffmpeg as far as it is asked: a header, raw frames of grays, raw frames into a file. FAIL says where it fails.\"\"\"
import os, sys

arguments, fail = sys.argv[1:], os.environ.get("FAIL", "")
def end(words):
    print("something before", words, "", sep="\\n", file=sys.stderr)
    sys.exit(1)
if "yuv4mpegpipe" in arguments:
    if fail == "probe":
        end("no such stream")
    print("  Duration: 00:00:00.50, start: 0.0", file=sys.stderr)
    sys.stdout.buffer.write(b"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420jpeg\\nFRAME\\n" + bytes(30))
elif "pipe:1" in arguments:
    print("x" * 200_000, file=sys.stderr)  # More than a pipe holds.
    for frame in range(2 if fail == "short" else {FRAMES}):
        sys.stdout.buffer.write(bytes([10 * frame]) * ({WIDTH // 2 * 2} * {HEIGHT // 2 * 2} * 3))
    if fail == "read":
        sys.stdout.buffer.write(b"half a frame")
        sys.stdout.flush()
        end("invalid data")
else:
    if fail == "write":
        end("Unknown encoder")
    with open(arguments[-1].removeprefix("file:"), "wb") as file:
        file.write(sys.stdin.buffer.read())
    with open(os.environ["SAID"], "w") as file:
        file.write(chr(10).join(arguments))
"""


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """A file that the stand-in says to be a video of grays 0, 10, 20, 30, 40."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ffmpeg").write_text(STAND_IN)
    (programs / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("SAID", str(programs / "said"))
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    return tmp_path / "clip.mp4"


@pytest.fixture
def stylize(stylize, tmp_path):
    return lambda *inputs, output="out.mp4": stylize(*inputs, "--style", 7, "-o", tmp_path / output)


def frames_in(path):
    return np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, HEIGHT // 2 * 2, WIDTH // 2 * 2, 3)


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_each_frame_is_stylised(stylize, negative, clip, tmp_path, batch):
    code, out, err = stylize(clip, "--batch", batch)
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'out.mp4'}: 16x12, 5 frames, ")
    written = frames_in(tmp_path / "out.mp4")
    assert (written == 255 - 10 * np.arange(FRAMES).reshape(-1, 1, 1, 1)).all() and len(written) == FRAMES
    said = (tmp_path / "programs" / "said").read_text().split("\n")
    for option, value in (("-s", "16x12"), ("-r", "10"), ("-map_metadata", "-1"), ("-c:a", "copy")):
        assert said[said.index(option) + 1] == value
    assert [said[i + 1] for i, word in enumerate(said) if word == "-i"] == ["pipe:0", f"file:{clip}"]
    assert negative.loaded == ["cin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4", "programs"]


def test_a_painting_is_encoded_once_for_all_frames(command, negative, clip, photo, tmp_path):
    code, out, _ = command("stylize", clip, "--style", photo("p.png", 20, 20), "-o", tmp_path / "out.mkv", "--json")
    assert code == 0 and len(negative.kept) == 1
    (done,) = json.loads(out)["videos"]
    assert (done["frames"], done["width"], done["height"]) == (FRAMES, 16, 12)


def test_larger_frames(stylize, negative, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(negative, "enlarges", 2)
    monkeypatch.setattr(negative, "paint", lambda content, *_: (1 - content).repeat_interleave(2, 2).repeat_interleave(2, 3))
    code, out, _ = stylize(clip)
    assert code == 0 and ": 32x24, 5 frames, " in out
    said = (tmp_path / "programs" / "said").read_text().split("\n")
    assert said[said.index("-s") + 1] == "32x24"
    assert len((tmp_path / "out.mp4").read_bytes()) == FRAMES * 32 * 24 * 3


def test_what_a_clip_is(clip):
    found = video.probe(clip)
    assert (found.width, found.height, found.rate, found.frames) == (16, 12, Fraction(10), 5)
    larger = video.probe(clip, 34)
    assert (larger.width, larger.height) == (34, 26)
    assert "crop=16:12:0:0" in found.filters and "scale=34:26" in larger.filters and found.filters.endswith("fps=10")


def test_a_mask_for_all_frames(command, negative, clip, photo, tmp_path):
    given = ["--style", 1, "--style", 2, "-o", tmp_path / "out.mp4"]
    assert command("stylize", clip, *given, "--mask", photo("mask.png", 16, 12))[0] == 0
    assert (frames_in(tmp_path / "out.mp4")[2] == 235).all()
    assert command("stylize", clip, *given, "--mask", photo("own.png", WIDTH, HEIGHT))[0] == 0  # Cut as the frames are.
    assert (frames_in(tmp_path / "out.mp4")[2] == 235).all()
    assert command("stylize", clip, *given, "--mask", photo("own.png", WIDTH, HEIGHT), "--size", 34)[0] == 0
    code, _, err = command("stylize", clip, *given, "--mask", photo("wrong.png", 18, 13))
    assert code == 2 and f"wrong.png is 18x13 pixels, {clip} 16x12: make a mask of that size" in err


def test_folders(stylize, clip, photo, tmp_path):
    """The pictures of a folder, or its videos if it has no pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "b.mp4").write_bytes(b""), (folder / "a.avi").write_bytes(b"")
    assert stylize(folder, output="videos/")[0] == 0
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["a.mp4", "b.mp4"]
    photo("in/c.png")
    code, _, err = stylize(folder, output="pictures/")
    assert code == 0 and "holds pictures, which are taken, and videos, which are not" in err
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["c.png"]


def test_a_clip_that_ends_early(stylize, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIL", "short")
    code, out, err = stylize(clip)
    assert (code, err) == (0, f"fastnorm: {clip} ends after 2 of about 5 frames: it may be cut short\n")
    assert ": 16x12, 2 frames, " in out


@pytest.mark.parametrize("fail, said", [("probe", "no such stream"), ("read", "invalid data"), ("write", "Unknown encoder")])
def test_ffmpeg_that_fails(stylize, clip, tmp_path, monkeypatch, fail, said):
    """The last line of its words is told, and what was at the output's place stays."""
    (tmp_path / "out.mp4").write_text("the last result")
    monkeypatch.setenv("FAIL", fail)
    code, out, err = stylize(clip)
    assert (code, out) == (2, "") and err.endswith(f"ffmpeg: {said}\n") and err.count("\n") == 1
    assert ("out.mp4" if fail == "write" else "clip.mp4") in err
    assert (tmp_path / "out.mp4").read_text() == "the last result"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4", "programs"]


def test_ctrl_c(stylize, negative, clip, tmp_path, monkeypatch):
    started, popen = [], subprocess.Popen

    def noted(*arguments, **settings):
        started.append(popen(*arguments, **settings))
        return started[-1]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(video.subprocess, "Popen", noted)
    monkeypatch.setattr(negative, "stylize", interrupt)
    assert stylize(clip) == (130, "", "fastnorm: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "programs"]
    assert len(started) == 3 and all(process.returncode is not None for process in started)


@pytest.mark.parametrize(
    "output, said",
    [("out.png", ".mp4, .m4v, .mov, .mkv, .webm"), ("out.avi", "'.avi'"), ("no/out.mp4", "no is not a folder")],
)
def test_outputs_that_are_refused(stylize, clip, tmp_path, output, said):
    code, out, err = stylize(clip, output=output)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_what_is_refused(stylize, clip, photo, tmp_path, monkeypatch):
    for inputs, output, said in (
        ([clip, photo()], "out/", f"{clip} is a video, {photo()} is not: run pictures and videos apart"),
        ([clip], "clip.mp4", "clip.mp4 would be overwritten"),
        ([clip, tmp_path / "b.mp4"], "out.mp4", "several videos need a folder"),
        ([tmp_path / "no.mp4"], "out.mp4", "no.mp4: there is no such file"),
        ([photo()], "out.mp4", "photo.png is a picture, and so is what comes of it: use .png, .jpg"),
        ([clip], "out.png", "clip.mp4 is a video, and so is what comes of it: use .mp4, .m4v"),
        ([clip, "--size", 9], "out.mp4", "8x6 pixels: the smallest that works is 8 a side"),
    ):
        code, out, err = stylize(*inputs, output=output)
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = stylize(clip)
    assert (code, out) == (2, "") and "videos need the program ffmpeg: install it" in err and err.count("\n") == 1
    assert clip.read_bytes() == b"a clip"


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """The program itself: the system's, or that of the package imageio-ffmpeg."""
    program = shutil.which("ffmpeg")
    if program is None:
        package = pytest.importorskip("imageio_ffmpeg", reason="there is no ffmpeg")
        (tmp_path / "programs").mkdir()
        (tmp_path / "programs" / "ffmpeg").symlink_to(package.get_ffmpeg_exe())
        monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "programs"), os.environ["PATH"]]))
        program = "ffmpeg"

    def run(*arguments):
        return subprocess.run([program, "-hide_banner", *map(str, arguments)], capture_output=True)

    return run


@pytest.mark.parametrize("ending", ["mp4", "webm"])
def test_a_real_clip(ffmpeg, stylize, negative, tmp_path, ending):
    """Half a second of gray with a tone: it becomes the negative gray, as long as it was, with its sound."""
    clip, output = tmp_path / "clip.mp4", tmp_path / f"out.{ending}"
    source = ["-f", "lavfi", "-i", "color=0x303030:size=65x48:rate=30000/1001:duration=0.5"]
    tone = ["-f", "lavfi", "-i", "sine=duration=0.5", "-metadata", "title=my home", "-pix_fmt", "yuv444p"]
    assert ffmpeg(*source, *tone, clip).returncode == 0
    code, out, err = stylize(clip, "--batch", 4, output=output.name)
    assert (code, err) == (0, "") and ": 64x48, 15 frames, " in out
    said = ffmpeg("-i", output).stderr.decode()
    assert "64x48" in said and "29.97 fps" in said and "bt709" in said and "Audio: " in said and "my home" not in said
    raw = ffmpeg("-i", output, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1").stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, 48, 64, 3).astype(int)
    assert len(frames) == 15 and np.abs(frames - (255 - 0x30)).max() <= 4


def test_a_real_file_that_is_no_video(ffmpeg, stylize, tmp_path):
    (tmp_path / "letter.mp4").write_text("This is not a video.\n")
    code, out, err = stylize(tmp_path / "letter.mp4")
    assert (code, out) == (2, "") and "letter.mp4 cannot be read as a video: ffmpeg: " in err and err.count("\n") == 1
