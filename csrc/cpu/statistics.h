// From a plane's moments to its statistics.

#pragma once

#include <cmath>

#include "kernels.h"
#include "reductions.h"
#include "sweep.h"

namespace fastnorm::FASTNORM_ISA {

// The moments of one plane in NCHW, in the chunks, and so to the bit, in which a sweep takes them.
template <class T>
inline Sums<double> moments_of(const T* plane, int64_t size) {
  const Moments<T> moments{plane};
  Sums<double> sums;
  for (int64_t first = 0; first < size; first += chunk_size) {
    const int64_t count = smaller(chunk_size, size - first);
    sums = Moments<T>::merge(sums, first, moments.span(first, count, Coefficients<Wide<T>>{}), count);
  }
  return sums;
}

inline double rstd_of(const Sums<double>& moments, const VarianceRule& rule, int64_t size) {
  const double var = moments.second / static_cast<double>(size - rule.correction);
  return rule.eps_on_std ? 1 / (std::sqrt(var) + rule.eps) : 1 / std::sqrt(var + rule.eps);
}

// d rstd / d x is (x - mean) times this; 0 for a plane without variance, where the root has no derivative.
inline double rstd_slope(double rstd, const VarianceRule& rule, double size) {
  const double inverse_root = rule.eps_on_std ? 1 / (1 / rstd - rule.eps) : rstd;
  return std::isfinite(inverse_root) ? -rstd * rstd * inverse_root / (size - rule.correction) : 0.0;
}

}  // namespace fastnorm::FASTNORM_ISA
