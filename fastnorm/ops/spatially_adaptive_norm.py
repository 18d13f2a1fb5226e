"""spatially_adaptive_norm: an instance norm with a scale and a shift per pixel.

    output = act((input - mean) * rstd * (1 + gamma) + beta)            SPADE, Park et al. 2019, arXiv:1903.07291

At least, per element: three reads (input, gamma, beta) and one write; 8 flops.
"""

from . import instance_norm
from ._operator import Operator, Sample


def spatially_adaptive_norm(input, gamma, beta, eps=1e-5, correction=0, activation=None, negative_slope=0.01):
    return _compose(instance_norm.instance_norm, input, gamma, beta, eps, correction, activation, negative_slope)


def reference(input, gamma, beta, eps=1e-5, correction=0, activation=None, negative_slope=0.01):
    return _compose(instance_norm.reference, input, gamma, beta, eps, correction, activation, negative_slope)


def _compose(norm, input, gamma, beta, eps, correction, activation, negative_slope):
    return norm(
        input, gamma=gamma, residual=beta,
        eps=eps, correction=correction, activation=activation, negative_slope=negative_slope,
    )  # fmt: skip


def _samples(make, shape):
    yield Sample("plain", (make(*shape), make(*shape), make(*shape)))
    yield Sample("leaky_relu", (make(*shape), make(*shape), make(*shape)), dict(activation="leaky_relu"))


OPERATOR = Operator(
    "spatially_adaptive_norm",
    spatially_adaptive_norm,
    reference,
    _samples,
    kernels=("instance_norm", "instance_norm_backward"),
    maps=4,
    backward_maps=5,
    flops=8,
)
