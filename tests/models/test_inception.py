"""Inception-v3 against its formulas, at a sixteenth of its widths, and torchvision's layout of its weights."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm.models import MissingWeights
from fastnorm.models.ghiasi import Ghiasi
from fastnorm.models.inception import Inception

SIZES = dict(style_network="inception", width_multiplier=1 / 16)


def randomize(module, seed=0):
    """Norms random; convolutions are so from the start, and keep the deviation: no bias is lost in large numbers."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    for key, tensor in module.state_dict().items():
        if ".bn." in key and tensor.is_floating_point():
            random = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(random + 0.5 if key.endswith(("weight", "var")) else random - 0.5)
    return module


@pytest.fixture
def small():
    torch.manual_seed(0)
    return randomize(Inception(7, width_multiplier=1 / 16))


def windows(x, stride):
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::stride, ::stride]


def formulas(state, x):
    """One picture (3, h, w); what it reads of `state` it takes out."""

    def layer(x, name, stride=1, pad=True):
        weight = state.pop(f"{name}.conv.weight")
        if pad:
            x = np.pad(x, ((0, 0), *((side // 2, side // 2) for side in weight.shape[2:])))
        x = literal.conv(x, weight, stride)
        scale, shift, mean, var = (
            state.pop(f"{name}.bn.{each}")[:, None, None] for each in ("weight", "bias", "running_mean", "running_var")
        )
        return literal.relu((x - mean) / np.sqrt(var + 1e-3) * scale + shift)

    def in_turn(x, *names):
        for name in names:
            x = layer(x, name)
        return x

    def averaged(x):
        return windows(np.pad(x, ((0, 0), (1, 1), (1, 1))), 1).mean((3, 4))

    def largest(x):
        return windows(x, 2).max((3, 4))

    x = layer(2 * x - 1, "Conv2d_1a_3x3", 2, pad=False)
    x = layer(x, "Conv2d_2a_3x3", pad=False)
    x = largest(layer(x, "Conv2d_2b_3x3"))
    x = layer(x, "Conv2d_3b_1x1")
    x = largest(layer(x, "Conv2d_4a_3x3", pad=False))
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        five = in_turn(x, f"{name}.branch5x5_1", f"{name}.branch5x5_2")
        three = in_turn(x, *(f"{name}.branch3x3dbl_{i}" for i in (1, 2, 3)))
        x = np.concatenate([layer(x, f"{name}.branch1x1"), five, three, layer(averaged(x), f"{name}.branch_pool")])
    three = layer(x, "Mixed_6a.branch3x3", 2, pad=False)
    double = in_turn(x, "Mixed_6a.branch3x3dbl_1", "Mixed_6a.branch3x3dbl_2")
    x = np.concatenate([three, layer(double, "Mixed_6a.branch3x3dbl_3", 2, pad=False), largest(x)])
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven = in_turn(x, *(f"{name}.branch7x7_{i}" for i in (1, 2, 3)))
        double = in_turn(x, *(f"{name}.branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
        x = np.concatenate([layer(x, f"{name}.branch1x1"), seven, double, layer(averaged(x), f"{name}.branch_pool")])
    return state.pop("embedding.weight") @ x.mean((1, 2)) + state.pop("embedding.bias")


@pytest.mark.parametrize("size", [(43, 43), (64, 79)], ids=str)
def test_is_the_formulas(small, size):
    painting = picture(1, 3, *size).double()
    state = {key: array for key, array in literal.arrays(small).items() if not key.endswith("num_batches_tracked")}
    expected = formulas(state, painting[0].numpy())
    assert not state, "these did nothing"
    with torch.no_grad():
        np.testing.assert_allclose(small(painting)[0], expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_channels_are_the_papers():
    """Of table 1: 35x35x288 goes into Mixed_6a, 17x17x768 comes out of it and of all behind."""
    network = Inception(100)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert shapes["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert shapes["Mixed_6a.branch3x3.conv.weight"] == (384, 288, 3, 3)
    assert shapes["Mixed_6b.branch7x7_2.conv.weight"] == (128, 128, 1, 7)
    assert shapes["Mixed_6c.branch7x7_3.conv.weight"] == (192, 160, 7, 1)
    assert shapes["Mixed_6e.branch7x7dbl_5.conv.weight"] == (192, 192, 1, 7)
    assert shapes["Mixed_6e.branch_pool.conv.weight"] == (192, 768, 1, 1)
    assert shapes["embedding.weight"] == (100, 768)


def test_ghiasi_with_an_inception(tmp_path):
    torch.manual_seed(0)
    model = Ghiasi(5, contract=(3, 4, 6), residual_blocks=1, expand=(4, 3), style_size=43, **SIZES)
    randomize(model)
    content, painting = picture(2, 3, 12, 9).double(), picture(1, 3, 43, 60, seed=1).double()
    with torch.no_grad():
        z = model.encode(painting)
        torch.testing.assert_close(z, model.style_network(painting[..., 8:51]), rtol=0, atol=0)
        output = model.stylize(content, painting)
        torch.testing.assert_close(output, model.stylize(content, z))
        assert (output - model.stylize(content, 1 - painting)).abs().max() > 1e-4
        model.save(tmp_path / "ghiasi.safetensors")
        loaded = Ghiasi.load(tmp_path / "ghiasi.safetensors")
        torch.testing.assert_close(loaded.stylize(content, painting), output, rtol=0, atol=0)


@pytest.mark.long
def test_compiles_to_one_graph(small):
    painting = picture(2, 3, 43, 50)
    compiled = torch.compile(small.float(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(painting), small(painting))


def test_public_weights(small, tmp_path, monkeypatch):
    """In torchvision's layout, which goes on behind Mixed_6e."""
    public = {key: tensor for key, tensor in small.state_dict().items() if not key.startswith("embedding")}
    behind = {"Mixed_7a.branch3x3_1.conv.weight": torch.ones(2), "AuxLogits.fc.bias": torch.ones(3)}
    path = tmp_path / "inception.pth"
    torch.save(public | behind, path)
    other = Inception(7, width_multiplier=1 / 16).double().eval()
    other.embedding.load_state_dict(small.embedding.state_dict())
    painting = picture(1, 3, 50, 43).double()
    assert other.load_public(path) is other
    torch.testing.assert_close(other(painting), small(painting), rtol=0, atol=0)

    key = "Mixed_6a.branch3x3.conv.weight"
    torch.save({name: tensor for name, tensor in public.items() if name != key}, path)
    with pytest.raises(ValueError, match=rf"inception.pth: expected {key} \(24, 18, 3, 3\), which is not there$"):
        other.load_public(path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match="^no Inception-v3 weights at .*google-0cc3c7bd.pth: give the path"):
        other.load_public()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Ghiasi(style_network="vgg"), "style_network: expected 'mobilenet' or 'inception', got 'vgg'"),
        (lambda: Ghiasi(style_size=42, **SIZES), "style_size: expected 43 at least, for an Inception, got 42"),
        (lambda: Ghiasi.from_package(**SIZES), "style_network: expected 'mobilenet', .*, got 'inception'"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^Ghiasi: {message}$"):
        call()
