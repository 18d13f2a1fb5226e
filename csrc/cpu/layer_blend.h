// What layer_instance_norm does with the statistics of planes: of each plane, an affine map of (x - mean); and its gradient.
//
//     rho * (x - mean) * rstd + (1 - rho) * (x - layer_mean) * layer_rstd, times weight, plus bias
//
// Numbers per plane are few, so they are double everywhere. The CUDA kernels include this, as their FASTNORM_ISA.

#pragma once

#include <math.h>

#include "kernels.h"

#if defined(__CUDACC__)
#define FASTNORM_DEVICE __device__
#else
#define FASTNORM_DEVICE
#endif

namespace fastnorm::FASTNORM_ISA {

// A sample's statistics over all channels.
struct Layer {
  double mean, rstd;
};

// A plane among its layer.
struct Blend {
  double rho, weight, bias;
  double deviation;  // of its mean from the layer's
  double rstd, layer_rstd;

  FASTNORM_DEVICE double layer_share() const { return weight * (1 - rho) * layer_rstd; }
  FASTNORM_DEVICE double scale() const { return weight * rho * rstd + layer_share(); }
  FASTNORM_DEVICE double shift() const { return layer_share() * deviation + bias; }
};

// The sums over a plane of the gradient of its affine map's output: times (x - mean), and alone.
struct PlaneSums {
  double scale, shift;
};

// What depends on the layer's statistics, summed over its planes.
struct LayerGradient {
  double mean, rstd;
};

struct BlendGradient {
  double rho, weight, bias;
  double input_scale, input_shift;  // how the statistics depend on the input: (x - mean) * input_scale + input_shift
};

class LayerRule {
 public:
  LayerRule(const Planes& planes, const VarianceRule& rule)
      : channels_(planes.channels),
        size_(planes.size),
        eps_(rule.eps),
        unbiased_(size_ / (size_ - rule.correction)),
        layer_unbiased_(size_ * channels_ / (size_ * channels_ - rule.correction)) {}

  FASTNORM_DEVICE double rstd(double var) const { return 1 / sqrt(var * unbiased_ + eps_); }

  // sum(term) is the sum of term(channel) over the sample's channels. Chan, Golub and LeVeque 1979; means far from zero
  // cancel before they are summed, not after.
  template <class Mean, class Var, class Sum>
  FASTNORM_DEVICE Layer layer(const Mean& mean, const Var& var, const Sum& sum) const {
    const double first = mean(0);
    const double layer_mean = first + sum([&](int64_t c) { return mean(c) - first; }) / channels_;
    const double layer_var = sum([&](int64_t c) {
      const double deviation = mean(c) - layer_mean;
      return var(c) + deviation * deviation;
    }) / channels_;
    return {layer_mean, 1 / sqrt(layer_var * layer_unbiased_ + eps_)};
  }

  template <class Blends, class Gradients, class Sum>
  FASTNORM_DEVICE LayerGradient layer_gradient(const Blends& blend, const Gradients& sums, const Sum& sum) const {
    const double from_mean = sum([&](int64_t c) { return blend(c).layer_share() * sums(c).shift; });
    const double from_rstd = sum([&](int64_t c) {
      const Blend b = blend(c);
      return b.weight * (1 - b.rho) * (sums(c).scale + sums(c).shift * b.deviation);
    });
    return {from_mean / channels_, from_rstd};
  }

  FASTNORM_DEVICE BlendGradient gradient(const Blend& b, const PlaneSums& sums, const LayerGradient& layer) const {
    const double shifted = sums.shift * b.deviation;
    // The layer's variance is a mean over channels of var + deviation^2.
    const double layer_var = slope(b.layer_rstd, layer_unbiased_) * layer.rstd / channels_;
    const double var = slope(b.rstd, unbiased_) * b.weight * b.rho * sums.scale + layer_var;
    const double mean = b.layer_share() * sums.shift - layer.mean + 2 * layer_var * b.deviation;
    return {
        b.weight * (sums.scale * (b.rstd - b.layer_rstd) - shifted * b.layer_rstd),
        sums.scale * (b.rho * b.rstd + (1 - b.rho) * b.layer_rstd) + shifted * (1 - b.rho) * b.layer_rstd,
        sums.shift,
        2 * var / size_,
        (mean - b.scale() * sums.shift) / size_};
  }

 private:
  // d rstd / d var.
  FASTNORM_DEVICE static double slope(double rstd, double unbiased) { return -0.5 * unbiased * rstd * rstd * rstd; }

  double channels_, size_, eps_, unbiased_, layer_unbiased_;
};

}  // namespace fastnorm::FASTNORM_ISA
