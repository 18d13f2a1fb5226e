"""What only a GPU shows: large maps, addresses beyond 32 bits, CUDA graphs, the same bits from every run."""

import pytest
import torch
from accuracy import assert_accurate, assert_gradients, assert_values
from calls import DEVICE, bends, cotangents, differentiate, double, every_call, gradients_of, is_map, leaves, run, tensors
from layouts import every_layout

from fastnorm.ops import OPERATORS

pytestmark = pytest.mark.skipif(torch.device(DEVICE).type != "cuda", reason="needs FASTNORM_TEST_DEVICE=cuda")


@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 64, 256, 256), (1, 1, 2048, 2048), (2, 512, 64, 64)], ids=str)
@every_call
def test_large_maps(call, shape, dtype, layout):
    sample = call.sample(shape, dtype).map(layout)
    assert_values(call.operator, sample)
    if not bends(sample):
        assert_gradients(call.operator, sample, layout)


@every_layout
@every_call
def test_every_run_gives_the_same_bits(call, layout):
    sample = call.sample((4, 64, 128, 128)).map(layout)
    first, *others = [results(call.operator, sample) for _ in range(5)]
    for other in others:
        assert all(torch.equal(one, another) for one, another in zip(first, other, strict=True))


def results(operator, sample):
    """Outputs and gradients."""
    outputs = run(operator.run, sample)
    return *outputs, *differentiate(operator.run, sample, cotangents(outputs))


@every_layout
@every_call
def test_a_cuda_graph_can_be_replayed_on_other_numbers(call, layout):
    sample = call.sample((2, 16, 32, 32)).map(layout)
    given = cotangents(run(call.operator.run, sample))

    def step():
        copy, inputs = leaves(sample)
        outputs = run(call.operator.run, copy)
        return *outputs, *gradients_of(outputs, inputs, given)

    on_the_side = torch.cuda.Stream()
    on_the_side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(on_the_side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(on_the_side)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for tensor, other in zip(tensors(sample), tensors(call.sample((2, 16, 32, 32), seed=2)), strict=True):
        tensor.copy_(other)
    graph.replay()
    for replayed, expected in zip(captured, step(), strict=True):
        torch.testing.assert_close(replayed, expected)


@every_layout
@pytest.mark.parametrize("name", ["instance_stats", "scale_shift", "instance_norm", "reflection_pad"])
def test_more_elements_than_32_bits_count(name, layout):
    shape = (1, 33, 8192, 8192)  # The last plane begins at 2^31 elements.
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GiB of free GPU memory")
    operator = OPERATORS[name]

    def make(*shape):
        return layout(torch.randn(shape, device=DEVICE, dtype=torch.bfloat16))

    sample = next(operator.samples(make, shape))
    last = sample.map(of_last_channel)
    outputs = run(operator.run, sample)
    given = [torch.randn_like(output) for output in outputs]
    last_given = [of_last_channel(gradient) for gradient in given]

    results = outputs, run(operator.reference, last.map(double)), run(operator.reference, last)
    for index, (output, exact, own) in enumerate(zip(*results, strict=True)):
        assert_accurate(of_last_channel(output), exact, own, f"output {index}", scale=0.0 if is_map(output) else 1.0)

    results = (
        differentiate(operator.run, sample, given),
        differentiate(operator.reference, last.map(double), [gradient.double() for gradient in last_given]),
        differentiate(operator.reference, last, last_given),
    )
    gradient, exact, own = (gradients[0] for gradients in results)
    assert_accurate(of_last_channel(gradient), exact, own, "gradient of the map")


def of_last_channel(tensor):
    return tensor[-1:] if tensor.dim() == 1 else tensor[:, -1:]
