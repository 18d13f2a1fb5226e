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
    as_type_of,
    check_activation,
    check_attention,
    check_bins,
    check_channels,
    check_colors,
    check_filter_bias,
    check_filters,
    check_flag,
    check_groups,
    check_integer,
    check_layer_filters,
    check_map,
    check_mask,
    check_number,
    check_output_statistics,
    check_patch_index,
    check_patch_size,
    check_patches,
    check_per_plane,
    check_roots,
    check_running_statistics,
    check_same_device,
    check_same_shape,
    check_sizes,
    check_statistics_rule,
    check_statistics_settings,
    check_styles,
    check_tensor,
    check_transposed_filters,
    check_transposed_window,
    check_up_to_volumes,
    check_upsampling,
    check_window,
)
from .ops import backends
from .ops._window import per_dimension


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
    correction: int = 0,
    eps_mode: str = "var",
) -> Tensor:
    """torch.nn.functional.instance_norm, with parameters per sample, residual and activation in the same pass.

        activation((input - mean) / sqrt(var + eps) * weight + bias + residual)

    Ulyanov et al. 2016, arXiv:1607.08022. The variance is biased, unless `correction` says otherwise.

    Args:
        input: (N, C, *), with more than one element in a plane when its own statistics are used.
        running_mean, running_var: (C,), updated in place by `momentum` (with the unbiased variance, as torch does) when
            `use_input_stats`, used for the normalisation when not.
        weight, bias: (C,), or (N, C) for an affine map per sample.
        activation: None, "relu", "leaky_relu" (with `negative_slope`), "silu", "gelu", "sigmoid" or "tanh".
        residual: the input's shape; added before the activation.
        correction, eps_mode: how the input's own deviation is taken, as in `instance_stats`.
    """
    size = check_map("instance_norm", input)
    if weight is not None:
        check_per_plane("instance_norm", "weight", weight, input)
    if bias is not None:
        check_per_plane("instance_norm", "bias", bias, input)
    if residual is not None:
        residual = check_same_shape("instance_norm", "residual", residual, input)
    check_activation("instance_norm", activation, negative_slope)
    check_statistics_settings("instance_norm", input, eps, correction, eps_mode)
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
        input, weight, bias, None, residual, eps, correction, eps_mode, 1.0, activation, negative_slope
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


def dynamic_conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros") -> Tensor:
    """`dynamic_conv2d` of lines: input (N, C_in, L), weight (N, C_out, C_in / groups, k)."""
    return _dynamic_conv("dynamic_conv1d", 1, input, weight, bias, stride, padding, dilation, groups, padding_mode)


def dynamic_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """A convolution with a filter per sample: torch.nn.functional.conv2d, with N filters.

    What lies beyond the border is read by index; no padded map is made.

    Args:
        input: (N, C_in, H, W).
        weight: (N, C_out, C_in / groups, kH, kW), in the input's type; `.expand` one filter to share it.
        bias: (N, C_out).
        stride, dilation: as in torch.
        padding: as in torch; "same", at any stride, is (k - 1) * dilation in all, the odd one after.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Returns:
        (N, C_out, H_out, W_out), as of torch.nn.functional.conv2d.
    """
    return _dynamic_conv("dynamic_conv2d", 2, input, weight, bias, stride, padding, dilation, groups, padding_mode)


def dynamic_conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros") -> Tensor:
    """`dynamic_conv2d` of volumes: input (N, C_in, D, H, W), weight (N, C_out, C_in / groups, kD, kH, kW)."""
    return _dynamic_conv("dynamic_conv3d", 3, input, weight, bias, stride, padding, dilation, groups, padding_mode)


def _dynamic_conv(name, spatial_dims, input, weight, bias, stride, padding, dilation, groups, padding_mode):
    check_channels(name, input, spatial_dims)
    weight = check_filters(name, "weight", weight, input, input.shape[1], groups)
    if bias is not None:
        check_filter_bias(name, bias, weight, input)
    check_window(name, weight, input, stride, padding, dilation, padding_mode)
    return _run(ops.dynamic_conv2d)(input, weight, bias, stride, padding, dilation, groups, padding_mode)


