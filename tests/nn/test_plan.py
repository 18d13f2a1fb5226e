"""What a plan shows: its table, its sizes, its picture."""

import sys

import pytest
import torch
from torch import nn

from fastnorm.nn import Chain, Residual


def chain():
    return Chain(
        nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(),
        Residual(nn.Conv2d(4, 4, 3, padding=1)),
        nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 1), nn.MaxPool2d(2), nn.Sigmoid(), nn.InstanceNorm2d(2),
    )  # fmt: skip


TABLE = """\
Chain: 6 steps, where its modules write 11 maps
   step  on load                     kernel       on store    writes
1  1     reflect 1                   conv 3x3     statistics  2 x 4 x 6 x 10            1.92 kB
2  4.0   norm, relu (kept), zeros 1  conv 3x3                 2 maps of 2 x 4 x 6 x 10  3.84 kB
3  6     add, upsample 2             conv 1x1                 2 x 2 x 12 x 20           3.84 kB
4  7                                 MaxPool2d                2 x 2 x 6 x 10            960 B
5  8                                 Sigmoid                  2 x 2 x 6 x 10            960 B
6  9     norm                        scale_shift              2 x 2 x 6 x 10            960 B
left out, since the norm that follows subtracts it: the bias of 1
kept: written, too, for a residual adds it
as it is: 7 (MaxPool2d): no layer that a chain knows
as it is: 8 (Sigmoid): a norm follows
written: 12.5 kB of the 26.3 kB that the modules write, of what runs as it is the result only"""


def test_the_table():
    assert str(chain().plan((2, 3, 6, 10))) == TABLE


def test_sizes_are_those_of_the_maps():
    network, seen = chain(), {}
    plan = network.plan((3, 6, 10), torch.float64)
    for step in plan.steps:
        step.run = lambda state, run=step.run: (run(state), seen.update(state.maps))
    network.double()(torch.zeros(1, 3, 6, 10, dtype=torch.float64) + torch.arange(10.0))
    assert {map: tuple(tensor.shape) for map, tensor in seen.items()} == plan.sizes


def test_sizes_that_cannot_be_told():
    class Any(nn.Module):
        def forward(self, input):
            return input[..., : int(input.sum() > 0)]

    plan = Chain(nn.Conv2d(3, 2, 1), Any(), nn.Conv2d(2, 2, 1), nn.ReLU()).plan((1, 3, 4, 4))
    assert list(plan.sizes.values()) == [(1, 3, 4, 4), (1, 2, 4, 4), None, None]
    assert "?" in str(plan) and "written:" not in str(plan)


WRONG = {
    "height and width": ((8, 8), ValueError, r"input_shape: expected \(N, C, H, W\) or \(C, H, W\), got \(8, 8\)"),
    "a number": (512, ValueError, r"input_shape: expected \(N, C, H, W\) or \(C, H, W\), got 512"),
    "half a pixel": ((1, 3, 8, 8.5), ValueError, r"input_shape: expected \(N, C, H, W\) or \(C, H, W\), got \(1, 3, 8, 8.5\)"),
    "channels": ((1, 4, 8, 8), ValueError, r"1 \(Conv2d\): input: expected 3 channels, got 4"),
    "a pad too large": (
        (1, 3, 1, 8),
        ValueError,
        r"0 \(ReflectionPad2d\): padding: reflect padding must be smaller than the input, \(1, 8\), got \(1, 1\)",
    ),
}


@pytest.mark.parametrize("shape, error, message", WRONG.values(), ids=WRONG)
def test_wrong_shapes(shape, error, message):
    with pytest.raises(error, match=f"^Chain: {message}$"):
        chain().plan(shape)


def test_a_wrong_type():
    with pytest.raises(TypeError, match=r"^Chain: dtype: expected one of torch, such as torch.float32, got 'float16'$"):
        chain().plan((1, 3, 8, 8), "float16")


def test_an_input_that_is_too_small():
    network = Chain(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match=r"^Chain: 1 \(Conv2d\): weight: expected a kernel that fits into the padded input, \(2, 7\), got \(3, 3\)$"):
        network.plan((1, 3, 4, 9))


def long_chain():
    return Chain(*(Residual(nn.Conv2d(3, 3, 1), nn.Softplus()) for _ in range(20)))


@pytest.mark.parametrize("make", [chain, long_chain, Chain])
@pytest.mark.parametrize("shape", [(1, 3, 6, 10), None], ids=str)
def test_the_picture(make, shape, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install matplotlib")
    plan, file = make().plan(shape), tmp_path / "plan.svg"
    with pytest.MonkeyPatch.context() as patch:
        import matplotlib

        patch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # Words as words.
        plan.draw(file)
    picture = file.read_text()
    for step in plan.steps:
        assert all(f">{written.words}<" in picture for written in step.written(plan.sizes))
        assert f">{getattr(step, 'reason', step.layer.name)}<" in picture
    plan.draw(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'^a picture of a plan takes matplotlib: pip install matplotlib$'
    ):
        chain().plan().draw(tmp_path / "plan.svg")


@pytest.mark.parametrize("path", ["plan", "plan.bmpx", "folder/"])
def test_a_picture_of_no_known_format(tmp_path, path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="^draw: path: expected a name that ends in .svg, .png or .pdf, got '.*'$"):
        chain().plan().draw(f"{tmp_path}/{path}")
