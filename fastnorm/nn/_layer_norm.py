"""Norms by the statistics of whole samples, made of those of their planes: they cost no pass over the map of their own."""

from torch import Tensor

from .. import functional


def layer_norm(
    input: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    correction: int = 0,
    eps_mode: str = "var",
) -> Tensor:
    """(input - mean) * rstd * weight + bias, with one mean and one deviation for each sample of (N, C, *).

    weight and bias (C,) or (N, C); eps, correction and eps_mode as in `functional.instance_stats`.
    """
    of_planes = functional.instance_stats(input, 0.0)
    mean, scale, shift = affine_of_samples(of_planes, weight, bias, input, eps, correction, eps_mode)
    return functional.scale_shift(input, mean, scale, shift)


def affine_of_samples(of_planes, weight, bias, input, eps, correction, eps_mode):
    """(mean, scale, shift) of each plane, for a norm by samples; `of_planes` are mean and rstd with eps and correction of 0."""
    center, var, _ = _variances(of_planes, input, correction)
    rstd = ((var + eps).rsqrt() if eps_mode == "var" else 1 / (var.sqrt() + eps)).expand(input.shape[:2])
    return center.expand(input.shape[:2]), rstd if weight is None else rstd * weight, bias


def affine_of_blend(of_planes, rho, weight, bias, input, eps, correction):
    """The same for rho * IN + (1 - rho) * LN, rho (C,) or (N, C): as a norm by planes whose scale and shift make up for it."""
    mean, _ = of_planes
    center, var, var_of_planes = _variances(of_planes, input, correction)
    of_samples = (1 - rho) * (var + eps).rsqrt()
    scale = rho * (var_of_planes + eps).rsqrt() + of_samples
    shift = (mean - center) * of_samples
    if weight is not None:
        scale, shift = scale * weight, shift * weight
    return mean, scale, shift if bias is None else shift + bias


def _variances(of_planes, input, correction):
    """Mean and variance of each sample, (N, 1), and variance of each plane."""
    mean, rstd = of_planes
    plane, sample = input.shape[2:].numel(), input.shape[1:].numel()
    # A constant plane has an infinite rstd.
    var = rstd.reciprocal().square()
    center = mean.mean(1, keepdim=True)
    of_samples = (var + (mean - center).square()).mean(1, keepdim=True)
    if not correction:
        return center, of_samples, var
    return center, of_samples * (sample / (sample - correction)), var * (plane / (plane - correction))
