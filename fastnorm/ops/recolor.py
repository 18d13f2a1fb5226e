"""recolor: a whitened input with the covariance and the mean of a style (WCT, Li et al. 2017).

    output = cov(style)^(1/2) @ input + mean(style)

The second half of `whiten_color`.

At least, per element: two reads (input, style) and one write; 3 * C flops. The root takes C^3 a few times.
"""

from ._layout import wide_dtype
from ._operator import Operator, Sample
from .whiten_color import CONDITIONED, FORMULAS, KERNELS, coloring, few_channels
from .whiten_color import OPERATOR as WHITEN_COLOR


def recolor(input, style, eps=1e-5, method="eigh"):
    return _compose(KERNELS, input, style, eps, method)


def reference(input, style, eps=1e-5, method="eigh"):
    return _compose(FORMULAS, input, style, eps, method)


def _compose(steps, input, style, eps, method):
    mean, root = coloring(steps, style, eps, method, wide_dtype(input))
    return steps.transform(root, input, None, mean)


def _samples(make, shape):
    n, c, *plane = few_channels(shape)
    wider = (n, c, *(size + 1 for size in plane))
    yield Sample("newton_schulz", (make(n, c, *plane), make(*wider)), CONDITIONED)
    yield Sample("mean and root", (make(n, c, *plane), (make(n, c), make(n, c, c))))


OPERATOR = Operator(
    "recolor",
    recolor,
    reference,
    _samples,
    kernels=WHITEN_COLOR.kernels,
    maps=3,
    backward_maps=4,
    flops=3,
)
