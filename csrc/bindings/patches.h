// The operators of patches, for the CPU alone: an index is looked at before anything is read where it says.

#pragma once

#include <stdexcept>
#include <string>

#include "convolved_map.h"
#include "tensors.h"

namespace fastnorm {

inline void check_patches(const char* op, const char* name, const Tensor& map, int64_t patch_size, int64_t stride) {
  STD_TORCH_CHECK(map.dim() == 4, op, ": ", name, ": expected shape (N, C, H, W), got ", map.dim(), " dimensions");
  STD_TORCH_CHECK(
      stride > 0 && patch_size > 0 && patch_size <= map.size(2) && patch_size <= map.size(3), op,
      ": patch_size, stride: expected patches that fit into the ", name);
}

// How many lie below each other, and side by side.
inline int64_t rows_of(const Tensor& map, int64_t patch_size, int64_t stride) {
  return (map.size(2) - patch_size) / stride + 1;
}
inline int64_t columns_of(const Tensor& map, int64_t patch_size, int64_t stride) {
  return (map.size(3) - patch_size) / stride + 1;
}

template <class Device>
std::tuple<Tensor, Tensor> patch_match(
    Tensor content, Tensor style, int64_t patch_size, int64_t stride, double usage_penalty) {
  const char* op = "patch_match";
  check_patches(op, "content", content, patch_size, stride);
  check_patches(op, "style", style, patch_size, stride);
  const Map contents(op, content), styles(op, style);
  const Planes &c = contents.planes, &s = styles.planes;
  STD_TORCH_CHECK(
      s.element == c.element && s.channels == c.channels && (s.samples == c.samples || s.samples == 1), op,
      ": style: expected the content's type and channels, and its samples or 1");
  STD_TORCH_CHECK(s.size <= INT32_MAX, op, ": style: expected less than 2^31 pixels, got ", s.size);
  const Sizes sizes = {c.samples, rows_of(content, patch_size, stride), columns_of(content, patch_size, stride)};
  Tensor index = new_empty(content, sizes, ScalarType::Long), score = new_empty(content, sizes, wide_type(content));
  Device::run(
      op, content,
      PatchMatch{
          c, s, content.size(3), style.size(3), patch_size, stride, usage_penalty, data(contents.tensor),
          data(styles.tensor), static_cast<int64_t*>(out(index)), out(score)});
  return {index, score};
}

// From patches of a style to a map of them, or from that one's gradient to the style's: `to` has this size.
template <class Device>
Tensor swap(
    const char* op, bool forward, const Tensor& from, const Tensor& index, const Sizes& size, int64_t patch_size,
    int64_t stride) {
  STD_TORCH_CHECK(size.size() == 2, op, ": size: expected (H, W)");
  const Map map(op, from);
  Tensor to = new_empty(from, {from.size(0), from.size(1), size[0], size[1]}, from.scalar_type(), map.planes.channels_last);
  const Tensor &style = forward ? from : to, &swapped = forward ? to : from;
  check_patches(op, "style", style, patch_size, stride);
  check_patches(op, "output", swapped, patch_size, stride);
  STD_TORCH_CHECK(
      index.scalar_type() == ScalarType::Long && index.dim() == 3 && index.size(0) == from.size(0) &&
          index.size(1) == rows_of(swapped, patch_size, stride) &&
          index.size(2) == columns_of(swapped, patch_size, stride),
      op, ": index: expected int64, a patch for each place");
  const Tensor dense = torch::stable::contiguous(index);
  const int64_t* patch = static_cast<const int64_t*>(data(dense));
  const int64_t patches = rows_of(style, patch_size, stride) * columns_of(style, patch_size, stride);
  for (int64_t i = 0; i < index.numel(); ++i)
    if (patch[i] < 0 || patch[i] >= patches)
      // Users meet this one: without the place in this file.
      throw std::runtime_error(
          std::string(op) + ": index: expected patches in 0.." + std::to_string(patches - 1) + ", got " +
          std::to_string(patch[i]));
  Planes styles = map.planes, all_swapped = map.planes;
  styles.size = style.size(2) * style.size(3);
  all_swapped.size = swapped.size(2) * swapped.size(3);
  Device::run(
      op, from,
      SwapPatches{
          styles, all_swapped, style.size(3), swapped.size(3), patch_size, stride, forward, patch, data(map.tensor),
          out(to)});
  return to;
}

template <class Device>
Tensor swap_patches(Tensor style, Tensor index, Sizes size, int64_t patch_size, int64_t stride) {
  return swap<Device>("swap_patches", true, style, index, size, patch_size, stride);
}

template <class Device>
Tensor swap_patches_backward(Tensor grad, Tensor index, Sizes style_size, int64_t patch_size, int64_t stride) {
  return swap<Device>("swap_patches_backward", false, grad, index, style_size, patch_size, stride);
}

}  // namespace fastnorm
