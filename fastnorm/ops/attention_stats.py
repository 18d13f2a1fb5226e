"""attention_stats: attention-weighted mean and standard deviation of a style, for every position of a content.

    weight[k, q] = exp(s[k, q]) / sum over k of exp(s[k, q]),  s[k, q] = scale * sum over c of key[c, k] * query[c, q]
    mean[d, q]   = sum over k of weight[k, q] * value[d, k]
    std[d, q]    = sqrt(max(sum over k of weight[k, q] * value[d, k]^2 - mean[d, q]^2, min_var))

                                                                      AdaAttN, Liu et al. 2021, arXiv:2108.03647

A kernel meets the keys a block at a time, with the largest score so far (online softmax, Milakov and Gimelshein 2018,
arXiv:1805.02867), and keeps no score: memory is linear in positions. Values are taken less the median of a few of
them, which changes neither result and keeps digits of the deviation.

At least, for each pair of a query and a key: 2 * (C + 2 * D) flops, C being the channels of a key and D of a value; and in
the backward, which recomputes scores, of a few queries at a time, 2 * (3 * C + 4 * D).
"""

import torch

from ._layout import memory_format, product, store_like, wide_dtype, widen
from ._library import define, differentiable, gradient_of
from ._operator import Operator, Sample

# Positions that say where values are centred: not all, for a value that no query attends to may be far from the others.
CENTRE_OF = 5
# Weights of a few queries that the backward holds at a time: 8 MB in float32, a few times.
WEIGHTS_AT_A_TIME = 1 << 21


def attention_stats(query, key, value, scale=1.0, min_var=0.0, return_std=True):
    mean, std = _forward(query, key, value, scale, min_var, return_std)
    mean = mean.to(query.dtype)
    return (mean, std.to(query.dtype)) if return_std else mean


def reference(query, key, value, scale=1.0, min_var=0.0, return_std=True):
    found = tuple(map.to(query.dtype) for map in formula(query, key, value, scale, min_var, return_std) if map is not None)
    return found if return_std else found[0]


# The formula, in the type in which its maps are computed.


def formula(query, key, value, scale, min_var, need_std):
    weights = _scores(query, key, scale).softmax(1)
    centre, centred = _centred(value)
    mean = product(centred, weights)
    std = None
    if need_std:
        var = product(centred.square(), weights) - mean.square()
        # The root of nothing has no derivative, and of less no value.
        too_small = var <= min_var
        std = torch.where(too_small, min_var**0.5, torch.where(too_small, 1.0, var).sqrt())
    return tuple(None if found is None else _map_of(found, query) for found in (mean + centre, std))


def backward_formula(grad_mean, grad_std, query, key, value, scale, min_var):
    """Gradients of query, key and value; of a std that nobody asked for there is none."""

    def of_maps(*maps):
        found = formula(*maps, scale, min_var, grad_std is not None)
        return tuple(map for map in found if map is not None)

    _, pull_back = torch.func.vjp(of_maps, query, key, value)
    return pull_back(tuple(grad for grad in (grad_mean, grad_std) if grad is not None))


def _scores(query, key, scale):
    """(N, keys, queries)."""
    return product(widen(key).flatten(2).transpose(1, 2), widen(query).flatten(2) * scale)


