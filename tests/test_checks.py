"""Every wrong argument raises at the call, in one line: function, argument, what was expected, what came."""

import re
import warnings

import numpy as np
import pytest
import torch

from fastnorm import functional as F
from fastnorm import nn

X = torch.randn(2, 3, 4, 5)
C, NC, BAD_C, BAD_NC = torch.ones(3), torch.ones(2, 3), torch.ones(4), torch.ones(3, 3)
TABLE, STYLE, MIXTURE = torch.ones(4, 3), torch.tensor([0, 3]), torch.ones(2, 4)
FILTERS = torch.ones(2, 3, 3, 3)
INTEGERS, FLOAT8 = torch.ones(3, dtype=torch.int64), X.to(torch.float8_e4m3fn)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Nested tensors are a prototype.
    NESTED = torch.nested.nested_tensor([X[0], X[1]])
JAGGED = torch.nested.nested_tensor([X[0], X[1]], layout=torch.jagged)
DENSE = "expected a dense tensor (torch.strided), got"

# Each function called right but for its first argument, and what that one is called.
FIRST = {
    F.instance_stats: ("input", lambda x: F.instance_stats(x)),
    F.instance_norm: ("input", lambda x: F.instance_norm(x)),
    F.adain: ("content", lambda x: F.adain(x, X)),
    F.conditional_instance_norm: ("input", lambda x: F.conditional_instance_norm(x, TABLE, TABLE, STYLE)),
    F.spatially_adaptive_norm: ("input", lambda x: F.spatially_adaptive_norm(x, X, X)),
    F.layer_instance_norm: ("input", lambda x: F.layer_instance_norm(x, C)),
    F.scale_shift: ("input", lambda x: F.scale_shift(x)),
}
WRONG_MAPS = [
    ([[1.0]], TypeError, "expected a tensor, got list"),
    (X.long(), TypeError, "expected float32, float64, bfloat16 or float16, got torch.int64"),
    (X.cfloat(), TypeError, "expected float32, float64, bfloat16 or float16, got torch.complex64"),
    (FLOAT8, TypeError, "expected float32, float64, bfloat16 or float16, got torch.float8_e4m3fn"),
    (X[0, 0], ValueError, "expected shape (N, C, *) with at least one spatial dimension, got (4, 5)"),
    (X[..., :0], ValueError, "expected planes of at least one element, got planes of (4, 0)"),
    (X.to_sparse(), TypeError, f"{DENSE} torch.sparse_coo"),
    (X.to_mkldnn(), TypeError, f"{DENSE} torch._mkldnn"),
    (NESTED, TypeError, f"{DENSE} a nested one"),
    (JAGGED, TypeError, f"{DENSE} a nested one"),
]

# A parameter per plane; a map of the input's shape; how a deviation is taken; an activation: (function, name, call).
PER_PLANE = [
    ("instance_norm", "weight", lambda p: F.instance_norm(X, weight=p)),
    ("instance_norm", "bias", lambda p: F.instance_norm(X, bias=p)),
    ("adain", "style mean", lambda p: F.adain(X, (p, C))),
    ("adain", "style std", lambda p: F.adain(X, (C, p))),
    ("layer_instance_norm", "rho", lambda p: F.layer_instance_norm(X, p)),
    ("layer_instance_norm", "weight", lambda p: F.layer_instance_norm(X, C, weight=p)),
    ("layer_instance_norm", "bias", lambda p: F.layer_instance_norm(X, C, bias=p)),
    ("scale_shift", "mean", lambda p: F.scale_shift(X, mean=p)),
    ("scale_shift", "scale", lambda p: F.scale_shift(X, scale=p)),
    ("scale_shift", "shift", lambda p: F.scale_shift(X, shift=p)),
    ("norm_conv2d", "mean", lambda p: F.norm_conv2d(X, FILTERS, mean=p)),
    ("norm_conv2d", "scale", lambda p: F.norm_conv2d(X, FILTERS, scale=p)),
    ("norm_conv2d", "shift", lambda p: F.norm_conv2d(X, FILTERS, shift=p)),
]
WRONG_PER_PLANE = [
    (1.0, TypeError, "expected a tensor, got float"),
    (INTEGERS, TypeError, "expected float32, float64, bfloat16 or float16, got torch.int64"),
    (BAD_C, ValueError, "expected shape (3,) or (2, 3), got (4,)"),
    (BAD_NC, ValueError, "expected shape (3,) or (2, 3), got (3, 3)"),
    (torch.ones(()), ValueError, "expected shape (3,) or (2, 3), got ()"),
    (torch.ones(2, 3, 1, 1), ValueError, "expected shape (3,) or (2, 3), got (2, 3, 1, 1)"),
    (C.to("meta"), ValueError, "expected a tensor on cpu, got one on meta"),
    (C.to_sparse(), TypeError, f"{DENSE} torch.sparse_coo"),
]

