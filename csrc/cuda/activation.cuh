// The activations of fastnorm/ops/_activation.py, and their derivatives at the pre-activation.
//
// Which it is holds for a whole launch, so it is asked once, outside the loops.

#pragma once

#include "kernels.h"

namespace fastnorm::cuda {

// Distribution and density of the standard normal.
template <typename N>
__device__ __forceinline__ N normal_cdf(N x) {
  return N(0.5) * (1 + erf(x * N(0.70710678118654752440)));
}
template <typename N>
__device__ __forceinline__ N normal_pdf(N x) {
  return N(0.39894228040143267794) * exp(N(-0.5) * x * x);
}

template <typename N>
struct None {
  static constexpr bool cheap = true;
  __device__ __forceinline__ N operator()(N x) const { return x; }
  __device__ __forceinline__ N derivative(N) const { return 1; }
};

template <typename N>
struct Relu {
  static constexpr bool cheap = true;
  __device__ __forceinline__ N operator()(N x) const { return x < 0 ? N(0) : x; }  // NaN stays
  __device__ __forceinline__ N derivative(N x) const { return x > 0 ? N(1) : N(0); }
};

template <typename N>
struct LeakyRelu {
  static constexpr bool cheap = true;
  N slope;
  __device__ __forceinline__ N operator()(N x) const { return x > 0 ? x : x * slope; }
  __device__ __forceinline__ N derivative(N x) const { return x > 0 ? N(1) : slope; }
};

template <typename N>
struct Silu {
  static constexpr bool cheap = false;
  __device__ __forceinline__ N operator()(N x) const { return x / (1 + exp(-x)); }
  __device__ __forceinline__ N derivative(N x) const {
    const N sigmoid = 1 / (1 + exp(-x));
    return sigmoid * (1 + x * (1 - sigmoid));
  }
};

template <typename N>
struct Gelu {
  static constexpr bool cheap = false;
  __device__ __forceinline__ N operator()(N x) const { return x * normal_cdf(x); }
  __device__ __forceinline__ N derivative(N x) const { return normal_cdf(x) + x * normal_pdf(x); }
};

template <typename N>
struct Sigmoid {
  static constexpr bool cheap = false;
  __device__ __forceinline__ N operator()(N x) const { return 1 / (1 + exp(-x)); }
  __device__ __forceinline__ N derivative(N x) const { return 1 / ((1 + exp(-x)) * (1 + exp(x))); }
};

template <typename N>
struct Tanh {
  static constexpr bool cheap = false;
  __device__ __forceinline__ N operator()(N x) const { return tanh(x); }
  __device__ __forceinline__ N derivative(N x) const { return 4 / ((1 + exp(-2 * x)) * (1 + exp(2 * x))); }
};

template <typename N, class Body>
__device__ __forceinline__ void with_activation(const Activation& activation, const Body& body) {
  switch (activation.code) {
    case 0: return body(None<N>());
    case 1: return body(Relu<N>());
    case 2: return body(LeakyRelu<N>{N(activation.slope)});
    case 3: return body(Silu<N>());
    case 4: return body(Gelu<N>());
    case 5: return body(Sigmoid<N>());
    case 6: return body(Tanh<N>());
  }
}

}  // namespace fastnorm::cuda