def dynamic_instance_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = "same",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    padding_mode: str = "reflect",
    eps: float = 1e-5,
    correction: int = 0,
    eps_mode: str = "var",
) -> Tensor:
    """A convolution, with a filter per sample, of the instance-normalised input.

        dynamic_conv2d((input - mean) / sqrt(var + eps), weight, bias)

    DIN, Jing et al. 2020, arXiv:1911.06953. A depthwise filter of one tap is AdaIN, with the style's standard deviation
    as weight and its mean as bias; of 1 and 0, it is instance normalisation. No normalised map is made.

    Args:
        input: (N, C_in, *).
        weight: (N, C_out, C_in / groups, *k), a kernel dimension for each spatial one, in the input's type.
        bias: (N, C_out).
        stride, padding, dilation, groups, padding_mode: as in `dynamic_conv2d`; "zeros" pads what was normalised.
        eps, correction, eps_mode: how a standard deviation is taken, as in `instance_stats`.
    """
    name = "dynamic_instance_norm"
    check_map(name, input)
    weight = check_filters(name, "weight", weight, input, input.shape[1], groups)
    if bias is not None:
        check_filter_bias(name, bias, weight, input)
    check_window(name, weight, input, stride, padding, dilation, padding_mode)
    check_statistics_settings(name, input, eps, correction, eps_mode)
    return _run(ops.dynamic_instance_norm)(
        input, weight, bias, stride, padding, dilation, groups, padding_mode, eps, correction, eps_mode
    )


def adaconv2d(
    input: Tensor,
    spatial: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    *,
    groups: int,
    padding_mode: str = "reflect",
    eps: float = 1e-5,
    correction: int = 0,
    eps_mode: str = "var",
) -> Tensor:
    """Instance normalisation, a spatial filter and a pointwise filter in the same groups, a bias; all per sample.

    AdaConv, Chandran et al., CVPR 2021. Both filters are applied as the one that they amount to, in one pass.

    Args:
        input: (N, C_in, H, W).
        spatial: (N, C, C_in / groups, kH, kW), in the input's type; the size of the map stays.
        pointwise: (N, C_out, C / groups, 1, 1).
        bias: (N, C_out).
        padding_mode: "reflect" in the paper's code, "zeros" in one exported variant; or "replicate", "circular".
        eps, correction, eps_mode: how a standard deviation is taken, as in `instance_stats`.
    """
    check_channels("adaconv2d", input, 2)
    spatial = check_filters("adaconv2d", "spatial", spatial, input, input.shape[1], groups)
    pointwise = check_filters("adaconv2d", "pointwise", pointwise, input, spatial.shape[1], groups)
    if tuple(pointwise.shape[3:]) != (1, 1):
        raise ValueError(f"adaconv2d: pointwise: expected a kernel of (1, 1), got {tuple(pointwise.shape[3:])}")
    if bias is not None:
        check_filter_bias("adaconv2d", bias, pointwise, input)
    check_window("adaconv2d", spatial, input, 1, "same", 1, padding_mode)
    check_statistics_settings("adaconv2d", input, eps, correction, eps_mode)
    return _run(ops.adaconv2d)(input, spatial, pointwise, bias, groups, padding_mode, eps, correction, eps_mode)


