// From a plane's moments to its statistics.

#pragma once

#include <cmath>

#include "kernels.h"
#include "reductions.h"

namespace fastnorm::FASTNORM_ISA {

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
