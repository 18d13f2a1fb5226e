"""match_histogram: each plane of a map, changed monotonically until its numbers are distributed as a target's.

                              Risser, Wilmot and Barnes 2017, arXiv:1701.08893: the remap of their histogram loss.

By sorting, exactly: of n numbers, those of ranks a to b, which are equal (b = a + 1 where no others are), become

    the average over a / n .. b / n of the target's quantiles, which are a step function of its sorted numbers

so that equal numbers stay equal and the output's mean is the target's. Ends of intervals are fractions: in units of
1 / (n m), m being how many numbers the target has, all of them are integers. It is linear in the target's numbers, and
does not change with the input, of which only the order counts.

By bins, of which both planes have so many between their least and largest number, as published:

    inverse(cumulative histogram of the target)(cumulative histogram of the input (x)), both linear within a bin

In float64, here and in kernels.

At least, per element: one read of both maps and one write. Sorting asks for a few passes over either plane, in cache.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._layout import empty_map, store_like
from ._library import define, differentiable, gradient_of
from ._operator import Operator, Sample

# Each plane has a table of as many, at most.
MOST_BINS = 1 << 16

# A level that is a whole number is found in the bin that ends there, though its last places are lost: of whole numbers many
# are, and the next bin may be far away.
ALMOST = 1 - 2.0**-49

INFINITY, NAN = float("inf"), float("nan")


def match_histogram(input, target, bins=None, input_mask=None, target_mask=None):
    return _forward(input, target, input_mask, target_mask, bins or 0)


def reference(input, target, bins=None, input_mask=None, target_mask=None):
    return formula(input, target, input_mask, target_mask, bins or 0).to(input.dtype)


# The formula, in float64; 0 bins stand for sorting.


def formula(input, target, input_mask, target_mask, bins):
    x, taken, y, given, matched = _planes(input, target, input_mask, target_mask)
    numbers = x.detach(), taken, y, given
    found = _by_bins(*numbers, bins) if bins else _by_sorting(*numbers)
    return torch.where(matched, found, x).reshape(input.shape)


def backward_formula(grad, input, target, input_mask, target_mask, bins):
    """What is matched hands nothing on to the input; by sorting, each target gets its share of what it has a part in."""
    x, taken, y, given, matched = _planes(input, target, input_mask, target_mask)
    grad = grad.double().flatten(2)
    grad_input = torch.where(matched, 0.0, grad)
    if bins:
        # Of zeros, which is not the same as none.
        grad_target = torch.zeros_like(y) + grad[..., :0].sum()
    else:
        grad_target = _by_sorting_backward(grad, x, taken, y, given)
    return grad_input.reshape(input.shape), grad_target.reshape(target.shape)


def _planes(input, target, input_mask, target_mask):
    """Both maps' planes, which numbers of each take part, and which of the input's are matched."""
    x, y = (map.double().flatten(2) for map in (input, target))
    taken, given = _taken(x, input_mask), _taken(y, target_mask)
    return x, taken, y, given, taken & given.any(2, keepdim=True)


def _taken(planes, mask):
    """Those that are numbers, of positions that count."""
    taken = ~planes.isnan()
    return taken if mask is None else taken & mask.flatten(1).unsqueeze(1)


def _count(taken):
    return taken.sum(2, keepdim=True)


@dataclass(frozen=True)
class _Plan:
    """Which groups of equal numbers have which targets. A piece of 0..1 is of one number and of one target."""

    order: Tensor  # of the numbers
    group: Tensor  # of each number, in order
    target_order: Tensor
    piece_group: Tensor
    piece_target: Tensor  # in order
    share: Tensor  # of a piece in what its group becomes

    def parts(self, of_pieces):
        """What has no share has no part, even if it is infinite."""
        return torch.where(self.share > 0, of_pieces, 0.0) * self.share


def _plan(x, taken, y, given):
    x, order = _sorted(x, taken)
    _, target_order = _sorted(y, given)
    numbers, targets = x.shape[2], y.shape[2]
    n, m = (_count(mask).clamp(min=1) for mask in (taken, given))
    starts = torch.cat([torch.zeros_like(taken[..., :1]), x[..., 1:] != x[..., :-1]], 2)
    group = starts.cumsum(2)
    in_group = torch.zeros_like(group).scatter_add(2, group, torch.ones_like(group))

    cuts = [torch.arange(1, 1 + count, device=x.device) * of for count, of in ((numbers, m), (targets, n))]
    ends = torch.cat(cuts, 2).minimum(_count(taken) * _count(given)).sort(2).values
    begins = torch.cat([torch.zeros_like(ends[..., :1]), ends[..., :-1]], 2)
    piece_group = group.gather(2, (begins // m).clamp(max=numbers - 1))
    piece_target = (begins // n).clamp(max=targets - 1)
    share = (ends - begins).double() / (in_group.gather(2, piece_group) * m)
    return _Plan(order, group, target_order, piece_group, piece_target, share)


def _sorted(planes, taken):
    """Those that take part, in order, of equal ones as they come; behind them NaN."""
    return torch.where(taken, planes, NAN).sort(dim=2, stable=True)


def _by_sorting(x, taken, y, given):
    y, given = (map.expand(x.shape[0], -1, -1) for map in (y, given))
    plan = _plan(x, taken, y.detach(), given)
    parts = plan.parts(y.gather(2, plan.target_order).gather(2, plan.piece_target))
    average = torch.zeros_like(x).scatter_add(2, plan.piece_group, parts)
    return torch.zeros_like(x).scatter(2, plan.order, average.gather(2, plan.group))


def _by_sorting_backward(grad, x, taken, y, given):
    planes, mask = (map.expand(x.shape[0], -1, -1) for map in (y, given))
    plan = _plan(x, taken, planes, mask)
    in_group = torch.zeros_like(grad).scatter_add(2, plan.group, grad.gather(2, plan.order))
    parts = plan.parts(in_group.gather(2, plan.piece_group))
    in_order = torch.zeros_like(planes).scatter_add(2, plan.piece_target, parts)
    found = torch.zeros_like(planes).scatter(2, plan.target_order, in_order)
    return found if y.shape[0] == x.shape[0] else found.sum(0, keepdim=True)


def _by_bins(x, taken, y, given, bins):
    x, low, width = _within(x, taken)
    y_within, y_low, y_width = _within(y.detach(), given)
    n, m = _count(taken).clamp(min=1), _count(given).clamp(min=1)
    position, bin, counts = _histogram(x, taken, low, width, bins)
    below = counts.cumsum(2) - counts
    _, _, y_counts = _histogram(y_within, given, y_low, y_width, bins)
    y_upto = y_counts.cumsum(2)

    level = (below.gather(2, bin) + counts.gather(2, bin) * (position - bin)) * m / n
    shared = x.shape[0], -1, -1
    y_bin = torch.searchsorted(y_upto.expand(shared).contiguous(), level * ALMOST).clamp(max=bins - 1)
    y_count, upto = (of_bins.expand(shared).gather(2, y_bin) for of_bins in (y_counts, y_upto))
    found = y_low + (y_bin + (level - (upto - y_count)) / y_count.clamp(min=1)) / bins * y_width
    mean = torch.where(given, y_within, 0.0).sum(2, keepdim=True) / m
    # With a gradient of zeros, which is not the same as none.
    return torch.where(width > 0, found, mean) + y[..., :0].sum()


def _within(planes, taken):
    """Planes in which an infinity is the nearest other number (0 where there is none), their least one, and the width."""
    finite = taken & planes.isfinite()
    low = torch.where(finite, planes, INFINITY).amin(2, keepdim=True)
    high = torch.where(finite, planes, -INFINITY).amax(2, keepdim=True)
    low, high = (torch.where(low > high, 0.0, end) for end in (low, high))
    return torch.where(taken, planes, low).clamp(low, high), low, high - low


def _histogram(planes, taken, low, width, bins):
    """Where numbers are, in bins; the bin of each; and how many of those that take part each bin has."""
    position = (planes - low) / torch.where(width > 0, width, 1.0) * bins
    bin = position.long().clamp(max=bins - 1)
    counts = planes.new_zeros(*planes.shape[:2], bins).scatter_add(2, bin, taken.to(planes.dtype))
    return position, bin, counts


# The operator.


def _definition(input, target, input_mask, target_mask, bins):
    return store_like(empty_map(input), formula(input, target, input_mask, target_mask, bins))


def _fake(input, target, input_mask, target_mask, bins):
    return empty_map(input)


_forward_kernel = define(
    "match_histogram",
    "(Tensor input, Tensor target, Tensor? input_mask, Tensor? target_mask, int bins) -> Tensor",
    _definition,
    _fake,
)


def _backward_definition(grad, input, target, input_mask, target_mask, bins, need_input, need_target):
    wanted = _backward_fake(grad, input, target, input_mask, target_mask, bins, need_input, need_target)
    return tuple(map(store_like, wanted, backward_formula(grad, input, target, input_mask, target_mask, bins)))


def _backward_fake(grad, input, target, input_mask, target_mask, bins, need_input, need_target):
    return empty_map(input, need_input), empty_map(target, need_target)


_backward_kernel = define(
    "match_histogram_backward",
    "(Tensor grad, Tensor input, Tensor target, Tensor? input_mask, Tensor? target_mask, int bins,"
    " bool need_input, bool need_target) -> (Tensor grad_input, Tensor grad_target)",
    _backward_definition,
    _backward_fake,
)


def _save(ctx, inputs, output):
    *tensors, ctx.bins = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    needed = ctx.needs_input_grad[:2]
    found = _backward(grad, *ctx.saved_tensors, ctx.bins, *needed)
    return *(gradient if need else None for gradient, need in zip(found, needed)), None, None, None


def _save_backward(ctx, inputs, output):
    grad, input, target, *ctx.settings, _, _ = inputs
    ctx.save_for_backward(grad, input, target)
    ctx.set_materialize_grads(False)


def _differentiate_backward(ctx, *gradients):
    found = gradient_of(lambda *tensors: backward_formula(*tensors, *ctx.settings), ctx.saved_tensors, gradients)
    return *found, None, None, None, None, None


_forward = differentiable(_forward_kernel, _definition, _save, _differentiate)
_backward = differentiable(_backward_kernel, _backward_definition, _save_backward, _differentiate_backward)


def _samples(make, shape):
    n, c, *plane = shape
    wider = [size + 1 for size in plane]
    yield Sample("sorted", (make(*shape), make(n, c, *wider)))
    masks = dict(input_mask=make(n, *plane) > -1, target_mask=make(1, 1, *wider) > 0)
    yield Sample("bins, masks, one target for all", (make(*shape), make(1, c, *wider)), dict(bins=32) | masks)


OPERATOR = Operator(
    "match_histogram",
    match_histogram,
    reference,
    _samples,
    kernels=("match_histogram", "match_histogram_backward"),
    maps=3,
    backward_maps=5,
    flops=20,
)
