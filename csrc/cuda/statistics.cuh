// What is reduced over a plane, and what becomes of it.
//
// Moments are merged, never sums of squares: Chan, Golub and LeVeque 1979. A thread takes its own shifted by its first
// element, and means stay apart from their shifts. So a mean of 1e4 costs a deviation of 1 no digits, and a constant
// plane has exactly no variance. A first element that is an outlier makes the variance itself: of n elements' terms no
// more than a factor of 2 n can cancel.

#pragma once

#include "kernels.h"
#include "vector.cuh"

namespace fastnorm::cuda {

// Of counts: to two places in the last, without the instructions that the last one takes.
__device__ __forceinline__ float quotient(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ double quotient(double a, double b) { return a / b; }

// Of a part of each of P planes that were walked together. The mean is shift + mean: the number nearest to it, and what
// that leaves, so that a mean loses no digits on its way through many merges.
template <typename N, int P>
struct Moments {
  using Number = N;
  N count, shift[P], mean[P], squares[P];

  __device__ __forceinline__ void settle(int p) {
    const N nearest = shift[p] + mean[p];
    mean[p] += shift[p] - nearest;
    shift[p] = nearest;
  }

  __device__ __forceinline__ void merge(const Moments& other) {
    const bool empty = count == 0;
    const N total = count + other.count;
    const N share = total > 0 ? quotient(other.count, total) : 0;
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (empty) shift[p] = other.shift[p];
      const N delta = (other.shift[p] - shift[p]) + (other.mean[p] - mean[p]);
      mean[p] += delta * share;
      settle(p);
      squares[p] += other.squares[p] + delta * delta * (count * share);
    }
    count = total;
  }

  __device__ __forceinline__ Moments<N, 1> plane(int p) const { return {count, {shift[p]}, {mean[p]}, {squares[p]}}; }
};

template <typename N>
__device__ __forceinline__ N mean_of(const Moments<N, 1>& moments) {
  return moments.shift[0] + moments.mean[0];
}

// Sums of the affine map's gradient: times the centred input, and alone.
template <typename N, int P>
struct Sums {
  using Number = N;
  N scale[P], shift[P];

  template <class Gradient>
  __device__ __forceinline__ void add(const Gradient& gradient) {
#pragma unroll
    for (int e = 0; e < Gradient::W; ++e) {
      scale[plane_of<P>(e)] += gradient.affine[e] * gradient.centred[e];
      shift[plane_of<P>(e)] += gradient.affine[e];
    }
  }

  __device__ __forceinline__ void merge(const Sums& other) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      scale[p] += other.scale[p];
      shift[p] += other.shift[p];
    }
  }

  __device__ __forceinline__ Sums<N, 1> plane(int p) const { return {{scale[p]}, {shift[p]}}; }
};

template <typename N>
__device__ __forceinline__ N rstd_of(const Moments<N, 1>& moments, const VarianceRule& rule, int64_t size) {
  const N var = moments.squares[0] / N(size - rule.correction), eps = rule.eps;
  return rule.eps_on_std ? 1 / (sqrt(var) + eps) : 1 / sqrt(var + eps);
}

// d rstd / d x is (x - mean) times this; 0 for a plane without variance, where the root has no derivative.
template <typename N>
__device__ __forceinline__ N rstd_slope(N rstd, const VarianceRule& rule, int64_t size) {
  const N inverse_root = rule.eps_on_std ? 1 / (1 / rstd - N(rule.eps)) : rstd;
  return isfinite(inverse_root) ? -rstd * rstd * inverse_root / N(size - rule.correction) : 0;
}

}  // namespace fastnorm::cuda
