"""How near is near enough: at most twice as far from the float64 reference as torch's own path in the same type."""

import inspect

import torch
from calls import cotangents, differentiate, double, hands_on, is_map, run, tensors
from layouts import expected_format

# What is allowed where torch's path happens to hit the number, in units in the last place of the largest one. A result
# in low precision is computed in float32 and rounded once. In float32 the affine map, the activation and the sums round
# a few times each. Torch's path in float64 is the reference itself, so there all error is ours: a path that went
# through float32 anywhere would be a million times further away.
ULPS = {torch.float64: 512, torch.float32: 4, torch.bfloat16: 0.5, torch.float16: 0.5}

# Beside numbers of size 1 this is nothing: exponentials underflow at different places.
ZERO = 1e-30


def assert_accurate(actual, expected, own, what, computed=torch.float32, scale=0.0, relative=0.0, in_steps=False):
    """`expected` is the float64 reference's tensor, `own` that of torch in the same type as `actual`.

    `computed` is the type of the arithmetic, `scale` the size of the terms where they cancel in the sum, `relative` an
    error that cannot be avoided. With `in_steps`, what overflows underway may be another number than of torch's steps.
    """
    assert (actual.dtype, actual.shape) == (own.dtype, own.shape), what
    # Where the type ends, torch's own path says what must come: an infinity or NaN.
    finite = own.isfinite()
    if in_steps:
        finite &= actual.isfinite()
    else:
        torch.testing.assert_close(actual[~finite], own[~finite], rtol=0, atol=0, equal_nan=True, msg=f"{what}: not finite")
    if not finite.any():
        return
    # float32 arithmetic does not get better by a float64 parameter.
    dtype = max(actual.dtype, computed, key=lambda dtype: torch.finfo(dtype).eps)
    info = torch.finfo(dtype)
    largest = max(expected[finite].abs().max().item(), scale)
    floor = ULPS[dtype] * max(info.eps * largest, info.smallest_normal * info.eps) + relative * largest + ZERO
    error, own_error = ((found[finite].double() - expected[finite]).abs().max().item() for found in (actual, own))
    report = f"{what}: off by {error:.3g}, torch by {own_error:.3g}, largest {largest:.3g}"
    assert error <= 2 * own_error + floor, report


def assert_values(operator, sample, scale=1.0, in_steps=False):
    """Values, types, shapes and layout of the outputs.

    `scale` is the deviation of the input: a mean is as near as that asks, however near it is to zero.
    """
    outputs, own = run(operator.run, sample), run(operator.reference, sample)
    expected = run(operator.reference, sample.map(double))
    assert len(outputs) == len(own)
    format = expected_format(tensors(sample)[0])
    sums = size_of_sums(operator, sample.map(double), tensors(sample)[0].dtype.itemsize < 4)
    for index, output in enumerate(outputs):
        size = sums if is_map(output) else scale
        what = f"output {index}"
        assert_accurate(output, expected[index], own[index], what, computed_type(sample), size, in_steps=in_steps)
        # Near to the end, one more place of what comes before it decides.
        far_inside = own[index].abs() < torch.finfo(output.dtype).max / 2
        assert not in_steps or output[far_inside].isfinite().all(), what
        is_like_input = output.dim() == tensors(sample)[0].dim()
        assert output.is_contiguous(memory_format=format if is_like_input else torch.contiguous_format)


def size_of_sums(operator, sample, narrow):
    """How large a sum over the taps and channels of a layer may be, before terms of both signs cancel: it is rounded there.

    0 for what is no layer.
    """
    # In a narrower type what counts is the last rounding, of the sum itself.
    if not hands_on(operator) or narrow:
        return 0.0
    input, weight, *_ = sample.args
    if "return_entered" in inspect.signature(operator.reference).parameters:
        input = operator.reference(*sample.args, **sample.kwargs | dict(return_entered=True))[-1]
    filters = weight.flatten(-len(input.shape) + 1)
    return (input.abs().max() * filters.norm(dim=-1).max()).item() if input.numel() and filters.numel() else 0.0


def assert_gradients(operator, sample, layout=lambda gradient: gradient, scale=0.0, relative=0.0, in_steps=False):
    """The gradient of every differentiable input, for random gradients laid out as asked."""
    given = cotangents(run(operator.reference, sample), layout)
    gradients = differentiate(operator.run, sample, given)
    own = differentiate(operator.reference, sample, given)
    expected = differentiate(operator.reference, sample.map(double), [gradient.double() for gradient in given])
    for index, gradient in enumerate(gradients):
        # A parameter's gradient is a sum of n terms of either sign, so of size sqrt(n) before they happen to cancel.
        terms = 0 if is_map(gradient) else tensors(sample)[0].numel() / max(gradient.numel(), 1)
        size = max(scale, terms**0.5)
        what = f"gradient {index}"
        assert_accurate(gradient, expected[index], own[index], what, computed_type(sample), size, relative, in_steps)


def computed_type(sample):
    """float64 if every map is: of a narrower style the statistics, too, are narrower."""
    return torch.float64 if all(map.dtype == torch.float64 for map in tensors(sample) if is_map(map)) else torch.float32
