"""Johnson's two networks against their formulas."""

import literal
import numpy as np
import pytest
import torch
from literal import picture
from torch.nn.functional import interpolate

from fastnorm.models.johnson import Johnson, SuperResolution


def layers(state):
    """Each convolution's name with that of the norm behind it, or None, in the order of the paper's table."""
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    is_norm = {module: state[f"{module}.weight"].ndim == 1 for module in modules}
    behind = [*modules[1:], None]
    return [(module, after if is_norm.get(after) else None) for module, after in zip(modules, behind) if not is_norm[module]]


def johnson(model, content, residual_blocks=2):
    state = literal.arrays(model)
    names = iter(layers(state))

    def layer(x, stride=1):
        conv, norm = next(names)
        weight = state[f"{conv}.weight"]
        x = literal.conv(literal.mirror(x, weight.shape[-1] // 2), weight, stride)
        return literal.instance_norm(x, state[f"{norm}.weight"], state[f"{norm}.bias"])

    x = literal.relu(layer(content))
    x = literal.relu(layer(x, 2))
    x = literal.relu(layer(x, 2))
    for _ in range(residual_blocks):
        x = x + layer(literal.relu(layer(x)))
    x = literal.relu(layer(literal.upsample(x)))
    x = literal.relu(layer(literal.upsample(x)))
    last, norm = next(names)
    assert norm is None and next(names, None) is None
    return literal.sigmoid(literal.mirrored_conv(x, state, last))


@pytest.mark.parametrize("alpha", [1.0, 0.25])
def test_johnson_is_the_formulas(alpha):
    model = literal.randomize(Johnson(widths=(4, 5, 6), residual_blocks=2))
    content = picture(1, 3, 16, 28).double()
    expected = alpha * johnson(model, content[0].numpy()) + (1 - alpha) * content[0].numpy()
    with torch.no_grad():
        np.testing.assert_allclose(model.stylize(content, alpha=alpha)[0], expected, rtol=0, atol=1e-9)


def super_resolution(model, content, steps, residual_blocks=2):
    state = {key: array for key, array in literal.arrays(model).items() if not key.endswith("num_batches_tracked")}
    names = iter(layers(state))

    def layer(x):
        conv, norm = next(names)
        weight = state[f"{conv}.weight"]
        x = literal.conv(literal.mirror(x, weight.shape[-1] // 2), weight)
        mean, var, scale, shift = (
            state[f"{norm}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * scale + shift

    x = literal.relu(layer(content))
    for _ in range(residual_blocks):
        x = x + layer(literal.relu(layer(x)))
    for _ in range(steps):
        x = literal.relu(layer(literal.upsample(x)))
    return literal.sigmoid(literal.mirrored_conv(x, state, next(names)[0]))


@pytest.mark.parametrize("scale", [2, 4])
def test_super_resolution_is_the_formulas(scale):
    model = literal.randomize(SuperResolution(scale, width=6, residual_blocks=2))
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if not name.endswith("num_batches_tracked"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    content = picture(1, 3, 9, 14).double()
    expected = super_resolution(model, content[0].numpy(), {2: 1, 4: 2}[scale])
    with torch.no_grad():
        output = model.enlarge(content)
        np.testing.assert_allclose(output[0], expected, rtol=0, atol=1e-9)
        bicubic = interpolate(content, scale_factor=scale, mode="bicubic")
        torch.testing.assert_close(model.stylize(content, alpha=0.25), 0.25 * output + 0.75 * bicubic)


@pytest.mark.parametrize("scale", [0, 1, 3, 6])
def test_scales_that_are_no_powers_of_2(scale):
    with pytest.raises(ValueError, match=f"^SuperResolution: scale: expected a power of 2 from 2 up, got {scale}$"):
        SuperResolution(scale)
