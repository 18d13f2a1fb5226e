"""Contenders checked against float64, and what is made of their times."""

import math
from dataclasses import replace

import pytest
import torch

from fastnorm.bench.clock import Contender, Timing
from fastnorm.bench.contenders import FASTNORM, LAYOUTS, Case, Error, Stage, error, layouts_of
from fastnorm.bench.measure import Entry, Measurement, measure, peak_bytes
from fastnorm.ops import OPERATORS, backends

CPU = torch.device("cpu")
SHAPE = 2, 3, 6, 5

both_passes = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def case(name="instance_norm", backward=False, shape=SHAPE, dtype=torch.float32):
    return Case(OPERATORS[name], backward, shape, dtype, CPU)


def quick(case, **options):
    """Measured on a clock that says 1 for everything."""

    def clock(run, prepared):
        for state in prepared:
            run(state)
        return float(len(prepared))

    return measure(case, rounds=1, clock=clock, **options)


# Every operator has rivals that compute the same as it does.


@both_passes
@every_operator
@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 30), (2, 3, 4, 3, 5)], ids=["2-D", "1-D", "3-D"])
def test_all_contenders_are_right(operator, backward, shape):
    if operator.name.endswith(("2d", "patch_match", "swap_patches", "style_swap")) and len(shape) != 4:
        pytest.skip("of images")
    if backward and not operator.backward_maps:
        pytest.skip("has no derivative")
    assert_all_right(case(operator.name, backward, shape, torch.float64))


@both_passes
@pytest.mark.parametrize("kind", ["depthwise", "grouped", "dense"])
def test_kinds_of_a_call(kind, backward):
    assert_all_right(replace(case("dynamic_instance_norm", backward, SHAPE, torch.float64), kind=kind))


def assert_all_right(case):
    found = quick(case, rivals=("eager", "idiom"))
    shape, backward = case.shape, case.backward
    wanted = {(name, layout) for name in (FASTNORM, "eager", "idiom") for layout in layouts_of(shape)}
    assert {(entry.name, entry.layout) for entry in found.entries} == wanted
    # torch's own backward is, where a gradient in channels_last reaches F.instance_norm, wrong.
    wrong = {(entry.name, entry.layout) for entry in found.entries if entry.problem}
    assert wrong <= ({("eager", "channels_last")} if backward else set())


@both_passes
def test_low_precision_is_not_taken_for_wrong(backward):
    found = quick(case("adain", backward, (1, 8, 32, 32), torch.bfloat16), layouts=("nchw",), rivals=("eager", "idiom"))
    assert [entry.problem for entry in found.entries] == ["", "", ""]


@pytest.mark.long
def test_torch_compile_competes():
    found = quick(case(), layouts=("nchw",), rivals=("compile",))
    assert found.of("compile", "nchw").timing.median == 1.0


# Who is wrong, and who fails.


def change(monkeypatch, name, function):
    """Let another function stand for a rival of instance_norm."""
    from fastnorm.benchmarks import instance_norm

    right = getattr(instance_norm, name)
    monkeypatch.setattr(instance_norm, name, lambda **arguments: function(right, arguments))


def test_a_wrong_rival_is_reported_and_not_timed(monkeypatch):
    change(monkeypatch, "idiom", lambda right, arguments: right(**arguments) * 1.001)
    found = quick(case(), rivals=("eager", "idiom"))
    idiom = found.best("idiom")
    assert (idiom.problem, idiom.timing) == ("wrong", None)
    assert "off by 0.001 of the largest number, allowed 0.0001" == idiom.detail
    assert found.ratio("idiom", "nchw") is None
    assert found.ratio("eager", "nchw") == 1.0


def test_a_rival_with_a_wrong_gradient_is_reported(monkeypatch):
    def detached(right, arguments):
        return right(**arguments | {"weight": arguments["weight"].detach() + 0 * arguments["weight"]})

    change(monkeypatch, "idiom", detached)
    found = quick(case(backward=True), layouts=("nchw",), rivals=("idiom",))
    assert found.of("idiom", "nchw").problem == "wrong"


def test_not_a_number_is_wrong(monkeypatch):
    change(monkeypatch, "idiom", lambda right, arguments: right(**arguments).index_fill(2, torch.tensor(3), math.nan))
    assert quick(case(), rivals=("idiom",)).best("idiom").problem == "wrong"


def test_a_rival_that_fails_is_reported_in_one_line(monkeypatch):
    def broken(right, arguments):
        raise RuntimeError("no compiler\nwas found")

    change(monkeypatch, "eager", broken)
    entry = quick(case(), rivals=("eager", "idiom")).of("eager", "nchw")
    assert (entry.problem, entry.detail) == ("failed", "RuntimeError: no compiler")


