"""Layer normalisation of maps: each sample by the statistics of all its planes."""

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
    """(input - mean) * rstd * weight + bias, with a mean and a deviation for each sample of (N, C, *).

    weight and bias (C,) or (N, C); eps, correction and eps_mode as in `functional.instance_stats`.
    """
    mean, rstd = sample_statistics(functional.instance_stats(input, 0.0), input, eps, correction, eps_mode)
    mean, rstd = mean.expand(input.shape[:2]), rstd.expand(input.shape[:2])
    return functional.scale_shift(input, mean, rstd if weight is None else rstd * weight, bias)


def sample_statistics(of_planes, input, eps, correction, eps_mode):
    """Mean and 1 / deviation of each sample, (N, 1), from those of its planes, (N, C), taken with eps and correction of 0."""
    mean, rstd = of_planes
    count = input.shape[1:].numel()
    # A constant plane has an infinite rstd.
    var = rstd.reciprocal().square()
    center = mean.mean(1, keepdim=True)
    var = (var + (mean - center).square()).mean(1, keepdim=True) * (count / (count - correction))
    return center, (var + eps).rsqrt() if eps_mode == "var" else 1 / (var.sqrt() + eps)
