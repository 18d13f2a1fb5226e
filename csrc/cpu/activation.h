// The activations of fastnorm/ops/_activation.py, and their derivatives at the pre-activation.

#pragma once

#include "kernels.h"
#include "vector.h"

namespace fastnorm::FASTNORM_ISA {

// Chosen inside the loop, for each vector: a branch that never changes costs less than a loop for each activation weighs.
enum Code { none, relu, leaky_relu, silu, gelu, sigmoid, tanh };

// The two that are linear on either side of 0, without a branch: they are in most layers.
template <class W>
class Rectifier {
 public:
  explicit Rectifier(const Activation& activation)
      : slope_(broadcast(activation.code == relu ? W(0) : static_cast<W>(activation.slope))),
        kept_(activation.code == relu ? Mask<W>{} : ~Mask<W>{}) {}

  // relu(-inf) is 0, and not 0 * -inf.
  Vector<W> value(Vector<W> x) const { return x < 0 ? as<Vector<W>>(as<Mask<W>>(x * slope_) & kept_) : x; }
  Vector<W> derivative(Vector<W> x) const { return x > 0 ? broadcast(W(1)) : slope_; }

 private:
  Vector<W> slope_;
  Mask<W> kept_;
};

template <class W>
inline Vector<W> activate(Vector<W> x, int code, W slope) {
  switch (code) {
    case relu: return x < 0 ? broadcast(W(0)) : x;  // NaN stays
    case leaky_relu: return x > 0 ? x : x * slope;
    case silu: return x / (exp(-x) + 1);
    case gelu: return x * normal(x).below;
    case sigmoid: return 1 / (exp(-x) + 1);
    case tanh: return hyperbolic_tangent(x);
    default: return x;
  }
}

template <class W>
__attribute__((noinline)) Vector<W> activate_by_call(Vector<W> x, int code) {
  return activate(x, code, W(0));
}

// The same for a loop that has more to keep in registers: exponentials, which few layers have, are called.
template <class W>
IN_PLACE inline Vector<W> activate_beside(Vector<W> x, int code, W slope) {
  if (code == none) return x;
  if (code == relu) return x < 0 ? broadcast(W(0)) : x;  // NaN stays
  if (code == leaky_relu) return x > 0 ? x : x * slope;
  return activate_by_call<W>(x, code);
}

template <class W>
inline Vector<W> derivative(Vector<W> x, int code, W slope) {
  const Vector<W> one = broadcast(W(1));
  switch (code) {
    case relu: return x > 0 ? one : broadcast(W(0));
    case leaky_relu: return x > 0 ? one : broadcast(slope);
    case silu: {
      const Vector<W> sigmoid = one / (exp(-x) + 1);
      return sigmoid * (x * (one - sigmoid) + 1);
    }
    case gelu: {
      const Normal<Vector<W>> phi = normal(x);
      return phi.below + x * phi.density;
    }
    case sigmoid: return 1 / ((exp(-x) + 1) * (exp(x) + 1));
    case tanh: return 4 / ((exp(x * W(-2)) + 1) * (exp(x * W(2)) + 1));
    default: return one;
  }
}

}  // namespace fastnorm::FASTNORM_ISA
