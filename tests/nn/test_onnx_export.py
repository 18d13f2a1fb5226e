"""Modules of dynamic convolution, of attention and of padding in ONNX: one file for any batch and any size, with the same numbers in ONNX Runtime."""

import warnings

import pytest
import torch

from fastnorm import functional, nn
from fastnorm.ops import backends

pytest.importorskip("onnx", reason="pip install onnx onnxscript onnxruntime")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnx onnxscript onnxruntime")


class Stylised(torch.nn.Module):
    """A content by a style map: a DIN, an AdaConv and a modulated convolution. Few taps: each takes seconds to export."""

    dimensions = dict(content=dict(n=0, h=2, w=3), style=dict(n=0, style_h=2, style_w=3))

    def __init__(self):
        super().__init__()
        self.dynamic = nn.DynamicInstanceNorm(4, 6, (1, 3), 5, groups=2, hidden_channels=7)
        self.predictor = nn.KernelPredictor(5, 6, 8, (3, 1), groups=2)
        self.adaconv = nn.AdaConv2d(6, 8, 2, (3, 1))
        self.weight = torch.nn.Parameter(torch.randn(3, 8, 1, 1))
        self.style = torch.nn.Linear(5, 8)

    def forward(self, content, style):
        hidden = self.dynamic(content, style).relu()
        hidden = self.adaconv(hidden, self.predictor(style))
        return functional.modulated_conv2d(hidden, self.weight, self.style(style.mean((2, 3))))

    @staticmethod
    def inputs(n, content_size, style_size):
        return torch.randn(n, 4, *content_size), torch.randn(n, 5, *style_size)


class ByFilter(torch.nn.Module):
    """A content by a filter that the file brings, and one that comes with it; a plain convolution by the second."""

    dimensions = dict(content=dict(n=0, h=2, w=3), weight=dict(n=0), bias=dict(n=0))

    def __init__(self):
        super().__init__()
        self.first = nn.DynamicInstanceNorm(4, 4, 1, 5, hidden_channels=7)
        self.second = nn.DynamicConv2d(4, 4, (1, 3), padding="same", groups=4, padding_mode="circular")
        for name, tensor in self.first.encode(torch.randn(1, 5, 6, 6))._asdict().items():
            self.register_buffer(name, tensor.detach())

    def forward(self, content, weight, bias):
        return self.second(self.first(content, nn.DynamicFilter(self.weight, self.bias)), weight, bias)

    @staticmethod
    def inputs(n, content_size, style_size):
        return torch.randn(n, 4, *content_size), torch.randn(n, 4, 1, 1, 3), torch.randn(n, 4)


class Variants(torch.nn.Module):
    """A deformable DIN, then two styles by a map of indices."""

    dimensions = dict(
        content=dict(n=0, h=2, w=3), style=dict(n=0, style_h=2, style_w=3), mask=dict(n=0, style_h=1, style_w=2)
    )

    def __init__(self):
        super().__init__()
        self.deformable = nn.DeformableDynamicInstanceNorm(4, 6, 3, 5, hidden_channels=7)
        torch.nn.init.normal_(self.deformable.offset_net.weight, std=0.2)
        self.adaptive = nn.SpatiallyAdaptiveDynamicInstanceNorm(6, 4, 1, 5, hidden_channels=7)

    def forward(self, content, style, mask):
        return self.adaptive(self.deformable(content, style), [style, style.flip(1)], mask)

    @staticmethod
    def inputs(n, content_size, style_size):
        return *Stylised.inputs(n, content_size, style_size), torch.randint(0, 2, (n, *style_size))


class Padded(torch.nn.Module):
    """Upsampled and padded by each rule."""

    dimensions = dict(content=dict(n=0, h=2, w=3))

    def __init__(self):
        super().__init__()
        modes = torch.nn.Sequential(*(nn.UpsamplePad2d((2, 1), 1, mode) for mode in ("replicate", "zeros", "circular")))
        self.layers = torch.nn.Sequential(nn.UpsamplePad2d(), nn.ReflectionPad2d((0, 1, 2, 3)), modes)

    def forward(self, content):
        return self.layers(content)

    @staticmethod
    def inputs(n, content_size, style_size):
        return (torch.randn(n, 4, *content_size),)


class Attended(torch.nn.Module):
    """A content by what it attends to in a style: AdaAttN, then SANet."""

    dimensions = dict(content=dict(n=0, h=2, w=3), style=dict(n=0, style_h=2, style_w=3))

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.AdaAttN(4, key_planes=8), nn.SANet(4)

    def forward(self, content, style):
        keys = (torch.cat([map, map.square()], 1) for map in (content, style))
        return self.second(self.first(content, style, *keys), style)

    @staticmethod
    def inputs(n, content_size, style_size):
        return torch.randn(n, 4, *content_size), torch.randn(n, 4, *style_size)


def by_export(model, inputs, file):
    """torch's exporter of today, which finds the references by itself."""
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")
    sizes = {name for axes in model.dimensions.values() for name in axes}
    dims = {name: torch.export.Dim(name, min=2 if name == "n" else 4) for name in sizes}
    shapes = tuple({axis: dims[name] for name, axis in axes.items()} for axes in model.dimensions.values())
    program = torch.onnx.export(
        model, inputs, dynamo=True, dynamic_shapes=shapes, input_names=list(model.dimensions), verbose=False
    )
    program.save(file)


def by_trace(model, inputs, file):
    """The older one, which needs to be told."""
    axes = {name: {axis: size for size, axis in axes.items()} for name, axes in model.dimensions.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "_backend", "reference")
        torch.onnx.export(
            model, inputs, file, dynamo=False, dynamic_axes=axes, input_names=list(model.dimensions), opset_version=18
        )


@pytest.mark.parametrize(
    "kind, export",
    [
        (Stylised, by_export),
        pytest.param(ByFilter, by_export, marks=pytest.mark.long),
        pytest.param(Padded, by_export, marks=pytest.mark.long),
        (Attended, by_export),
        pytest.param(Variants, by_export, marks=pytest.mark.long),
        (Stylised, by_trace),
        (ByFilter, by_trace),
        (Padded, by_trace),
        (Attended, by_trace),
        (Variants, by_trace),
    ],
    ids=lambda value: value.__name__,
)
def test_equals_onnx_runtime(kind, export, tmp_path):
    torch.manual_seed(0)
    model, file = kind().eval(), tmp_path / "model.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        # Of the exporters, about themselves.
        warnings.simplefilter("ignore")
        export(model, model.inputs(2, (9, 11), (6, 7)), str(file))
    session = onnxruntime.InferenceSession(file)
    for sizes in [(2, (9, 11), (6, 7)), (3, (12, 8), (5, 10)), (1, (7, 16), (4, 4))]:
        inputs = model.inputs(*sizes)
        (actual,) = session.run(None, {name: tensor.numpy() for name, tensor in zip(model.dimensions, inputs)})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(actual), model(*inputs), rtol=1e-4, atol=2e-5)
