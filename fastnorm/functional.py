"""What a user calls, in the style of torch.nn.functional.

Maps have shape (N, C, *), with one spatial dimension or more, in float32, float64, bfloat16 or float16, contiguous or
channels_last; outputs keep type and layout. Arithmetic is in float32, or float64 for float64. Parameters may be of any
floating-point type. Numbers (eps, alpha, momentum, ...) are Python's, not tensors. ValueError and TypeError name the
argument, what was expected and what came.

`FASTNORM_BACKEND=reference` runs the plain PyTorch definitions instead of kernels: for comparison, and for exporting to
formats that know only torch's own operators.
"""

import torch
from torch import Tensor

from . import ops
from ._checks import (
    check_activation,
    check_map,
    check_number,
    check_per_plane,
    check_running_statistics,
    check_same_device,
    check_same_shape,
    check_statistics_settings,
    check_styles,
)
from .ops import backends


def instance_stats(input: Tensor, eps: float = 1e-5, correction: int = 0, eps_mode: str = "var") -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of each plane.

    Args:
        input: (N, C, *).
        eps: added to the variance, or to the standard deviation.
        correction: 0 for the biased variance, 1 for the unbiased.
        eps_mode: "var" for 1 / sqrt(var + eps), "std" for 1 / (sqrt(var) + eps).

    Returns:
        (mean, rstd), each (N, C) in float32, or float64 for a float64 input. Both can be differentiated; where a plane
        is constant and rstd infinite, the gradient is 0.
    """
    check_map("instance_stats", input)
    check_statistics_settings("instance_stats", input, eps, correction, eps_mode)
    return _run(ops.instance_stats)(input, eps, correction, eps_mode)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """torch.nn.functional.instance_norm, with parameters per sample, residual and activation in the same pass.

        activation((input - mean) / sqrt(var + eps) * weight + bias + residual)

    Ulyanov et al. 2016, arXiv:1607.08022. The variance is biased.

    Args:
        input: (N, C, *), with more than one element in a plane when its own statistics are used.
        running_mean, running_var: (C,), updated in place by `momentum` (with the unbiased variance, as torch does) when
            `use_input_stats`, used for the normalisation when not.
        weight, bias: (C,), or (N, C) for an affine map per sample.
        activation: None, "relu", "leaky_relu" (with `negative_slope`), "silu" or "gelu".
        residual: the input's shape; added before the activation.
    """
    size = check_map("instance_norm", input)
    if weight is not None:
        check_per_plane("instance_norm", "weight", weight, input)
    if bias is not None:
        check_per_plane("instance_norm", "bias", bias, input)
    if residual is not None:
        residual = check_same_shape("instance_norm", "residual", residual, input)
    check_activation("instance_norm", activation, negative_slope)
    check_number("instance_norm", "eps", eps, 0)
    if not (use_input_stats and running_mean is None and running_var is None):
        check_running_statistics("instance_norm", running_mean, running_var, momentum, input)
    if not use_input_stats:
        scale = _inverse_deviation(running_var, eps, input)
        scale = scale if weight is None else scale * weight
        return _run(ops.scale_shift)(input, running_mean, scale, bias, None, residual, activation, negative_slope)
    if size == 1:
        raise ValueError(
            f"instance_norm: input: expected more than 1 element in a plane, got planes of {tuple(input.shape[2:])}"
        )
    output = _run(ops.instance_norm)(
        input, weight, bias, residual=residual, eps=eps, activation=activation, negative_slope=negative_slope
    )
    if running_mean is not None:
        _update_running_statistics(running_mean, running_var, input, momentum)
    return output


def _inverse_deviation(running_var, eps, input):
    """In the wider type of the two, float32 at least."""
    wide = torch.promote_types(running_var.dtype, torch.promote_types(input.dtype, torch.float32))
    return (running_var.to(wide) + eps).rsqrt()


@torch.no_grad()
def _update_running_statistics(running_mean, running_var, input, momentum):
    """torch's rule: the mean over samples, with the unbiased variance."""
    if input.shape[0] == 0:
        return
    # Those of the norm have eps in them, beside which a small variance is lost.
    mean, rstd = _run(ops.instance_stats)(input, eps=0.0, correction=1)
    # A constant plane has an infinite rstd, whose reciprocal is 0.
    var = rstd.reciprocal().square()
    running_mean.lerp_(mean.mean(0).to(running_mean.dtype), momentum)
    running_var.lerp_(var.mean(0).to(running_var.dtype), momentum)


