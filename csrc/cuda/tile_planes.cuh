// Tiles of planes: a block takes a tile of an image of (sample, group, some of its out channels). Channels come to
// shared memory with their border, normalised and wide; a thread reads them four beside each other.

#pragma once

#include "tile.cuh"

namespace fastnorm::cuda {

// Threads of a block: few, so that a processor has several that load while others compute.
constexpr int tile_threads = 128;
constexpr int most_lines = 32;
// Threads beside each other. A thread of several channels has few rows: its tiles would be low and their border large.
template <int C>
constexpr int most_columns = C == 1 ? 32 : 16;

// How an image is dealt to blocks, and what a block holds.
struct Tiling {
  int columns, lines, teams;  // threads beside each other, above each other, and for other out channels
  int across, down;           // tiles of an image
  int parts;                  // of a group's out channels
  int held;                   // channels in shared memory at a time
  bool vectors;               // four at a time from and to memory

  __host__ __device__ int width() const { return columns * side; }
  __host__ __device__ int pitch() const { return width() + 2 * side; }
  template <int K, int C>
  __host__ __device__ int rows() const {
    return lines * height_of<C> + K - 1;
  }
  template <int K, int C>
  int64_t bytes_of_channel() const {
    return (rows<K, C>() * pitch() + K * K * teams * C) * sizeof(float);
  }
};

template <int K, int C>
inline Tiling tiling_of(const TilePass& pass) {
  const int height = pass.output_size[0], width = pass.output_size[1];
  Tiling tiling;
  tiling.across = ceil_div(width, most_columns<C> * side);
  tiling.columns = ceil_div(width, tiling.across * side);
  const int blocks = ceil_div(pass.out_channels, C);
  const int teams = std::min(blocks, 8);
  tiling.parts = ceil_div(blocks, teams);
  tiling.teams = ceil_div(blocks, tiling.parts);
  const int lines = std::clamp(tile_threads / (tiling.columns * tiling.teams), 1, most_lines);
  tiling.down = ceil_div(height, lines * height_of<C>);
  tiling.lines = ceil_div(height, tiling.down * height_of<C>);
  const int channels = std::max(pass.in_channels, 1);
  const int most = std::max<int>(tile_bytes / tiling.bytes_of_channel<K, C>(), 1);
  tiling.held = ceil_div(channels, ceil_div(channels, most));  // the same in every helping
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

  __device__ __forceinline__ int rows() const { return tiling.template rows<K, C>(); }
  __device__ __forceinline__ int outs() const { return tiling.teams * C; }

  // `count` channels from the first on, and their filters.
  __device__ __forceinline__ void fill(int first, int count) const {
#pragma unroll 1
    for (int c = 0; c < count; ++c) {
      const int64_t plane = (sample * pass.groups + group) * pass.in_channels + first + c;
      Normed<T> from(pass.input, pass.mean, pass.rstd, plane);
      from.input += plane * pass.input_size[0] * pass.input_size[1];
      float* const to = image + c * rows() * tiling.pitch();
      if (tiling.vectors) {
        fill_vectors(from, to);
        if constexpr (K > 1) {
          const int behind = min(tiling.width(), pass.output_size[1] - x);
#pragma unroll 1
          for (int i = threadIdx.x; i < 2 * rows(); i += blockDim.x) fill_element(from, to, i / 2, i % 2 ? behind : -1);
        }
      } else {
#pragma unroll 1
        for (int row = threadIdx.x / warp_size; row < rows(); row += blockDim.x / warp_size)
#pragma unroll 1
          for (int column = threadIdx.x % warp_size; column < tiling.width() + K - 1; column += warp_size)
            fill_element(from, to, row, column - K / 2);
      }
    }
    const int taps = count * K * K;
#pragma unroll 1
    for (int i = threadIdx.x; i < taps * outs(); i += blockDim.x) {
      const int tap = i / outs(), out = first_out + i % outs();
      const bool exists = out < pass.out_channels;
      weights[i] = exists ? tap_of<T, K>(pass, sample, group, out, first + tap / (K * K), tap % (K * K)) : 0;
    }
  }

  // A column of -1 is the one before the first whose output has its middle tap there.
  __device__ __forceinline__ void fill_element(const Normed<T>& from, float* to, int row, int column) const {
    const int at_y = read<K>(pass, 0, y - pass.padding[0] + row);
    const int at_x = read<K>(pass, 1, x - pass.padding[1] + K / 2 + column);
    to[row * tiling.pitch() + side + column] = at_y < 0 || at_x < 0 ? 0 : from[at_y * pass.input_size[1] + at_x];
  }

  // Several rows at a time, so that a thread has as many loads in flight.
  __device__ __forceinline__ void fill_vectors(const Normed<T>& from, float* to) const {
    constexpr int depth = 4;
    const int line = threadIdx.x / tiling.columns, column = (threadIdx.x - line * tiling.columns) * side;
    const int step = blockDim.x / tiling.columns;
    if (line >= step || x + column >= pass.input_size[1]) return;
    const T* const start = from.input + x + column;
#pragma unroll 1
    for (int row = line; row < rows(); row += depth * step) {
      Raw<T, side> raw[depth];
      int at[depth];
#pragma unroll
      for (int d = 0; d < depth; ++d) {
        at[d] = row + d * step < rows() ? read<K>(pass, 0, y - K / 2 + row + d * step) : -1;
        if (at[d] >= 0) raw[d] = load<T, side>(start + at[d] * pass.input_size[1]);
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

// Four outputs at a time where rows begin on a boundary of four.
template <typename T, int K, int C, class Outputs>
__device__ __forceinline__ void write(const Outputs& outputs, const Tile<T, K, C>& tile, int first_out) {
  const TilePass& pass = tile.pass;
  const int width = pass.output_size[1];
  if (outputs.x >= width) return;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    if (first_out + c >= pass.out_channels) return;
    const int channel = tile.group * pass.out_channels + first_out + c;
    const float bias = parameter(pass.bias, tile.sample, channel, 0.0f);
    const int64_t plane = tile.sample * pass.groups * pass.out_channels + channel;
    T* to = static_cast<T*>(pass.output) + (plane * pass.output_size[0] + outputs.y) * width + outputs.x;
#pragma unroll
    for (int i = 0; i < outputs.height; ++i, to += width) {
      if (outputs.y + i >= pass.output_size[0]) break;
      float numbers[side];
#pragma unroll
      for (int j = 0; j < side; ++j) numbers[j] = outputs.of[c][i][j] + bias;
      if (tile.tiling.vectors) store<T, side>(to, pack<T, side>(numbers));
      else
#pragma unroll
        for (int j = 0; j < side; ++j)
          if (outputs.x + j < width) to[j] = narrow<T>(numbers[j]);
    }
  }
}

template <typename T, int K, int C, bool folds>
__global__ void __maxnreg__(C == 4 || folds || K == 1 ? 128 : 104)
    convolve_planes(TilePass pass, Tiling tiling) {
  const Tile<T, K, C> tile(pass, tiling);
  const int of_team = tiling.columns * tiling.lines;
  const int team = threadIdx.x / of_team, member = threadIdx.x % of_team;
  const bool idle = team >= tiling.teams;
  const int line = idle ? 0 : member / tiling.columns * height_of<C>;
  const int column = idle ? 0 : member % tiling.columns * side;
  const int first_out = idle ? 0 : team * C;
  Outputs<K, C, folds, true> outputs(pass, tile.y + line, tile.x + column);
  const float* const from = tile.image + line * tiling.pitch() + side + column;
  for_each_channel(tile, [&](int h) {
    outputs.add_channel(
        from + h * tile.rows() * tiling.pitch(), tiling.pitch(), 1, tile.weights + h * K * K * tile.outs() + first_out,
        tile.outs());
  });
  if (!idle) write(outputs, tile, tile.first_out + first_out);
}

template <typename T, int K, int C, bool folds>
cudaError_t launch_planes(const TilePass& pass, const Queue& queue) {
  const Tiling tiling = tiling_of<K, C>(pass);
  const int threads = ceil_div(tiling.columns * tiling.lines * tiling.teams, warp_size) * warp_size;
  const int64_t bytes = tiling.held * tiling.bytes_of_channel<K, C>();
  const int64_t blocks = pass.samples * pass.groups * tiling.parts * tiling.down * tiling.across;
  return launch(convolve_planes<T, K, C, folds>, {{}, 0, blocks, threads, 1, bytes}, queue, pass, tiling);
}

template <typename T, int K, bool folds>
cudaError_t launch_planes(const TilePass& pass, const Queue& queue) {
  if (pass.out_channels == 1) return launch_planes<T, K, 1, folds>(pass, queue);
  if (pass.out_channels == 2) return launch_planes<T, K, 2, folds>(pass, queue);
  return launch_planes<T, K, 4, folds>(pass, queue);
}

}  // namespace fastnorm::cuda
