"""The public functions against torch's own and against the published formulas written out, in float64."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastnorm import functional as F
from fastnorm.ops import OPERATORS, backends

SHAPES = [(2, 3, 17), (2, 3, 5, 7), (2, 3, 3, 4, 5)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["1-D", "2-D", "3-D"])

ACTIVATIONS = {
    None: lambda x: x,
    "none": lambda x: x,
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: x.where(x > 0, 0.2 * x),
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: x * (1 + (x / 2**0.5).erf()) / 2,
}


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def assert_same(actual, expected, inputs):
    """The same numbers, and the same gradients."""
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=expected.dtype)
    found, own = (torch.autograd.grad(output, inputs, gradient) for output in (actual, expected))
    torch.testing.assert_close(found, own, rtol=1e-9, atol=1e-9)


def spread(numbers, map):
    """(C,) or (N, C) numbers, to broadcast over planes."""
    return numbers.reshape(-1, numbers.shape[-1], *[1] * (map.dim() - 2))


# instance_stats


@every_shape
@pytest.mark.parametrize("eps_mode", ["var", "std"])
@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.1])
def test_instance_stats(randn, shape, eps, correction, eps_mode):
    def of_plane(plane):
        mean = sum(plane) / len(plane)
        var = sum((x - mean) ** 2 for x in plane) / (len(plane) - correction)
        return torch.stack([mean, 1 / ((var + eps) ** 0.5 if eps_mode == "var" else var**0.5 + eps)])

    input = randn(*shape)
    expected = torch.stack([of_plane(plane) for plane in input.flatten(2).flatten(0, 1)], dim=1)
    actual = torch.stack(F.instance_stats(input, eps, correction, eps_mode))
    assert_same(actual, expected.view_as(actual), input)


@pytest.mark.parametrize("eps, eps_mode", [(0.0, "var"), (0.0, "std"), (1e-3, "std")])
def test_a_constant_plane_has_no_gradient(eps, eps_mode):
    input = torch.full((1, 2, 3, 3), 2.0, requires_grad=True)
    mean, rstd = F.instance_stats(input, eps, eps_mode=eps_mode)
    assert mean.tolist() == [[2.0, 2.0]]
    assert rstd.tolist() == [[pytest.approx(1 / eps) if eps else float("inf")] * 2]
    (gradient,) = torch.autograd.grad(rstd, input, torch.ones_like(rstd))
    assert gradient.equal(torch.zeros_like(input))


# instance_norm


@every_shape
@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_instance_norm_is_that_of_torch(randn, shape, affine, eps):
    input, *parameters = inputs = [randn(*shape)] + [randn(3) for _ in range(2 * affine)]
    arguments = dict(zip(("weight", "bias"), parameters), eps=eps)
    assert_same(F.instance_norm(input, **arguments), torch.nn.functional.instance_norm(input, **arguments), inputs)


@every_shape
@pytest.mark.parametrize("use_input_stats", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_running_statistics_are_those_of_torch(randn, shape, affine, use_input_stats):
    ours = [torch.tensor([0.1, -0.2, 0.3]).double(), torch.tensor([0.5, 1.0, 2.0]).double()]
    theirs = [statistic.clone() for statistic in ours]
    parameters = [randn(3) for _ in range(2 * affine)]
    arguments = dict(zip(("weight", "bias"), parameters), use_input_stats=use_input_stats)
    for momentum in (0.1, 0.7, 0.0, 1.0):
        input = randn(*shape)
        actual = F.instance_norm(input, *ours, momentum=momentum, **arguments)
        expected = torch.nn.functional.instance_norm(input, *theirs, momentum=momentum, **arguments)
        assert_same(actual, expected, [input, *parameters])
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("maps", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_running_statistics_in_float32(randn, maps):
    input = (3 * randn(4, 3, 16, 16) + 5).detach().to(maps)
    ours, expected = [torch.zeros(3), torch.ones(3)], [torch.zeros(3).double(), torch.ones(3).double()]
    for _ in range(3):
        F.instance_norm(input, *ours)
        torch.nn.functional.instance_norm(input.double(), *expected)
    for actual, wide in zip(ours, expected):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), wide, rtol=1e-6, atol=0)


@pytest.mark.parametrize("maps", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("deviation", [1e-6, 1e-3, 1.0, 1e3])
def test_running_variance_beside_any_eps(randn, maps, eps, deviation):
    input = (deviation * (randn(4, 3, 8, 8) + 2)).detach().to(maps)
    ours = [torch.zeros(3).double(), torch.zeros(3).double()]
    theirs = [statistic.clone() for statistic in ours]
    F.instance_norm(input, *ours, momentum=1.0, eps=eps)
    torch.nn.functional.instance_norm(input.double(), *theirs, momentum=1.0, eps=eps)
    torch.testing.assert_close(ours, theirs, rtol=1e-12 if maps == torch.float64 else 1e-6, atol=0)


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.1])
def test_running_statistics_of_constant_planes(eps):
    input = torch.full((2, 3, 4, 4), 0.7, requires_grad=True)
    mean, var = torch.zeros(3), torch.ones(3)
    output = F.instance_norm(input, mean, var, momentum=1.0, eps=eps)
    assert mean.tolist() == pytest.approx([0.7] * 3) and var.tolist() == [0.0] * 3
    (gradient,) = torch.autograd.grad(output, input, torch.ones_like(output))
    assert gradient.isfinite().all()


def running(randn, dtype):
    return randn(3).detach().to(dtype), randn(3).detach().exp().to(dtype)


@pytest.mark.parametrize("statistics", [torch.float32, torch.bfloat16], ids=str)
def test_running_statistics_of_another_type_are_used_in_float64(randn, statistics):
    input, (mean, var) = randn(2, 3, 5, 7), running(randn, statistics)
    expected = torch.nn.functional.instance_norm(input, mean.double(), var.double(), use_input_stats=False)
    torch.testing.assert_close(F.instance_norm(input, mean, var, use_input_stats=False), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("statistics", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("maps", [torch.bfloat16, torch.float16], ids=str)
def test_running_statistics_are_used_in_float32(randn, maps, statistics):
    input, (mean, var) = randn(2, 3, 5, 7).to(maps), running(randn, statistics)
    expected = torch.nn.functional.instance_norm(input.double(), mean.double(), var.double(), use_input_stats=False)
    actual = F.instance_norm(input, mean, var, use_input_stats=False)
    assert actual.dtype == maps
    # One rounding, of the result.
    torch.testing.assert_close(actual.double(), expected, rtol=0.51 * torch.finfo(maps).eps, atol=1e-6)


def test_running_statistics_of_an_empty_batch_stay():
    mean, var = torch.zeros(3), torch.ones(3)
    assert F.instance_norm(torch.empty(0, 3, 4, 4), mean, var).shape == (0, 3, 4, 4)
    assert mean.equal(torch.zeros(3)) and var.equal(torch.ones(3))


@every_shape
@pytest.mark.parametrize("statistics", ["input", "running"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_instance_norm_then_residual_then_activation(randn, shape, activation, statistics):
    input, residual, weight, bias = inputs = randn(*shape), randn(*shape), randn(3), randn(3)
    arguments = dict(weight=weight, bias=bias)
    if statistics == "running":
        arguments.update(running_mean=torch.ones(3).double(), running_var=2 * torch.ones(3).double(), use_input_stats=False)
    actual = F.instance_norm(input, **arguments, residual=residual, activation=activation, negative_slope=0.2)
    expected = ACTIVATIONS[activation](torch.nn.functional.instance_norm(input, **arguments) + residual)
    assert_same(actual, expected, inputs)


@every_shape
@pytest.mark.parametrize("statistics", ["input", "running"])
def test_instance_norm_with_parameters_per_sample(randn, shape, statistics):
    input, weight, bias = inputs = randn(*shape), randn(2, 3), randn(2, 3)
    arguments = {}
    if statistics == "running":
        arguments.update(running_mean=torch.ones(3).double(), running_var=2 * torch.ones(3).double(), use_input_stats=False)
    expected = [
        torch.nn.functional.instance_norm(input[n : n + 1], **arguments, weight=weight[n], bias=bias[n]) for n in range(2)
    ]
    assert_same(F.instance_norm(input, **arguments, weight=weight, bias=bias), torch.cat(expected), inputs)


# adain


def calc_mean_std(feat, eps=1e-5):
    """As public models write it."""
    size = feat.size()
    n, c = size[:2]
    feat_var = feat.view(n, c, -1).var(dim=2) + eps
    feat_std = feat_var.sqrt().view(n, c, 1, 1)
    feat_mean = feat.view(n, c, -1).mean(dim=2).view(n, c, 1, 1)
    return feat_mean, feat_std


def test_adain_is_the_public_idiom(randn):
    content, style = inputs = randn(2, 3, 5, 7), randn(2, 3, 6, 4)
    size = content.size()
    (style_mean, style_std), (content_mean, content_std) = calc_mean_std(style), calc_mean_std(content)
    normalized = (content - content_mean.expand(size)) / content_std.expand(size)
    expected = normalized * style_std.expand(size) + style_mean.expand(size)
    assert_same(F.adain(content, style, correction=1), expected, inputs)


def deviation(map, correction, eps, where):
    """A standard deviation by any of the published rules."""
    planes = map.flatten(2)
    var = (planes - planes.mean(2, keepdim=True)).square().sum(2) / (planes.shape[2] - correction)
    return {"in the root": (var + eps).sqrt(), "outside": var.sqrt() + eps}[where]


# Arguments; then correction, eps and its place, for the content and for the style.
RULES = {
    "biased, eps in the root": (dict(), (0, 1e-5, "in the root"), (0, 1e-5, "in the root")),
    "unbiased, eps in the root": (dict(correction=1), (1, 1e-5, "in the root"), (1, 1e-5, "in the root")),
    "biased, eps outside": (dict(eps_mode="std"), (0, 1e-5, "outside"), (0, 1e-5, "outside")),
    "unbiased, eps outside": (
        dict(correction=1, eps_mode="std", eps=0.1),
        (1, 0.1, "outside"),
        (1, 0.1, "outside"),
    ),
    "the original: unbiased style without eps": (
        dict(style_correction=1, style_eps=0.0),
        (0, 1e-5, "in the root"),
        (1, 0.0, "in the root"),
    ),
    "large eps on both, different": (
        dict(eps=0.5, style_eps=0.25, correction=1, style_correction=0),
        (1, 0.5, "in the root"),
        (0, 0.25, "in the root"),
    ),
}


@every_shape
@pytest.mark.parametrize("alpha", [1.0, 0.4, 0.0])
@pytest.mark.parametrize("arguments, content_rule, style_rule", RULES.values(), ids=RULES)
def test_adain_by_every_published_rule(randn, shape, arguments, content_rule, style_rule, alpha):
    content, style = inputs = randn(*shape), randn(2, 3, *(size + 2 for size in shape[2:]))
    content_mean, style_mean = (spread(map.flatten(2).mean(2), content) for map in (content, style))
    normed = (content - content_mean) / spread(deviation(content, *content_rule), content)
    normed = normed * spread(deviation(style, *style_rule), content) + style_mean
    assert_same(F.adain(content, style, alpha, **arguments), alpha * normed + (1 - alpha) * content, inputs)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 3)], ids=str)
def test_adain_with_statistics(randn, shape):
    content, mean, std = inputs = randn(2, 3, 5, 7), randn(*shape), randn(*shape)
    normed = torch.nn.functional.instance_norm(content)
    expected = 0.3 * (normed * spread(std, content) + spread(mean, content)) + 0.7 * content
    assert_same(F.adain(content, (mean, std), 0.3), expected, inputs)


def test_adain_with_one_style_for_all_and_lines_for_images(randn):
    content, style = inputs = randn(2, 3, 5, 7), randn(1, 3, 40)
    expected = torch.nn.functional.instance_norm(content) * spread(deviation(style, 0, 1e-5, "in the root"), content)
    assert_same(F.adain(content, style), expected + spread(style.mean(2), content), inputs)


# conditional_instance_norm


@every_shape
@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("styles", [[3, 0], [1, 1]], ids=str)
def test_conditional_instance_norm_by_index(randn, shape, styles, index):
    input, weight, bias = inputs = randn(*shape), randn(4, 3), randn(4, 3)
    expected = [
        torch.nn.functional.instance_norm(input[n : n + 1], weight=weight[style], bias=bias[style], eps=1e-3)
        for n, style in enumerate(styles)
    ]
    actual = F.conditional_instance_norm(input, weight, bias, torch.tensor(styles, dtype=index), eps=1e-3)
    assert_same(actual, torch.cat(expected), inputs)


@every_shape
def test_conditional_instance_norm_by_mixture(randn, shape):
    input, weight, bias, mixture, residual = inputs = randn(*shape), randn(4, 3), randn(4, 3), randn(2, 4), randn(*shape)
    normed = torch.nn.functional.instance_norm(input)
    scale = torch.stack([sum(mixture[n, s] * weight[s] for s in range(4)) for n in range(2)])
    shift = torch.stack([sum(mixture[n, s] * bias[s] for s in range(4)) for n in range(2)])
    actual = F.conditional_instance_norm(input, weight, bias, mixture, residual=residual, activation="silu")
    expected = ACTIVATIONS["silu"](normed * spread(scale, input) + spread(shift, input) + residual)
    assert_same(actual, expected, inputs)


# spatially_adaptive_norm, layer_instance_norm, scale_shift


@every_shape
@pytest.mark.parametrize("correction", [0, 1])
def test_spatially_adaptive_norm(randn, shape, correction):
    input, gamma, beta = inputs = randn(*shape), randn(*shape), randn(*shape)
    std = spread(deviation(input, correction, 1e-3, "in the root"), input)
    normed = (input - spread(input.flatten(2).mean(2), input)) / std
    settings = dict(correction=correction, activation="leaky_relu", negative_slope=0.2)
    actual = F.spatially_adaptive_norm(input, gamma, beta, 1e-3, **settings)
    assert_same(actual, ACTIVATIONS["leaky_relu"](normed * (1 + gamma) + beta), inputs)


@every_shape
@pytest.mark.parametrize("parameters", [(3,), (2, 3)], ids=["shared", "per sample"])
@pytest.mark.parametrize("correction", [0, 1])
def test_layer_instance_norm(randn, shape, parameters, correction):
    input, residual = randn(*shape), randn(*shape)
    rho, weight, bias = (randn(*parameters) for _ in range(3))

    def normed(map, dims):
        var, mean = torch.var_mean(map, dim=dims, correction=correction, keepdim=True)
        return (map - mean) / (var + 1e-3).sqrt()

    instance, layer = normed(input, tuple(range(2, input.dim()))), normed(input, tuple(range(1, input.dim())))
    expected = spread(rho, input) * instance + (1 - spread(rho, input)) * layer
    expected = expected * spread(weight, input) + spread(bias, input) + residual
    actual = F.layer_instance_norm(input, rho, weight, bias, 1e-3, correction=correction, residual=residual)
    assert_same(actual, expected, [input, rho, weight, bias, residual])


def test_layer_instance_norm_from_layer_to_instance(randn):
    input = randn(2, 3, 5, 7)
    actual = F.layer_instance_norm(input, torch.zeros(3).double())
    assert_same(actual, torch.nn.functional.layer_norm(input, input.shape[1:]), input)
    actual = F.layer_instance_norm(input, torch.ones(3).double())
    assert_same(actual, torch.nn.functional.instance_norm(input), input)


@every_shape
def test_scale_shift_is_a_batch_norm_in_eval_mode(randn, shape):
    input, weight, bias = inputs = randn(*shape), randn(3), randn(3)
    mean, var = randn(3).detach(), randn(3).detach().exp()
    expected = torch.nn.functional.batch_norm(input, mean, var, weight, bias).relu()
    assert_same(F.scale_shift(input, mean, weight / (var + 1e-5).sqrt(), bias, activation="relu"), expected, inputs)


@every_shape
def test_scale_shift_with_everything(randn, shape):
    mean, scale, shift = randn(3), randn(2, 3), randn(3)
    input, gamma, residual = (randn(*shape) for _ in range(3))
    expected = (input - spread(mean, input)) * spread(scale, input) + spread(shift, input)
    expected = ACTIVATIONS["gelu"](expected * (1 + gamma) + residual)
    actual = F.scale_shift(input, mean, scale, shift, gamma, residual, activation="gelu")
    assert_same(actual, expected, [input, mean, scale, shift, gamma, residual])


# FASTNORM_BACKEND


class NoKernels(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.namespace != "fastnorm", function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_the_reference_backend_runs_torch_alone(monkeypatch, randn, operator):
    for sample in operator.samples(randn, (2, 3, 5, 7)):
        with monkeypatch.context() as patch:
            expected = getattr(F, operator.name)(*sample.args, **sample.kwargs)
            patch.setattr(backends, "_backend", "reference")
            with NoKernels():
                actual = getattr(F, operator.name)(*sample.args, **sample.kwargs)
        torch.testing.assert_close(actual, expected)


def test_the_reference_backend_keeps_running_statistics(monkeypatch, randn):
    input, mean, var = randn(2, 3, 5, 7), torch.zeros(3).double(), torch.ones(3).double()
    expected = mean.clone(), var.clone()
    torch.nn.functional.instance_norm(input, *expected)
    monkeypatch.setattr(backends, "_backend", "reference")
    with NoKernels():
        F.instance_norm(input, mean, var)
    torch.testing.assert_close((mean, var), expected)


def test_an_unknown_backend_is_named(monkeypatch):
    monkeypatch.setenv("FASTNORM_BACKEND", "fast")
    with pytest.raises(ValueError, match="^FASTNORM_BACKEND: expected one of auto, reference, triton, got 'fast'$"):
        backends._chosen()
