"""VGG-19 in both public layouts, of small widths, against its formulas."""

import literal
import numpy as np
import pytest
import torch
from literal import picture
from torch import nn

from fastnorm.models import MissingWeights
from fastnorm.models.vgg import DEVIATION, LAYERS, MEAN, VGG19, reach

WIDTHS = 4, 5, 6, 7, 8
PLAN = 4, 4, "M", 5, 5, "M", 6, 6, 6, 6, "M", 7, 7, 7, 7, "M", 8, 8, 8, 8


def public(layout):
    """The network as the public code writes it: torchvision's features, or the normalised one of AdaIN."""
    mirrors = layout == "normalised"
    layers, channels = [nn.Conv2d(3, 3, 1)] if mirrors else [], 3
    for width in PLAN:
        if width == "M":
            layers.append(nn.MaxPool2d(2, ceil_mode=mirrors))
        else:
            layers += [nn.ReflectionPad2d(1)] if mirrors else []
            layers += [nn.Conv2d(channels, width, 3, padding=0 if mirrors else 1), nn.ReLU()]
            channels = width
    network = literal.randomize(nn.Sequential(*layers))
    return network, {("" if mirrors else "features.") + key: tensor for key, tensor in network.state_dict().items()}


def save(state, path, form):
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("layout", ["torchvision", "normalised"])
def test_every_layer_of_both_layouts(tmp_path, layout, form):
    network, state = public(layout)
    mirrors = layout == "normalised"
    vgg = VGG19(LAYERS, WIDTHS, "reflect" if mirrors else "zeros", ceil_mode=mirrors).double()
    vgg.load_public(save(state, tmp_path / "vgg", form))
    x = picture(2, 3, 37, 45).double()
    expected = x if mirrors else (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    layers = []
    with torch.no_grad():
        for module in network:
            expected = module(expected)
            if isinstance(module, nn.ReLU):
                layers.append(expected)
        features = vgg.features(x)
        assert list(features) == list(LAYERS)
        for output, expected in zip(features.values(), layers):
            torch.testing.assert_close(output, expected, rtol=0, atol=1e-6 * expected.abs().max().item())
        torch.testing.assert_close(vgg(x), features["relu5_1"])


def test_layers_are_taken_where_they_are_asked_for():
    every = literal.randomize(VGG19(LAYERS, WIDTHS))
    some = VGG19(("relu1_2", "relu3_1"), WIDTHS).double()
    some.load_state_dict({key: tensor for key, tensor in every.state_dict().items() if key in some.state_dict()})
    x = picture(1, 3, 20, 24).double()
    for layer, output in some.features(x).items():
        np.testing.assert_allclose(output.detach(), every.features(x)[layer].detach(), rtol=0, atol=1e-12)
    assert not hasattr(some, "conv3_2")


def test_random_weights_keep_the_deviation():
    torch.manual_seed(0)
    features = VGG19(("relu1_1", "relu5_1")).features(torch.rand(1, 3, 64, 64))
    first, last = (feature.square().mean().item() for feature in features.values())
    assert 0.1 < last / first < 10


@pytest.mark.parametrize("layers", [(), ("relu9_1",), ("relu2_1", "relu1_1"), ("relu1_1", "relu1_1")])
def test_layers_that_are_none(layers):
    with pytest.raises(ValueError, match="VGG19: layers: expected some of relu1_1, .*relu5_1, in this order"):
        VGG19(layers)


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_files_that_do_not_fit(tmp_path, monkeypatch, capsys):
    _, state = public("torchvision")
    vgg, path = VGG19(LAYERS, WIDTHS), tmp_path / "vgg.pth"

    def refused(tensors, said):
        torch.save(tensors, path)
        with pytest.raises(ValueError, match=said) as caught:
            vgg.load_public(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)

    refused({"weight": torch.ones(1)}, "holds no VGG-19: expected features.0.weight, or 0.weight and 2.weight")
    refused({k: t for k, t in state.items() if "21" not in k}, r"expected features.21.weight \(7, 7, 3, 3\), which is not there")
    refused(state | {"features.5.bias": torch.ones(3)}, r"conv2_1.bias: expected shape \(5,\), got \(3,\)")
    refused(state | {"features.5.bias": torch.full((5,), torch.nan)}, "conv2_1.bias holds NaN")
    refused(Code(), "is refused, as damaged or as holding more than tensors, which may run code")
    assert capsys.readouterr().out == ""
    whole = path.write_bytes(save(state, path, "zip").read_bytes()[:-9])
    assert whole
    with pytest.raises(ValueError, match="is refused, as damaged"):
        vgg.load_public(path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingWeights, match=r"checkpoints/vgg19-dcbb9e9d.pth: give the path.*download.pytorch.org.*vgg_normalised.pth"):
        vgg.load_public()
    (tmp_path / "checkpoints").mkdir()
    save(state, tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth", "zip")
    vgg.load_public()
    torch.testing.assert_close(vgg.conv1_2.weight.double(), state["features.2.weight"].float().double())


@pytest.mark.parametrize("layer", LAYERS)
def test_what_a_position_sees(layer):
    """By what of a picture has a part in it, where every weight is above 0."""
    vgg = VGG19((layer,), (1,) * 5, "zeros", ceil_mode=False, pooling="average")
    with torch.no_grad():
        for parameter in vgg.parameters():
            parameter.fill_(0.1)
    stride, around = reach(layer)
    x = torch.rand(1, 3, 1, 1).expand(1, 3, 240, 240).clone().requires_grad_()
    place = 120 // stride
    (gradient,) = torch.autograd.grad(vgg(x)[0, 0, place, place], x)
    seen = gradient[0].abs().sum(0).nonzero()
    assert seen.min(0).values.tolist() == 2 * [place * stride - around]
    assert seen.max(0).values.tolist() == 2 * [(place + 1) * stride - 1 + around]
