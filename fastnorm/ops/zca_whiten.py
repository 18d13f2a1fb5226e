"""zca_whiten: the input with uncorrelated channels of mean 0 and variance 1 (Avatar-Net, Sheng et al. 2018).

    output = cov(input)^(-1/2) @ (input - mean(input))

The first half of `whiten_color`.

At least, per element: two reads and one write; 3 * C flops. The root takes C^3 a few times.
"""

from ._operator import Operator, Sample
from .whiten_color import CONDITIONED, FORMULAS, KERNELS, few_channels, moments
from .whiten_color import OPERATOR as WHITEN_COLOR


def zca_whiten(input, eps=1e-5, method="eigh"):
    return _compose(KERNELS, input, eps, method)


def reference(input, eps=1e-5, method="eigh"):
    return _compose(FORMULAS, input, eps, method)


def _compose(steps, input, eps, method):
    covariance, mean = moments(steps, input)
    filters = steps.roots(covariance, input.shape[0], eps, method, steps.multiply)
    return steps.transform(filters, input, mean, None)


def _samples(make, shape):
    yield Sample("newton_schulz", (make(*few_channels(shape)),), CONDITIONED)


OPERATOR = Operator(
    "zca_whiten",
    zca_whiten,
    reference,
    _samples,
    kernels=WHITEN_COLOR.kernels,
    maps=3,
    backward_maps=4,
    flops=3,
)