def _centred(value):
    """The median of a few positions, of which 0 takes the place of what is no number, and what is left."""
    value = widen(value).flatten(2)
    last, middle = value.shape[2] - 1, CENTRE_OF // 2
    few = torch.stack([value.detach()[:, :, index * last // (CENTRE_OF - 1)] for index in range(CENTRE_OF)], 2)
    centre = torch.where(few.isfinite(), few, 0.0).sort(2).values[:, :, middle : middle + 1]
    return centre, value - centre


def _map_of(positions, query):
    """(N, D, queries) in the shape of the query's map."""
    return positions.reshape(*positions.shape[:2], *query.shape[2:])


# The operator. Its results are wide: the backward needs their digits.


def _definition(query, key, value, scale, min_var, need_std):
    settings = scale, min_var, need_std
    return tuple(map(store_like, _fake(query, key, value, *settings), formula(query, key, value, *settings)))


def _fake(query, key, value, scale, min_var, need_std):
    shape = query.shape[0], value.shape[1], *query.shape[2:]
    mean = query.new_empty(shape, dtype=wide_dtype(query)).contiguous(memory_format=memory_format(query))
    return mean, torch.empty_like(mean) if need_std else mean.new_empty(0)


_forward_kernel = define(
    "attention_stats",
    "(Tensor query, Tensor key, Tensor value, float scale, float min_var, bool need_std)"
    " -> (Tensor mean, Tensor std)",
    _definition,
    _fake,
)


# Its backward. With g = grad_std / (2 std), each weight's gradient is
#     sum over d of x * (grad_mean - 2 mean g) + x^2 * g,  x being the centred value,
# less its weighted mean over keys.


def _backward_definition(grad_mean, grad_std, query, key, value, mean, std, scale, min_var):
    gradients = _backward_fake(grad_mean, grad_std, query, key, value, mean, std, scale, min_var)
    queries, keys = (widen(map).flatten(2) for map in (query, key))
    centre, centred = _centred(value)
    channels, of_weighted = centred, grad_mean.flatten(2)
    if grad_std is not None:
        mean, std = mean.flatten(2) - centre, std.flatten(2)
        of_square = torch.where(std <= _stored(min_var**0.5, std), 0.0, grad_std.flatten(2) / (2 * std))
        channels = torch.cat([centred, centred.square()], 1)
        of_weighted = torch.cat([of_weighted - 2 * mean * of_square, of_square], 1)

    # Of as many samples at a time as have so few weights, of one else.
    samples = max(1, WEIGHTS_AT_A_TIME // max(1, keys.shape[2] * queries.shape[2]))
    parts = zip(*(tensor.split(samples) for tensor in (queries, keys, channels, of_weighted)))
    grad_queries, grad_keys, grad_channels = map(torch.cat, zip(*(_backward_of_some(*part, scale) for part in parts)))

    grad_values = grad_channels[:, : value.shape[1]]
    if grad_std is not None:
        grad_values = grad_values + 2 * centred * grad_channels[:, value.shape[1] :]
    found = grad_queries, grad_keys, grad_values
    return tuple(store_like(wanted, gradient.reshape(wanted.shape)) for wanted, gradient in zip(gradients, found))


def _backward_of_some(queries, keys, channels, of_weighted, scale):
    """Gradients of queries, keys and of the channels that are weighted, given those of the weighted."""
    grad_queries, grad_keys, grad_channels = [], torch.zeros_like(keys), torch.zeros_like(channels)
    at_a_time = max(1, WEIGHTS_AT_A_TIME // max(1, keys.shape[0] * keys.shape[2]))
    by_key, by_position = keys.transpose(1, 2).contiguous(), channels.transpose(1, 2).contiguous()
    for some, of_some in zip(queries.split(at_a_time, 2), of_weighted.split(at_a_time, 2)):
        weights = product(by_key, some * scale).softmax(1)
        grad_weights = product(by_position, of_some)
        grad_scores = (grad_weights - (grad_weights * weights).sum(1, keepdim=True)).mul_(weights).mul_(scale)
        grad_queries.append(product(keys, grad_scores))
        grad_keys = grad_keys + product(some, grad_scores.transpose(1, 2))
        grad_channels = grad_channels + product(of_some, weights.transpose(1, 2))
    return torch.cat(grad_queries, 2), grad_keys, grad_channels


def _stored(number, map):
    """As a map holds it."""
    return torch.tensor(number, dtype=map.dtype).item()


def _backward_fake(grad_mean, grad_std, query, key, value, mean, std, scale, min_var):
    return tuple(torch.empty_like(map, memory_format=memory_format(map)) for map in (query, key, value))


_backward_kernel = define(
    "attention_stats_backward",
    "(Tensor grad_mean, Tensor? grad_std, Tensor query, Tensor key, Tensor value, Tensor mean, Tensor std,"
    " float scale, float min_var) -> (Tensor grad_query, Tensor grad_key, Tensor grad_value)",
    _backward_definition,
    _backward_fake,
)


def _save(ctx, inputs, output):
    *maps, ctx.scale, ctx.min_var, ctx.need_std = inputs
    ctx.set_materialize_grads(False)
    mean, std = output
    # Without a deviation nothing depends on the mean itself: others may change it in place.
    ctx.save_for_backward(*maps, mean if ctx.need_std else std, std)


def _differentiate(ctx, grad_mean, grad_std):
    *maps, mean, std = ctx.saved_tensors
    if grad_mean is None and grad_std is None:
        return (None,) * 6
    if grad_mean is None:
        grad_mean = torch.zeros_like(mean)
    return *_backward(grad_mean, grad_std, *maps, mean, std, ctx.scale, ctx.min_var), None, None, None


def _save_backward(ctx, inputs, output):
    grad_mean, grad_std, query, key, value, _, _, *ctx.settings = inputs
    ctx.save_for_backward(grad_mean, grad_std, query, key, value)
    ctx.set_materialize_grads(False)


def _differentiate_backward(ctx, *gradients):
    found = gradient_of(lambda *tensors: backward_formula(*tensors, *ctx.settings), ctx.saved_tensors, gradients)
    return *found, None, None, None, None


_forward = differentiable(_forward_kernel, _definition, _save, _differentiate)
_backward = differentiable(_backward_kernel, _backward_definition, _save_backward, _differentiate_backward)


def _samples(make, shape):
    n, c = shape[:2]
    scale = 0.2  # Of 25 channels, scores of about 1.
    query, key, value = make(*shape), make(n, c, 5, 6), make(n, 7, 5, 6)
    yield Sample("scaled", (query, key, value), dict(scale=scale))
    yield Sample("plain attention", (query, key, value), dict(scale=scale, return_std=False))
    yield Sample("some deviations too small", (query, key, value), dict(scale=scale, min_var=0.8))


OPERATOR = Operator(
    "attention_stats",
    attention_stats,
    reference,
    _samples,
    kernels=("attention_stats", "attention_stats_backward"),
    maps=2,
    backward_maps=3,
    flops=6,
)
