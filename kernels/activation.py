"""The activations, in the order of `fastnorm/ops/_activation.py`: the code of one is its row there."""

from ._triton import tl, triton

NONE = tl.constexpr(0)
RELU = tl.constexpr(1)
LEAKY_RELU = tl.constexpr(2)
SILU = tl.constexpr(3)
GELU = tl.constexpr(4)
SIGMOID = tl.constexpr(5)
TANH = tl.constexpr(6)

_INVERSE_ROOT_2 = tl.constexpr(0.5**0.5)
_INVERSE_ROOT_2_PI = tl.constexpr((2 * 3.141592653589793) ** -0.5)


@triton.jit
def activate(x, slope, ACTIVATION: tl.constexpr):
    # Written by x < 0, so that a NaN stays one.
    if ACTIVATION == RELU:
        x = tl.where(x < 0, 0.0, x)
    elif ACTIVATION == LEAKY_RELU:
        x = tl.where(x < 0, x * slope, x)
    elif ACTIVATION == SILU:
        x = x * tl.sigmoid(x)
    elif ACTIVATION == GELU:
        x = x * _normal_cdf(x)
    elif ACTIVATION == SIGMOID:
        x = tl.sigmoid(x)
    elif ACTIVATION == TANH:
        x = _tanh(x)
    return x


@triton.jit
def derivative(x, slope, ACTIVATION: tl.constexpr):
    """At the pre-activation `x`."""
    if ACTIVATION == RELU:
        x = tl.where(x > 0, 1.0, 0.0).to(x.dtype)
    elif ACTIVATION == LEAKY_RELU:
        x = tl.where(x > 0, 1.0, slope).to(x.dtype)
    elif ACTIVATION == SILU:
        sigmoid = tl.sigmoid(x)
        x = sigmoid * (1 + x * (1 - sigmoid))
    elif ACTIVATION == GELU:
        x = _normal_cdf(x) + x * tl.exp(-0.5 * x * x) * _INVERSE_ROOT_2_PI
    elif ACTIVATION == SIGMOID:
        x = tl.sigmoid(x) * tl.sigmoid(-x)
    elif ACTIVATION == TANH:
        x = 4 * tl.sigmoid(2 * x) * tl.sigmoid(-2 * x)
    else:
        x = tl.full(x.shape, 1.0, x.dtype)
    return x


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1 + tl.erf(x * _INVERSE_ROOT_2))


@triton.jit
def _tanh(x):
    """Near 0, where the other form would cancel, by a polynomial, fitted to 5e-9; float64 by its series."""
    z = x * x
    if x.dtype == tl.float64:
        limit: tl.constexpr = 1e-3
        near = x + x * z * (-1 / 3 + z * (2 / 15 - z * (17 / 315)))
    else:
        limit: tl.constexpr = 0.4
        p = 0.133312744 + z * (-0.0537251271 + z * (0.0205898274 + z * -0.00564831699))
        near = x + x * z * (-0.333332761 + z * p)
    return tl.where(z < limit, near, 1 - 2 * tl.sigmoid(-2 * x))