def modulated_conv2d(
    input: Tensor,
    weight: Tensor,
    style: Tensor,
    bias: Tensor | None = None,
    demodulate: bool = True,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = "same",
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    eps: float = 1e-8,
) -> Tensor:
    """A convolution whose shared filter is scaled by a style per sample, and normalised again.

    StyleGAN2, Karras et al. 2020, arXiv:1912.04958. Filters are made in float32; for float16 they are scaled first, so
    that none overflows.

    Args:
        input: (N, C_in, H, W).
        weight: (C_out, C_in / groups, kH, kW), shared by the samples, of any floating-point type.
        style: (N, C_in), a scale for each input channel, of any floating-point type.
        bias: (N, C_out).
        demodulate: divide each filter by its norm; eps is added to the square of that.
        stride, padding, dilation, groups, padding_mode: as in `dynamic_conv2d`.
    """
    name = "modulated_conv2d"
    check_channels(name, input, 2)
    n, c = input.shape[:2]
    check_groups(name, groups, c)
    check_tensor(name, "weight", weight)
    check_same_device(name, "weight", weight, input)
    if weight.dim() != 4 or weight.shape[1] != c // groups or 0 in weight.shape[2:] or weight.shape[0] % groups:
        raise ValueError(f"{name}: weight: expected shape (C_out, {c // groups}, k, k), got {tuple(weight.shape)}")
    check_tensor(name, "style", style)
    check_same_device(name, "style", style, input)
    if style.shape != (n, c):
        raise ValueError(f"{name}: style: expected a scale for each plane, {(n, c)}, got {tuple(style.shape)}")
    if bias is not None:
        check_filter_bias(name, bias, weight[None], input)
    check_window(name, weight, input, stride, padding, dilation, padding_mode)
    check_number(name, "eps", eps, 0)
    return _run(ops.modulated_conv2d)(
        input, weight, style, bias, demodulate, stride, padding, dilation, groups, padding_mode, eps
    )


def upsample_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale_factor: int | tuple[int, int] = 2,
    padding: int | tuple[int, int] = 1,
    padding_mode: str = "reflect",
    groups: int = 1,
) -> Tensor:
    """Nearest upsampling, padding, a convolution, as one: neither the upsampled nor the padded map is made.

        conv2d(pad(interpolate(input, scale_factor, mode="nearest"), padding, padding_mode), weight, bias)

    Taps that meet the same element are added up first: at a factor of 2, a kernel of 3x3 costs 4 multiplications for
    each output, not 9. On CPU that is done once of a parameter while no gradient by it is taken, and again when its
    numbers have changed. A kernel of 1x1 is applied before the upsampling. The result is the same up to rounding,
    borders included.

    Args:
        input: (N, C_in, H, W).
        weight: (C_out, C_in / groups, kH, kW), or (N, C_out, C_in / groups, kH, kW) for a filter per sample, in the
            input's type.
        bias: (C_out,) or (N, C_out).
        scale_factor: how many times larger, an integer, or one for each dimension.
        padding: as in torch.nn.functional.conv2d, of the upsampled map.
        padding_mode: "reflect", "replicate", "circular" or "zeros".

    Returns:
        (N, C_out, scale_factor * H + 2 * padding - kH + 1, the same of W).
    """
    name = "upsample_conv2d"
    check_channels(name, input, 2)
    check_sizes(name, "scale_factor", scale_factor, 2, 1)
    weight = check_layer_filters(name, weight, bias, input, groups)
    check_window(name, weight, input, 1, padding, 1, padding_mode, per_dimension(scale_factor, 2))
    return _run(ops.upsample_conv2d)(input, weight, bias, scale_factor, padding, padding_mode, groups)


def norm_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    *,
    mean: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.01,
    scale_factor: int | tuple[int, int] = 1,
    output_activation: str | None = None,
    output_negative_slope: float = 0.01,
    return_stats: bool = False,
    eps: float = 1e-5,
    correction: int = 0,
    eps_mode: str = "var",
    return_entered: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """A layer of a chain in one pass: what is left of the norm before it, a convolution, the statistics for the next norm.

        entered = activation((input - mean) * scale + shift + residual)
        output  = output_activation(conv2d(pad(upsample(entered)), weight, bias))

    `mean` and `scale` are the statistics that the layer before returned, the second times the norm's weight, and `shift`
    is its bias. Nothing normalised, upsampled or padded is written to memory. With gradients it is the operators that it
    is made of, one after the other.

    Args:
        input: (N, C_in, H, W).
        weight: (C_out, C_in / groups, kH, kW), or (N, C_out, C_in / groups, kH, kW) for a filter per sample, in the
            input's type.
        bias: (C_out,) or (N, C_out). A norm that follows takes it out again: leave it away.
        stride, padding, dilation, groups, padding_mode: as in `dynamic_conv2d`; of the upsampled map.
        mean, scale, shift: (C_in,) or (N, C_in).
        residual: the input's shape.
        activation, output_activation: None, "relu", "leaky_relu" (with its slope), "silu", "gelu", "sigmoid" or "tanh".
        scale_factor: nearest upsampling, an integer, or one for each dimension.
        return_stats: also return the mean and the inverse standard deviation of each plane of the output, by eps,
            correction and eps_mode as in `instance_stats`.
        return_entered: also return `entered`, which a later layer may add.

    Returns:
        output (N, C_out, H_out, W_out); with return_stats (output, mean, rstd), these (N, C_out) in float32, or float64
        for a float64 input; with return_entered (..., entered), of the input's shape.
    """
    settings = {name: value for name, value in locals().items() if name not in ("input", "weight", "bias")}
    return _norm_conv("norm_conv2d", 2, input, weight, bias, **settings)


