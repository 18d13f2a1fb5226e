"""covariance against torch.bmm of the centred map with itself. What was learned about its kernel is at `gram_matrix`."""

import torch

from . import gram_matrix

KINDS = ("unbiased",)
SHAPES = {"unbiased": gram_matrix.SHAPES["centered"]}


def arguments(make, shape, kind="unbiased"):
    return dict(input=make(*shape))


def flops(shape, kind, backward):
    return gram_matrix.flops(shape, kind, backward)


def eager(input):
    planes = input.flatten(2)
    planes = planes - planes.mean(2, keepdim=True)
    return torch.bmm(planes, planes.mT) / (planes.shape[2] - 1)


def idiom(input):
    return torch.stack([torch.cov(sample.flatten(1)) for sample in input])
