// Convolutions of images by 3 x 3 and 1 x 1 filters at a stride of 1, and what they are in reverse: the gradient of the
// input is a convolution of the output's gradient by the filters turned round.

#pragma once

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
  Border folding;  // of a convolution in reverse: reflect and replicate add what lies beyond the border to numbers inside
  bool reverse, channels_last;
  Element element;
  int kernel;
};

inline bool tiles_fit(const Convolution& shape) {
  const int64_t kernel = shape.kernel[1];
  bool fit = shape.input[0] * shape.output[0] * shape.kernel[0] == 1 && shape.padding[0] == 0;
  for (int dim = 1; dim < 3; ++dim)
    fit = fit && shape.kernel[dim] == kernel && shape.stride[dim] == 1 && (shape.dilation[dim] == 1 || kernel == 1);
  return fit && (kernel == 1 || kernel == 3) && shape.element != Element::f64 &&
      input_of(shape).plane() < INT32_MAX / 2 && output_of(shape).plane() < INT32_MAX / 2 &&
      shape.groups * std::max(shape.in_channels, shape.out_channels) < INT32_MAX / 16;
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

// The numbers at the far end of a border: added to what the first or the last tap reads for one output near it.
struct Folded {
  int target, source;

  __device__ __forceinline__ Folded(Border border, bool behind, int size) {
    const int beside = border == Border::reflect;
    source = behind ? size - 1 : 0;
    target = border == Border::zeros ? -1 : behind ? size - 1 - beside : beside;
  }
};

// -- NCHW: a block takes a tile of an image of (sample, group, some of its out channels). Channels come to shared memory
// with their border, normalised and wide; a thread computes 4 x 4 outputs of each of C channels, or 2 x 4 where C is 4.

constexpr int side = 4;  // outputs beside each other
template <int C>
constexpr int height_of = C == 4 ? 2 : 4;  // outputs above each other
constexpr int tile_width = 32 * side;
constexpr int most_lines = 64;  // of threads
// Small blocks where a thread needs many registers, so that more of them share a processor.
template <int C>
constexpr int tile_threads = C == 1 ? 256 : 128;
constexpr int64_t tile_bytes = 48 << 10;

// How an image is dealt to blocks, and what a block holds.
struct Tiling {
  int columns, lines, teams;  // threads beside each other, above each other, and for other out channels
  int across, down;           // tiles of an image
  int parts;                  // of a group's out channels
  int held;                   // channels in shared memory at a time
  bool vectors;               // four at a time from and to memory

  __host__ __device__ int width() const { return columns * side; }
  __host__ __device__ int pitch() const { return width() + 2 * side; }
};

template <int K, int C>
inline Tiling tiling_of(const TilePass& pass) {
  const int height = pass.output_size[0], width = pass.output_size[1];
  Tiling tiling;
  tiling.across = ceil_div(width, tile_width);
  tiling.columns = ceil_div(width, tiling.across * side);
  const int blocks = ceil_div(pass.out_channels, C);
  const int teams = std::min(blocks, 8);
  tiling.parts = ceil_div(blocks, teams);
  tiling.teams = ceil_div(blocks, tiling.parts);
  const int lines = std::clamp(tile_threads<C> / (tiling.columns * tiling.teams), 1, most_lines);
  tiling.down = ceil_div(height, lines * height_of<C>);
  tiling.lines = ceil_div(height, tiling.down * height_of<C>);
  const int64_t of_channel = ((tiling.lines * height_of<C> + K - 1) * tiling.pitch() + K * K * tiling.teams * C) * sizeof(float);
  const int64_t held = std::clamp<int64_t>(tile_bytes / of_channel, 1, std::max(pass.in_channels, 1));
  const int64_t times = std::max<int64_t>(ceil_div(pass.in_channels, held), 1);
  tiling.held = static_cast<int>(std::max<int64_t>(ceil_div(pass.in_channels, times), 1));
  tiling.vectors = width % side == 0 && aligned(std::array<const void*, 2>{pass.input, pass.output});
  for (int dim = 0; dim < 2; ++dim)
    tiling.vectors = tiling.vectors && pass.padding[dim] == K / 2 && pass.input_size[dim] == pass.output_size[dim];
  return tiling;
}

// Where a block is, and the channels it holds.
template <typename T, int K, int C>
struct Tile {
  const TilePass& pass;
  const Tiling& tiling;
  int64_t sample;
  int group, first_out, x, y;  // x and y of the outputs
  float *image, *weights;      // in shared memory: (held, rows, pitch) and (held, taps, out channels)

  __device__ __forceinline__ Tile(const TilePass& pass, const Tiling& tiling) : pass(pass), tiling(tiling) {
    extern __shared__ uint4 held_memory[];
    image = reinterpret_cast<float*>(held_memory);
    weights = image + tiling.held * rows() * tiling.pitch();
    unsigned block = blockIdx.x;
    x = block % tiling.across * tiling.width();
    block /= tiling.across;
    y = block % tiling.down * tiling.lines * height_of<C>;
    block /= tiling.down;
    first_out = block % tiling.parts * outs();
    block /= tiling.parts;
    sample = block / pass.groups;
    group = block % pass.groups;
  }

  __device__ __forceinline__ int rows() const { return tiling.lines * height_of<C> + K - 1; }
  __device__ __forceinline__ int outs() const { return tiling.teams * C; }

  // Where the border reads a row or column of the tile; -1 for zeros, and for what no output reads.
  __device__ __forceinline__ int read(int dim, int at) const {
    if (at + pass.padding[dim] >= pass.output_size[dim] + K - 1) return -1;
    return inside(pass.border, at, pass.input_size[dim]);
  }

  // `count` channels from the first on, and their filters.
  __device__ __forceinline__ void fill(int first, int count) const {
    for (int c = 0; c < count; ++c) {
      const int64_t plane = (sample * pass.groups + group) * pass.in_channels + first + c;
      Normed<T> from(pass.input, pass.mean, pass.rstd, plane);
      from.input += plane * pass.input_size[0] * pass.input_size[1];
      float* const to = image + c * rows() * tiling.pitch();
      if (tiling.vectors) {
        fill_vectors(from, to);
        if constexpr (K > 1) {
          const int behind = min(tiling.width(), pass.output_size[1] - x);
          for (int i = threadIdx.x; i < 2 * rows(); i += blockDim.x) fill_element(from, to, i / 2, i % 2 ? behind : -1);
        }
      } else {
        for (int row = threadIdx.x / warp_size; row < rows(); row += blockDim.x / warp_size)
          for (int column = threadIdx.x % warp_size; column < tiling.width() + K - 1; column += warp_size)
            fill_element(from, to, row, column - K / 2);
      }
    }
    const int taps = count * K * K;
    for (int i = threadIdx.x; i < taps * outs(); i += blockDim.x) {
      const int tap = i / outs(), out = first_out + i % outs();
      const bool exists = out < pass.out_channels;
      weights[i] = exists ? tap_of<T, K>(pass, sample, group, out, first + tap / (K * K), tap % (K * K)) : 0;
    }
  }

  // A column of -1 is the one before the first whose output has its middle tap there.
  __device__ __forceinline__ void fill_element(const Normed<T>& from, float* to, int row, int column) const {
    const int at_y = read(0, y - pass.padding[0] + row), at_x = read(1, x - pass.padding[1] + K / 2 + column);
    const int64_t offset = int64_t(at_y) * pass.input_size[1] + at_x;
    to[row * tiling.pitch() + side + column] = at_y < 0 || at_x < 0 ? 0 : from[offset];
  }

  // Several rows at a time, so that a thread has as many loads in flight.
  __device__ __forceinline__ void fill_vectors(const Normed<T>& from, float* to) const {
    constexpr int depth = 4;
    const int line = threadIdx.x / tiling.columns, column = (threadIdx.x - line * tiling.columns) * side;
    const int step = blockDim.x / tiling.columns;
    if (line >= step || x + column >= pass.input_size[1]) return;
    for (int row = line; row < rows(); row += depth * step) {
      Raw<T, side> raw[depth];
      int at[depth];
#pragma unroll
      for (int d = 0; d < depth; ++d) {
        at[d] = row + d * step < rows() ? read(0, y - K / 2 + row + d * step) : -1;
        if (at[d] >= 0) raw[d] = load<T, side>(from.input + int64_t(at[d]) * pass.input_size[1] + x + column);
      }
#pragma unroll
      for (int d = 0; d < depth; ++d) {
        float wide[side] = {};
        if (at[d] >= 0) {
          unpack<T, side>(raw[d], wide);
#pragma unroll
          for (float& number : wide) number = (number - from.mean) * from.rstd;
        }
        if (row + d * step < rows())
          store<float, side>(to + (row + d * step) * tiling.pitch() + side + column, pack<float, side>(wide));
      }
    }
  }
};

// The outputs of a thread.
template <typename T, int K, int C, bool folds>
struct Outputs {
  static constexpr int height = height_of<C>;
  float of[C][height][side];
  const Tile<T, K, C>& tile;
  int line, column, first_out;
  bool idle;

  __device__ __forceinline__ explicit Outputs(const Tile<T, K, C>& tile) : of{}, tile(tile) {
    const Tiling& tiling = tile.tiling;
    const int team = threadIdx.x / (tiling.columns * tiling.lines);
    const int member = threadIdx.x - team * tiling.columns * tiling.lines;
    idle = team >= tiling.teams;
    line = idle ? 0 : member / tiling.columns * height;
    column = idle ? 0 : member % tiling.columns * side;
    first_out = idle ? 0 : team * C;
  }

  // A row of the input, as the taps of each output read it.
  struct Line {
    float numbers[side + K - 1], first[side], last[side];
  };

  __device__ __forceinline__ Line load_line(const float* row) const {
    Line line;
    float middle[side];
    unpack<float, side>(*reinterpret_cast<const Raw<float, side>*>(row), middle);
#pragma unroll
    for (int x = 0; x < side; ++x) line.numbers[x + K / 2] = middle[x];
    if constexpr (K > 1) line.numbers[0] = row[-1], line.numbers[side + 1] = row[side];
#pragma unroll
    for (int x = 0; x < side; ++x) line.first[x] = line.numbers[x], line.last[x] = line.numbers[x + K - 1];
    if constexpr (folds) {
      const int width = tile.pass.output_size[1], start = tile.x + column;
      const Folded front(tile.pass.folding, false, width), behind(tile.pass.folding, true, width);
      if (start == 0 || start + side + 1 >= width) {
#pragma unroll
        for (int x = 0; x < side; ++x) {
          if (start + x == front.target) line.last[x] += row[front.source - start];
          if (start + x == behind.target) line.first[x] += row[behind.source - start];
        }
      }
    }
    return line;
  }

  // What row t of the filters adds to the outputs of row y.
  __device__ __forceinline__ void add(int y, const float (&taps)[K][C], const Line& line) {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int x = 0; x < side; ++x)
#pragma unroll
        for (int k = 0; k < K; ++k)
          of[c][y][x] += taps[k][c] * (k == 0 ? line.first[x] : k == K - 1 ? line.last[x] : line.numbers[x + k]);
  }

  __device__ __forceinline__ void load_taps(const float* weights, float (&taps)[K][C]) const {
#pragma unroll
    for (int k = 0; k < K; ++k)
      unpack<float, C>(*reinterpret_cast<const Raw<float, C>*>(weights + k * tile.outs()), taps[k]);
  }

  // What the c-th of the channels held adds.
  __device__ __forceinline__ void add_channel(int c) {
    const int pitch = tile.tiling.pitch();
    const float* const from = tile.image + (c * tile.rows() + line) * pitch + side + column;
    const float* const weights = tile.weights + c * K * K * tile.outs() + first_out;
    float taps[K][K][C];
#pragma unroll
    for (int t = 0; t < K; ++t) load_taps(weights + t * K * tile.outs(), taps[t]);
#pragma unroll
    for (int row = 0; row < height + K - 1; ++row) {
      const Line numbers = load_line(from + row * pitch);
#pragma unroll
      for (int t = 0; t < K; ++t)
        if (row - t >= 0 && row - t < height) add(row - t, taps[t], numbers);
    }
    if constexpr (folds) {
      const int start = tile.y + line;
#pragma unroll 1
      for (int behind = 0; behind < 2; ++behind) {
        const Folded folded(tile.pass.folding, behind, tile.pass.output_size[0]);
        const int target = folded.target - start;
        if (target < 0 || target >= height) continue;
        const Line numbers = load_line(from + (folded.source - start + K / 2) * pitch);
        float row_taps[K][C];
        load_taps(weights + (behind ? 0 : K - 1) * K * tile.outs(), row_taps);
#pragma unroll
        for (int y = 0; y < height; ++y)
          if (y == target) add(y, row_taps, numbers);
      }
    }
  }

  __device__ __forceinline__ void write() const {
    const TilePass& pass = tile.pass;
    const int width = pass.output_size[1];
    const int start_x = tile.x + column, start_y = tile.y + line;
    if (idle || start_x >= width) return;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int out = tile.first_out + first_out + c, channel = tile.group * pass.out_channels + out;
      if (out >= pass.out_channels) return;
      const float bias = parameter(pass.bias, tile.sample, channel, 0.0f);
      const int64_t plane = tile.sample * pass.groups * pass.out_channels + channel;
      T* to = static_cast<T*>(pass.output) + (plane * pass.output_size[0] + start_y) * width + start_x;
#pragma unroll
      for (int y = 0; y < height; ++y, to += width) {
        if (start_y + y >= pass.output_size[0]) break;
        float numbers[side];
#pragma unroll
        for (int x = 0; x < side; ++x) numbers[x] = of[c][y][x] + bias;
        if (tile.tiling.vectors) store<T, side>(to, pack<T, side>(numbers));
        else
#pragma unroll
          for (int x = 0; x < side; ++x)
            if (start_x + x < width) to[x] = narrow<T>(numbers[x]);
      }
    }
  }
};

