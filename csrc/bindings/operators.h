// The operators for any device: tensors in, the kernels' arguments made of them, tensors out. Their schemas are in
// fastnorm/ops.
//
// `Device::check(op, input, others)` looks whether the kernels can reach all tensors; `Device::run(op, input, args)` runs the
// kernel that takes these arguments, or queues it.

#pragma once

#include <initializer_list>
#include <tuple>

#include "convolved_map.h"
#include "tensors.h"
#include "upsampled_map.h"

namespace fastnorm {

struct NamedTensor {
  const char* name;
  const OptionalTensor& tensor;
};

template <class Device>
std::tuple<Tensor, Tensor> instance_stats(Tensor input, double eps, int64_t correction, bool eps_on_std) {
  const char* op = "instance_stats";
  const Map map(op, input);
  Tensor mean = map.new_statistic(), rstd = map.new_statistic();
  Device::run(op, input, InstanceStats{map.planes, {eps, correction, eps_on_std}, data(map.tensor), out(mean), out(rstd)});
  return {mean, rstd};
}

template <class Device>
Tensor scale_shift(
    Tensor input, OptionalTensor mean, OptionalTensor scale, OptionalTensor shift, OptionalTensor gamma,
    OptionalTensor residual, int64_t activation, double slope) {
  const char* op = "scale_shift";
  Device::check(
      op, input, {{"mean", mean}, {"scale", scale}, {"shift", shift}, {"gamma", gamma}, {"residual", residual}});
  const Map map(op, input);
  gamma = map.aligned(op, "gamma", gamma);
  residual = map.aligned(op, "residual", residual);
  Tensor output = map.new_map();
  Device::run(
      op, input,
      ScaleShift{
          map.planes,
          {static_cast<int>(activation), slope},
          data(map.tensor),
          map.parameter(op, "mean", mean),
          map.parameter(op, "scale", scale),
          map.parameter(op, "shift", shift),
          {data(gamma), data(residual)},
          out(output)});
  return output;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> scale_shift_backward(
    Tensor grad, Tensor input, OptionalTensor mean, OptionalTensor scale, OptionalTensor shift, OptionalTensor gamma,
    OptionalTensor residual, OptionalTensor input_scale, OptionalTensor input_shift, int64_t activation, double slope,
    bool need_input, bool need_sums) {
  const char* op = "scale_shift_backward";
  Device::check(
      op, input,
      {{"grad", grad}, {"mean", mean}, {"scale", scale}, {"shift", shift}, {"gamma", gamma}, {"residual", residual},
       {"input_scale", input_scale}, {"input_shift", input_shift}});
  const Map map(op, input);
  grad = map.aligned(op, "grad", grad);
  gamma = map.aligned(op, "gamma", gamma);
  residual = map.aligned(op, "residual", residual);
  Tensor grad_input = map.new_map(need_input);
  Tensor grad_scale = map.new_statistic(need_sums), grad_shift = map.new_statistic(need_sums);
  Tensor grad_gamma = map.new_map(gamma.has_value());
  Tensor grad_residual = map.new_map(residual.has_value() && activation != 0);
  Device::run(
      op, input,
      ScaleShiftBackward{
          map.planes,
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
          out(grad_residual)});
  return {grad_input, grad_scale, grad_shift, grad_gamma, grad_residual};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> instance_norm(
    Tensor input, OptionalTensor weight, OptionalTensor bias, OptionalTensor gamma, OptionalTensor residual, double eps,
    int64_t correction, bool eps_on_std, double alpha, int64_t activation, double slope) {
  const char* op = "instance_norm";
  Device::check(op, input, {{"weight", weight}, {"bias", bias}, {"gamma", gamma}, {"residual", residual}});
  const Map map(op, input);
  gamma = map.aligned(op, "gamma", gamma);
  residual = map.aligned(op, "residual", residual);
  Tensor output = map.new_map(), mean = map.new_statistic(), rstd = map.new_statistic();
  Device::run(
      op, input,
      InstanceNorm{
          map.planes,
          {eps, correction, eps_on_std},
          alpha,
          {static_cast<int>(activation), slope},
          data(map.tensor),
          map.parameter(op, "weight", weight),
          map.parameter(op, "bias", bias),
          {data(gamma), data(residual)},
          out(output),
          out(mean),
          out(rstd)});
  return {output, mean, rstd};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> instance_norm_backward(
    Tensor grad, Tensor input, Tensor mean, Tensor rstd, OptionalTensor weight, OptionalTensor bias,
    OptionalTensor gamma, OptionalTensor residual, double eps, int64_t correction, bool eps_on_std, double alpha,
    int64_t activation, double slope) {
  const char* op = "instance_norm_backward";
  Device::check(
      op, input,
      {{"grad", grad}, {"mean", mean}, {"rstd", rstd}, {"weight", weight}, {"bias", bias}, {"gamma", gamma},
       {"residual", residual}});
  const Map map(op, input);
  grad = map.aligned(op, "grad", grad);
  gamma = map.aligned(op, "gamma", gamma);
  residual = map.aligned(op, "residual", residual);
  mean = map.statistic(op, "mean", mean);
  rstd = map.statistic(op, "rstd", rstd);
  Tensor grad_input = map.new_map(), grad_weight = map.new_statistic(), grad_bias = map.new_statistic();
  Tensor grad_gamma = map.new_map(gamma.has_value());
  Tensor grad_residual = map.new_map(residual.has_value() && activation != 0);
  Device::run(
      op, input,
      InstanceNormBackward{
          map.planes,
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
          out(grad_residual)});
  return {grad_input, grad_weight, grad_bias, grad_gamma, grad_residual};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> layer_instance_norm(
    Tensor input, Tensor rho, OptionalTensor weight, OptionalTensor bias, OptionalTensor residual, double eps,
    int64_t correction, int64_t activation, double slope) {
  const char* op = "layer_instance_norm";
  Device::check(op, input, {{"rho", rho}, {"weight", weight}, {"bias", bias}, {"residual", residual}});
  const Map map(op, input);
  residual = map.aligned(op, "residual", residual);
  Tensor output = map.new_map(), mean = map.new_statistic(), var = map.new_statistic();
  Device::run(
      op, input,
      LayerInstanceNorm{
          map.planes,
          {eps, correction, false},
          {static_cast<int>(activation), slope},
          data(map.tensor),
          map.parameter(op, "rho", rho),
          map.parameter(op, "weight", weight),
          map.parameter(op, "bias", bias),
          {nullptr, data(residual)},
          out(output),
          out(mean),
          out(var)});
  return {output, mean, var};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> layer_instance_norm_backward(
    Tensor grad, Tensor input, Tensor mean, Tensor var, Tensor rho, OptionalTensor weight, OptionalTensor bias,
    OptionalTensor residual, double eps, int64_t correction, int64_t activation, double slope) {
  const char* op = "layer_instance_norm_backward";
  Device::check(
      op, input,
      {{"grad", grad}, {"mean", mean}, {"var", var}, {"rho", rho}, {"weight", weight}, {"bias", bias},
       {"residual", residual}});
  const Map map(op, input);
  grad = map.aligned(op, "grad", grad);
  mean = map.statistic(op, "mean", mean);
  var = map.statistic(op, "var", var);
  residual = map.aligned(op, "residual", residual);
  Tensor grad_input = map.new_map();
  Tensor grad_rho = map.new_statistic(), grad_weight = map.new_statistic(), grad_bias = map.new_statistic();
  Tensor grad_residual = map.new_map(residual.has_value() && activation != 0);
  Device::run(
      op, input,
      LayerInstanceNormBackward{
          map.planes,
          {eps, correction, false},
          {static_cast<int>(activation), slope},
          data(grad),
          data(map.tensor),
          data(mean),
          data(var),
          map.parameter(op, "rho", rho),
          map.parameter(op, "weight", weight),
          map.parameter(op, "bias", bias),
          {nullptr, data(residual)},
          out(grad_input),
          out(grad_rho),
          out(grad_weight),
          out(grad_bias),
          out(grad_residual)});
  return {grad_input, grad_rho, grad_weight, grad_bias, grad_residual};
}

// A convolution with a filter per sample, of the input or of what its statistics normalise.
template <class Device>
std::tuple<Tensor, Tensor, Tensor> convolve(
    const char* op, bool normalised, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
    const VarianceRule& rule, const Window& window) {
  Device::check(op, input, {{"weight", weight}, {"bias", bias}});
  const Map map(op, input);
  const ConvolvedMap output(op, map, weight, window);
  Tensor result = output.new_map(), mean = map.new_statistic(normalised), rstd = map.new_statistic(normalised);
  Device::run(
      op, input,
      DynamicConv2d{
          output.shape, rule, data(map.tensor), output.filters(), output.parameter(op, "bias", bias), out(result),
          out(mean), out(rstd)});
  return {result, mean, rstd};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> convolve_backward(
    const char* op, const Tensor& grad, const Tensor& input, const OptionalTensor& mean, const OptionalTensor& rstd,
    const Tensor& weight, const VarianceRule& rule, const Window& window, bool need_input, bool need_weight,
    bool need_bias) {
  Device::check(op, input, {{"grad", grad}, {"mean", mean}, {"rstd", rstd}, {"weight", weight}});
  const Map map(op, input);
  const ConvolvedMap output(op, map, weight, window);
  const Tensor dense_grad = output.aligned(op, "grad", grad);
  const OptionalTensor dense_mean = map.statistic(op, "mean", mean), dense_rstd = map.statistic(op, "rstd", rstd);
  Tensor grad_input = map.new_map(need_input);
  Tensor grad_weight = output.new_filters(need_weight), grad_bias = output.new_statistic(need_bias);
  Device::run(
      op, input,
      DynamicConv2dBackward{
          output.shape, rule, data(dense_grad), data(map.tensor), data(dense_mean), data(dense_rstd), output.filters(),
          out(grad_input), out(grad_weight), out(grad_bias)});
  return {grad_input, grad_weight, grad_bias};
}

template <class Device>
Tensor dynamic_conv2d(
    Tensor input, Tensor weight, OptionalTensor bias, Sizes stride, Sizes padding, Sizes dilation, int64_t groups,
    int64_t padding_mode) {
  const Window window{stride, padding, dilation, groups, padding_mode};
  return std::get<0>(convolve<Device>("dynamic_conv2d", false, input, weight, bias, {}, window));
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> dynamic_conv2d_backward(
    Tensor grad, Tensor input, Tensor weight, Sizes stride, Sizes padding, Sizes dilation, int64_t groups,
    int64_t padding_mode, bool need_input, bool need_weight, bool need_bias) {
  const Window window{stride, padding, dilation, groups, padding_mode};
  return convolve_backward<Device>(
      "dynamic_conv2d_backward", grad, input, std::nullopt, std::nullopt, weight, {}, window, need_input, need_weight,
      need_bias);
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> dynamic_instance_norm(
    Tensor input, Tensor weight, OptionalTensor bias, double eps, int64_t correction, bool eps_on_std, Sizes stride,
    Sizes padding, Sizes dilation, int64_t groups, int64_t padding_mode) {
  const Window window{stride, padding, dilation, groups, padding_mode};
  return convolve<Device>(
      "dynamic_instance_norm", true, input, weight, bias, {eps, correction, eps_on_std}, window);
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> dynamic_instance_norm_backward(
    Tensor grad, Tensor input, Tensor mean, Tensor rstd, Tensor weight, double eps, int64_t correction, bool eps_on_std,
    Sizes stride, Sizes padding, Sizes dilation, int64_t groups, int64_t padding_mode, bool need_input,
    bool need_weight, bool need_bias) {
  const Window window{stride, padding, dilation, groups, padding_mode};
  return convolve_backward<Device>(
      "dynamic_instance_norm_backward", grad, input, mean, rstd, weight, {eps, correction, eps_on_std}, window,
      need_input, need_weight, need_bias);
}

// A layer of a chain. What is not needed comes back empty. The C++ kernels for CUDA have none.
template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> norm_conv2d(
    Tensor input, Tensor weight, OptionalTensor bias, OptionalTensor mean, OptionalTensor scale, OptionalTensor shift,
    OptionalTensor residual, int64_t activation, double slope, Sizes input_dilation, Sizes stride, Sizes padding,
    Sizes dilation, int64_t groups, int64_t padding_mode, int64_t output_activation, double output_slope, double eps,
    int64_t correction, bool eps_on_std, bool need_stats, bool need_entered) {
  const char* op = "norm_conv2d";
  Device::check(
      op, input,
      {{"weight", weight}, {"bias", bias}, {"mean", mean}, {"scale", scale}, {"shift", shift}, {"residual", residual}});
  const Map map(op, input);
  residual = map.aligned(op, "residual", residual);
  const Window window{stride, padding, dilation, groups, padding_mode, &input_dilation};
  const ConvolvedMap output(op, map, weight, window, FilterRule::of_layer);
  const auto is_one = [](int64_t step) { return step == 1; };
  STD_TORCH_CHECK(
      !need_entered || (std::all_of(stride.begin(), stride.end(), is_one) &&
                        std::all_of(dilation.begin(), dilation.end(), is_one)),
      op, ": need_entered: expected a stride and a dilation of 1, which meet all of the input");
  Tensor result = output.new_map(), entered = map.new_map(need_entered);
  Tensor mean_of_output = output.new_statistic(need_stats), rstd_of_output = output.new_statistic(need_stats);
  NormConv2d layer = {output.shape};
  layer.entry.mean = map.parameter(op, "mean", mean);
  layer.entry.scale = map.parameter(op, "scale", scale);
  layer.entry.shift = map.parameter(op, "shift", shift);
  layer.entry.activation = {static_cast<int>(activation), slope};
  layer.entry.residual = data(residual);
  layer.entry.entered = out(entered);
  layer.input = data(map.tensor);
  layer.weight = output.filters();
  layer.bias = output.parameter(op, "bias", bias);
  layer.exit = {
      {static_cast<int>(output_activation), output_slope}, {eps, correction, eps_on_std}, out(mean_of_output),
      out(rstd_of_output)};
  layer.output = out(result);
  Device::run(op, input, layer);
  return {result, mean_of_output, rstd_of_output, entered};
}

template <class Device>
Tensor upsample_pad2d(Tensor input, Sizes scale, Sizes padding, int64_t padding_mode) {
  const char* op = "upsample_pad2d";
  const Map map(op, input);
  const Upsampling shape = upsampling_of(op, map, scale, padding, padding_mode);
  Tensor output = new_resized(map, shape.output);
  Device::run(op, input, UpsamplePad2d{shape, data(map.tensor), out(output)});
  return output;
}

template <class Device>
Tensor upsample_pad2d_backward(Tensor grad, Sizes scale, Sizes padding, int64_t padding_mode) {
  const char* op = "upsample_pad2d_backward";
  const Map map(op, grad);
  const Upsampling shape = upsampling_to(op, map, scale, padding, padding_mode);
  Tensor grad_input = new_resized(map, shape.input);
  Device::run(op, grad, UpsamplePad2dBackward{shape, data(map.tensor), out(grad_input)});
  return grad_input;
}

// Queries, keys and values that fit together, in the layout of each.
struct AttentionMaps {
  const Map queries, keys, values;

  AttentionMaps(const char* op, const Tensor& query, const Tensor& key, const Tensor& value)
      : queries(op, query), keys(op, key), values(op, value) {
    const Planes &q = queries.planes, &k = keys.planes, &v = values.planes;
    STD_TORCH_CHECK(
        k.element == q.element && k.samples == q.samples && k.channels == q.channels && k.size > 0, op,
        ": key: expected the query's type, samples and channels, and a position at least");
    STD_TORCH_CHECK(
        v.element == q.element && v.samples == q.samples && v.size == k.size, op,
        ": value: expected the query's type and samples, and the key's positions");
  }
};

// The C++ kernels for CUDA have none.
template <class Device>
std::tuple<Tensor, Tensor> attention_stats(
    Tensor query, Tensor key, Tensor value, double scale, double min_var, bool need_std) {
  const char* op = "attention_stats";
  const AttentionMaps maps(op, query, key, value);
  const Planes &q = maps.queries.planes, &v = maps.values.planes;
  std::vector<int64_t> sizes(query.sizes().begin(), query.sizes().end());
  sizes[1] = v.channels;
  const auto new_result = [&] { return new_empty(query, sizes, wide_type(query), q.channels_last); };
  Tensor mean = new_result(), std = need_std ? new_result() : new_empty(query, {0}, wide_type(query));
  Device::run(
      op, query,
      AttentionStats{
          q, maps.keys.planes, v, scale, min_var, data(maps.queries.tensor), data(maps.keys.tensor),
          data(maps.values.tensor), out(mean), out(std)});
  return {mean, std};
}

// Without a gradient of std, mean and std are not read. The C++ kernels for CUDA have none.
template <class Device>
std::tuple<Tensor, Tensor, Tensor> attention_stats_backward(
    Tensor grad_mean, OptionalTensor grad_std, Tensor query, Tensor key, Tensor value, Tensor mean, Tensor std, double scale,
    double min_var) {
  const char* op = "attention_stats_backward";
  const AttentionMaps maps(op, query, key, value);
  const Map result(op, grad_mean);
  const Planes &q = maps.queries.planes, &v = maps.values.planes, &r = result.planes;
  STD_TORCH_CHECK(
      grad_mean.scalar_type() == wide_type(query) && r.samples == q.samples && r.channels == v.channels && r.size == q.size,
      op, ": grad_mean: expected a gradient of the mean, as the forward returned it");
  OptionalTensor mean_of_maps, std_of_maps;
  if (grad_std.has_value()) {
    grad_std = result.aligned(op, "grad_std", grad_std);
    mean_of_maps = result.aligned(op, "mean", mean);
    std_of_maps = result.aligned(op, "std", std);
  }
  Tensor grad_query = maps.queries.new_map(), grad_key = maps.keys.new_map(), grad_value = maps.values.new_map();
  Device::run(
      op, query,
      AttentionStatsBackward{
          q, maps.keys.planes, v, r, scale, min_var, data(result.tensor), data(grad_std), data(maps.queries.tensor),
          data(maps.keys.tensor), data(maps.values.tensor), data(mean_of_maps), data(std_of_maps), out(grad_query),
          out(grad_key), out(grad_value)});
  return {grad_query, grad_key, grad_value};
}

// The C++ kernels for CUDA have none.
template <class Device>
std::tuple<Tensor, Tensor> gram_matrix(Tensor input, bool centred) {
  const char* op = "gram_matrix";
  const Map map(op, input);
  const int64_t channels = map.planes.channels;
  Tensor gram = new_empty(input, {map.planes.samples, channels, channels}, wide_type(input));
  Tensor mean = map.new_statistic(centred);
  Device::run(op, input, GramMatrix{map.planes, data(map.tensor), out(gram), out(mean)});
  return {gram, mean};
}

// Maps whose planes can be matched, in the layout of each, and which of their positions count.
struct MatchedMaps {
  const Map inputs, targets;
  const OptionalTensor input_mask, target_mask;

  MatchedMaps(
      const char* op, const Tensor& input, const Tensor& target, const OptionalTensor& input_mask,
      const OptionalTensor& target_mask)
      : inputs(op, input),
        targets(op, target),
        input_mask(dense_mask(op, "input_mask", inputs, input_mask)),
        target_mask(dense_mask(op, "target_mask", targets, target_mask)) {
    const Planes &x = inputs.planes, &y = targets.planes;
    STD_TORCH_CHECK(
        y.element == x.element && y.channels == x.channels && (y.samples == x.samples || y.samples == 1) && y.size > 0, op,
        ": target: expected the input's type and channels, its samples or 1, and a position at least");
    STD_TORCH_CHECK(
        x.size <= INT32_MAX && y.size <= INT32_MAX, op, ": input, target: expected planes of less than 2^31 elements");
  }

  static PositionMask mask(const OptionalTensor& mask, const Planes& planes) {
    if (!mask.has_value()) return {};
    return {static_cast<const bool*>(data(*mask)), mask->size(0) == planes.samples ? planes.size : 0};
  }

 private:
  static OptionalTensor dense_mask(const char* op, const char* name, const Map& map, const OptionalTensor& mask) {
    if (!mask.has_value()) return std::nullopt;
    const int64_t samples = mask->dim() ? mask->size(0) : 0;
    STD_TORCH_CHECK(
        mask->scalar_type() == ScalarType::Bool && (samples == map.planes.samples || samples == 1) &&
            mask->numel() == samples * map.planes.size,
        op, ": ", name, ": expected bool, for each position of each sample or of one");
    return torch::stable::contiguous(*mask);
  }
};

// The C++ kernels for CUDA have none.
template <class Device>
Tensor match_histogram(
    Tensor input, Tensor target, OptionalTensor input_mask, OptionalTensor target_mask, int64_t bins) {
  const char* op = "match_histogram";
  const MatchedMaps maps(op, input, target, input_mask, target_mask);
  const Planes &x = maps.inputs.planes, &y = maps.targets.planes;
  Tensor output = maps.inputs.new_map();
  Device::run(
      op, input,
      MatchHistogram{
          x, y, bins, data(maps.inputs.tensor), data(maps.targets.tensor), maps.mask(maps.input_mask, x),
          maps.mask(maps.target_mask, y), out(output)});
  return output;
}

template <class Device>
std::tuple<Tensor, Tensor> match_histogram_backward(
    Tensor grad, Tensor input, Tensor target, OptionalTensor input_mask, OptionalTensor target_mask, int64_t bins,
    bool need_input, bool need_target) {
  const char* op = "match_histogram_backward";
  const MatchedMaps maps(op, input, target, input_mask, target_mask);
  const Planes &x = maps.inputs.planes, &y = maps.targets.planes;
  grad = maps.inputs.aligned(op, "grad", grad);
  Tensor grad_input = maps.inputs.new_map(need_input), grad_target = maps.targets.new_map(need_target);
  Device::run(
      op, input,
      MatchHistogramBackward{
          x, y, bins, data(grad), data(maps.inputs.tensor), data(maps.targets.tensor), maps.mask(maps.input_mask, x),
          maps.mask(maps.target_mask, y), out(grad_input), out(grad_target)});
  return {grad_input, grad_target};
}

template <class Device>
void register_operators(torch::stable::detail::StableLibrary& library) {
  library.impl("instance_stats", TORCH_BOX(&instance_stats<Device>));
  library.impl("scale_shift", TORCH_BOX(&scale_shift<Device>));
  library.impl("scale_shift_backward", TORCH_BOX(&scale_shift_backward<Device>));
  library.impl("instance_norm", TORCH_BOX(&instance_norm<Device>));
  library.impl("instance_norm_backward", TORCH_BOX(&instance_norm_backward<Device>));
  library.impl("layer_instance_norm", TORCH_BOX(&layer_instance_norm<Device>));
  library.impl("layer_instance_norm_backward", TORCH_BOX(&layer_instance_norm_backward<Device>));
  library.impl("dynamic_conv2d", TORCH_BOX(&dynamic_conv2d<Device>));
  library.impl("dynamic_conv2d_backward", TORCH_BOX(&dynamic_conv2d_backward<Device>));
  library.impl("dynamic_instance_norm", TORCH_BOX(&dynamic_instance_norm<Device>));
  library.impl("dynamic_instance_norm_backward", TORCH_BOX(&dynamic_instance_norm_backward<Device>));
  library.impl("upsample_pad2d", TORCH_BOX(&upsample_pad2d<Device>));
  library.impl("upsample_pad2d_backward", TORCH_BOX(&upsample_pad2d_backward<Device>));
}

}  // namespace fastnorm
