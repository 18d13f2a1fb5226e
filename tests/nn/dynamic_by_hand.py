"""Convolutions with a filter per sample, in float64 from the formulas: one sample after the other, padded maps and all."""

import torch
from torch.nn.functional import adaptive_avg_pool2d, conv2d
from torch.nn.functional import pad as torch_pad


def normalised(content, eps=1e-5):
    var, mean = torch.var_mean(content, dim=(2, 3), correction=0, keepdim=True)
    return (content - mean) / (var + eps).sqrt()


def around(kernel, dilation):
    """Padding that keeps the size: before and after in each dimension, the odd one after."""
    totals = [step * (width - 1) for width, step in zip(kernel, dilation)]
    return [(total // 2, total - total // 2) for total in totals]


def padded(map, sides, mode):
    (top, bottom), (left, right) = sides
    return torch_pad(map, (left, right, top, bottom), mode="constant" if mode == "zeros" else mode)


def convolved(map, weight, bias, stride=1, dilation=(1, 1), groups=1, mode="reflect", sides=None):
    map = padded(map, around(weight.shape[3:], dilation) if sides is None else sides, mode)
    return torch.cat([
        conv2d(map[n : n + 1], weight[n], None if bias is None else bias[n], stride, 0, dilation, groups)
        for n in range(len(map))
    ])  # fmt: skip


def style_net(state, name, style, size):
    """Convolution, ReLU, convolution, pool, in the paper's order."""
    hidden = conv2d(padded(style, [(1, 1), (1, 1)], "replicate"), state[f"{name}.first.weight"], state[f"{name}.first.bias"])
    return adaptive_avg_pool2d(conv2d(hidden.relu(), state[f"{name}.last.weight"], state.get(f"{name}.last.bias")), size)