def norm_conv3d(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", **settings
) -> Tensor | tuple[Tensor, ...]:
    """`norm_conv2d` of volumes: input (N, C_in, D, H, W), weight (C_out, C_in / groups, kD, kH, kW); its other settings."""
    return _norm_conv("norm_conv3d", 3, input, weight, bias, stride, padding, dilation, groups, padding_mode, **settings)


def _norm_conv(
    name, spatial_dims, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", *,
    mean=None, scale=None, shift=None, residual=None, activation=None, negative_slope=0.01, scale_factor=1,
    output_activation=None, output_negative_slope=0.01, return_stats=False, eps=1e-5, correction=0, eps_mode="var",
    return_entered=False,
):  # fmt: skip
    check_channels(name, input, spatial_dims)
    check_sizes(name, "scale_factor", scale_factor, spatial_dims, 1)
    weight = check_layer_filters(name, weight, bias, input, groups)
    factor = per_dimension(scale_factor, spatial_dims)
    check_window(name, weight, input, stride, padding, dilation, padding_mode, factor)
    entry = dict(mean=mean, scale=scale, shift=shift, residual=residual, activation=activation, negative_slope=negative_slope)
    exit = dict(output_activation=output_activation, output_negative_slope=output_negative_slope)
    entry = _checked_ends(name, input, **entry, **exit)
    if return_stats:
        check_output_statistics(name, weight, input, stride, padding, dilation, scale_factor, eps, correction, eps_mode)
    return _run(ops.norm_conv2d)(
        input, weight, bias, stride, padding, dilation, groups, padding_mode, **entry, scale_factor=scale_factor,
        return_stats=return_stats, eps=eps, correction=correction, eps_mode=eps_mode, return_entered=return_entered,
    )  # fmt: skip


def _checked_ends(
    name, input, mean, scale, shift, residual, activation, negative_slope, output_activation, output_negative_slope
):
    """What is done to the map before and after a convolution."""
    for parameter_name, parameter in (("mean", mean), ("scale", scale), ("shift", shift)):
        if parameter is not None:
            check_per_plane(name, parameter_name, parameter, input)
    if residual is not None:
        residual = check_same_shape(name, "residual", residual, input)
    check_activation(name, activation, negative_slope)
    check_activation(name, output_activation, output_negative_slope, "output_")
    return dict(
        mean=mean, scale=scale, shift=shift, residual=residual, activation=activation, negative_slope=negative_slope,
        output_activation=output_activation, output_negative_slope=output_negative_slope,
    )  # fmt: skip


def norm_conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
    *,
    mean: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.01,
    output_activation: str | None = None,
    output_negative_slope: float = 0.01,
    return_stats: bool = False,
    eps: float = 1e-5,
    correction: int = 0,
    eps_mode: str = "var",
    return_entered: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """`norm_conv2d` with a transposed convolution.

        entered = activation((input - mean) * scale + shift + residual)
        output  = output_activation(conv_transpose2d(entered, weight, bias))

    Args:
        input: (N, C_in, H, W).
        weight: (C_in, C_out / groups, kH, kW), or (N, C_in, C_out / groups, kH, kW) for a filter per sample, in the
            input's type.
        bias: (C_out,) or (N, C_out).
        stride, padding, output_padding, groups, dilation: as in torch.nn.functional.conv_transpose2d.
        mean, scale, shift, residual, activation, output_activation, return_stats, return_entered: as in `norm_conv2d`.

    Returns:
        As `norm_conv2d`, with H_out = (H - 1) * stride - 2 * padding + dilation * (kH - 1) + output_padding + 1.
    """
    settings = {name: value for name, value in locals().items() if name not in ("input", "weight", "bias")}
    return _norm_conv_transpose("norm_conv_transpose2d", 2, input, weight, bias, **settings)


