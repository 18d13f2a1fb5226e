"""gram_matrix: products of all pairs of a sample's channels, summed over positions; centred, the covariance.

    gram[i, j] = sum over p of x[i, p] * x[j, p]                                          Gatys et al. 2016
    gram[i, j] = sum over p of (x[i, p] - mean[i]) * (x[j, p] - mean[j])    centred: Li et al. 2017, arXiv:1703.01664
    normalized: divided by C * positions                                    Johnson et al. 2016, arXiv:1603.08155

At least, for each sample: one read of the map, and C^2 flops for each position, for a kernel computes one half. The
backward is (grad + grad^T) @ (x - mean): a pointwise filter, two reads and one write, 2 * C^2 flops for each position.
"""

from . import instance_stats
from ._layout import empty_map, empty_statistic, product, store_like, wide_dtype, widen
from ._library import define, differentiable, gradient_of
from ._operator import Operator, Sample
from ._product import product_of_positions
from .instance_stats import plane_size


def gram_matrix(input, centered=False, normalized=False):
    return _finished(forward(input, centered)[0], input, normalized)


def reference(input, centered=False, normalized=False):
    return _finished(formula(input, centered)[0], input, normalized)


def _finished(gram, input, normalized):
    """In the input's type: normalized before, for float16 ends early."""
    return (gram / (input.shape[1] * plane_size(input)) if normalized else gram).to(input.dtype)


# The formula, forward and backward, in the type in which the input is computed.


def formula(input, centred):
    """The matrix, and the mean of each plane, (N, C); None where nothing is centred."""
    planes, mean = widen(input).flatten(2), None
    if centred:
        mean = planes.mean(2, keepdim=True)
        # Far from zero a mean is off by a few last places, which what the deviations from it sum to puts right.
        mean = mean + (planes - mean).mean(2, keepdim=True)
        planes, mean = planes - mean, mean.squeeze(2)
    gram = product(planes, planes.mT)
    # A library's product need not have the same bits on both sides.
    return (gram + gram.mT) / 2, mean


def backward_formula(grad, input, mean):
    """The gradient of the input; of a centred matrix it has no mean, so none goes through the mean."""
    planes = widen(input).flatten(2)
    if mean.numel():
        planes = planes - mean.unsqueeze(2)
    return product(grad + grad.mT, planes).reshape(input.shape)


# The operator. Its results are wide.


def _definition(input, centred):
    return tuple(map(store_like, _fake(input, centred), formula(input, centred)))


def _fake(input, centred):
    n, c = input.shape[:2]
    return input.new_empty(n, c, c, dtype=wide_dtype(input)), empty_statistic(input, centred)


_forward_kernel = define(
    "gram_matrix", "(Tensor input, bool centred) -> (Tensor gram, Tensor mean)", _definition, _fake
)


# Its backward, of the matrix alone: on every device a pointwise convolution that takes the mean off on load.


def _backward_definition(grad, input, mean):
    if not mean.numel():
        return product_of_positions(grad + grad.mT, input)
    found = product_of_positions(grad + grad.mT, input, mean)
    if input.dtype.itemsize < 4:
        return found
    # Far from zero the mean lacks a few last places, which come back as the mean of a gradient that has none.
    rest, _ = instance_stats.forward(found, 1.0, 0, False)
    return found.sub_(rest.reshape(*rest.shape, *[1] * (found.dim() - 2)))


def _backward_fake(grad, input, mean):
    return empty_map(input)


_backward_kernel = define(
    "gram_matrix_backward",
    "(Tensor grad, Tensor input, Tensor mean) -> Tensor grad_input",
    _backward_definition,
    _backward_fake,
)


def _differentiable_backward(grad, input, mean):
    return store_like(empty_map(input), backward_formula(grad, input, mean))


def _save(ctx, inputs, output):
    input, _ = inputs
    _, mean = output
    ctx.save_for_backward(input, mean)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_gram, grad_mean):
    input, mean = ctx.saved_tensors
    grad_input = None if grad_gram is None else backward(grad_gram, input, mean)
    if grad_mean is not None and mean.numel():
        of_mean = (grad_mean / plane_size(input)).reshape(*grad_mean.shape, *[1] * (input.dim() - 2))
        # Wide up to here: the gradient's own gradient is a sum over positions.
        grad_input = (of_mean.expand_as(input) if grad_input is None else grad_input + of_mean).to(input.dtype)
    return grad_input, None


def _save_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate_backward(ctx, gradient):
    return tuple(gradient_of(lambda *tensors: (backward_formula(*tensors),), ctx.saved_tensors, [gradient]))


forward = differentiable(_forward_kernel, _definition, _save, _differentiate)
backward = differentiable(_backward_kernel, _differentiable_backward, _save_backward, _differentiate_backward)


def _samples(make, shape):
    yield Sample("plain", (make(*shape),))
    yield Sample("centered, normalized", (make(*shape),), dict(centered=True, normalized=True))


OPERATOR = Operator(
    "gram_matrix",
    gram_matrix,
    reference,
    _samples,
    kernels=("gram_matrix", "gram_matrix_backward", "norm_conv2d"),
    maps=1,
    backward_maps=2,
    flops=1,
)
