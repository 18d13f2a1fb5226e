"""color_stats: what colouring takes of a style, the mean of its channels and the root of their covariance (WCT, Li et al. 2017).

    mean, cov(input)^(1/2)

It is what `whiten_color` and `recolor` make of a style first, to be kept.

At least, per element: one read; C flops. The root takes C^3 a few times.
"""

from . import whiten_color
from ._operator import Operator, Sample
from .whiten_color import CONDITIONED, FORMULAS, KERNELS, few_channels


def color_stats(input, eps=1e-5, method="eigh"):
    return whiten_color.color_stats(KERNELS, input, eps, method)


def reference(input, eps=1e-5, method="eigh"):
    return whiten_color.color_stats(FORMULAS, input, eps, method)


def _samples(make, shape):
    yield Sample("newton_schulz", (make(*few_channels(shape)),), CONDITIONED)


OPERATOR = Operator(
    "color_stats",
    color_stats,
    reference,
    _samples,
    kernels=whiten_color.OPERATOR.kernels,
    maps=1,
    backward_maps=2,
    flops=1,
)
