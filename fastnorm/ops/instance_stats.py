"""instance_stats: mean and inverse standard deviation of each plane of a map.

    mean = sum(x) / n,  var = sum((x - mean)^2) / (n - correction)
    rstd = 1 / sqrt(var + eps)        eps_mode "var": inside the root, the usual rule
    rstd = 1 / (sqrt(var) + eps)      eps_mode "std": outside it

Both published rules occur (Ulyanov et al. 2016, arXiv:1607.08022, and torch have the first).

At least, per element: one read; 4 flops.
"""

import math

import torch

from ._layout import empty_statistic, per_plane, widen
from ._library import define, differentiable
from ._operator import Operator, Sample
from .scale_shift import scale_shift

EPS_MODES = {"var": False, "std": True}


def instance_stats(input, eps=1e-5, correction=0, eps_mode="var"):
    return forward(input, eps, correction, EPS_MODES[eps_mode])


def reference(input, eps=1e-5, correction=0, eps_mode="var"):
    return formula(input, eps, correction, EPS_MODES[eps_mode])


def formula(input, eps, correction, eps_on_std):
    planes = widen(input).flatten(2)
    mean = planes.mean(2, keepdim=True)
    # Far from zero a mean is off by a few last places, which what the deviations from it sum to puts right.
    mean = mean + (planes - mean).mean(2, keepdim=True)
    var = (planes - mean).square().sum(2) / (planes.shape[2] - correction)
    return mean.squeeze(2), 1 / (var.sqrt() + eps) if eps_on_std else (var + eps).rsqrt()


def _definition(input, eps, correction, eps_on_std):
    return tuple(statistic.contiguous() for statistic in formula(input, eps, correction, eps_on_std))


def _fake(input, eps, correction, eps_on_std):
    return empty_statistic(input), empty_statistic(input)


_forward_kernel = define(
    "instance_stats",
    "(Tensor input, float eps, int correction, bool eps_on_std) -> (Tensor mean, Tensor rstd)",
    _definition,
    _fake,
)


def plane_size(input):
    return math.prod(input.shape[2:])


def through_rstd(grad_rstd, rstd, inverse_root, correction, size):
    """The gradient of rstd is (x - mean) times this. 0 for a plane without variance, where the root has no derivative."""
    # In this order, for the square of a large rstd may be infinite.
    scale = grad_rstd * rstd * (rstd * inverse_root / (correction - size))
    return torch.where(torch.isfinite(inverse_root), scale, 0)


def _save(ctx, inputs, output):
    input, ctx.eps, ctx.correction, ctx.eps_on_std = inputs
    ctx.save_for_backward(input, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_mean, grad_rstd):
    """The gradient of a statistic is an affine map of the input itself."""
    input, mean, rstd = ctx.saved_tensors
    size = plane_size(input)
    scale = shift = None
    if grad_rstd is not None:
        # 1 / (1 / rstd - eps) would cancel where a deviation is small beside eps.
        inverse_root = forward(input, 0.0, ctx.correction, False)[1] if ctx.eps_on_std else rstd
        scale = through_rstd(grad_rstd, rstd, inverse_root, ctx.correction, size)
    if grad_mean is not None:
        shift = grad_mean / size
    if scale is None:
        grad_input = per_plane(shift, input).to(input.dtype).expand_as(input)
    else:
        grad_input = scale_shift(input, mean, scale, shift)
    return grad_input, None, None, None


forward = differentiable(_forward_kernel, _definition, _save, _backward)


def _samples(make, shape):
    yield Sample("eps inside the root", (make(*shape),))
    yield Sample("unbiased, eps outside", (make(*shape),), dict(eps=1e-3, correction=1, eps_mode="std"))


OPERATOR = Operator(
    "instance_stats",
    instance_stats,
    reference, _samples, kernels=("instance_stats", "scale_shift"), maps=1, backward_maps=2, flops=4
)
