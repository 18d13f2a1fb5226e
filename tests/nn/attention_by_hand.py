"""Attention to a style in float64, from the formulas: one sample and one position after the other."""

import torch


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
