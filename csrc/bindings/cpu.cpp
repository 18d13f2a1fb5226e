// The CPU kernels as torch's operators, through its stable ABI. Their schemas are in fastnorm/ops.

#include <cstdint>
#include <tuple>

#include "tensors.h"

namespace fastnorm {
namespace {

// torch's own pool. One task is one unit of work to it: kernels cut their work to a size that is worth a thread.
Threads torch_threads() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int64_t tasks, void (*body)(void*, int64_t, int64_t), void* context) {
            torch::stable::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) { body(context, first, last); });
          }};
}

std::tuple<Tensor, Tensor> instance_stats(Tensor input, double eps, int64_t correction, bool eps_on_std) {
  const Map map("instance_stats", input);
  Tensor mean = map.new_statistic(), rstd = map.new_statistic();
  kernels().instance_stats(
      {map.planes, {eps, correction, eps_on_std}, data(map.tensor), out(mean), out(rstd)}, torch_threads());
  return {mean, rstd};
}

Tensor scale_shift(
    Tensor input, OptionalTensor mean, OptionalTensor scale, OptionalTensor shift, OptionalTensor gamma,
    OptionalTensor residual, int64_t activation, double slope) {
  const char* op = "scale_shift";
  const Map map(op, input);
  gamma = map.aligned(op, "gamma", gamma);
  residual = map.aligned(op, "residual", residual);
  Tensor output = map.new_map();
  kernels().scale_shift(
      {map.planes,
       {static_cast<int>(activation), slope},
       data(map.tensor),
       map.parameter(op, "mean", mean),
       map.parameter(op, "scale", scale),
       map.parameter(op, "shift", shift),
       {data(gamma), data(residual)},
       out(output)},
      torch_threads());
  return output;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> scale_shift_backward(
    Tensor grad, Tensor input, OptionalTensor mean, OptionalTensor scale, OptionalTensor shift, OptionalTensor gamma,
    OptionalTensor residual, OptionalTensor input_scale, OptionalTensor input_shift, int64_t activation, double slope,
    bool need_input, bool need_sums) {
  const char* op = "scale_shift_backward";
  const Map map(op, input);
  grad = map.aligned(op, "grad", grad);
  gamma = map.aligned(op, "gamma", gamma);
  residual = map.aligned(op, "residual", residual);
  Tensor grad_input = map.new_map(need_input);
  Tensor grad_scale = map.new_statistic(need_sums), grad_shift = map.new_statistic(need_sums);
  Tensor grad_gamma = map.new_map(gamma.has_value());
  Tensor grad_residual = map.new_map(residual.has_value() && activation != 0);
  kernels().scale_shift_backward(
      {map.planes,
       {static_cast<int>(activation), slope},
       data(grad),
       data(map.tensor),
       map.parameter(op, "mean", mean),
       map.parameter(op, "scale", scale),
       map.parameter(op, "shift", shift),
       map.parameter(op, "input_scale", input_scale),
       map.parameter(op, "input_shift", input_shift),
       {data(gamma), data(residual)},
       out(grad_input),
       out(grad_scale),
       out(grad_shift),
       out(grad_gamma),
       out(grad_residual)},
      torch_threads());
  return {grad_input, grad_scale, grad_shift, grad_gamma, grad_residual};
}

std::tuple<Tensor, Tensor, Tensor> instance_norm(
    Tensor input, OptionalTensor weight, OptionalTensor bias, OptionalTensor gamma, OptionalTensor residual, double eps,
    int64_t correction, bool eps_on_std, double alpha, int64_t activation, double slope) {
  const char* op = "instance_norm";
  const Map map(op, input);
  gamma = map.aligned(op, "gamma", gamma);
  residual = map.aligned(op, "residual", residual);
  Tensor output = map.new_map(), mean = map.new_statistic(), rstd = map.new_statistic();
  kernels().instance_norm(
      {map.planes,
       {eps, correction, eps_on_std},
       alpha,
       {static_cast<int>(activation), slope},
       data(map.tensor),
       map.parameter(op, "weight", weight),
       map.parameter(op, "bias", bias),
       {data(gamma), data(residual)},
       out(output),
       out(mean),
       out(rstd)},
      torch_threads());
  return {output, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> instance_norm_backward(
    Tensor grad, Tensor input, Tensor mean, Tensor rstd, OptionalTensor weight, OptionalTensor bias,
    OptionalTensor gamma, OptionalTensor residual, double eps, int64_t correction, bool eps_on_std, double alpha,
    int64_t activation, double slope) {
  const char* op = "instance_norm_backward";
  const Map map(op, input);
  grad = map.aligned(op, "grad", grad);
  gamma = map.aligned(op, "gamma", gamma);
  residual = map.aligned(op, "residual", residual);
  for (Tensor* statistic : {&mean, &rstd}) {
    STD_TORCH_CHECK(
        statistic->numel() == map.planes.samples * map.planes.channels && statistic->scalar_type() == wide_type(input),
        op, ": mean, rstd: expected the statistics of the input");
    *statistic = torch::stable::contiguous(*statistic);
  }
  Tensor grad_input = map.new_map(), grad_weight = map.new_statistic(), grad_bias = map.new_statistic();
  Tensor grad_gamma = map.new_map(gamma.has_value());
  Tensor grad_residual = map.new_map(residual.has_value() && activation != 0);
  kernels().instance_norm_backward(
      {map.planes,
       {eps, correction, eps_on_std},
       alpha,
       {static_cast<int>(activation), slope},
       data(grad),
       data(map.tensor),
       data(mean),
       data(rstd),
       map.parameter(op, "weight", weight),
       map.parameter(op, "bias", bias),
       {data(gamma), data(residual)},
       out(grad_input),
       out(grad_weight),
       out(grad_bias),
       out(grad_gamma),
       out(grad_residual)},
      torch_threads());
  return {grad_input, grad_weight, grad_bias, grad_gamma, grad_residual};
}

}  // namespace
}  // namespace fastnorm

STABLE_TORCH_LIBRARY_IMPL(fastnorm, CPU, m) {
  m.impl("instance_stats", TORCH_BOX(&fastnorm::instance_stats));
  m.impl("scale_shift", TORCH_BOX(&fastnorm::scale_shift));
  m.impl("scale_shift_backward", TORCH_BOX(&fastnorm::scale_shift_backward));
  m.impl("instance_norm", TORCH_BOX(&fastnorm::instance_norm));
  m.impl("instance_norm_backward", TORCH_BOX(&fastnorm::instance_norm_backward));
}
