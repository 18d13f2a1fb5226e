"""What every system of the registry keeps: sizes, batches, styles that are stored, files, compilers, clear errors."""

import copy
import io
import sys

import literal
import pytest
import torch
from literal import picture
from small import SIZES

from fastnorm import models
from fastnorm.models.pictures import mirror_to_multiple
from fastnorm.ops import backends


COMPILED = "adain", "cin"  # Each time; compiling takes seconds.


def build(name):
    return literal.randomize(models.build(name, **SIZES[name]))


def fresh(name):
    """As before training, with numbers of a size that 16 bits hold."""
    torch.manual_seed(0)
    return models.build(name, **SIZES[name]).double().eval()


@pytest.fixture(params=models.SYSTEMS)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return build(name)


def style_of(model, seed=5, samples=1):
    """A style of the kind that the system takes, as a user gives it."""
    kind = models.SYSTEMS[model.system()].styles
    if kind == "paintings":
        return picture(samples, 3, 37, 50, seed=seed).double()
    return seed % 3 if kind == "numbers" else None


def encoded(model, seed=5):
    style = style_of(model, seed)
    with torch.no_grad():
        return None if style is None else model.encode(style)


def cast(style, dtype):
    """What is kept of a style, in another type."""
    if style is None:
        return None
    tensors = {"style": style} if isinstance(style, torch.Tensor) else style
    tensors = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    return tensors["style"] if isinstance(style, torch.Tensor) else tensors


def content_of(samples=1, height=33, width=41, seed=0):
    return picture(samples, 3, height, width, seed=seed).double()


def stylize(model, content, style, **settings):
    with torch.no_grad():
        return model.stylize(content, style, **settings)


def close(output, expected, error=1e-9):
    """`error` is in parts of the largest value: pictures of random networks are of any size."""
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(output, expected, rtol=0, atol=error * scale)


def assert_as_good(output, plain, exact, times=2):
    """As plain torch's, but for so many times its error."""
    error, of_plain = ((x.double() - exact).square().mean().sqrt() for x in (output, plain))
    assert error <= times * of_plain + 1e-3 * exact.abs().max()


def test_every_system_is_tested():
    assert SIZES.keys() == models.SYSTEMS.keys()


@pytest.mark.parametrize("size", [(33, 41), (1, 70), (32, 64)], ids=str)
def test_any_size_is_the_crop_of_its_mirrored_picture(model, size):
    content, style = content_of(1, *size), style_of(model)
    output = stylize(model, content, style)
    height, width = (model.enlarges * side for side in size)
    assert output.shape == (1, 3, height, width) and output.isfinite().all()
    mirrored = mirror_to_multiple(content, model.multiple, model.least)
    close(output, stylize(model, mirrored, style)[..., :height, :width])


def test_a_batch_is_its_samples(model):
    content, style = content_of(3), style_of(model)
    alone = torch.cat([stylize(model, content[i : i + 1], style) for i in range(3)])
    close(stylize(model, content, style), alone)
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    assert stylize(model, content[:0], style).shape == (0, *alone.shape[1:])


def test_each_sample_has_its_style(model):
    kind = models.SYSTEMS[model.system()].styles
    if kind not in ("paintings", "numbers"):
        pytest.skip("it has one style, or none")
    content, styles = content_of(2), style_of(model, samples=2) if kind == "paintings" else torch.tensor([2, 0])
    alone = torch.cat([stylize(model, content[i : i + 1], styles[i : i + 1]) for i in range(2)])
    close(stylize(model, content, styles), alone)
    other = stylize(model, content[:1], styles[1:])
    assert (other - alone[:1]).abs().max() > 1e-4, "the style changes nothing"