def norm_conv_transpose3d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, **settings
) -> Tensor | tuple[Tensor, ...]:
    """`norm_conv_transpose2d` of volumes: input (N, C_in, D, H, W), weight (C_in, C_out / groups, kD, kH, kW)."""
    window = stride, padding, output_padding, groups, dilation
    return _norm_conv_transpose("norm_conv_transpose3d", 3, input, weight, bias, *window, **settings)


def _norm_conv_transpose(
    name, spatial_dims, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *,
    mean=None, scale=None, shift=None, residual=None, activation=None, negative_slope=0.01,
    output_activation=None, output_negative_slope=0.01, return_stats=False, eps=1e-5, correction=0, eps_mode="var",
    return_entered=False,
):  # fmt: skip
    check_channels(name, input, spatial_dims)
    weight = check_transposed_filters(name, weight, bias, input, groups)
    size = check_transposed_window(name, weight, input, stride, padding, output_padding, dilation)
    entry = dict(mean=mean, scale=scale, shift=shift, residual=residual, activation=activation, negative_slope=negative_slope)
    exit = dict(output_activation=output_activation, output_negative_slope=output_negative_slope)
    entry = _checked_ends(name, input, **entry, **exit)
    if return_stats:
        check_statistics_rule(name, size, eps, correction, eps_mode)
    return _run(ops.norm_conv_transpose2d)(
        input, weight, bias, stride, padding, output_padding, groups, dilation, **entry,
        return_stats=return_stats, eps=eps, correction=correction, eps_mode=eps_mode, return_entered=return_entered,
    )  # fmt: skip


def upsample_pad2d(
    input: Tensor,
    scale_factor: int | tuple[int, int] = 2,
    padding: int | tuple[int, int, int, int] = 1,
    padding_mode: str = "reflect",
) -> Tensor:
    """Nearest upsampling by whole factors, and padding, in one pass.

        pad(interpolate(input, scale_factor, mode="nearest"), padding, padding_mode)

    Args:
        input: (N, C, H, W).
        scale_factor: 1 or more, of both sides or of (height, width).
        padding: 0 or more, of all sides or of (left, right, top, bottom) as torch.nn.ReflectionPad2d has it; less than the
            upsampled map where it is reflected, no more than it where it is circular.
        padding_mode: "reflect", "replicate", "zeros" or "circular".

    Returns:
        (N, C, scale * H + top + bottom, scale * W + left + right).
    """
    check_channels("upsample_pad2d", input, 2)
    check_upsampling("upsample_pad2d", input, scale_factor, padding, padding_mode)
    return _run(ops.upsample_pad2d)(input, scale_factor, padding, padding_mode)


def reflection_pad(input: Tensor, padding: int | tuple[int, ...]) -> Tensor:
    """torch.nn.functional.pad(input, padding, "reflect"), with the same gradient from every run on a GPU, too.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        padding: 0 or more and less than the map, of all sides or in torch's order: (left, right), then (top, bottom), then
            (front, back).
    """
    check_up_to_volumes("reflection_pad", input)
    check_upsampling("reflection_pad", input, 1, padding, "reflect", "input")
    return _run(ops.reflection_pad)(input, padding)


