// Between torch's tensors and the kernels' pointers.

#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include <optional>
#include <vector>

#include "../cpu/kernels.h"

namespace fastnorm {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline Element element_of(const char* op, const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Element::f32;
    case ScalarType::Double: return Element::f64;
    case ScalarType::BFloat16: return Element::bf16;
    case ScalarType::Half: return Element::f16;
    default: break;
  }
  STD_TORCH_CHECK(false, op, ": ", name, ": expected float32, float64, bfloat16 or float16");
  return Element::f32;
}

inline ScalarType wide_type(const Tensor& input) {
  return input.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline int32_t dtype_code(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return aoti_torch_dtype_float64();
    case ScalarType::BFloat16: return aoti_torch_dtype_bfloat16();
    case ScalarType::Half: return aoti_torch_dtype_float16();
    case ScalarType::Long: return aoti_torch_dtype_int64();
    default: return aoti_torch_dtype_float32();
  }
}

// Whether a tensor is dense with its channels innermost. Strides of dimensions of size 1 do not matter.
inline bool is_channels_last(const Tensor& tensor) {
  const int64_t dims = tensor.dim();
  if (dims != 4 && dims != 5) return false;
  int64_t expected = 1;
  const auto matches = [&](int64_t dim) {
    if (tensor.size(dim) == 1) return true;
    const bool match = tensor.stride(dim) == expected;
    expected *= tensor.size(dim);
    return match;
  };
  if (!matches(1)) return false;
  for (int64_t dim = dims - 1; dim >= 2; --dim)
    if (!matches(dim)) return false;
  return matches(0);
}

// An uninitialised tensor on `like`'s device. Straight from the shim: the dispatcher would take a microsecond to find
// aten::empty by name, several times a call.
inline Tensor new_empty(
    const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type, bool channels_last = false) {
  const int64_t dims = sizes.size();
  std::vector<int64_t> strides(dims);
  int64_t stride = 1;
  const auto lay = [&](int64_t dim) {
    strides[dim] = stride;
    stride *= sizes[dim] > 1 ? sizes[dim] : 1;
  };
  if (channels_last) lay(1);
  for (int64_t dim = dims - 1; dim >= 0; --dim)
    if (!(channels_last && dim == 1)) lay(dim);
  int32_t device_type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dims, sizes.data(), strides.data(), dtype_code(type), device_type, like.get_device(), &handle));
  return Tensor(handle);
}

inline MemoryFormat channels_last_format(const Tensor& tensor) {
  return tensor.dim() == 5 ? MemoryFormat::ChannelsLast3d : MemoryFormat::ChannelsLast;
}

// A map and how its planes lie: as they are where they are dense in either order, made contiguous where not.
struct Map {
  Tensor tensor;
  Planes planes;

  Map(const char* op, const Tensor& input) : tensor(input) {
    STD_TORCH_CHECK(input.dim() >= 3, op, ": input: expected shape (N, C, *), got ", input.dim(), " dimensions");
    const bool channels_last = !input.is_contiguous() && is_channels_last(input);
    if (!channels_last && !input.is_contiguous()) tensor = torch::stable::contiguous(input);
    int64_t size = 1;
    for (int64_t dim = 2; dim < input.dim(); ++dim) size *= input.size(dim);
    planes = Planes{element_of(op, "input", input), input.size(0), input.size(1), size, channels_last};
  }

  MemoryFormat format() const {
    return planes.channels_last ? channels_last_format(tensor) : MemoryFormat::Contiguous;
  }

  bool lies_like(const Tensor& other) const {
    return planes.channels_last ? is_channels_last(other) : other.is_contiguous();
  }

  // Another map, laid out as this one.
  Tensor aligned(const char* op, const char* name, const Tensor& other) const {
    bool same = other.scalar_type() == tensor.scalar_type() && other.dim() == tensor.dim();
    for (int64_t dim = 0; same && dim < tensor.dim(); ++dim) same = other.size(dim) == tensor.size(dim);
    STD_TORCH_CHECK(same, op, ": ", name, ": expected the input's shape and type");
    if (lies_like(other)) return other;
    return torch::stable::contiguous(other, format());
  }

  OptionalTensor aligned(const char* op, const char* name, const OptionalTensor& other) const {
    return other.has_value() ? OptionalTensor(aligned(op, name, *other)) : std::nullopt;
  }

  // An output of the input's shape, type and layout; an empty one where it is not wanted.
  Tensor new_map(bool wanted = true) const {
    if (!wanted) return new_empty(tensor, {0}, tensor.scalar_type());
    std::vector<int64_t> sizes(tensor.sizes().begin(), tensor.sizes().end());
    return new_empty(tensor, sizes, tensor.scalar_type(), planes.channels_last);
  }

  // One number per plane, (N, C).
  Tensor new_statistic(bool wanted = true) const {
    if (!wanted) return new_empty(tensor, {0}, wide_type(tensor));
    return new_empty(tensor, {planes.samples, planes.channels}, wide_type(tensor));
  }

  // One that a forward returned, dense.
  Tensor statistic(const char* op, const char* name, const Tensor& value) const {
    STD_TORCH_CHECK(
        value.numel() == planes.samples * planes.channels && value.scalar_type() == wide_type(tensor),
        op, ": ", name, ": expected a statistic of the input, as the forward returned it");
    return torch::stable::contiguous(value);
  }

  OptionalTensor statistic(const char* op, const char* name, const OptionalTensor& value) const {
    return value.has_value() ? OptionalTensor(statistic(op, name, *value)) : std::nullopt;
  }

  // A (C,), (1, C) or (N, C) tensor of any floating-point type and strides.
  Parameter parameter(const char* op, const char* name, const OptionalTensor& value) const {
    if (!value.has_value()) return {};
    const int64_t dims = value->dim();
    const bool fits = (dims == 1 || dims == 2) && value->size(dims - 1) == planes.channels &&
        (dims == 1 || value->size(0) == planes.samples || value->size(0) == 1);
    STD_TORCH_CHECK(fits, op, ": ", name, ": expected shape (", planes.channels, ",) or (", planes.samples, ", ",
                    planes.channels, ")");
    const int64_t sample_stride = dims == 2 && value->size(0) != 1 ? value->stride(0) : 0;
    return {value->const_data_ptr(), element_of(op, name, *value), sample_stride, value->stride(dims - 1)};
  }
};

inline const void* data(const Tensor& tensor) { return tensor.const_data_ptr(); }
inline const void* data(const OptionalTensor& tensor) { return tensor.has_value() ? tensor->const_data_ptr() : nullptr; }

// Where a kernel writes: nowhere, for an output that is not wanted.
inline void* out(const Tensor& tensor) { return tensor.numel() ? tensor.mutable_data_ptr() : nullptr; }

}  // namespace fastnorm