# What has no default.
REQUIRED = [
    ("adain", "style mean", lambda: F.adain(X, (None, None))),
    ("adain", "style std", lambda: F.adain(X, (C, None))),
    ("layer_instance_norm", "rho", lambda: F.layer_instance_norm(X, None)),
    ("spatially_adaptive_norm", "gamma", lambda: F.spatially_adaptive_norm(X, None, None)),
    ("spatially_adaptive_norm", "beta", lambda: F.spatially_adaptive_norm(X, X, None)),
    ("conditional_instance_norm", "weight", lambda: F.conditional_instance_norm(X, None, TABLE, STYLE)),
    ("conditional_instance_norm", "bias", lambda: F.conditional_instance_norm(X, TABLE, None, STYLE)),
    ("conditional_instance_norm", "style", lambda: F.conditional_instance_norm(X, TABLE, TABLE, None)),
]

MAPS = [
    ("instance_norm", "residual", lambda m: F.instance_norm(X, residual=m)),
    ("conditional_instance_norm", "residual", lambda m: F.conditional_instance_norm(X, TABLE, TABLE, STYLE, residual=m)),
    ("spatially_adaptive_norm", "gamma", lambda m: F.spatially_adaptive_norm(X, m, X)),
    ("spatially_adaptive_norm", "beta", lambda m: F.spatially_adaptive_norm(X, X, m)),
    ("layer_instance_norm", "residual", lambda m: F.layer_instance_norm(X, C, residual=m)),
    ("scale_shift", "gamma", lambda m: F.scale_shift(X, gamma=m)),
    ("scale_shift", "residual", lambda m: F.scale_shift(X, residual=m)),
    ("norm_conv2d", "residual", lambda m: F.norm_conv2d(X, FILTERS, residual=m)),
]
WRONG_SAME_SHAPE = [
    ("x", TypeError, "expected a tensor, got str"),
    (X.int(), TypeError, "expected float32, float64, bfloat16 or float16, got torch.int32"),
    (X[:1], ValueError, "expected the input's shape (2, 3, 4, 5), got (1, 3, 4, 5)"),
    (X.to("meta"), ValueError, "expected a tensor on cpu, got one on meta"),
    (X.to_sparse(), TypeError, f"{DENSE} torch.sparse_coo"),
    (NESTED, TypeError, f"{DENSE} a nested one"),
    (X.double(), TypeError, "expected the input's type torch.float32, got torch.float64"),
]

DEVIATIONS = [
    ("instance_stats", "", lambda **settings: F.instance_stats(X, **settings)),
    ("adain", "", lambda **settings: F.adain(X, X, **settings)),
    ("adain", "style_", lambda **settings: F.adain(X, X, **{f"style_{name}": value for name, value in settings.items()})),
    ("spatially_adaptive_norm", "", lambda **settings: F.spatially_adaptive_norm(X, X, X, **settings)),
    ("layer_instance_norm", "", lambda **settings: F.layer_instance_norm(X, C, **settings)),
    ("norm_conv2d", "", lambda **settings: F.norm_conv2d(X, FILTERS, return_stats=True, **settings)),
]
WRONG_CORRECTIONS = [2, -1, 1.0, True, "1", [], torch.tensor(1)]

