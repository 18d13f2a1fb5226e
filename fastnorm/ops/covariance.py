"""covariance: of each sample's channels, over positions, as torch.cov has it.

    cov[i, j] = sum over p of (x[i, p] - mean[i]) * (x[j, p] - mean[j]) / (positions - correction)

It is the centred `gram_matrix`, divided: no kernel of its own.
"""

from . import gram_matrix
from ._operator import Operator, Sample
from .instance_stats import plane_size


def covariance(input, correction=1):
    return _finished(gram_matrix.forward(input, True)[0], input, correction)


def reference(input, correction=1):
    return _finished(gram_matrix.formula(input, True)[0], input, correction)


def _finished(gram, input, correction):
    return (gram / (plane_size(input) - correction)).to(input.dtype)


def _samples(make, shape):
    yield Sample("unbiased", (make(*shape),), dict(correction=1))


OPERATOR = Operator(
    "covariance",
    covariance,
    reference,
    _samples,
    kernels=gram_matrix.OPERATOR.kernels,
    maps=1,
    backward_maps=2,
    flops=1,
)
