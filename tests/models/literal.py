"""What the systems are made of, from the formulas: numpy in float64, one picture (C, H, W), no operator under test."""

import numpy as np
import torch


def arrays(module):
    return {key: tensor.double().numpy() for key, tensor in module.state_dict().items()}


def mirror(x, pad):
    return np.pad(x, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")


def mirror_to_multiple_of_4(x):
    height, width = (max(8, -(-size // 4) * 4) - size for size in x.shape[1:])
    return np.pad(x, ((0, 0), (0, height), (0, width)), mode="reflect")


def same(x, kernel_size, stride):
    """TensorFlow's SAME padding: zeros until ceil(size / stride) windows fit, the odd one at the end."""
    pads = [(0, 0)]
    for size in x.shape[1:]:
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, pads)


def conv(x, weight, stride=1, groups=1):
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    parts = zip(np.split(windows, groups), np.split(weight, groups))
    return np.concatenate([np.einsum("ihwyx,oiyx->ohw", part, filters) for part, filters in parts])


def transposed_conv(x, weight, stride, padding, output_padding=0):
    """Each element of x adds the filter times itself, `stride` apart; `padding` is cut off. weight (in, out, k, k)."""
    size = weight.shape[-1]
    height, width = ((side - 1) * stride + size + output_padding for side in x.shape[1:])
    output = np.zeros((weight.shape[1], height, width))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            at = output[:, row * stride : row * stride + size, column * stride : column * stride + size]
            at += np.einsum("i,ioyx->oyx", x[:, row, column], weight)
    return output[:, padding : height - padding, padding : width - padding]


def mirrored_conv(x, state, name, stride=1):
    """A mirror-padded convolution of the module `name`, with its bias."""
    weight = state[f"{name}.weight"]
    return conv(mirror(x, weight.shape[-1] // 2), weight, stride) + state[f"{name}.bias"][:, None, None]


def circular_conv(x, weight):
    """A convolution that reads the opposite side beyond a border."""
    pad = weight.shape[-1] // 2
    return conv(np.pad(x, ((0, 0), (pad, pad), (pad, pad)), mode="wrap"), weight)


def max_pool(x):
    """2x2 maxima, of an odd last row and column, too."""
    height, width = (size % 2 for size in x.shape[1:])
    x = np.pad(x, ((0, 0), (0, height), (0, width)), constant_values=-np.inf)
    return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4))


def vgg19(state, x, last):
    """Features of one picture (3, H, W) at every layer up to `last`, by name: {"relu1_1": ...}."""
    x = conv(x, state["encoder.preprocess.weight"]) + state["encoder.preprocess.bias"][:, None, None]
    features = {}
    for stage, count in enumerate((2, 2, 4, 4, 1), 1):
        x = max_pool(x) if stage > 1 else x
        for i in range(1, count + 1):
            x = features[f"relu{stage}_{i}"] = relu(mirrored_conv(x, state, f"encoder.conv{stage}_{i}"))
            if f"relu{stage}_{i}" == last:
                return features


def stage_back(x, state, name, convolutions):
    """What mirrors a stage of VGG-19 and its maximum, by the name of the module."""
    x = upsample(relu(mirrored_conv(x, state, f"{name}.0")))
    for place in range(3, 3 + 2 * convolutions, 2):
        x = relu(mirrored_conv(x, state, f"{name}.{place}"))
    return x


def centred(x):
    """Deviations (C, H * W) from the mean, and that."""
    planes = x.reshape(len(x), -1)
    mean = planes.mean(1, keepdims=True)
    return planes - mean, mean


def covariance_power(planes, exponent, least=1e-5):
    """Of centred planes; directions of no more variance than `least` are left out."""
    values, vectors = np.linalg.eigh(planes @ planes.T / (planes.shape[1] - 1))
    kept = values > least
    return (vectors[:, kept] * values[kept] ** exponent) @ vectors[:, kept].T


def relu(x):
    return np.maximum(x, 0)


def leaky_relu(x, slope=0.01):
    return np.where(x > 0, x, slope * x)


def instance_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean((1, 2), keepdims=True)
    normed = centred / np.sqrt((centred**2).mean((1, 2), keepdims=True) + eps)
    return normed * weight[:, None, None] + bias[:, None, None]


def running_norm(x, state, name, eps=1e-5):
    """A batch norm in eval mode, of the module `name`."""
    kinds = "running_mean", "running_var", "weight", "bias"
    mean, var, weight, bias = (state[f"{name}.{kind}"][:, None, None] for kind in kinds)
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def upsample(x):
    return x.repeat(2, 1).repeat(2, 2)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalised(x, eps=1e-5):
    """By the unbiased variance."""
    return (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), ddof=1, keepdims=True) + eps)


def attended(query, key, value):
    """Mean and deviation of a value's positions, weighted by the attention of a query's to those of the key."""
    key, value = key.reshape(len(key), -1), value.reshape(len(value), -1)
    scores = np.einsum("kp,khw->phw", key, query)
    weights = np.exp(scores - scores.max(0))
    weights = weights / weights.sum(0)
    mean = np.einsum("dp,phw->dhw", value, weights)
    squares = (value[:, :, None, None] - mean[:, None]) ** 2
    return mean, np.sqrt(np.einsum("dphw,phw->dhw", squares, weights))


def blended(model, content, parts, alpha, attended, decoded):
    """A system that attends, of parts (weight, style), a weight being a number or a mask (H, W); maps are blended."""
    state = arrays(model)
    of_content, *of_styles = (vgg19(state, x[0].numpy(), "relu5_1") for x in (content, *(style for _, style in parts)))
    maps = {stage: (1 - alpha) * map for stage, map in attended(model, of_content, of_content).items()}
    for (weight, _), of_style in zip(parts, of_styles):
        for stage, map in attended(model, of_content, of_style).items():
            maps[stage] = maps[stage] + alpha * averages(weight, map.shape[1:]) * map
    return decoded(model, maps)


def averages(mask, size):
    """A mask (H, W), of multiples of the size, averaged over squares; a number is itself."""
    if np.ndim(mask) == 0:
        return mask
    return mask.reshape(size[0], mask.shape[0] // size[0], size[1], mask.shape[1] // size[1]).mean((1, 3))


def randomize(module, seed=0):
    """Every parameter random, in float64: a default of one or zero would hide a swapped or forgotten one."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.eval()


def picture(*shape, seed=0):
    """A soft picture in 0..1, float32: random colours on a coarse grid, interpolated."""
    *batch, height, width = shape
    coarse = torch.rand(*batch, -(-height // 8) + 1, -(-width // 8) + 1, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
