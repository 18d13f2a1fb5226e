"""Losses against their formulas in float64, written by hand."""

import re

import pytest
import torch
import torch.nn.functional as F

from fastnorm import functional, losses


def maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INPUT, TARGET = maps(2, 3, 7, 9), maps(2, 3, 7, 9, seed=1) + 0.5


def squares(a, b):
    return (a - b).square()


def normalised(map, eps=1e-5, correction=0):
    mean, var = map.mean((2, 3), keepdim=True), map.var((2, 3), keepdim=True, correction=correction)
    return (map - mean) / (var + eps).sqrt()


def deviation(map, correction):
    return (map.var((2, 3), correction=correction) + 1e-5).sqrt()


def gram(map, centred=False):
    rows = map.flatten(2)
    rows = rows - rows.mean(2, keepdim=True) if centred else rows
    return torch.einsum("ncp,ndp->ncd", rows, rows)


def ranked(input, target):
    """Each value of the input by the target's of the same rank, in each plane."""
    order = input.detach().flatten(2).argsort(2)
    return torch.zeros_like(input).flatten(2).scatter(2, order, target.flatten(2).sort(2).values).view(input.shape)


def edges(picture, size):
    kernel = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=torch.float64).expand(1, 3, 3, 3)
    return F.conv2d(F.avg_pool2d(picture, size), kernel)


def patches(map, size, stride):
    """(N, patches, numbers)."""
    return F.unfold(map, size, stride=stride).transpose(1, 2)


def nearest(input, target, size, stride):
    own, others = patches(input, size, stride), patches(target, size, stride)
    best = (F.normalize(own.detach(), dim=2) @ F.normalize(others, dim=2).transpose(1, 2)).argmax(2)
    return squares(own, torch.stack([sample[index] for sample, index in zip(others, best)]))


def variation(picture, power):
    down, right = (picture.diff(dim=dim).abs() ** power for dim in (2, 3))
    return down, right


# The loss; of input and target, all numbers that it averages, in parts that are averaged each.
CASES = {
    "content": (losses.ContentLoss, {}, lambda a, b: [squares(a, b)]),
    "content, normalised": (
        losses.ContentLoss,
        dict(instance_norm=True, eps=0.01),
        lambda a, b: [squares(normalised(a, 0.01), normalised(b, 0.01))],
    ),
    "content, normalised, unbiased": (
        losses.ContentLoss,
        dict(instance_norm=True, correction=1),
        lambda a, b: [squares(normalised(a, correction=1), normalised(b, correction=1))],
    ),
    "mean and std": (
        losses.MeanStdLoss,
        dict(correction=1),
        lambda a, b: [squares(a.mean((2, 3)), b.mean((2, 3))), squares(deviation(a, 1), deviation(b, 1))],
    ),
    "gram": (losses.GramLoss, {}, lambda a, b: [squares(gram(a), gram(b)) / (3 * 63) ** 2]),
    "gram, centred": (
        losses.GramLoss,
        dict(normalized=False, centered=True),
        lambda a, b: [squares(gram(a, True), gram(b, True))],
    ),
    "histogram": (losses.HistogramLoss, dict(bins=None), lambda a, b: [squares(a, ranked(a, b))]),
    "mrf": (losses.MRFLoss, {}, lambda a, b: [nearest(a, b, 3, 1)]),
    "mrf, stride": (losses.MRFLoss, dict(patch_size=2, stride=3), lambda a, b: [nearest(a, b, 2, 3)]),
    "laplacian": (losses.LaplacianLoss, dict(weights={1: 1.0}), lambda a, b: [squares(edges(a, 1), edges(b, 1))]),
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_is_its_formula(case, reduction):
    """And its gradient."""
    make, settings, formula = case
    loss = make(reduction=reduction, **settings)
    inputs = [INPUT.clone().requires_grad_() for _ in range(2)]
    value = loss(inputs[0], TARGET)
    expected = sum(getattr(part, reduction)() for part in formula(inputs[1], TARGET))
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(output, input)[0] for output, input in zip((value, expected), inputs)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(loss(INPUT, loss.prepare(TARGET)), value.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 2e-2)], ids=str)
def test_other_types(case, dtype, tolerance):
    make, settings, formula = case
    own, other = INPUT.to(dtype), TARGET.to(dtype)
    value = make(**settings)(own, other)
    assert value.dtype == torch.float32
    expected = sum(part.mean() for part in formula(own.double(), other.double()))
    torch.testing.assert_close(value.double(), expected, rtol=10 * tolerance, atol=tolerance)


