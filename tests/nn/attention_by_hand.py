"""Attention to a style in float64, from the formulas: one sample and one position after the other."""

import torch

from fastnorm import nn


def conv_1x1(state, name, map):
    return torch.einsum("oi,nihw->nohw", state[f"{name}.weight"][..., 0, 0], map) + state[f"{name}.bias"].view(-1, 1, 1)


def normalised(map, eps):
    """By the unbiased variance."""
    mean = map.mean((2, 3), keepdim=True)
    var = (map - mean).square().sum((2, 3), keepdim=True) / (map[0, 0].numel() - 1)
    return (map - mean) / (var + eps).sqrt()


def attended(query, key, value, min_var):
    """The weighted mean and deviation, maps of the query's size."""
    found = [_of_sample(*maps, min_var) for maps in zip(query.flatten(2), key.flatten(2), value.flatten(2))]
    size = query.shape[2:]
    return tuple(torch.stack(maps).unflatten(2, size) for maps in zip(*found))


def _of_sample(query, key, value, min_var):
    means, deviations = [], []
    for position in query.unbind(1):
        scores = torch.stack([key[:, k] @ position for k in range(key.shape[1])])
        weights = (scores - scores.max()).exp()
        weights = weights / weights.sum()
        mean = sum(weight * value[:, k] for k, weight in enumerate(weights))
        var = sum(weight * (value[:, k] - mean).square() for k, weight in enumerate(weights))
        is_small = var <= min_var
        means.append(mean)
        deviations.append(torch.where(is_small, min_var**0.5, torch.where(is_small, 1.0, var).sqrt()))
    return torch.stack(means, 1), torch.stack(deviations, 1)


def _random(n, shapes, dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, *shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


class AdaAttN:
    """The module on small maps, and its formula."""

    output = 3, 5, 4

    @staticmethod
    def make(*arguments, key_planes=4, dtype=torch.float64, **settings):
        torch.manual_seed(0)
        return nn.AdaAttN(*(arguments or (3,)), key_planes=key_planes, dtype=dtype, **settings)

    @staticmethod
    def maps(n=2, content_size=(5, 4), style_size=(3, 7), dtype=torch.float64):
        """Content, style and their keys."""
        return _random(n, [(planes, *size) for planes in (3, 4) for size in (content_size, style_size)], dtype)

    @staticmethod
    def by_hand(state, content, style, content_key, style_key, eps=1e-5, min_var=0.0):
        query, key = conv_1x1(state, "f", content_key), conv_1x1(state, "g", style_key)
        mean, std = attended(query, key, conv_1x1(state, "h", style), min_var)
        return std * normalised(content, eps) + mean


class SANet:
    """The module on small maps, and its formula."""

    output = 4, 5, 4

    @staticmethod
    def make(dtype=torch.float64, **settings):
        torch.manual_seed(0)
        return nn.SANet(4, dtype=dtype, **settings)

    @staticmethod
    def maps(n=2, content_size=(5, 4), style_size=(3, 7), dtype=torch.float64):
        return _random(n, [(4, *size) for size in (content_size, style_size)], dtype)

    @staticmethod
    def by_hand(state, content, style, eps=1e-5):
        query, key = conv_1x1(state, "f", normalised(content, eps)), conv_1x1(state, "g", normalised(style, eps))
        mean, _ = attended(query, key, conv_1x1(state, "h", style), 0.0)
        return conv_1x1(state, "out_conv", mean) + content


def leaves(module, inputs):
    return [tensor.requires_grad_() for tensor in (*inputs, *module.parameters())]


def assert_is_the_formula(case, inputs, **rule):
    """And its gradients."""
    module = case.make(**rule)
    tensors = leaves(module, inputs)
    found, expected = module(*inputs), case.by_hand(dict(module.named_parameters()), *inputs, **rule)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    factor = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for actual, right in zip(*(torch.autograd.grad(output, tensors, factor) for output in (found, expected))):
        torch.testing.assert_close(actual, right, rtol=1e-8, atol=1e-9)