NUMBERS = [
    ("instance_norm", "eps", lambda v: F.instance_norm(X, eps=v)),
    ("instance_norm", "negative_slope", lambda v: F.instance_norm(X, activation="leaky_relu", negative_slope=v)),
    ("instance_norm", "momentum", lambda v: F.instance_norm(X, torch.zeros(3), torch.ones(3), momentum=v)),
    ("instance_stats", "eps", lambda v: F.instance_stats(X, v)),
    ("adain", "alpha", lambda v: F.adain(X, X.flip(0), v)),
    ("adain", "eps", lambda v: F.adain(X, X.flip(0), eps=v)),
    ("adain", "style_eps", lambda v: F.adain(X, X.flip(0), style_eps=v)),
    ("conditional_instance_norm", "eps", lambda v: F.conditional_instance_norm(X, TABLE, TABLE, STYLE, v)),
    ("spatially_adaptive_norm", "eps", lambda v: F.spatially_adaptive_norm(X, X, X, v)),
    ("layer_instance_norm", "eps", lambda v: F.layer_instance_norm(X, C, eps=v)),
    ("scale_shift", "negative_slope", lambda v: F.scale_shift(X, activation="leaky_relu", negative_slope=v)),
    ("norm_conv2d", "eps", lambda v: F.norm_conv2d(X, FILTERS, return_stats=True, eps=v)),
    ("norm_conv2d", "negative_slope", lambda v: F.norm_conv2d(X, FILTERS, activation="leaky_relu", negative_slope=v)),
    (
        "norm_conv2d",
        "output_negative_slope",
        lambda v: F.norm_conv2d(X, FILTERS, output_activation="leaky_relu", output_negative_slope=v),
    ),
    ("LayerInstanceNorm2d", "rho", lambda v: nn.LayerInstanceNorm2d(3, rho=v)(X)),
    ("LayerInstanceNorm2d", "negative_slope", lambda v: nn.LayerInstanceNorm2d(3, negative_slope=v)(X)),
]
NO_NUMBERS = [("a", "str"), (torch.ones(()), "Tensor"), (torch.ones(2, 1), "Tensor"), (True, "bool"), ([], "list")]
every_number = pytest.mark.parametrize("function, name, call", NUMBERS, ids=lambda v: v if isinstance(v, str) else "")

ACTIVATED = [
    ("instance_norm", lambda **a: F.instance_norm(X, **a)),
    ("conditional_instance_norm", lambda **a: F.conditional_instance_norm(X, TABLE, TABLE, STYLE, **a)),
    ("spatially_adaptive_norm", lambda **a: F.spatially_adaptive_norm(X, X, X, **a)),
    ("layer_instance_norm", lambda **a: F.layer_instance_norm(X, C, **a)),
    ("scale_shift", lambda **a: F.scale_shift(X, **a)),
    ("norm_conv2d", lambda **a: F.norm_conv2d(X, FILTERS, **a)),
    ("InstanceNorm1d", lambda **a: nn.InstanceNorm1d(3, **a)),
    ("InstanceNorm2d", lambda **a: nn.InstanceNorm2d(3, **a)),
    ("InstanceNorm3d", lambda **a: nn.InstanceNorm3d(3, **a)),
    ("ConditionalInstanceNorm2d", lambda **a: nn.ConditionalInstanceNorm2d(3, 2, **a)),
    ("SpatiallyAdaptiveNorm2d", lambda **a: nn.SpatiallyAdaptiveNorm2d(3, 2, **a)),
    ("LayerInstanceNorm2d", lambda **a: nn.LayerInstanceNorm2d(3, **a)),
]