def test_large_numbers_of_float16_do_not_overflow():
    far = torch.full((1, 2, 4, 4), 3e4, dtype=torch.float16)
    assert losses.ContentLoss()(far, -far).item() == pytest.approx(3.6e9, rel=1e-3)
    assert losses.TotalVariationLoss()(torch.stack([far, -far], 3).flatten(3, 4)).isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_grams_that_16_bits_would_round(dtype):
    input = (1000 * maps(1, 3, 16, 16).abs()).to(dtype)
    target = (input.double() * (1 + 0.02 * maps(1, 3, 16, 16, seed=1))).to(dtype)
    expected = squares(gram(input.double()), gram(target.double())).mean() / (3 * 256) ** 2
    torch.testing.assert_close(losses.GramLoss()(input, target).double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_target_for_all_samples(case):
    make, settings, _ = case
    loss = make(**settings)
    torch.testing.assert_close(loss(INPUT, TARGET[:1]), loss(INPUT, TARGET[:1].repeat(2, 1, 1, 1)))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_compiles_whole(case):
    make, settings, _ = case
    loss = make(**settings)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    for target in (TARGET, loss.prepare(TARGET)):
        torch.testing.assert_close(compiled(INPUT, target), loss(INPUT, target))


def test_targets_of_another_size():
    target = maps(2, 3, 5, 12, seed=2)
    torch.testing.assert_close(losses.MRFLoss()(INPUT, target), nearest(INPUT, target, 3, 1).mean())
    expected = squares(INPUT.mean((2, 3)), target.mean((2, 3))).mean() + squares(deviation(INPUT, 0), deviation(target, 0)).mean()
    torch.testing.assert_close(losses.MeanStdLoss()(INPUT, target), expected)
    matched = functional.match_histogram(INPUT, target, 16)
    torch.testing.assert_close(losses.HistogramLoss(bins=16)(INPUT, target), squares(INPUT, matched).mean())


def test_a_style_that_is_met_again_costs_nothing():
    for make in (losses.MRFLoss, losses.ReshuffleLoss, losses.GramLoss, losses.HistogramLoss):
        assert make()(INPUT, INPUT.clone()).item() == pytest.approx(0, abs=1e-12)


def test_reshuffling_uses_all_patches():
    """As many as there are, each once: whatever their order, each finds one at its price."""
    target, loss = TARGET[:1], losses.ReshuffleLoss(1.0, "sum", usage_penalty=100.0)
    own, others = (F.unfold(map, 3)[0].T for map in (INPUT[:1], target))
    correlation = F.normalize(own, dim=1) @ F.normalize(others, dim=1).T
    used = []
    for row in correlation:
        row[used] = -torch.inf
        used.append(row.argmax().item())
    assert sorted(used) == list(range(len(others)))
    torch.testing.assert_close(loss(INPUT[:1], target), squares(own, others[used]).sum())


# Regions.

SHARES = torch.rand(2, 1, 7, 9, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def gram_within(a, mask, centred, normalized):
    total = mask.sum((2, 3), keepdim=True)
    a = a - (a * mask).sum((2, 3), keepdim=True) / total if centred else a
    found = torch.einsum("nchw,ndhw,nhw->ncd", a, a, mask[:, 0])
    return found / (3 * total[:, 0]) if normalized else found


def mrf_within(a, b, mask, mean):
    shares = F.unfold(mask.expand_as(a), 3).transpose(1, 2)
    total = (nearest(a, b, 3, 1) * shares).sum()
    return total / shares.sum() if mean else total


def matched_within(a, b, mask, mean):
    inside = mask >= 0.5 * mask.amax((2, 3), keepdim=True)
    squares_ = squares(a, functional.match_histogram(a, b, 256, inside)) * mask
    return squares_.sum() / (3 * mask.sum()) if mean else squares_.sum()


def reduced(numbers, mean):
    return numbers.mean() if mean else numbers.sum()


WITHIN = {
    "gram": (losses.GramLoss, {}, lambda a, b, mask, mean: reduced(
        squares(gram_within(a, mask, False, True), gram(b) / (3 * 63)), mean)),
    "gram, sums": (losses.GramLoss, dict(normalized=False), lambda a, b, mask, mean: reduced(
        squares(gram_within(a, mask, False, False), gram(b)), mean)),
    "gram, centred": (losses.GramLoss, dict(centered=True), lambda a, b, mask, mean: reduced(
        squares(gram_within(a, mask, True, True), gram(b, True) / (3 * 63)), mean)),
    "histogram": (losses.HistogramLoss, {}, matched_within),
    "mrf": (losses.MRFLoss, {}, mrf_within),
}  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("case", WITHIN.values(), ids=WITHIN)
def test_of_a_region(case, reduction):
    """And its gradient; a mask of another size is averaged over what a position covers."""
    make, settings, formula = case
    loss = make(reduction=reduction, **settings)
    fine = SHARES.repeat_interleave(3, 2).repeat_interleave(2, 3)
    fine = fine + 0.1 * torch.tensor([-1.0, 1]).repeat(9).double()  # Of which the average is the same.
    for mask in (SHARES, SHARES[:1], fine):
        inputs = [INPUT.clone().requires_grad_() for _ in range(2)]
        value = loss(inputs[0], TARGET, mask)
        own = (SHARES if mask is fine else mask).expand(2, -1, -1, -1)
        expected = formula(inputs[1], TARGET, own, reduction == "mean")
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-12)
        gradients = [torch.autograd.grad(output, input)[0] for output, input in zip((value, expected), inputs)]
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("case", WITHIN.values(), ids=WITHIN)
def test_a_region_that_is_all_or_nothing(case):
    make, settings, _ = case
    loss = make(**settings)
    torch.testing.assert_close(loss(INPUT, TARGET, torch.ones(1, 1, 7, 9).double()), loss(INPUT, TARGET))
    input = INPUT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(input, TARGET, torch.zeros(1, 1, 7, 9).double()), input)
    assert (gradient == 0).all()