def test_a_wrong_fastnorm_has_no_numbers(monkeypatch):
    monkeypatch.setattr("fastnorm.functional.instance_norm", lambda input, weight, bias: input * 2)
    found = quick(case(), layouts=("nchw",), rivals=("eager",))
    assert found.of(FASTNORM, "nchw").problem == "wrong"
    assert found.copies("nchw") is found.of_limit("nchw") is found.ratio("eager", "nchw") is None


def test_error_is_relative_to_the_largest_number_of_each_result():
    exact = [torch.tensor([100.0, -200.0]).double(), torch.tensor([1.0]).double()]
    assert error([torch.tensor([101.0, -200.0]), torch.tensor([1.0])], exact) == Error(1.0, 0.5, 1 / 200)
    assert error([torch.tensor([100.0, -200.0]), torch.tensor([1.5])], exact) == Error(0.5, 0.5, 0.5)
    assert error([torch.tensor([100.0]), torch.tensor([1.0])], exact) == Error(math.inf, math.inf, math.inf)
    with pytest.raises(ValueError):
        error([torch.tensor([100.0, -200.0])], exact)


# What each contender is given.


@both_passes
def test_each_layout_holds_the_same_numbers_in_its_order(backward):
    stage = Stage(case("adain", backward))
    for layout in LAYOUTS:
        prepared = stage.contender("eager", layout).prepare()
        arguments = prepared[1] if backward else prepared
        for name, value in arguments.items():
            assert torch.equal(value, stage._arguments[name])
            assert value.is_contiguous() == (layout == "nchw")
            assert value.requires_grad == backward


def test_a_gradient_comes_in_the_type_and_layout_of_the_output():
    stage = Stage(case("scale_shift", backward=True, dtype=torch.bfloat16))
    outputs, _, gradients = stage.contender("eager", "channels_last").prepare()
    assert gradients[0].dtype == torch.bfloat16
    assert gradients[0].stride() == outputs[0].stride() != outputs[0].contiguous().stride()


def test_the_copy_copies():
    copy = Stage(case()).copy()
    source = copy.prepare()
    assert source.shape == SHAPE
    out = copy.run(source)
    assert torch.equal(out, source) and out.data_ptr() != source.data_ptr()


# What follows from the times.


def timing(median):
    return Timing(median, median, median, 9)


def measured():
    """instance_norm in 3 ms where a copy takes 2: one read and one write at least, as the copy."""
    return Measurement(
        case(shape=(1, 64, 512, 512)),
        timing(2e-3),
        (
            Entry(FASTNORM, "nchw", timing(3e-3), 64 * 2**20),
            Entry(FASTNORM, "channels_last", timing(4e-3), 64 * 2**20),
            Entry("eager", "nchw", timing(30e-3), 0),
            Entry("eager", "channels_last", timing(24e-3), 0),
            Entry("idiom", "nchw", problem="wrong", detail="off"),
            Entry("idiom", "channels_last", problem="failed", detail="broken"),
        ),
    )


def test_copies_limit_and_ratios():
    found = measured()
    assert found.layouts == ["nchw", "channels_last"]
    assert found.rate == pytest.approx(2 * 64 * 512 * 512 * 4 / 2e-3)
    assert found.copies("nchw") == pytest.approx(1.5)
    assert found.of_limit("nchw") == pytest.approx(2 / 3)
    assert found.of_limit("channels_last") == pytest.approx(1 / 2)
    # A rival counts in its better layout, for both of ours.
    assert found.ratio("eager", "nchw") == pytest.approx(8)
    assert found.ratio("eager", "channels_last") == pytest.approx(6)
    assert found.ratio("idiom", "nchw") is None
    assert found.ratio("compile", "nchw") is None


@pytest.mark.parametrize(
    "name, maps, backward_maps", [("instance_stats", 1, 2), ("adain", 3, 5), ("spatially_adaptive_norm", 4, 5)]
)
def test_the_limit_counts_the_maps_that_must_be_moved(name, maps, backward_maps):
    for backward, count in ((False, maps), (True, backward_maps)):
        subject = case(name, backward, dtype=torch.bfloat16)
        found = Measurement(subject, timing(2e-3), (Entry(FASTNORM, "nchw", timing(1e-3 * count), 0),))
        assert found.of_limit("nchw") == pytest.approx(1)


def test_peak_memory_is_the_most_at_any_time_not_the_sum():
    megabyte = 2**20

    def run(size):
        for _ in range(3):
            first = torch.zeros(size, dtype=torch.uint8)
            second = first + 1
            del first, second
        return torch.zeros(size // 2, dtype=torch.uint8)

    found = peak_bytes(Contender(lambda: megabyte, run), CPU)
    assert 2 * megabyte <= found < 2.1 * megabyte


@pytest.mark.skipif(backends.which("instance_norm", "cpu") != "cpu", reason="needs the compiled extension")
def test_a_forward_needs_its_output_and_little_more():
    found = quick(case(shape=(1, 8, 64, 64)), rivals=())
    for layout in LAYOUTS:
        assert 1 <= found.of(FASTNORM, layout).peak_bytes / (8 * 64 * 64 * 4) < 1.01
