"""layer_instance_norm against F.instance_norm and F.group_norm, and against the form that U-GAT-IT publishes."""

import torch
import torch.nn.functional as F

from ._forms import over_planes


def arguments(make, shape):
    c = shape[1]
    return dict(input=make(*shape), rho=make(c).sigmoid(), weight=make(c), bias=make(c))


def eager(input, rho, weight, bias):
    rho = over_planes(rho, input)
    blended = torch.lerp(F.group_norm(input, 1), F.instance_norm(input), rho)
    return torch.addcmul(over_planes(bias, input), blended, over_planes(weight, input))


def idiom(input, rho, weight, bias):
    rho = over_planes(rho, input)
    blended = rho * _normed(input, first_dim=2) + (1 - rho) * _normed(input, first_dim=1)
    return blended * over_planes(weight, input) + over_planes(bias, input)


def _normed(input, first_dim, eps=1e-5):
    dims = list(range(first_dim, input.dim()))
    mean, var = input.mean(dims, keepdim=True), input.var(dims, unbiased=False, keepdim=True)
    return (input - mean) / torch.sqrt(var + eps)