def test_parts_of_a_map_add_up():
    loss, goal = losses.GramLoss(3.0), losses.GramLoss(3.0).prepare(TARGET)
    parts = [INPUT[..., :4], INPUT[..., 4:]]
    sums = sum(map(loss.of_part, parts))
    torch.testing.assert_close(loss.of_parts(sums, 63, goal), loss(INPUT, goal))
    torch.testing.assert_close(loss.goal_of_parts(sums, 63)[0], loss.prepare(INPUT)[0])
    masked = sum(loss.of_part(part, mask) for part, mask in zip(parts, (SHARES[..., :4], SHARES[..., 4:])))
    torch.testing.assert_close(loss.of_parts(masked, SHARES.sum((2, 3)), goal), loss(INPUT, goal, SHARES))
    with pytest.raises(ValueError, match="^GramLoss: centered: expected False, for parts of a map have means of their own$"):
        losses.GramLoss(centered=True).of_part(INPUT)


@pytest.mark.parametrize("patch_size, stride", [(3, 1), (2, 3), (2, 2)])
def test_patches_of_copies(patch_size, stride):
    """Of all of them the best, of maps of any size; and none that lies across two."""
    copies = maps(2, 3, 5, 6, seed=4), maps(2, 3, 8, 11, seed=5)
    loss = losses.MRFLoss(1.0, "sum", patch_size=patch_size, stride=stride)
    own = patches(INPUT, patch_size, stride)
    others = torch.cat([patches(map, patch_size, stride) for map in (TARGET, *copies)], 1)
    best = (F.normalize(own, dim=2) @ F.normalize(others, dim=2).transpose(1, 2)).argmax(2)
    expected = squares(own, torch.stack([sample[index] for sample, index in zip(others, best)])).sum()
    torch.testing.assert_close(loss(INPUT, loss.prepare(TARGET, *copies)), expected)
    with pytest.raises(ValueError, match="^ReshuffleLoss: copies: expected none, for a usage penalty counts the patches of one"):
        losses.ReshuffleLoss().prepare(TARGET, *copies)