def adain(
    content: Tensor,
    style: Tensor | tuple[Tensor, Tensor],
    alpha: float = 1.0,
    eps: float = 1e-5,
    correction: int = 0,
    *,
    eps_mode: str = "var",
    style_eps: float | None = None,
    style_correction: int | None = None,
) -> Tensor:
    """Adaptive instance normalisation: the content with the mean and deviation of the style.

        alpha * ((content - mean(content)) / std(content) * std(style) + mean(style)) + (1 - alpha) * content

    Huang and Belongie 2017, arXiv:1703.06868.

    Args:
        content: (N, C, *).
        style: a feature map (N or 1, C, *) of any size, or its statistics (mean, std), each (C,), (1, C) or (N, C).
        alpha: a Python number; 1 for the style in full, 0 for the content.
        eps, correction, eps_mode: how a standard deviation is taken, as in `instance_stats`.
        style_eps, style_correction: the same for the style, where it differs: the first published code has 0 and 1.
    """
    check_map("adain", content, "content")
    check_number("adain", "alpha", alpha)
    check_statistics_settings("adain", content, eps, correction, eps_mode)
    if isinstance(style, Tensor):
        check_map("adain", style, "style")
        check_same_device("adain", "style", style, content)
        if style.shape[1] != content.shape[1] or style.shape[0] not in (1, content.shape[0]):
            n, c = content.shape[:2]
            raise ValueError(f"adain: style: expected {c} channels and {n} samples or 1, got {tuple(style.shape)}")
        check_statistics_settings(
            "adain", style, eps if style_eps is None else style_eps,
            correction if style_correction is None else style_correction, eps_mode, "style_",
        )  # fmt: skip
    elif isinstance(style, (tuple, list)) and len(style) == 2:
        check_per_plane("adain", "style mean", style[0], content, shared_samples=True)
        check_per_plane("adain", "style std", style[1], content, shared_samples=True)
    else:
        raise TypeError(f"adain: style: expected a feature map or a pair (mean, std), got {type(style).__name__}")
    return _run(ops.adain)(content, style, alpha, eps, correction, eps_mode, style_eps, style_correction)


def conditional_instance_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    style: Tensor,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """Instance normalisation with the affine map of a style, or of a mixture of styles.

        activation((input - mean) / sqrt(var + eps) * weight[style] + bias[style] + residual)

    Dumoulin et al. 2017, arXiv:1610.07629.

    Args:
        input: (N, C, *).
        weight, bias: (S, C), a row for each style.
        style: (N,) int64 or int32, a style for each sample, or (N, S) floating point, the weights of a mixture.

    Raises:
        IndexError: a style that is no row. On a GPU the look-up itself fails, later.
    """
    name = "conditional_instance_norm"
    check_map(name, input)
    check_styles(name, weight, bias, style, input)
    check_number(name, "eps", eps, 0)
    if residual is not None:
        residual = check_same_shape(name, "residual", residual, input)
    check_activation(name, activation, negative_slope)
    try:
        return _run(ops.conditional_instance_norm)(input, weight, bias, style, eps, activation, residual, negative_slope)
    except IndexError:
        raise IndexError(f"{name}: style: expected indices in 0..{weight.shape[0] - 1}, got {style.tolist()}") from None


def spatially_adaptive_norm(
    input: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float = 1e-5,
    *,
    correction: int = 0,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """Instance normalisation with a scale and a shift per pixel.

        activation((input - mean) / sqrt(var + eps) * (1 + gamma) + beta)

    SPADE, Park et al. 2019, arXiv:1903.07291.

    Args:
        input, gamma, beta: (N, C, *).
    """
    name = "spatially_adaptive_norm"
    check_map(name, input)
    gamma = check_same_shape(name, "gamma", gamma, input)
    beta = check_same_shape(name, "beta", beta, input)
    check_statistics_settings(name, input, eps, correction, "var")
    check_activation(name, activation, negative_slope)
    return _run(ops.spatially_adaptive_norm)(input, gamma, beta, eps, correction, activation, negative_slope)


def layer_instance_norm(
    input: Tensor,
    rho: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    correction: int = 0,
    activation: str | None = None,
    residual: Tensor | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """A blend of instance and layer normalisation, learned per channel.

        activation((rho * IN(input) + (1 - rho) * LN(input)) * weight + bias + residual)

    U-GAT-IT, Kim et al. 2020, arXiv:1907.10830, whose code has correction=1.

    Args:
        input: (N, C, *).
        rho: (C,) or (N, C), in 0..1: 1 is instance, 0 is layer normalisation.
        weight, bias: (C,), or (N, C) for an affine map per sample.
    """
    name = "layer_instance_norm"
    check_map(name, input)
    check_per_plane(name, "rho", rho, input)
    if weight is not None:
        check_per_plane(name, "weight", weight, input)
    if bias is not None:
        check_per_plane(name, "bias", bias, input)
    if residual is not None:
        residual = check_same_shape(name, "residual", residual, input)
    check_statistics_settings(name, input, eps, correction, "var")
    check_activation(name, activation, negative_slope)
    return _run(ops.layer_instance_norm)(
        input, rho, weight, bias, eps, correction, activation, residual, negative_slope
    )


def scale_shift(
    input: Tensor,
    mean: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    gamma: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """An affine map per plane and one per pixel, a residual and an activation, in one pass.

        activation(((input - mean) * scale + shift) * (1 + gamma) + residual)

    What is left of a normalisation whose statistics are known: FiLM, a batch norm in eval mode.

    Args:
        input, gamma, residual: (N, C, *).
        mean, scale, shift: (C,) or (N, C).
    """
    check_map("scale_shift", input)
    for name, parameter in (("mean", mean), ("scale", scale), ("shift", shift)):
        if parameter is not None:
            check_per_plane("scale_shift", name, parameter, input)
    if gamma is not None:
        gamma = check_same_shape("scale_shift", "gamma", gamma, input)
    if residual is not None:
        residual = check_same_shape("scale_shift", "residual", residual, input)
    check_activation("scale_shift", activation, negative_slope)
    return _run(ops.scale_shift)(input, mean, scale, shift, gamma, residual, activation, negative_slope)


def _run(room):
    """The operator itself, or its reference where that is asked for."""
    return room.reference if backends.reference() else room.OPERATOR.run
