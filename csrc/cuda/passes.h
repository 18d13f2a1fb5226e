// The passes of scale_shift, which an instance norm takes too where it cannot hold its planes.

#pragma once

#include <array>

#include "kernels.h"

namespace fastnorm::cuda {

// From input to output; its affine map is in transform.cuh.
struct Transform {
  Parameter mean, rstd, weight, bias;
  double alpha;
  Activation activation;
  Maps maps;
};

// Where a backward writes its maps, and its numbers per plane (wide). A null pointer is not wanted.
struct GradientMaps {
  void *input, *gamma, *residual;
};
struct GradientSums {
  void *weight, *bias;
  void *input_scale, *input_shift;  // how the statistics depend on the input, by `rule`
  VarianceRule rule;
};

struct ForwardPass {
  Planes planes;
  Transform transform;
  const void* input;
  void* output;
};

struct BackwardPass {
  Planes planes;
  Transform transform;
  const void *grad, *input;
  Parameter input_scale, input_shift;
  GradientMaps maps;
  GradientSums sums;
};

// A number per plane that a kernel wrote, (N, C).
inline Parameter statistic(const Planes& planes, const void* data) {
  return {data, planes.element == Element::f64 ? Element::f64 : Element::f32, planes.channels, 1};
}

// All maps that a pass reads or writes, null where there is none.
inline std::array<const void*, 4> maps_of(const ForwardPass& pass) {
  return {pass.input, pass.output, pass.transform.maps.gamma, pass.transform.maps.residual};
}
inline std::array<const void*, 7> maps_of(const BackwardPass& pass) {
  return {pass.grad,       pass.input,      pass.transform.maps.gamma, pass.transform.maps.residual,
          pass.maps.input, pass.maps.gamma, pass.maps.residual};
}

cudaError_t run(const ForwardPass&, const Queue&);
cudaError_t run(const BackwardPass&, const Queue&);

}  // namespace fastnorm::cuda