def attention_stats(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float = 1.0,
    min_var: float = 0.0,
    return_std: bool = True,
) -> tuple[Tensor, Tensor] | Tensor:
    """Mean and standard deviation of a style's values, weighted by attention, for every position of a content.

        weight = softmax(scale * key^T query) over keys
        mean   = value weight,  std = sqrt(max(value^2 weight - mean^2, min_var))

    AdaAttN, Liu et al. 2021, arXiv:2108.03647; with return_std=False, the attention of SANet, Park and Lee 2019,
    arXiv:1812.02342, and of other non-local blocks. No matrix of scores is made: memory is linear in positions, forward
    and backward, which computes weights anew, of some queries at a time (a second derivative makes it). The published
    systems do not scale.

    Args:
        query: (N, C, *), for example (N, C, H, W) of a content; of several heads, each is a sample.
        key: (N, C, *), of a style: any number of positions, at least one.
        value: (N, D, *), with the positions of the key.
        scale: of the scores.
        min_var: 0 or more, the least variance. Where it is not more than that, std is its root and has no gradient, where
            that of sqrt(relu(var)) would be infinite at 0.
        return_std: False for the mean alone.

    Returns:
        (mean, std), or mean: (N, D, *) with the positions of the query. As of torch's softmax, NaN for a query with a score
        that is NaN or infinity, or with none above -infinity; a score of -infinity has no weight.
    """
    key, value = check_attention("attention_stats", query, key, value)
    check_number("attention_stats", "scale", scale)
    check_number("attention_stats", "min_var", min_var, 0)
    return _run(ops.attention_stats)(query, key, value, scale, min_var, return_std)


