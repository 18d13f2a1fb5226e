// What a convolution makes of a map: its sizes, its filters, its output.

#pragma once

#include <algorithm>
#include <vector>

#include "tensors.h"

namespace fastnorm {

using Sizes = std::vector<int64_t>;

// As the schemas have it: a number for each spatial dimension; padding before and after each, one after the other.
struct Window {
  const Sizes &stride, &padding, &dilation;
  int64_t groups, padding_mode;
  const Sizes* input_dilation = nullptr;
};

// Filters of each sample, of the input's type; or, of a layer, also one for all of them, and of the type it is computed in.
enum class FilterRule { of_sample, of_layer };

class ConvolvedMap {
 public:
  Convolution shape;

  ConvolvedMap(
      const char* op, const Map& input, const Tensor& weight, const Window& window,
      FilterRule rule = FilterRule::of_sample)
      : input_(input), weight_(weight), sizes_{input.planes.samples, weight.size(1)} {
    const int64_t dims = input.tensor.dim() - 2, groups = window.groups;
    STD_TORCH_CHECK(dims <= 3, op, ": input: expected at most three spatial dimensions, got ", dims);
    const bool layer = rule == FilterRule::of_layer;
    const bool own_type = weight.scalar_type() == input.tensor.scalar_type();
    STD_TORCH_CHECK(
        weight.dim() == dims + 3 && (weight.size(0) == input.planes.samples || (layer && weight.size(0) == 1)) &&
            groups > 0 && weight.size(1) % groups == 0 && weight.size(2) * groups == input.planes.channels &&
            (own_type || (layer && weight.scalar_type() == wide_type(input.tensor))),
        op, ": weight: expected a filter of the input's type for each sample, (N, C_out, C_in / groups, *)");
    const auto fits = [&](const Sizes& sizes, int64_t count) { return static_cast<int64_t>(sizes.size()) == count; };
    STD_TORCH_CHECK(
        fits(window.stride, dims) && fits(window.padding, 2 * dims) && fits(window.dilation, dims) &&
            (!window.input_dilation || fits(*window.input_dilation, dims)),
        op, ": stride, padding, dilation: expected a number for each of ", dims, " dimensions, two of padding");
    STD_TORCH_CHECK(
        std::all_of(window.padding.begin(), window.padding.end(), [](int64_t side) { return side >= 0; }) &&
            window.padding_mode >= 0 && window.padding_mode <= static_cast<int64_t>(Border::circular),
        op, ": padding: expected numbers of at least 0, and a mode that there is");
    shape.element = input.planes.element;
    shape.channels_last = input.planes.channels_last;
    shape.samples = input.planes.samples;
    shape.groups = groups;
    shape.in_channels = weight.size(2);
    shape.out_channels = weight.size(1) / groups;
    shape.border = static_cast<Border>(window.padding_mode);
    for (int64_t dim = 0; dim < 3; ++dim) {
      const int64_t given = dim - (3 - dims);
      const bool exists = given >= 0;
      shape.input[dim] = exists ? input.tensor.size(2 + given) : 1;
      shape.kernel[dim] = exists ? weight.size(3 + given) : 1;
      shape.stride[dim] = exists ? window.stride[given] : 1;
      shape.padding[dim] = exists ? window.padding[2 * given] : 0;
      shape.dilation[dim] = exists ? window.dilation[given] : 1;
      const int64_t apart = exists && window.input_dilation ? (*window.input_dilation)[given] : 1;
      STD_TORCH_CHECK(
          apart == 1 || (apart > 1 && shape.stride[dim] == 1 && shape.dilation[dim] == 1),
          op, ": input_dilation: expected 1 where stride or dilation are not, got ", apart);
      shape.input_dilation[dim] = apart;
      const int64_t padded = apart * shape.input[dim] + shape.padding[dim] + (exists ? window.padding[2 * given + 1] : 0);
      const int64_t seen = shape.dilation[dim] * (shape.kernel[dim] - 1) + 1;
      STD_TORCH_CHECK(
          shape.stride[dim] > 0 && shape.dilation[dim] > 0 && shape.kernel[dim] > 0 && seen <= padded,
          op, ": weight: expected a kernel that fits into the padded input");
      // A border that is read at an index inside must not read past the other one.
      const int64_t most = shape.border == Border::reflect ? shape.input[dim] - 1 : shape.input[dim];
      const bool inside = shape.border == Border::zeros || shape.border == Border::replicate;
      const int64_t behind = (padded - shape.padding[dim] - 1) / apart + 1 - shape.input[dim];
      STD_TORCH_CHECK(
          inside || std::max(shape.padding[dim] / apart, behind) <= most,
          op, ": padding: expected less than the input has");
      shape.output[dim] = (padded - seen) / shape.stride[dim] + 1;
      if (exists) sizes_.push_back(shape.output[dim]);
    }
    wide_ = !own_type;
    dense_ = has_dense_filters() ? weight_ : torch::stable::contiguous(weight_);
  }

  Filters filters() const { return {dense_.const_data_ptr(), dense_.size(0) > 1 ? dense_.stride(0) : 0, wide_}; }

  Tensor new_map() const { return new_empty(input_.tensor, sizes_, input_.tensor.scalar_type(), shape.channels_last); }

  Tensor new_filters(bool wanted) const {
    if (!wanted) return new_empty(weight_, {0}, weight_.scalar_type());
    return new_empty(weight_, Sizes(weight_.sizes().begin(), weight_.sizes().end()), weight_.scalar_type());
  }

  // A number per plane of the output.
  Tensor new_statistic(bool wanted) const {
    return new_empty(input_.tensor, wanted ? Sizes{sizes_[0], sizes_[1]} : Sizes{0}, wide_type(input_.tensor));
  }

  // A map of the output's sizes, laid out as it.
  Tensor aligned(const char* op, const char* name, const Tensor& map) const {
    bool same = map.scalar_type() == input_.tensor.scalar_type() && map.dim() == static_cast<int64_t>(sizes_.size());
    for (size_t dim = 0; same && dim < sizes_.size(); ++dim) same = map.size(dim) == sizes_[dim];
    STD_TORCH_CHECK(same, op, ": ", name, ": expected the output's shape and the input's type");
    return input_.lies_like(map) ? map : torch::stable::contiguous(map, input_.format());
  }

  // (N, C_out); of a layer, (C_out,) too.
  Parameter parameter(const char* op, const char* name, const OptionalTensor& value) const {
    if (!value.has_value()) return {};
    const int64_t dims = value->dim();
    STD_TORCH_CHECK(
        (dims == 1 || (dims == 2 && value->size(0) == sizes_[0])) && value->size(dims - 1) == sizes_[1],
        op, ": ", name, ": expected shape (", sizes_[0], ", ", sizes_[1], ")");
    const int64_t sample_stride = dims == 2 ? value->stride(0) : 0;
    return {value->const_data_ptr(), element_of(op, name, *value), sample_stride, value->stride(dims - 1)};
  }

 private:
  // Whether each sample's filters are dense; samples may lie anywhere, one that is expanded all in the same place.
  bool has_dense_filters() const {
    int64_t expected = 1;
    for (int64_t dim = weight_.dim() - 1; dim > 0; --dim) {
      if (weight_.size(dim) != 1 && weight_.stride(dim) != expected) return false;
      expected *= weight_.size(dim);
    }
    return true;
  }

  const Map& input_;
  Tensor weight_, dense_;
  bool wide_ = false;
  Sizes sizes_;
};

}  // namespace fastnorm