def test_a_style_that_was_kept_paints_alike(model, tmp_path):
    content, style = content_of(2), style_of(model)
    if style is None:
        with pytest.raises(TypeError, match=f"^{type(model).__name__}: encode: it takes no style"):
            model.encode(content)
        return
    kept = model.encode(style)
    expected = stylize(model, content, style)
    close(stylize(model, content, kept), expected)
    model.save_style(tmp_path / "style.safetensors", style)  # In any form.
    close(stylize(model, content, model.load_style(tmp_path / "style.safetensors")), expected)
    model.save_style(tmp_path / "style.safetensors", kept)
    close(stylize(model, content, model.load_style(tmp_path / "style.safetensors")), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_alpha_is_between(model, name, alpha):
    content, style = content_of(), style_of(model)
    part, full = stylize(model, content, style, alpha=alpha), stylize(model, content, style)
    assert part.shape == full.shape and (part - full).abs().max() > 1e-4
    if name in ("cin", "diversified", "johnson", "mgans", "texture_networks"):  # Others blend features.
        close(part, alpha * full + (1 - alpha) * content)


def test_autocast(name):
    """At any alpha, where what is blended may be of two types."""
    model = fresh(name)
    content, style = content_of().float(), cast(encoded(model), torch.float32)
    model = model.float()
    for alpha in (1.0, 0.4):
        exact = stylize(model, content, style, alpha=alpha)
        with torch.autocast("cpu", torch.bfloat16):
            output = stylize(model, content, style, alpha=alpha)
            with backends.by_reference():
                plain = stylize(model, content, style, alpha=alpha)
        assert_as_good(output, plain, exact, times=3)  # Plain norms are of float32 there, fused ones of what comes.


@pytest.mark.parametrize("name", [name for name, entry in models.SYSTEMS.items() if entry.styles == "paintings"])
def test_paintings_of_any_size(name):
    """One pixel is a wall of its colour."""
    model, content = build(name), content_of()
    for size in ((1, 1), (8, 8), (3, 70)):
        assert stylize(model, content, picture(1, 3, *size).double()).isfinite().all()
    pixel = picture(1, 3, 1, 1).double()
    close(stylize(model, content, pixel), stylize(model, content, pixel.expand(1, 3, 64, 64)), error=1e-6)


def test_a_mixture_of_one_style_is_that_style(model):
    first, second = style_of(model, 5), style_of(model, 7)
    if first is None:
        pytest.skip("it has no styles to mix")
    content = content_of()
    expected = stylize(model, content, first)
    close(stylize(model, content, model.mix([first, second], [1.0, 0.0])), expected)
    close(stylize(model, content, model.mix([first, first], [0.3, 0.7])), expected)
    between = stylize(model, content, model.mix([first, second], [0.5, 0.5]))
    assert (between - expected).abs().max() > 1e-4


def test_regions(model):
    first, second = style_of(model, 5), style_of(model, 7)
    if first is None:
        pytest.skip("it has no styles to choose from")
    content = content_of(2, 32, 64)
    everywhere = torch.zeros(1, 32, 64, dtype=torch.int64)
    paint = torch.no_grad()(model.stylize_regions)
    close(paint(content, [first, second], everywhere), stylize(model, content, first))
    close(paint(content, [first, second], everywhere + 1), stylize(model, content, second))
    left = torch.ones(1, 1, 32, 64, dtype=torch.float64)
    left[..., 32:] = 0
    output = paint(content, [first, second], torch.cat([left, 1 - left], 1))
    close(output, paint(content, [first, second], (1 - left[:, 0]).long()))
    for style, columns in ((first, slice(0, 1)), (second, slice(63, 64))):
        own, other = (stylize(model, content, each)[..., columns] for each in (style, first if style is second else second))
        assert (output[..., columns] - own).abs().mean() < (output[..., columns] - other).abs().mean()


def test_channels_last_alike(model):
    content, style = content_of(2), style_of(model)
    expected = stylize(model, content, style)
    last = model.to(memory_format=torch.channels_last)
    close(stylize(last, content.contiguous(memory_format=torch.channels_last), style), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_are_as_good_as_in_plain_torch(name, dtype):
    model = build(name) if dtype == torch.bfloat16 else fresh(name)
    content, style = content_of(2), style_of(model)
    exact, kept = stylize(model, content, style), encoded(model)
    half = copy.deepcopy(model).to(dtype)
    low = cast(kept, dtype)
    output = stylize(half, content.to(dtype), low)
    with backends.by_reference():
        plain = stylize(half, content.to(dtype), low)
    assert output.dtype == dtype
    assert_as_good(output, plain, exact)


@pytest.mark.parametrize("name", [name if name in COMPILED else pytest.param(name, marks=pytest.mark.long) for name in SIZES])
def test_compiles_to_one_graph(name):
    model = build(name)
    kept = cast(encoded(model), torch.float32)
    model, content = model.float(), content_of(2).float()
    torch.compiler.reset()  # Else the ninth system is one graph too many of `System.forward`.
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    close(compiled(content, kept), stylize(model, content, kept), error=1e-4)


@pytest.mark.long
def test_onnx(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    kept = cast(encoded(model), torch.float32)
    model = model.float()
    model.export_onnx(tmp_path / "model.onnx", kept)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    content = content_of(3, 64, 41).float()
    assert all(each.shape == ["samples", 3, "height", "width"] for each in session.get_inputs() if each.name == "content")
    inputs = {"content": content}
    if kept is not None:
        inputs |= {"style": kept} if isinstance(kept, torch.Tensor) else {f"style.{key}": kept[key] for key in kept}
    taken = {each.name for each in session.get_inputs()}
    output = session.run(None, {key: tensor.numpy() for key, tensor in inputs.items() if key in taken})[0]
    close(torch.from_numpy(output), stylize(model, content, kept), error=1e-3)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_onnx_without_its_packages(package, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"^ONNX is written by a package: pip install {package}$"):
        build("johnson").export_onnx(tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


# Files.


def test_weights_come_back(model, name, tmp_path):
    model.save(tmp_path / "model.safetensors")
    loaded = models.load(name, tmp_path / "model.safetensors")
    content, style = content_of(), style_of(model)
    assert not loaded.training
    close(stylize(loaded, content, style), stylize(model, content, style), error=0)


def refused(name, path, *said, error=ValueError):
    with pytest.raises(error) as caught:
        models.load(name, path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    for words in said:
        assert words in str(caught.value)


def test_weights_that_do_not_fit(model, name, tmp_path):
    path = tmp_path / "model.safetensors"
    refused(name, path, "no weight file", error=FileNotFoundError)
    other = next(each for each in models.SYSTEMS if each != name)
    build(other).save(path)
    refused(name, path, f"is of the system {other}, expected {name}")

    state = model.state_dict()
    key = next(key for key, tensor in state.items() if tensor.dim() > 1)
    broken = state[key].clone()
    broken.view(-1)[-1] = float("nan")
    for tensors, said in (
        ({k: t for k, t in state.items() if k != key}, f"expected {key} {tuple(state[key].shape)}, which is not there"),
        (state | {key: state[key][1:]}, f"{key}: expected shape {tuple(state[key].shape)}, got"),
        (state | {"more": broken}, "more is not of"),
        (state | {key: broken}, f"{key} holds NaN"),
    ):
        models.files.write(path, tensors, "weights", name, model.config)
        refused(name, path, said)


def test_files_that_are_no_weights(name, tmp_path):
    model, path = build(name), tmp_path / "model.safetensors"
    model.save(path)
    whole = path.read_bytes()
    for kept in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:kept])
        refused(name, path, "is not a whole safetensors file, get it again")
    path.write_text("Dear all, enclosed you find")
    refused(name, path, "is no safetensors file")
    for legacy in (True, False):
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=not legacy)
        refused(name, path, "is a pickle, which may run code")


def test_a_style_of_another_network(model, name, tmp_path):
    if (kept := encoded(model)) is None:
        pytest.skip("it keeps no styles")
    path = tmp_path / "style.safetensors"
    models.files.write(path, {"style": torch.ones(1)}, "style", "other", model.config)
    with pytest.raises(ValueError, match=f"is of the system other, expected {name}$"):
        model.load_style(path)
    size = next(size for size in model.config if size not in model.styles_regardless_of)
    models.files.write(path, {"style": torch.ones(1)}, "style", name, model.config | {size: 17})
    with pytest.raises(ValueError, match=rf"is a style of {size}=17, expected"):
        model.load_style(path)
    models.files.write(path, {"more": torch.ones(1)}, "style", name, model.config)
    with pytest.raises((TypeError, ValueError), match=f"{model.__class__.__name__}: style: expected"):
        model.load_style(path)
    model.save(path)
    with pytest.raises(ValueError, match=f"holds weights of {name}, expected style$"):
        model.load_style(path)
    if isinstance(kept, dict):
        kept.pop(next(iter(kept)))
        with pytest.raises(ValueError, match=f"^{model.__class__.__name__}: style: expected what its encode made, got one wi"):
            model.stylize(content_of(), kept | {"more": torch.ones(1)})


def test_sizes_that_are_none(model, name, tmp_path):
    """As of a file of a newer version, or a damaged one."""
    path = tmp_path / "model.safetensors"
    models.files.write(path, model.state_dict(), "weights", name, model.config | {"newer": 1})
    refused(name, path, "sizes: got an unexpected keyword argument 'newer'")
    models.files.write(path, model.state_dict(), "weights", name, model.config | {next(iter(model.config)): {"a": None}})
    refused(name, path, "sizes: ")
    models.files.write(path, model.state_dict(), "weights", name, [1, 2])
    refused(name, path, "what it says about itself is damaged")
    models.files.write(path, model.to(torch.float8_e4m3fn).state_dict(), "weights", name, model.config)
    refused(name, path, "expected float16, bfloat16, float32 or float64, got torch.float8_e4m3fn")


def test_the_same_is_the_same_file(model, tmp_path):
    files = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for path in files:
        model.save(path)
    assert len({path.read_bytes() for path in files}) == 1


# Arguments.


@pytest.mark.parametrize(
    "content, error, message",
    [
        ("photo.png", TypeError, "content: expected a tensor, got str"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "content: expected a floating-point tensor in 0..1"),
        (torch.zeros(3, 8, 8), ValueError, r"content: expected shape \(N, 3, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 0), ValueError, r"content: expected shape \(N, 3, H, W\), got \(1, 3, 8, 0\)"),
        (torch.zeros(1, 3, 8, 8), TypeError, "content: expected the weights' type torch.float64, got torch.float32"),
    ],
    ids=["str", "uint8", "unbatched", "empty", "float32"],
)
def test_wrong_contents_are_named(model, content, error, message):
    with pytest.raises(error, match=f"^{type(model).__name__}: {message}"):
        model.stylize(content, style_of(model))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_0_to_1(model, alpha):
    with pytest.raises(ValueError, match=f"^{type(model).__name__}: alpha: expected a number from 0 to 1, got"):
        model.stylize(content_of(), style_of(model), alpha)


def test_mixtures_that_are_none(model):
    if (style := style_of(model)) is None:
        pytest.skip("it has no styles to mix")
    name = type(model).__name__
    for weights in ([1.0], [0.5, 0.25, 0.25], []):
        with pytest.raises(ValueError, match=f"^{name}: weights: expected one for each of 2 styles, got {len(weights)}$"):
            model.mix([style, style], weights)
    with pytest.raises(ValueError, match=rf"^{name}: weights: expected finite numbers, got \[nan, 1.0\]$"):
        model.mix([style, style], [float("nan"), 1.0])


def test_masks_that_do_not_fit(model):
    style = style_of(model)
    if style is None:
        pytest.skip("it has no styles to choose from")
    with pytest.raises(ValueError, match="styles: expected one at least, got none"):
        model.stylize_regions(content_of(), [], torch.zeros(1, 33, 41).long())
    for mask, message in (
        (torch.zeros(1, 8, 9), r"mask: expected indices|mask: expected weights \(1 or 1, 2, 33, 41\), got \(1, 8, 9\)"),
        (torch.zeros(1, 8, 9).long(), r"mask: expected indices \(1 or 1, 33, 41\), got \(1, 8, 9\)"),
        (torch.full((1, 33, 41), 2), r"mask: expected indices in 0..1, got 2..2"),
    ):
        with pytest.raises(ValueError, match=message):
            model.stylize_regions(content_of(), [style, style], mask)


def test_pickled_models_work(model):
    content, style = content_of(), style_of(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    close(stylize(torch.load(file, weights_only=False), content, style), stylize(model, content, style), error=0)


def test_a_style_for_a_system_that_takes_none(model):
    if style_of(model) is not None:
        pytest.skip("it takes styles")
    name = type(model).__name__
    with pytest.raises(TypeError, match=f"^{name}: style: expected None, for it takes no style, got Tensor$"):
        model.stylize(content_of(), content_of())
    with pytest.raises(TypeError, match=f"^{name}: mix: it takes no style"):
        model.mix([None, None], [0.5, 0.5])
    with pytest.raises(TypeError, match=f"^{name}: stylize_regions: it takes no style"):
        model.stylize_regions(content_of(), [None, None], torch.zeros(1, 33, 41, dtype=torch.int64))
