"""What a call leaves alone, and what it takes."""

import poison
import pytest
import torch
from calls import (
    DEVICE,
    backend,
    cotangents,
    differentiable_calls,
    differentiate,
    every_call,
    every_dtype,
    hands_on,
    keeps_maps,
    leaves,
    run,
    tensors,
)
from layouts import channels_last, channels_last_cropped, contiguous, every_layout, every_other
from torch.profiler import ProfilerActivity, profile


@pytest.mark.skipif(DEVICE != "cpu", reason="of the CPU's allocators")
@pytest.mark.parametrize("count", [1, 38, 256, 2926, 500_000])
def test_an_element_that_no_kernel_wrote_is_nan(count):
    if not (poison.reaches_large_blocks if count > 256 else poison.reaches_small_blocks):
        pytest.skip("nothing fills it: torch has no junk filling, and libc no mallopt or a cache of small blocks")
    for _ in range(10):
        assert poison.fresh_floats(count).isnan().all()


@pytest.mark.parametrize(
    "layout", [contiguous, channels_last, every_other, channels_last_cropped], ids=lambda layout: layout.__name__
)
@every_dtype
@every_call
def test_no_argument_is_modified(call, dtype, layout):
    sample = call.sample(dtype=dtype).map(layout)
    before = [tensor.clone() for tensor in tensors(sample)]
    given = cotangents(run(call.operator.reference, sample), layout)
    given_before = [gradient.clone() for gradient in given]
    with torch.no_grad():
        run(call.operator.run, sample)
    differentiate(call.operator.run, sample, given)
    assert all(map(torch.equal, tensors(sample) + given, before + given_before))


@every_call
def test_outputs_are_new_memory(call):
    sample = call.sample()
    inputs = {tensor.untyped_storage().data_ptr() for tensor in tensors(sample)}
    outputs = run(call.operator.run, sample)
    assert inputs.isdisjoint(output.untyped_storage().data_ptr() for output in outputs)


def peak_bytes(function):
    """The most memory that torch holds at once on behalf of `function()`, its result included."""
    if DEVICE != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = function()
        torch.cuda.synchronize()
        del result
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    del result
    events = (event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]")
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def largest(maps):
    """Bytes of the largest."""
    return max(map.numel() * map.element_size() for map in maps)


def test_peak_bytes_counts():
    map = torch.zeros(1000, 1000, device=DEVICE)
    assert peak_bytes(lambda: map + 1) == pytest.approx(4_000_000, abs=1024)
    assert peak_bytes(lambda: (map + 1) * 2) == pytest.approx(8_000_000, abs=1024)


@every_layout
@every_call
def test_forward_takes_its_output_and_numbers_per_plane(call, layout):
    if backend(call.operator) == "definition":
        pytest.skip("definitions take what they like")
    n, c = 2, 16
    sample = call.sample((n, c, 128, 128)).map(layout)
    outputs = run(call.operator.run, sample)
    size = sum(output.numel() * output.element_size() for output in outputs)
    # The rims of an upsampled map are put to what is inside.
    size += hands_on(call.operator) * largest(outputs)
    # 64 numbers per plane, and the blocks in which allocators round up.
    assert peak_bytes(lambda: call.operator.run(*sample.args, **sample.kwargs)) <= size + n * c * 64 * 4 + 16 * 1024


@every_layout
@differentiable_calls
def test_backward_takes_its_gradients_and_numbers_per_plane(call, layout):
    if backend(call.operator) == "definition":
        pytest.skip("definitions take what they like")
    if call.operator.name == "attention_stats":
        pytest.skip("takes weights of a few queries, see test_attention_stats.py")
    n, c = 2, 16
    sample, inputs = leaves(call.sample((n, c, 128, 128)).map(layout))
    outputs = run(call.operator.run, sample)
    given = cotangents(outputs, layout)
    size = sum(tensor.numel() * tensor.element_size() for tensor in inputs)
    # From one step to the one before it: a gradient that comes and one that goes.
    size += (hands_on(call.operator) or keeps_maps(call.operator)) * 2 * largest([*inputs, *outputs])
    assert peak_bytes(lambda: torch.autograd.grad(outputs, inputs, given)) <= size + n * c * 64 * 4 + 16 * 1024