@pytest.mark.parametrize("power", [1.0, 2.0, 2.5])
def test_total_variation(power):
    for reduction in ("mean", "sum"):
        loss = losses.TotalVariationLoss(0.5, reduction, power=power)
        expected = 0.5 * sum(getattr(part, reduction)() for part in variation(INPUT, power))
        torch.testing.assert_close(loss(INPUT), expected)
    assert losses.TotalVariationLoss()(INPUT[..., :1, :1]) == 0


def test_diversity():
    expected = -(INPUT[0] - INPUT[1]).abs().mean()
    torch.testing.assert_close(losses.DiversityLoss()(INPUT), expected)
    three = maps(3, 2, 4, 4)
    torch.testing.assert_close(losses.DiversityLoss(2.0)([three]), -2 * (three - three[[2, 0, 1]]).abs().mean())
    with pytest.raises(ValueError, match="^DiversityLoss: input: expected two samples at least, got 1$"):
        losses.DiversityLoss()(INPUT[:1])


def test_identity():
    loss = losses.IdentityLoss({"a": 1.0, "b": 2.0}, image_weight=50)
    features = dict(a=maps(2, 4, 3, 3), b=maps(2, 5, 2, 2)), dict(a=maps(2, 4, 3, 3, seed=3), b=maps(2, 5, 2, 2, seed=4))
    expected = 50 * squares(INPUT, TARGET).mean() + sum(
        weight * squares(features[0][name], features[1][name]).mean() for name, weight in (("a", 1), ("b", 2))
    )
    torch.testing.assert_close(loss(INPUT, TARGET, *features), expected)


def test_edges_of_several_squares():
    loss = losses.LaplacianLoss({1: 2.0, 2: 3.0})
    expected = sum(weight * squares(edges(INPUT, size), edges(TARGET, size)).mean() for size, weight in ((1, 2), (2, 3)))
    torch.testing.assert_close(loss(INPUT, TARGET), expected)
    with pytest.raises(ValueError, match=re.escape("LaplacianLoss: input: expected 12 pixels at least along each side, for")):
        losses.LaplacianLoss({4: 1.0})(INPUT, TARGET)


def test_weights_by_layer():
    features, goals = dict(a=INPUT, b=maps(1, 2, 3, 3), c=TARGET), dict(c=INPUT, a=TARGET)
    expected = 2 * squares(INPUT, TARGET).mean() + 0.5 * squares(TARGET, INPUT).mean()
    torch.testing.assert_close(losses.ContentLoss({"a": 2, "c": 0.5})(features, goals), expected)
    torch.testing.assert_close(losses.ContentLoss([2, 0.5])([INPUT, TARGET], (TARGET, INPUT)), expected)
    torch.testing.assert_close(losses.ContentLoss(3.0)([INPUT, INPUT], [TARGET, TARGET]), 6 * squares(INPUT, TARGET).mean())


