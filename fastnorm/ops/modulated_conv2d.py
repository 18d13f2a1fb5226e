"""modulated_conv2d: a shared filter whose input channels are scaled by a style per sample, and normalised again.

    modulated[n, o, c, k] = weight[o, c, k] * style[n, c]
    filter[n, o, c, k] = modulated / sqrt(sum over c, k of modulated^2 + eps)      with `demodulate`
    output = dynamic_conv2d(input, filter, bias)                  StyleGAN2, Karras et al. 2020, arXiv:1912.04958

In float16, weight and style are first divided by their largest numbers, which demodulation cancels, as StyleGAN2-ADA
does (arXiv:2006.06676): eps then weighs the same, and no square overflows.

At least, per element: one read and one write of a map, and the filters once.
"""

import torch

from . import dynamic_conv2d
from ._layout import wide_dtype
from ._operator import Operator, Sample
from .dynamic_conv2d import some_kernel


def modulated_conv2d(
    input, weight, style, bias=None, demodulate=True, stride=1, padding="same", dilation=1, groups=1,
    padding_mode="zeros", eps=1e-8,
):  # fmt: skip
    filters = modulated(weight, style, input, demodulate, groups, eps)
    return dynamic_conv2d.dynamic_conv2d(input, filters, bias, stride, padding, dilation, groups, padding_mode)


def reference(
    input, weight, style, bias=None, demodulate=True, stride=1, padding="same", dilation=1, groups=1,
    padding_mode="zeros", eps=1e-8,
):  # fmt: skip
    filters = modulated(weight, style, input, demodulate, groups, eps)
    return dynamic_conv2d.reference(input, filters, bias, stride, padding, dilation, groups, padding_mode)


def modulated(weight, style, input, demodulate, groups, eps):
    """(C_out, C_in / groups, *) by (N, C_in) to (N, C_out, C_in / groups, *), in the input's type."""
    wide = wide_dtype(input)
    weight, style = weight.to(wide), style.to(wide)
    if demodulate and input.dtype == torch.float16 and weight.numel() and style.numel():
        over_filter = tuple(range(1, weight.dim()))
        weight = weight / weight.detach().abs().amax(over_filter, keepdim=True) * weight[0].numel() ** -0.5
        style = style / style.detach().abs().amax(1, keepdim=True)
    n, channels = style.shape
    out_channels, in_channels, *kernel = weight.shape
    by_group = weight.reshape(1, groups, out_channels // groups, in_channels, *kernel)
    filters = by_group * style.reshape(n, groups, 1, in_channels, *[1] * len(kernel))
    if demodulate:
        filters = filters * (filters.square().sum(tuple(range(3, filters.dim())), keepdim=True) + eps).rsqrt()
    return filters.reshape(n, *weight.shape).to(input.dtype)


def _samples(make, shape):
    n, c = shape[:2]
    out_channels = 3 if c <= 64 else 1
    weight = make(out_channels, c, *some_kernel(shape))
    yield Sample("demodulated", (make(*shape), weight, make(n, c), make(n, out_channels)))


OPERATOR = Operator(
    "modulated_conv2d",
    modulated_conv2d,
    reference,
    _samples,
    kernels=("dynamic_conv2d", "dynamic_conv2d_backward"),
    maps=2,
    backward_maps=3,
    flops=18,
)
