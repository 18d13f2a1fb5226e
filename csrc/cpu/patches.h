// Squares of pixels, one beginning at every `stride` pixels of a map, none beyond a border.

#pragma once

#include "sweep.h"

namespace fastnorm::FASTNORM_ISA {

struct Patches {
  int64_t height, width, size, stride;
  int64_t rows, columns;  // of patches

  Patches(const Planes& planes, int64_t width, int64_t size, int64_t stride)
      : height(planes.size / width),
        width(width),
        size(size),
        stride(stride),
        rows((height - size) / stride + 1),
        columns((width - size) / stride + 1) {}

  int64_t count() const { return rows * columns; }
  // Of its first pixel.
  int64_t position(int64_t patch) const { return (patch / columns * width + patch % columns) * stride; }
};

}  // namespace fastnorm::FASTNORM_ISA