template <typename T, int K, int C, bool folds>
__global__ void __maxnreg__(C == 1 ? (folds ? 96 : 64) : C == 2 ? 104 : 128) convolve_tiles(TilePass pass, Tiling tiling) {
  const Tile<T, K, C> tile(pass, tiling);
  Outputs<T, K, C, folds> outputs(tile);
  for (int c = 0; c < pass.in_channels; c += tiling.held) {
    const int count = min(tiling.held, pass.in_channels - c);
    if (c > 0) __syncthreads();
    tile.fill(c, count);
    __syncthreads();
#pragma unroll 1
    for (int held = 0; held < count; ++held) outputs.add_channel(held);
  }
  outputs.write();
}

template <typename T, int K, int C, bool folds>
cudaError_t launch_tiles(const TilePass& pass, const Queue& queue) {
  const Tiling tiling = tiling_of<K, C>(pass);
  const int threads = ceil_div(tiling.columns * tiling.lines * tiling.teams, warp_size) * warp_size;
  const int64_t rows = tiling.lines * height_of<C> + K - 1;
  const int64_t bytes = tiling.held * (rows * tiling.pitch() + K * K * tiling.teams * C) * sizeof(float);
  const int64_t blocks = pass.samples * pass.groups * tiling.parts * tiling.down * tiling.across;
  return launch(convolve_tiles<T, K, C, folds>, {{}, 0, blocks, threads, 1, bytes}, queue, pass, tiling);
}

template <typename T, int K, bool folds>
cudaError_t launch_tiles(const TilePass& pass, const Queue& queue) {
  if (pass.out_channels == 1) return launch_tiles<T, K, 1, folds>(pass, queue);
  if (pass.out_channels == 2) return launch_tiles<T, K, 2, folds>(pass, queue);
  return launch_tiles<T, K, 4, folds>(pass, queue);
}

template <typename T>
cudaError_t launch_tiles(const TilePass& pass, const Queue& queue) {
  if (pass.kernel == 1) return launch_tiles<T, 1, false>(pass, queue);
  if (pass.folding == Border::zeros) return launch_tiles<T, 3, false>(pass, queue);
  return launch_tiles<T, 3, true>(pass, queue);
}

}  // namespace fastnorm::cuda