def test_statistics_keep_no_map():
    """What is saved for the backward: the input, and numbers per plane."""
    input = INPUT.clone().requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        losses.MeanStdLoss()(input, TARGET)
    large = [tensor for tensor in saved if tensor.numel() >= input.numel()]
    assert saved and all(tensor.data_ptr() == input.data_ptr() for tensor in large)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: losses.ContentLoss({"a": 1})({"b": INPUT}, {"b": INPUT}), ValueError,
         "ContentLoss: input: expected a map of 'a', got 'b'"),
        (lambda: losses.ContentLoss([1, 2])([INPUT], [INPUT]), ValueError, "ContentLoss: input: expected 2 maps, got 1"),
        (lambda: losses.ContentLoss()([], []), ValueError, "ContentLoss: input: expected a map at least, got none"),
        (lambda: losses.ContentLoss()(INPUT, [INPUT, INPUT]), ValueError,
         "ContentLoss: target: expected the input's layers 0, got 0, 1"),
        (lambda: losses.ContentLoss()(INPUT, TARGET[..., :3]), ValueError,
         "ContentLoss: target: expected shape (2, 3, 7, 9) as of the input, got (2, 3, 7, 3)"),
        (lambda: losses.GramLoss()(INPUT[0], INPUT[0]), ValueError,
         "GramLoss: input: expected maps of shape (N, C, H, W), got (3, 7, 9)"),
        (lambda: losses.GramLoss()(INPUT, maps(2, 4, 7, 9)), ValueError,
         "GramLoss: target: expected shape (2, 3, 3) as of the input, got (2, 4, 4)"),
        (lambda: losses.ContentLoss()(INPUT, None), TypeError,
         "ContentLoss: target: expected a map, or maps by layer, got NoneType"),
        (lambda: losses.ContentLoss()(INPUT, losses.DiversityLoss), TypeError,
         "ContentLoss: target: expected a map, or maps by layer, got type"),
        (lambda: losses.MRFLoss()(INPUT, losses.HistogramLoss().prepare(TARGET)), ValueError,
         "MRFLoss: target: expected a goal of MRFLoss(weights=1.0, reduction='mean', patch_size=3, stride=1,"
         " usage_penalty=0.0), got one of HistogramLoss(weights=1.0, reduction='mean', bins=256)"),
        (lambda: losses.GramLoss()(INPUT, TARGET, SHARES[:, 0]), ValueError,
         "GramLoss: mask: expected shape (2 or 1, 1, H, W), got (2, 7, 9)"),
        (lambda: losses.HistogramLoss()(INPUT, TARGET, 0.5), TypeError,
         "HistogramLoss: mask: expected a tensor, got float"),
        (lambda: losses.GramLoss(centered="no"), TypeError, "GramLoss: centered: expected True or False, got 'no'"),
        (lambda: losses.MeanStdLoss(correction=5), ValueError,
         "MeanStdLoss: correction: expected 0 (biased) or 1 (unbiased), got 5"),
        (lambda: losses.MRFLoss(patch_size=0), ValueError, "MRFLoss: patch_size: expected an integer of at least 1, got 0"),
        (lambda: losses.HistogramLoss(bins=0), ValueError,
         "HistogramLoss: bins: expected None or an integer from 1 to 65536, got 0"),
        (lambda: losses.GramLoss("relu"), TypeError, "GramLoss: weights: expected a number, got str"),
        (lambda: losses.GramLoss({"a": None}), TypeError, "GramLoss: weights['a']: expected a number, got None"),
        (lambda: losses.GramLoss(1.0, "none"), ValueError, "GramLoss: reduction: expected 'mean' or 'sum', got 'none'"),
        (lambda: losses.LaplacianLoss(4), TypeError,
         "LaplacianLoss: weights: expected a mapping from sides of squares to weights, got 4"),
        (lambda: losses.TotalVariationLoss(power=0.5), ValueError,
         "TotalVariationLoss: power: expected a finite number of at least 1, got 0.5"),
    ],
)  # fmt: skip
def test_what_is_no_call(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == words


def test_reprs():
    expected = "GramLoss(weights={'relu1_1': 1}, reduction='mean', normalized=True, centered=False)"
    assert repr(losses.GramLoss({"relu1_1": 1})) == expected
    assert repr(losses.LaplacianLoss({4: 100.0})) == "LaplacianLoss(weights={4: 100.0}, reduction='mean')"
