// Convolutions of images by 3 x 3 and 1 x 1 filters at a stride of 1, and what they are in reverse: the gradient of the
// input is a convolution of the output's gradient by the filters turned round.

#pragma once

#include <array>

#include "launch.cuh"
#include "walk.cuh"
#include "window.cuh"

namespace fastnorm::cuda {

// A convolution or its reverse. Channels are those of a group; sizes are height and width.
struct TilePass {
  const void *input, *mean, *rstd;
  Filters weight;
  Parameter bias;
  void* output;
  int64_t samples;
  int groups, in_channels, out_channels;
  int input_size[2], output_size[2], padding[2];
  Border border;   // of the input
  Border folding;  // in reverse, reflect and replicate add what lies beyond the border to numbers inside
  bool reverse, channels_last;
  Element element;
  int kernel;
};

// float64 is for checking gradients: gathering will do. Offsets in an image's rows and planes are of 32 bits.
inline bool tiles_fit(const Convolution& shape) {
  const int64_t kernel = shape.kernel[1];
  bool fit = shape.input[0] * shape.output[0] * shape.kernel[0] == 1 && shape.padding[0] == 0;
  for (int dim = 1; dim < 3; ++dim)
    fit = fit && shape.kernel[dim] == kernel && shape.stride[dim] == 1 && (shape.dilation[dim] == 1 || kernel == 1);
  return fit && (kernel == 1 || kernel == 3) && shape.element != Element::f64 &&
      input_of(shape).plane() < INT32_MAX / 2 && output_of(shape).plane() < INT32_MAX / 2 &&
      shape.groups * shape.in_channels * shape.input[2] < INT32_MAX / 16 &&
      shape.groups * shape.out_channels * shape.output[2] < INT32_MAX / 16;
}

inline TilePass tile_pass(const DynamicConv2d& args) {
  const Convolution& shape = args.shape;
  return {
      args.input, args.mean, args.rstd, args.weight, args.bias, args.output, shape.samples,
      int(shape.groups), int(shape.in_channels), int(shape.out_channels),
      {int(shape.input[1]), int(shape.input[2])}, {int(shape.output[1]), int(shape.output[2])},
      {int(shape.padding[1]), int(shape.padding[2])}, shape.border, Border::zeros, false, shape.channels_last,
      shape.element, int(shape.kernel[1])};
}

// A border of zeros is none in reverse. The others only where they are what keeps the size of an image.
inline bool reverses(const Convolution& shape) {
  if (!tiles_fit(shape)) return false;
  bool fits = true, same = true;
  for (int dim = 1; dim < 3; ++dim) {
    fits = fits && shape.padding[dim] < shape.kernel[dim];
    same = same && shape.padding[dim] == shape.kernel[dim] / 2 && shape.output[dim] == shape.input[dim];
  }
  return fits && (same || shape.border == Border::zeros);
}

inline TilePass tile_pass(const DynamicConv2dBackward& args) {
  const Convolution& shape = args.shape;
  const int last = int(shape.kernel[1]) - 1;
  const bool circular = shape.border == Border::circular, folds = !circular && last > 0;
  return {
      args.grad, nullptr, nullptr, args.weight, {}, args.grad_input, shape.samples,
      int(shape.groups), int(shape.out_channels), int(shape.in_channels),
      {int(shape.output[1]), int(shape.output[2])}, {int(shape.input[1]), int(shape.input[2])},
      {last - int(shape.padding[1]), last - int(shape.padding[2])}, circular ? Border::circular : Border::zeros,
      folds ? shape.border : Border::zeros, true, shape.channels_last, shape.element, int(shape.kernel[1])};
}

// The filter of (out, in) channels of a group, as the pass has them; flipped in reverse.
template <typename T, int K>
__device__ __forceinline__ float tap_of(const TilePass& pass, int64_t sample, int group, int out, int in, int tap) {
  const int outs = pass.reverse ? pass.in_channels : pass.out_channels;
  const int ins = pass.reverse ? pass.out_channels : pass.in_channels;
  const int64_t filter = (int64_t(group) * outs + (pass.reverse ? in : out)) * ins + (pass.reverse ? out : in);
  const int at = pass.reverse ? K * K - 1 - tap : tap;
  return widen(static_cast<const T*>(pass.weight.data)[sample * pass.weight.sample_stride + filter * (K * K) + at]);
}

// Where the border reads a row or a column; -1 for zeros, and for what no output reads.
template <int K>
__device__ __forceinline__ int read(const TilePass& pass, int dim, int at) {
  if (at + pass.padding[dim] >= pass.output_size[dim] + K - 1) return -1;
  return inside(pass.border, at, pass.input_size[dim]);
}

// The numbers at the far end of a border: added to what the first or the last tap reads for one output near it.
struct Folded {
  int target, source;

