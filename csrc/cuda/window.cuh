// Where a convolution looks: what a tap reads for an output, and the reverse. A kernel of any size, in three
// dimensions; what lies beyond a border is read at an index inside, or is zero.

#pragma once

#include "kernels.h"
#include "vector.cuh"

namespace fastnorm::cuda {

// Where a number of a map is.
struct Place {
  int64_t sample, channel, at[3];
};

struct Layout {
  bool channels_last;
  int64_t samples, channels, size[3];

  __host__ __device__ int64_t plane() const { return size[0] * size[1] * size[2]; }
  __host__ __device__ int64_t count() const { return samples * channels * plane(); }
  Planes planes(Element element) const { return {element, samples, channels, plane(), channels_last}; }

  // Of a channel's number at a position of its plane.
  __device__ __forceinline__ int64_t offset(int64_t sample, int64_t channel, int64_t position) const {
    return channels_last ? (sample * plane() + position) * channels + channel
                         : (sample * channels + channel) * plane() + position;
  }

  __device__ __forceinline__ void find(int64_t position, int64_t (&at)[3]) const {
    const int64_t row = position / size[2];
    at[0] = row / size[1];
    at[1] = row - at[0] * size[1];
    at[2] = position - row * size[2];
  }

  // Of the number at this offset.
  __device__ __forceinline__ Place place(int64_t offset) const {
    Place place;
    const int64_t outer = offset / (channels_last ? channels : plane());
    const int64_t inner = offset - outer * (channels_last ? channels : plane());
    place.sample = outer / (channels_last ? plane() : channels);
    const int64_t rest = outer - place.sample * (channels_last ? plane() : channels);
    place.channel = channels_last ? inner : rest;
    find(channels_last ? rest : inner, place.at);
    return place;
  }
};

__host__ __device__ inline Layout input_of(const Convolution& shape) {
  return {
      shape.channels_last, shape.samples, shape.groups * shape.in_channels,
      {shape.input[0], shape.input[1], shape.input[2]}};
}

__host__ __device__ inline Layout output_of(const Convolution& shape) {
  return {
      shape.channels_last, shape.samples, shape.groups * shape.out_channels,
      {shape.output[0], shape.output[1], shape.output[2]}};
}

__host__ __device__ inline int64_t taps_of(const Convolution& shape) {
  return shape.kernel[0] * shape.kernel[1] * shape.kernel[2];
}

// Where a position is read, -1 for a zero.
template <typename Index>
__device__ __forceinline__ Index inside(Border border, Index at, Index size) {
  if (at >= 0 && at < size) return at;
  switch (border) {
    case Border::reflect: return at < 0 ? -at : 2 * (size - 1) - at;
    case Border::replicate: return at < 0 ? 0 : size - 1;
    case Border::circular: return at < 0 ? at + size : at - size;
    default: return -1;
  }
}

// body(tap, position) for all that an output reads of the input, in the order of the kernel.
template <int dim = 0, class Body>
__device__ __forceinline__ void each_read(
    const Convolution& shape, const int64_t (&output)[3], const Body& body, int64_t tap = 0, int64_t position = 0) {
  if constexpr (dim == 3) body(tap, position);
  else {
    const int64_t first = output[dim] * shape.stride[dim] - shape.padding[dim];
#pragma unroll 1
    for (int64_t k = 0; k < shape.kernel[dim]; ++k) {
      const int64_t at = inside(shape.border, first + k * shape.dilation[dim], shape.input[dim]);
      if (at < 0) continue;
      each_read<dim + 1>(shape, output, body, tap * shape.kernel[dim] + k, position * shape.input[dim] + at);
    }
  }
}

// The positions, those beyond a border among them, that are read at one inside: itself, then its images.
struct Images {
  int64_t at, count, before, after;  // count of the images; those of them before the map, and after
  Border border;
  int64_t size;

  __device__ __forceinline__ Images(const Convolution& shape, int dim, int64_t at)
      : at(at), border(shape.border), size(shape.input[dim]) {
    const int64_t padding = shape.padding[dim];
    const int64_t end = (shape.output[dim] - 1) * shape.stride[dim] + (shape.kernel[dim] - 1) * shape.dilation[dim] + 1;
    const int64_t behind = end - padding - size;  // as far as anything is read
    before = after = 0;
    if (border == Border::reflect) before = at > 0 && at <= padding, after = at < size - 1 && size - 1 - at <= behind;
    if (border == Border::replicate) before = at == 0 ? padding : 0, after = at == size - 1 && behind > 0 ? behind : 0;
    if (border == Border::circular) before = size - at <= padding, after = at < behind;
    count = 1 + before + after;
  }

  __device__ __forceinline__ int64_t operator[](int64_t image) const {
    if (image == 0) return at;
    const bool in_front = image <= before;
    if (border == Border::reflect) return in_front ? -at : 2 * (size - 1) - at;
    if (border == Border::replicate) return in_front ? -image : size - 1 + image - before;
    return in_front ? at - size : at + size;
  }
};

// body(tap, position) for all outputs that read an input, each with the tap that reads it.
template <int dim = 0, class Body>
__device__ __forceinline__ void each_reader(
    const Convolution& shape, const int64_t (&input)[3], const Body& body, int64_t tap = 0, int64_t position = 0) {
  if constexpr (dim == 3) body(tap, position);
  else {
    const Images images(shape, dim, input[dim]);
#pragma unroll 1
    for (int64_t image = 0; image < images.count; ++image)
#pragma unroll 1
      for (int64_t k = 0; k < shape.kernel[dim]; ++k) {
        const int64_t from = images[image] + shape.padding[dim] - k * shape.dilation[dim];
        const int64_t at = from / shape.stride[dim];
        if (from < 0 || at >= shape.output[dim] || at * shape.stride[dim] != from) continue;
        each_reader<dim + 1>(shape, input, body, tap * shape.kernel[dim] + k, position * shape.output[dim] + at);
      }
  }
}

// A filter of (out channel, in channel): its taps.
template <typename T>
__device__ __forceinline__ const T* filter(
    const Filters& filters, const Convolution& shape, int64_t sample, int64_t out, int64_t in) {
  return static_cast<const T*>(filters.data) + sample * filters.sample_stride +
      (out * shape.in_channels + in) * taps_of(shape);
}

// A channel of the input as the convolution sees it.
template <typename T>
struct Normed {
  using N = Wide<T>;
  const T* input;
  N mean = 0, rstd = 1;

  __device__ __forceinline__ Normed(const void* input, const void* means, const void* rstds, int64_t plane)
      : input(static_cast<const T*>(input)) {
    if (means) mean = static_cast<const N*>(means)[plane], rstd = static_cast<const N*>(rstds)[plane];
  }

  __device__ __forceinline__ N centred(int64_t offset) const { return widen(input[offset]) - mean; }
  __device__ __forceinline__ N operator[](int64_t offset) const { return centred(offset) * rstd; }
};

}  // namespace fastnorm::cuda