def patch_match(
    content: Tensor,
    style: Tensor,
    patch_size: int = 3,
    stride: int = 1,
    usage_penalty: float = 0.0,
    *,
    return_score: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """For each patch of the content the patch of the style that is most like it, by normalised cross-correlation.

        index = argmax over style patches of <content patch, style patch> / (|content patch| |style patch|)

    Li and Wand 2016, arXiv:1601.04589; Chen and Schmidt 2016, arXiv:1612.04337. No matrix of scores is made. With a usage
    penalty, the deep feature reshuffle of Gu et al., CVPR 2018: patches choose one after the other, row by row, and the
    correlation with a patch of the style is less by the penalty for each time that it has been chosen in that sample.

    Args:
        content: (N, C, H, W).
        style: (N or 1, C, H', W'), one of its own for each sample, or one for all.
        patch_size: patches are squares of so many pixels, which lie within the map.
        stride: how far apart patches begin, in the content and in the style.
        usage_penalty: 0 or more; with a large one all patches of the style are used about as often. It asks for memory for
            patch_size lines of the content by all of the style, and is unrolled patch by patch where it is exported.
        return_score: True for the correlation of the chosen pair, too.

    Returns:
        index, int64 (N, rows, columns), with rows = (H - patch_size) // stride + 1 and columns alike: a style patch by its
        number, row by row; of several that are as much alike, the first. Or (index, score); score is in float32, or float64
        of float64, and without the penalty. A patch without length has a correlation of 0. A correlation that is NaN is
        never chosen before a number; where all are, the index is 0 and the score NaN. Squares of lengths are taken for
        numbers of that type: of float32, of maps of about 1e-18 to 1e18. Neither result has a gradient.
    """
    name = "patch_match"
    style = check_patches(name, content, style, patch_size, stride)
    check_number(name, "usage_penalty", usage_penalty, 0)
    check_flag(name, "return_score", return_score)
    return _run(ops.patch_match)(content, style, patch_size, stride, usage_penalty, return_score)


def swap_patches(
    style: Tensor, index: Tensor, size: int | tuple[int, int], patch_size: int = 3, stride: int = 1
) -> Tensor:
    """A map of patches of the style, by the index that `patch_match` found; where patches overlap, their average.

    Args:
        style: (N or 1, C, H', W').
        index: int64 (N, rows, columns), the number of a style patch for each patch of the output.
        size: (H, W) of the output, or one number for both.
        patch_size, stride: as of `patch_match`.

    Returns:
        (N, C, H, W), 0 where no patch covers a pixel. Its gradient is the style's.

    Raises:
        RuntimeError: an index that is no patch of the style. On a GPU it is not noticed, or fails later.
    """
    name = "swap_patches"
    check_channels(name, style, 2, "style")
    check_sizes(name, "size", size, 2, 1)
    check_integer(name, "stride", stride, 1)
    check_patch_size(name, patch_size, style.shape[2:], "style")
    check_patch_size(name, patch_size, per_dimension(size, 2), "output")
    check_patch_index(name, index, style, per_dimension(size, 2), patch_size, stride)
    return _run(ops.swap_patches)(style, index, size, patch_size, stride)


def style_swap(
    content: Tensor, style: Tensor, patch_size: int = 3, stride: int = 1, usage_penalty: float = 0.0
) -> Tensor:
    """The content, each of its patches replaced by the patch of the style that is most like it; averaged where they overlap.

        swap_patches(style, patch_match(content, style, patch_size, stride, usage_penalty), (H, W), patch_size, stride)

    Chen and Schmidt 2016, arXiv:1612.04337; with a usage penalty Gu et al., CVPR 2018. Arguments are those of `patch_match`.

    Returns:
        (N, C, H, W). A pixel that no patch covers, as with a stride above 1 the last ones may be, stays the content's. The
        gradient goes to the style, and to the content where its pixels stayed: the choice has none.
    """
    name = "style_swap"
    style = check_patches(name, content, style, patch_size, stride)
    check_number(name, "usage_penalty", usage_penalty, 0)
    return _run(ops.style_swap)(content, style, patch_size, stride, usage_penalty)


def gram_matrix(input: Tensor, *, centered: bool = False, normalized: bool = False) -> Tensor:
    """Products of all pairs of a sample's channels, summed over positions: what a style looks like, wherever it does.

        x x^T, x being (C, positions)

    Gatys et al. 2016. It is exactly symmetric.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        centered: of the input less the mean of each plane: Li et al. 2017, arXiv:1703.01664.
        normalized: divided by C * positions: Johnson et al. 2016, arXiv:1603.08155.

    Returns:
        (N, C, C), in the input's type: a sum beyond the end of float16 is infinite there, unless normalized.
    """
    check_up_to_volumes("gram_matrix", input)
    check_flag("gram_matrix", "centered", centered)
    check_flag("gram_matrix", "normalized", normalized)
    return _run(ops.gram_matrix)(input, centered, normalized)


def covariance(input: Tensor, correction: int = 1) -> Tensor:
    """Covariance of each sample's channels over positions: torch.cov of (C, positions), for a batch.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        correction: 1 for the unbiased covariance, which needs two positions, 0 for the biased.

    Returns:
        (N, C, C), in the input's type.
    """
    check_up_to_volumes("covariance", input)
    check_statistics_settings("covariance", input, 0.0, correction, "var")
    return _run(ops.covariance)(input, correction)


def whiten_color(
    content: Tensor, style: Tensor | tuple[Tensor, Tensor], alpha: float = 1.0, eps: float = 1e-5, method: str = "eigh"
) -> Tensor:
    """Whitening and colouring: the content with the covariance and the mean of the style.

        alpha * (cov(style)^(1/2) cov(content)^(-1/2) (content - mean(content)) + mean(style)) + (1 - alpha) * content

    WCT, Li et al. 2017, arXiv:1705.08086. Both roots are the symmetric ones, covariances unbiased; of a single position they
    are 0.

    Args:
        content: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        style: a feature map (N or 1, C, *) of any size, or its (mean, root) as `color_stats` gives them: (C,), (1, C) or
            (N, C), and (C, C), (1, C, C) or (N, C, C). Linear in these two, so a blend of them is the blend of results.
        alpha: a Python number; 1 for the style in full, 0 for the content.
        eps: of "eigh", 0 or more: directions whose variance is at most eps, or 5e-7 of the largest (in float32), are left out:
            neither whitened nor coloured. So positions may be fewer than channels, and channels constant; features with a
            deviation of 1e-3 and less want a smaller eps. Of "newton_schulz", more than 0: added to each variance.
        method: "eigh", by eigenvalues, in float64 and by LAPACK, whose last bits may depend on the number of threads; or
            "newton_schulz", by products of matrices alone: 15 steps of the coupled iteration, in which variances of less
            than about 1e-4 of all together are whitened in part. That one can be exported to ONNX.

    Returns:
        The content's shape. Gradients are finite where variances are equal, too; of "eigh" derivatives are right up to the
        third.
    """
    check_up_to_volumes("whiten_color", content, "content")
    check_colors("whiten_color", style, content)
    check_number("whiten_color", "alpha", alpha)
    check_roots("whiten_color", eps, method)
    return _run(ops.whiten_color)(content, style, alpha, eps, method)


def zca_whiten(input: Tensor, eps: float = 1e-5, method: str = "eigh") -> Tensor:
    """Whitening: the input with uncorrelated channels of mean 0 and variance 1, as far as no direction is left out.

        cov(input)^(-1/2) (input - mean(input))

    The first half of `whiten_color`, as Avatar-Net has it alone: Sheng et al. 2018, arXiv:1805.03857.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        eps, method: as in `whiten_color`.
    """
    check_up_to_volumes("zca_whiten", input)
    check_roots("zca_whiten", eps, method)
    return _run(ops.zca_whiten)(input, eps, method)


def color_stats(input: Tensor, eps: float = 1e-5, method: str = "eigh") -> tuple[Tensor, Tensor]:
    """What `whiten_color` and `recolor` take of a style, to be kept: the mean of its channels, the root of their covariance.

        mean(input), cov(input)^(1/2)

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        eps, method: as in `whiten_color`.

    Returns:
        mean (N, C), root (N, C, C), in float32, or float64 of float64.
    """
    check_up_to_volumes("color_stats", input)
    check_roots("color_stats", eps, method)
    return _run(ops.color_stats)(input, eps, method)


def recolor(
    input: Tensor, style: Tensor | tuple[Tensor, Tensor], eps: float = 1e-5, method: str = "eigh"
) -> Tensor:
    """Colouring: a whitened input with the covariance and the mean of the style.

        cov(style)^(1/2) input + mean(style)

    The second half of `whiten_color`.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W), whitened.
        style: a feature map or its (mean, root), as in `whiten_color`.
        eps, method: as in `whiten_color`.
    """
    check_up_to_volumes("recolor", input)
    check_colors("recolor", style, input)
    check_roots("recolor", eps, method)
    return _run(ops.recolor)(input, style, eps, method)


def match_histogram(
    input: Tensor,
    target: Tensor,
    bins: int | None = None,
    input_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
) -> Tensor:
    """Each plane of the input, changed monotonically until its numbers are distributed as those of the target's plane.

        output = inverse(cumulative distribution of the target)(cumulative distribution of the input (input))

    Risser, Wilmot and Barnes 2017, arXiv:1701.08893, whose histogram loss is the squared distance to it; monotone optimal
    transport. By sorting it is exact: equal numbers become one number, the average of what their ranks are matched with,
    so that the output's mean is the target's; of as many numbers that all differ it is a permutation of the target.

    The match counts as constant: the input has no gradient where it is matched. By sorting the target has one, its share
    in each number of the output; by bins it has none.

    Args:
        input: (N, C, *).
        target: (N or 1, C, *), of any size, in the input's type.
        bins: None for sorting, or how many bins between its least and largest number each plane's histogram has; the paper
            has 256. Numbers within a bin are taken for evenly spread, infinities for the nearest other number. A plane
            that is constant becomes the target's mean.
        input_mask: bool, (N, *) or (N, 1, *) with the input's positions, or of one sample: True for those that are matched.
            Others keep their number.
        target_mask: the same of the target: True for those that are matched with.

    Returns:
        Of the input's shape. NaN takes no part, and stays. A plane of which nothing takes part, or whose target has
        nothing, stays as it is.
    """
    check_map("match_histogram", input)
    check_map("match_histogram", target, "target")
    n, c = input.shape[:2]
    if target.shape[1] != c or target.shape[0] not in (1, n):
        raise ValueError(f"match_histogram: target: expected {c} channels and {n} samples or 1, got {tuple(target.shape)}")
    target = as_type_of("match_histogram", "target", target, input)
    if bins is not None:
        check_bins("match_histogram", bins)
    if input_mask is not None:
        check_mask("match_histogram", "input_mask", input_mask, input)
    if target_mask is not None:
        check_mask("match_histogram", "target_mask", target_mask, target)
    return _run(ops.match_histogram)(input, target, bins, input_mask, target_mask)


def _run(room):
    """The operator itself, or its reference where that is asked for."""
    return room.reference if backends.reference() else room.OPERATOR.run
