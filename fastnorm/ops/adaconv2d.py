"""adaconv2d: normalise, convolve in groups with a spatial filter, then with a pointwise one, add a bias; all per sample.

    output = pointwise * (spatial * (input - mean) * rstd) + bias       AdaConv, Chandran et al., CVPR 2021

Two linear filters in the same groups are one, and it takes C / groups multiplications less for each output. So it is a
dynamic instance norm, of the product of both.

At least, per element: one read and one write; 2 * K * C / groups + 4 flops. Backward: two reads and one write.
"""

from . import dynamic_conv2d, dynamic_instance_norm
from ._layout import widen
from ._operator import Operator, Sample
from .dynamic_conv2d import some_groups, some_kernel


def adaconv2d(input, spatial, pointwise, bias=None, groups=1, padding_mode="reflect", eps=1e-5, correction=0, eps_mode="var"):
    settings = dict(groups=groups, padding_mode=padding_mode, eps=eps, correction=correction, eps_mode=eps_mode)
    return dynamic_instance_norm.dynamic_instance_norm(input, combined(spatial, pointwise, groups), bias, **settings)


def reference(input, spatial, pointwise, bias=None, groups=1, padding_mode="reflect", eps=1e-5, correction=0, eps_mode="var"):
    settings = dict(groups=groups, padding_mode=padding_mode, eps=eps, correction=correction, eps_mode=eps_mode)
    between = dynamic_instance_norm.reference(input, spatial, **settings)
    return dynamic_conv2d.reference(between, pointwise, bias, groups=groups)


def combined(spatial, pointwise, groups):
    """The filter that does both: (N, C_out, C_in / groups, *). A pointwise convolution of the spatial one, whose bits do not
    depend on threads as those of a library's product do.
    """
    n, between, in_channels, *kernel = spatial.shape
    out_channels = pointwise.shape[1]
    if in_channels == 0:  # Nothing to convolve is refused.
        both = (spatial.sum() * pointwise.sum()).expand(n, out_channels, 0, *kernel)
    elif between == groups:  # Nothing to sum.
        both = widen(pointwise).reshape(n, groups, out_channels // groups, 1, 1) * widen(spatial).flatten(3).unsqueeze(2)
    else:
        both = dynamic_conv2d.dynamic_conv2d(spatial.flatten(2), pointwise.flatten(3), groups=groups)
    return both.reshape(n, out_channels, in_channels, *kernel).to(spatial.dtype)


def _samples(make, shape):
    n, c = shape[:2]
    groups = some_groups(c)
    spatial, pointwise = make(n, c, c // groups, *some_kernel(shape)), make(n, c, c // groups, *[1] * len(shape[2:]))
    yield Sample("grouped", (make(*shape), spatial, pointwise, make(n, c)), dict(groups=groups))


OPERATOR = Operator(
    "adaconv2d",
    adaconv2d,
    reference,
    _samples,
    kernels=("dynamic_instance_norm", "dynamic_instance_norm_backward", "dynamic_conv2d", "dynamic_conv2d_backward"),
    maps=2,
    backward_maps=3,
    flops=22,
)
