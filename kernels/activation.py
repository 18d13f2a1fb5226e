"""The activations, in the order of `fastnorm/ops/_activation.py`: the code of one is its row there."""

from ._triton import tl, triton

NONE = tl.constexpr(0)
RELU = tl.constexpr(1)
LEAKY_RELU = tl.constexpr(2)
SILU = tl.constexpr(3)
GELU = tl.constexpr(4)

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
    else:
        x = tl.full(x.shape, 1.0, x.dtype)
    return x


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1 + tl.erf(x * _INVERSE_ROOT_2))
