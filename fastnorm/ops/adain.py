"""adain: give each plane of the content the mean and deviation of the style's plane.

    normed = (content - mean(content)) / std(content) * std(style) + mean(style)       Huang and Belongie 2017,
    output = alpha * normed + (1 - alpha) * content                                    arXiv:1703.06868

It is the statistics of the style, and an instance norm with those as weight and bias; no kernel of its own. Published
systems disagree on the deviation, so each side has its eps and correction.

At least, per element: two reads (content, style) and one write; 11 flops.
"""

import torch

from . import instance_norm, instance_stats
from ._operator import Operator, Sample


def adain(content, style, alpha=1.0, eps=1e-5, correction=0, eps_mode="var", style_eps=None, style_correction=None):
    if isinstance(style, torch.Tensor):
        style = _mean_std(instance_stats.instance_stats, style, eps, correction, eps_mode, style_eps, style_correction)
    mean, std = style
    return instance_norm.instance_norm(
        content, weight=std, bias=mean, eps=eps, correction=correction, eps_mode=eps_mode, alpha=alpha
    )


def reference(content, style, alpha=1.0, eps=1e-5, correction=0, eps_mode="var", style_eps=None, style_correction=None):
    if isinstance(style, torch.Tensor):
        style = _mean_std(instance_stats.reference, style, eps, correction, eps_mode, style_eps, style_correction)
    mean, std = style
    return instance_norm.reference(
        content, weight=std, bias=mean, eps=eps, correction=correction, eps_mode=eps_mode, alpha=alpha
    )


def _mean_std(stats, style, eps, correction, eps_mode, style_eps, style_correction):
    mean, rstd = stats(
        style, eps if style_eps is None else style_eps, correction if style_correction is None else style_correction, eps_mode
    )
    return mean, 1 / rstd


def _samples(make, shape):
    n, c, *plane = shape
    wider = (n, c, *(size + 1 for size in plane))
    yield Sample("map", (make(*shape), make(*wider)))
    yield Sample("one style for all, half-way", (make(*shape), make(1, *wider[1:])), dict(alpha=0.5))
    yield Sample("statistics", (make(*shape), (make(n, c), make(n, c))), dict(alpha=0.8, correction=1))
    yield Sample("eps outside the root", (make(*shape), make(*shape)), dict(eps_mode="std", eps=1e-3, correction=1))
    yield Sample("as first published", (make(*shape), make(*wider)), dict(style_eps=0.0, style_correction=1))


OPERATOR = Operator(
    "adain",
    adain,
    reference,
    _samples,
    kernels=("instance_stats", "scale_shift", "instance_norm", "instance_norm_backward"),
    maps=3,
    backward_maps=5,
    flops=11,
)
