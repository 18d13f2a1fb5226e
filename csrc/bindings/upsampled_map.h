// What nearest upsampling and padding make of a map: its sizes.

#pragma once

#include <algorithm>

#include "convolved_map.h"

namespace fastnorm {

// All but the sizes of the maps.
inline Upsampling upsampling(
    const char* op, const Map& map, const Sizes& scale, const Sizes& padding, int64_t padding_mode) {
  const size_t dims = map.tensor.dim() - 2;
  STD_TORCH_CHECK(dims <= 3, op, ": input: expected at most three spatial dimensions, got ", dims);
  STD_TORCH_CHECK(
      scale.size() == dims && padding.size() == 2 * dims,
      op, ": scale, padding: expected a number for each of ", dims, " dimensions, two of padding");
  STD_TORCH_CHECK(
      std::all_of(scale.begin(), scale.end(), [](int64_t factor) { return factor > 0; }) &&
          std::all_of(padding.begin(), padding.end(), [](int64_t side) { return side >= 0; }),
      op, ": scale, padding: expected scales of at least 1, and padding of at least 0");
  Upsampling shape = {
      map.planes.element, map.planes.channels_last, map.planes.samples, map.planes.channels, {1, 1, 1}, {1, 1, 1},
      {1, 1, 1}, {0, 0, 0}, static_cast<Border>(padding_mode)};
  for (size_t dim = 0; dim < dims; ++dim) {
    shape.scale[3 - dims + dim] = scale[dim];
    shape.padding[3 - dims + dim] = padding[2 * dim];
  }
  return shape;
}

// A border that is read at an index inside must not read past the other one.
inline void check_border(const char* op, const Upsampling& shape) {
  if (shape.border == Border::zeros || shape.border == Border::replicate) return;
  for (int dim = 0; dim < 3; ++dim) {
    const int64_t size = shape.input[dim] * shape.scale[dim], before = shape.padding[dim];
    const int64_t most = shape.border == Border::reflect ? size - 1 : size;
    STD_TORCH_CHECK(
        std::max(before, shape.output[dim] - size - before) <= most, op, ": padding: expected less than the upsampled map has");
  }
}

// From a map to one upsampled and padded.
inline Upsampling upsampling_of(
    const char* op, const Map& input, const Sizes& scale, const Sizes& padding, int64_t padding_mode) {
  Upsampling shape = upsampling(op, input, scale, padding, padding_mode);
  const size_t dims = scale.size();
  for (size_t given = 0, dim = 3 - dims; given < dims; ++given, ++dim) {
    shape.input[dim] = input.tensor.size(2 + given);
    shape.output[dim] = shape.input[dim] * scale[given] + padding[2 * given] + padding[2 * given + 1];
  }
  check_border(op, shape);
  return shape;
}

// To such a map, from the one that it was made of.
inline Upsampling upsampling_to(
    const char* op, const Map& output, const Sizes& scale, const Sizes& padding, int64_t padding_mode) {
  Upsampling shape = upsampling(op, output, scale, padding, padding_mode);
  const size_t dims = scale.size();
  for (size_t given = 0, dim = 3 - dims; given < dims; ++given, ++dim) {
    shape.output[dim] = output.tensor.size(2 + given);
    const int64_t size = shape.output[dim] - padding[2 * given] - padding[2 * given + 1];
    STD_TORCH_CHECK(size >= 0 && size % scale[given] == 0, op, ": grad: expected the sizes of an upsampled and padded map");
    shape.input[dim] = size / scale[given];
  }
  check_border(op, shape);
  return shape;
}

// A map of another size, in the type and layout of `map`.
inline Tensor new_resized(const Map& map, const int64_t (&size)[3]) {
  Sizes sizes = {map.planes.samples, map.planes.channels};
  sizes.insert(sizes.end(), size + 5 - map.tensor.dim(), size + 3);
  return new_empty(map.tensor, sizes, map.tensor.scalar_type(), map.planes.channels_last);
}

}  // namespace fastnorm