  __device__ __forceinline__ Folded(Border border, bool behind, int size) {
    const int beside = border == Border::reflect;
    source = behind ? size - 1 : 0;
    target = border == Border::zeros ? -1 : behind ? size - 1 - beside : beside;
  }
};

constexpr int side = 4;  // outputs of a thread beside each other
// And above each other: 32 in all, which share the two hundred instructions that it takes a thread to find its way.
template <int C>
constexpr int height_of = 8 / C;
constexpr int64_t tile_bytes = 48 << 10;

// The outputs of a thread, of C channels, from (y, x) on. In shared memory neighbours lie beside each other, or a step
// apart.
template <int K, int C, bool folds, bool beside>
struct Outputs {
  static constexpr int height = height_of<C>;
  float of[C][height][side] = {};
  const TilePass& pass;
  int y, x;

  __device__ __forceinline__ Outputs(const TilePass& pass, int y, int x) : pass(pass), y(y), x(x) {}

  // A row of the input, as the taps of each output read it.
  struct Line {
    float numbers[side + K - 1], first[side], last[side];
  };

  __device__ __forceinline__ Line load_line(const float* row, int step) const {
    Line line;
    if constexpr (beside) {
      float middle[side];
      unpack<float, side>(*reinterpret_cast<const Raw<float, side>*>(row), middle);
#pragma unroll
      for (int i = 0; i < side; ++i) line.numbers[i + K / 2] = middle[i];
      if constexpr (K > 1) line.numbers[0] = row[-1], line.numbers[side + 1] = row[side];
    } else {
#pragma unroll
      for (int i = 0; i < side + K - 1; ++i) line.numbers[i] = row[(i - K / 2) * step];
    }
#pragma unroll
    for (int i = 0; i < side; ++i) line.first[i] = line.numbers[i], line.last[i] = line.numbers[i + K - 1];
    if constexpr (folds) {
      const int width = pass.output_size[1];
      const Folded front(pass.folding, false, width), behind(pass.folding, true, width);
      if (x == 0 || x + side + 1 >= width) {
#pragma unroll
        for (int i = 0; i < side; ++i) {
          if (x + i == front.target) line.last[i] += row[(front.source - x) * step];
          if (x + i == behind.target) line.first[i] += row[(behind.source - x) * step];
        }
      }
    }
    return line;
  }

  // What a row of the filters adds to the outputs of row i.
  __device__ __forceinline__ void add(int i, const float (&taps)[K][C], const Line& line) {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int j = 0; j < side; ++j)
#pragma unroll
        for (int k = 0; k < K; ++k)
          of[c][i][j] += taps[k][c] * (k == 0 ? line.first[j] : k == K - 1 ? line.last[j] : line.numbers[j + k]);
  }

  // What a channel of the input adds: `from` is what the first output's upper middle tap reads, `weights` are of
  // (taps, outs).
  __device__ __forceinline__ void add_channel(const float* from, int pitch, int step, const float* weights, int outs) {
    const auto load_taps = [&](int row, float(&taps)[K][C]) {
#pragma unroll
      for (int k = 0; k < K; ++k)
        unpack<float, C>(*reinterpret_cast<const Raw<float, C>*>(weights + (row * K + k) * outs), taps[k]);
    };
    float taps[K][K][C];
#pragma unroll
    for (int row = 0; row < K; ++row) load_taps(row, taps[row]);
#pragma unroll
    for (int row = 0; row < height + K - 1; ++row) {
      const Line line = load_line(from + row * pitch, step);
#pragma unroll
      for (int t = 0; t < K; ++t)
        if (row - t >= 0 && row - t < height) add(row - t, taps[t], line);
    }
    if constexpr (folds) {
#pragma unroll 1
      for (int behind = 0; behind < 2; ++behind) {
        const Folded folded(pass.folding, behind, pass.output_size[0]);
        const int target = folded.target - y;
        if (target < 0 || target >= height) continue;
        const Line line = load_line(from + (folded.source - y + K / 2) * pitch, step);
        float row_taps[K][C];
        load_taps(behind ? 0 : K - 1, row_taps);
#pragma unroll
        for (int i = 0; i < height; ++i)
          if (i == target) add(i, row_taps, line);
      }
    }
  }
};

// add(h) for every channel of a tile's input, of which as many are held in shared memory at a time as fit: h says which.
template <class Tile, class Add>
__device__ __forceinline__ void for_each_channel(const Tile& tile, const Add& add) {
#pragma unroll 1
  for (int c = 0; c < tile.pass.in_channels; c += tile.tiling.held) {
    const int count = min(tile.tiling.held, tile.pass.in_channels - c);
    if (c > 0) __syncthreads();
    tile.fill(c, count);
    __syncthreads();
#pragma unroll 1
    for (int h = 0; h < count; ++h) add(h);
  }
}

}  // namespace fastnorm::cuda