def assert_refused(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        call()
    assert caught.type is error


@pytest.mark.parametrize("function", FIRST, ids=lambda function: function.__name__)
@pytest.mark.parametrize("value, error, message", WRONG_MAPS, ids=lambda value: str(value)[:9])
def test_a_wrong_map(function, value, error, message):
    name, call = FIRST[function]
    assert_refused(lambda: call(value), error, f"{function.__name__}: {name}: {message}")


@pytest.mark.parametrize("value, error, message", WRONG_MAPS, ids=lambda value: str(value)[:9])
def test_a_wrong_style_map(value, error, message):
    if isinstance(value, list):
        message = "expected a feature map or a pair (mean, std), got list"
    assert_refused(lambda: F.adain(X, value), error, f"adain: style: {message}")


@pytest.mark.parametrize("function, name, call", PER_PLANE, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("value, error, message", WRONG_PER_PLANE, ids=lambda value: str(value)[:9])
def test_a_wrong_parameter(function, name, call, value, error, message):
    if function == "adain":
        message = message.replace("(3,) or (2, 3), got", "(3,), (1, 3) or (2, 3), got")
    assert_refused(lambda: call(value), error, f"{function}: {name}: {message}")


@pytest.mark.parametrize("function, name, call", PER_PLANE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_right_parameter(function, name, call):
    per_channel, per_plane = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([[0.5, 1.0, 2.0], [4.0, 0.25, 8.0]])
    torch.testing.assert_close(call(per_channel)[:1], call(per_plane)[:1])
    for value in (per_channel, per_plane, per_channel.double(), per_channel.bfloat16(), per_channel.half()):
        torch.testing.assert_close(call(value), call(value.float().expand(2, 3)))


@pytest.mark.parametrize("function, name, call", REQUIRED, ids=lambda value: value if isinstance(value, str) else "")
def test_none_where_a_tensor_is_required(function, name, call):
    assert_refused(call, TypeError, f"{function}: {name}: expected a tensor, got None")


@pytest.mark.parametrize("function, name, call", MAPS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("value, error, message", WRONG_SAME_SHAPE, ids=lambda value: str(value)[:9])
def test_a_wrong_second_map(function, name, call, value, error, message):
    assert_refused(lambda: call(value), error, f"{function}: {name}: {message}")


@pytest.mark.parametrize("function, whose, call", DEVIATIONS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("value", WRONG_CORRECTIONS, ids=repr)
def test_a_wrong_correction(function, whose, call, value):
    message = f"expected 0 (biased) or 1 (unbiased), got {value!r}"
    assert_refused(lambda: call(correction=value), ValueError, f"{function}: {whose}correction: {message}")


@every_number
@pytest.mark.parametrize("value, type", NO_NUMBERS, ids=lambda value: str(value)[:9])
def test_no_number(function, name, call, value, type):
    assert_refused(lambda: call(value), TypeError, f"{function}: {name}: expected a number, got {type}")


@every_number
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_a_number_without_end(function, name, call, value):
    least = " of at least 0" if "eps" in name else ""
    assert_refused(lambda: call(value), ValueError, f"{function}: {name}: expected a finite number{least}, got {value}")


@pytest.mark.parametrize("function, name, call", [row for row in NUMBERS if "eps" in row[1]], ids=lambda value: value if isinstance(value, str) else "")
def test_an_eps_below_zero(function, name, call):
    message = "expected a finite number of at least 0, got -1e-05"
    assert_refused(lambda: call(-1e-5), ValueError, f"{function}: {name}: {message}")


@every_number
def test_a_number_of_any_type(function, name, call):
    expected = call(1.0)
    for value in (1, np.float32(1), np.int64(1)):
        torch.testing.assert_close(call(value), expected, rtol=0, atol=0)


@pytest.mark.parametrize("function, name, call", [row for row in NUMBERS if row[0].islower()], ids=lambda value: value if isinstance(value, str) else "")
def test_a_number_that_is_compiled(function, name, call):
    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="eager")
    for value in (0.3, 0.7, 2):
        torch.testing.assert_close(compiled(value), call(value))


def test_numbers_from_sizes_that_are_compiled():
    def call(x):
        size = x.shape[2]
        normed = F.instance_norm(x, eps=1e-3 * size, activation="leaky_relu", negative_slope=1 / size)
        return F.adain(normed, x.flip(0), alpha=size, eps=size)

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (5, 6, 9):
        input = torch.randn(2, 3, size, 7)
        torch.testing.assert_close(compiled(input), call(input))


@pytest.mark.parametrize("function, call", ACTIVATED, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("value", ["swish", ["relu"], 1], ids=repr)
def test_an_unknown_activation(function, call, value):
    message = f"activation: expected None, 'relu', 'leaky_relu', 'silu', 'gelu', 'sigmoid' or 'tanh', got {value!r}"
    assert_refused(lambda: call(activation=value), ValueError, f"{function}: {message}")


def norm(**arguments):
    return lambda: F.instance_norm(X, **arguments)


def conditional(weight=TABLE, bias=TABLE, style=STYLE, **arguments):
    return lambda: F.conditional_instance_norm(X, weight, bias, style, **arguments)


ONE = X[..., :1, :1]
UNBIASED = "correction: an unbiased variance needs planes of 2 elements or more, got planes of (1, 1)"

OTHERS = [
    (
        lambda: F.instance_norm(X.to("meta"), residual=X.double().to("meta")),
        TypeError,
        "instance_norm: residual: expected the input's type torch.float32, got torch.float64",
    ),
    (norm(eps=-1.0), ValueError, "instance_norm: eps: expected a finite number of at least 0, got -1.0"),
    (
        lambda: F.instance_norm(ONE),
        ValueError,
        "instance_norm: input: expected more than 1 element in a plane, got planes of (1, 1)",
    ),
    (
        norm(running_mean=C),
        ValueError,
        "instance_norm: running_var: expected a tensor of shape (3,), got None",
    ),
    (
        norm(running_var=C),
        ValueError,
        "instance_norm: running_mean: expected a tensor of shape (3,), got None",
    ),
    (
        norm(use_input_stats=False),
        ValueError,
        "instance_norm: running_mean: expected a tensor of shape (3,), got None",
    ),
    (
        norm(running_mean=BAD_C, running_var=C),
        ValueError,
        "instance_norm: running_mean: expected shape (3,), got (4,)",
    ),
    (
        norm(running_mean=C, running_var=NC, use_input_stats=False),
        ValueError,
        "instance_norm: running_var: expected shape (3,), got (2, 3)",
    ),
    (
        norm(running_mean=INTEGERS, running_var=C),
        TypeError,
        "instance_norm: running_mean: expected float32, float64, bfloat16 or float16, got torch.int64",
    ),
    (
        norm(running_mean=C, running_var=C.to("meta")),
        ValueError,
        "instance_norm: running_var: expected a tensor on cpu, got one on meta",
    ),
    (lambda: F.instance_stats(ONE, correction=1), ValueError, f"instance_stats: {UNBIASED}"),
    (lambda: F.adain(ONE, X, correction=1), ValueError, f"adain: {UNBIASED}"),
    (lambda: F.adain(X, ONE, style_correction=1), ValueError, f"adain: style_{UNBIASED}"),
    (lambda: F.spatially_adaptive_norm(ONE, ONE, ONE, correction=1), ValueError, f"spatially_adaptive_norm: {UNBIASED}"),
    (lambda: F.layer_instance_norm(ONE, C, correction=1), ValueError, f"layer_instance_norm: {UNBIASED}"),
    (lambda: F.norm_conv2d(X, FILTERS, stride=4, return_stats=True, correction=1), ValueError, f"norm_conv2d: {UNBIASED}"),
    (
        lambda: F.norm_conv2d(X, FILTERS, output_activation="swish"),
        ValueError,
        "norm_conv2d: output_activation: expected None, 'relu', 'leaky_relu', 'silu', 'gelu', 'sigmoid' or 'tanh', got 'swish'",
    ),
    (
        lambda: F.norm_conv2d(X, FILTERS, return_stats=True, eps_mode="root"),
        ValueError,
        "norm_conv2d: eps_mode: expected 'var' or 'std', got 'root'",
    ),
    (
        lambda: F.instance_stats(X, eps_mode="root"),
        ValueError,
        "instance_stats: eps_mode: expected 'var' or 'std', got 'root'",
    ),
    (lambda: F.adain(X, X, eps_mode=[]), ValueError, "adain: eps_mode: expected 'var' or 'std', got []"),
    (lambda: F.adain(X, X, eps_mode=None), ValueError, "adain: eps_mode: expected 'var' or 'std', got None"),
    (
        lambda: F.adain(X, torch.randn(2, 4, 5, 5)),
        ValueError,
        "adain: style: expected 3 channels and 2 samples or 1, got (2, 4, 5, 5)",
    ),
    (
        lambda: F.adain(X, torch.randn(3, 3, 5, 5)),
        ValueError,
        "adain: style: expected 3 channels and 2 samples or 1, got (3, 3, 5, 5)",
    ),
    (lambda: F.adain(X, X.to("meta")), ValueError, "adain: style: expected a tensor on cpu, got one on meta"),
    (lambda: F.adain(X, (C, C, C)), TypeError, "adain: style: expected a feature map or a pair (mean, std), got tuple"),
    (lambda: F.adain(X, "van_gogh.jpg"), TypeError, "adain: style: expected a feature map or a pair (mean, std), got str"),
    (conditional(eps=-1), ValueError, "conditional_instance_norm: eps: expected a finite number of at least 0, got -1"),
    (conditional(weight=[1]), TypeError, "conditional_instance_norm: weight: expected a tensor, got list"),
    (
        conditional(weight=C),
        ValueError,
        "conditional_instance_norm: weight: expected shape (S, 3), a row for each style, got (3,)",
    ),
    (
        conditional(weight=TABLE[:0], bias=TABLE[:0]),
        ValueError,
        "conditional_instance_norm: weight: expected shape (S, 3), a row for each style, got (0, 3)",
    ),
    (
        conditional(weight=torch.ones(4, 2)),
        ValueError,
        "conditional_instance_norm: weight: expected shape (S, 3), a row for each style, got (4, 2)",
    ),
    (
        conditional(bias=torch.ones(5, 3)),
        ValueError,
        "conditional_instance_norm: bias: expected the weight's shape (4, 3), got (5, 3)",
    ),
    (
        conditional(bias=TABLE.long()),
        TypeError,
        "conditional_instance_norm: bias: expected float32, float64, bfloat16 or float16, got torch.int64",
    ),
    (
        conditional(weight=TABLE.to("meta")),
        ValueError,
        "conditional_instance_norm: weight: expected a tensor on cpu, got one on meta",
    ),
    (conditional(style=[0, 3]), TypeError, "conditional_instance_norm: style: expected a tensor, got list"),
    (
        conditional(style=STYLE.bool()),
        TypeError,
        "conditional_instance_norm: style: expected int64 or int32 indices, or a floating-point mixture, got torch.bool",
    ),
    (conditional(style=STYLE.to_sparse()), TypeError, f"conditional_instance_norm: style: {DENSE} torch.sparse_coo"),
    (
        conditional(style=torch.tensor(1)),
        ValueError,
        "conditional_instance_norm: style: expected an index per sample, (2,), got ()",
    ),
    (
        conditional(style=MIXTURE[:, :3]),
        ValueError,
        "conditional_instance_norm: style: expected a mixture (2, 4), got (2, 3)",
    ),
    (
        conditional(style=STYLE.to("meta")),
        ValueError,
        "conditional_instance_norm: style: expected a tensor on cpu, got one on meta",
    ),
    (
        conditional(style=torch.tensor([0, 4])),
        IndexError,
        "conditional_instance_norm: style: expected indices in 0..3, got [0, 4]",
    ),
    (
        conditional(style=torch.tensor([-1, 0])),
        IndexError,
        "conditional_instance_norm: style: expected indices in 0..3, got [-1, 0]",
    ),
    (
        lambda: nn.InstanceNorm1d(3)(X),
        ValueError,
        "InstanceNorm1d: input: expected 2 or 3 dimensions, got (2, 3, 4, 5)",
    ),
    (
        lambda: nn.InstanceNorm2d(3)(ONE[0]),
        ValueError,
        "instance_norm: input: expected more than 1 element in a plane, got planes of (1, 1)",
    ),
    (
        lambda: nn.ConditionalInstanceNorm2d(3, 4)(X[0], STYLE),
        ValueError,
        "ConditionalInstanceNorm2d: style: expected an index per sample, (), got (2,)",
    ),
    (
        lambda: nn.ConditionalInstanceNorm2d(3, 4)(X[0], MIXTURE),
        ValueError,
        "ConditionalInstanceNorm2d: style: expected a mixture (4,), got (2, 4)",
    ),
    (
        lambda: nn.ConditionalInstanceNorm2d(3, 4)(X[0], 1),
        TypeError,
        "ConditionalInstanceNorm2d: style: expected a tensor, got int",
    ),
    *(
        (
            lambda value=value: nn.SpatiallyAdaptiveNorm2d(3, 2, kernel_size=value),
            ValueError,
            f"SpatiallyAdaptiveNorm2d: kernel_size: expected an odd number, got {value!r}",
        )
        for value in (4, 3.0, (3, 3))
    ),
]


@pytest.mark.parametrize("call, error, message", OTHERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_argument(call, error, message):
    assert_refused(call, error, message)


# The modules of planes, of 3 channels.
MODULES = {
    "InstanceNorm2d": lambda x, *residual: nn.InstanceNorm2d(3, affine=True)(x, *residual),
    "ConditionalInstanceNorm2d": lambda x, *residual: nn.ConditionalInstanceNorm2d(3, 4)(x, STYLE[0], *residual),
    "LayerInstanceNorm2d": lambda x, *residual: nn.LayerInstanceNorm2d(3)(x, None, None, *residual),
    "SpatiallyAdaptiveNorm2d": lambda x: nn.SpatiallyAdaptiveNorm2d(3, 4)(x, x),
}
WRONG_INPUTS = [
    ([[1]], TypeError, "expected a tensor, got list"),
    (X[0, 0], ValueError, "expected 3 or 4 dimensions, got (4, 5)"),
    (X[None], ValueError, "expected 3 or 4 dimensions, got (1, 2, 3, 4, 5)"),
    (X.flatten(2), ValueError, "expected 3 channels, got 2"),
    (X[:, :2], ValueError, "expected 3 channels, got 2"),
    (X.repeat(1, 2, 1, 1), ValueError, "expected 3 channels, got 6"),
    (X[0].to_sparse(), TypeError, f"{DENSE} torch.sparse_coo"),
    (X[0].to_mkldnn(), TypeError, f"{DENSE} torch._mkldnn"),
    (X[0].long(), TypeError, "expected float32, float64, bfloat16 or float16, got torch.int64"),
    (NESTED, TypeError, f"{DENSE} a nested one"),
]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("value, error, message", WRONG_INPUTS, ids=lambda value: str(value)[:9])
def test_a_wrong_input_of_a_module(module, value, error, message):
    assert_refused(lambda: MODULES[module](value), error, f"{module}: input: {message}")


@pytest.mark.parametrize("module", [name for name in MODULES if name != "SpatiallyAdaptiveNorm2d"])
def test_a_wrong_residual_of_one_map(module):
    message = "residual: expected the input's shape (3, 4, 5), got (3, 4, 4)"
    assert_refused(lambda: MODULES[module](X[0], X[0, ..., :4]), ValueError, f"{module}: {message}")
    assert_refused(lambda: MODULES[module](X[0], "x"), TypeError, f"{module}: residual: expected a tensor, got str")


@pytest.mark.parametrize(
    "input, condition, error, message",
    [
        (X, torch.ones(1, 4, 6, 6), ValueError, "expected shape (2, 4, h, w), got (1, 4, 6, 6)"),
        (X, torch.ones(2, 3, 6, 6), ValueError, "expected shape (2, 4, h, w), got (2, 3, 6, 6)"),
        (X, torch.ones(4, 6, 6), ValueError, "expected shape (2, 4, h, w), got (4, 6, 6)"),
        (X, torch.ones(2, 4, 6, 0), ValueError, "expected shape (2, 4, h, w), got (2, 4, 6, 0)"),
        (X[0], torch.ones(2, 4, 6, 6), ValueError, "expected shape (4, h, w), got (2, 4, 6, 6)"),
        (X, None, TypeError, "expected a tensor, got None"),
        (X, torch.ones(2, 4, 6, 6).double(), TypeError, "expected the weights' type torch.float32, got torch.float64"),
        (
            X,
            torch.ones(2, 4, 6, 6).long(),
            TypeError,
            "expected torch.float32 (of a map of classes, one plane for each, one-hot), got torch.int64",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_condition(input, condition, error, message):
    module = nn.SpatiallyAdaptiveNorm2d(3, 4)
    assert_refused(lambda: module(input, condition), error, f"SpatiallyAdaptiveNorm2d: condition: {message}")


def test_maps_of_different_types_meet_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert F.instance_norm(X.bfloat16(), residual=X).dtype == torch.bfloat16


def test_a_refused_call_changes_nothing():
    mean, var = torch.zeros(3), torch.ones(3)
    with pytest.raises(ValueError):
        F.instance_norm(ONE, mean, var)
    assert mean.equal(torch.zeros(3)) and var.equal(torch.ones(3))
