// Tiles of pixels, in channels_last: a block takes a tile of an image of 32 out channels, a lane for each. What they
// read comes to shared memory with its border, normalised and wide; lanes read neighbouring channels.

#pragma once

#include "tile.cuh"

namespace fastnorm::cuda {

constexpr int pixel_warps = 4;  // of a block

// How pixels are dealt to blocks, and what a block holds.
struct PixelTiling {
  int columns, lines;  // warps beside each other and above each other
  int across, down;    // tiles of an image
  int parts;           // of all out channels
  int groups, held;    // groups that a part can meet; channels of each in shared memory at a time
  int pitch;           // numbers of a pixel in shared memory
  bool vectors;        // four at a time from memory

  __host__ __device__ int width() const { return columns * side; }
  __host__ __device__ int height() const { return lines * height_of<1>; }
  template <int K>
  __host__ __device__ int pixels() const {
    return (width() + K - 1) * (height() + K - 1);
  }
};

// Groups that 32 neighbouring channels can belong to.
inline int groups_met(const TilePass& pass) {
  const int channels = pass.out_channels;
  if (channels % warp_size == 0) return 1;
  if (warp_size % channels == 0) return std::min(warp_size / channels, pass.groups);
  return std::min((warp_size - 1) / channels + 2, pass.groups);
}

template <int K>
inline PixelTiling pixel_tiling_of(const TilePass& pass) {
  PixelTiling tiling;
  tiling.columns = std::min<int>(ceil_div(pass.output_size[1], side), 4);
  tiling.lines = pixel_warps / tiling.columns;
  tiling.across = ceil_div(pass.output_size[1], tiling.width());
  tiling.down = ceil_div(pass.output_size[0], tiling.height());
  tiling.parts = ceil_div(int64_t(pass.groups) * pass.out_channels, warp_size);
  tiling.groups = groups_met(pass);
  const int64_t of_channel = (tiling.groups * tiling.pixels<K>() + K * K * warp_size) * sizeof(float);
  const int64_t held = std::clamp<int64_t>(tile_bytes / of_channel, 1, std::max(pass.in_channels, 1));
  // Whole vectors of a group that comes in several helpings.
  tiling.held = held < pass.in_channels && held > side ? held / side * side : held;
  tiling.pitch = ceil_div(tiling.groups * tiling.held, side) * side;
  tiling.vectors = pass.groups * pass.in_channels % side == 0 && aligned(std::array<const void*, 1>{pass.input});
  return tiling;
}

// Where a block is, and the pixels it holds.
template <typename T, int K>
struct PixelTile {
  const TilePass& pass;
  const PixelTiling& tiling;
  int64_t sample;
  int first_out, first_group, groups, x, y;  // x and y of the outputs
  float *image, *weights;                    // in shared memory: (pixels, pitch) and (held, taps, out channels)

  __device__ __forceinline__ PixelTile(const TilePass& pass, const PixelTiling& tiling) : pass(pass), tiling(tiling) {
    extern __shared__ uint4 held_memory[];
    image = reinterpret_cast<float*>(held_memory);
    weights = image + tiling.pixels<K>() * tiling.pitch;
    unsigned block = blockIdx.x;
    first_out = block % tiling.parts * warp_size;
    block /= tiling.parts;
    x = block % tiling.across * tiling.width();
    block /= tiling.across;
    y = block % tiling.down * tiling.height();
    sample = block / tiling.down;
    first_group = first_out / pass.out_channels;
    const int last_out = min(first_out + warp_size, pass.groups * pass.out_channels) - 1;
    groups = last_out / pass.out_channels - first_group + 1;
  }

  __device__ __forceinline__ int columns() const { return tiling.width() + K - 1; }

  // `count` channels of each group, from the first on, and the filters of each lane's.
  __device__ __forceinline__ void fill(int first, int count) const {
    // Groups that are held whole lie beside each other.
    const bool whole = count == pass.in_channels;
    const int runs = whole ? 1 : groups, length = whole ? groups * count : count;
#pragma unroll 1
    for (int run = 0; run < runs; ++run) {
      const int channel = (first_group + run) * pass.in_channels + first, to = run * tiling.held;
      const bool vectors = tiling.vectors && channel % side == 0 && length % side == 0 && to % side == 0;
      if (vectors) fill_run<side>(channel, length, to);
      else fill_run<1>(channel, length, to);
    }
    const int out = first_out + threadIdx.x % warp_size, group = out / pass.out_channels;
    if (group >= pass.groups) return;
#pragma unroll 1
    for (int i = threadIdx.x / warp_size; i < count * K * K; i += pixel_warps)
      weights[i * warp_size + threadIdx.x % warp_size] =
          tap_of<T, K>(pass, sample, group, out % pass.out_channels, first + i / (K * K), i % (K * K));
  }

  // Channels that lie beside each other, W at a time: a warp takes a row of pixels, several at once.
  template <int W>
  __device__ __forceinline__ void fill_run(int channel, int length, int to) const {
    const int vectors = length / W, lane = threadIdx.x % warp_size;
    const int lanes = min(1 << (32 - __clz(vectors - 1)), warp_size);  // a power of two
    const int64_t plane = sample * pass.groups * pass.in_channels + channel;
#pragma unroll 1
    for (int v = lane & (lanes - 1); v < vectors; v += lanes) {
      float mean[W] = {}, rstd[W];
#pragma unroll
      for (int e = 0; e < W; ++e) {
        rstd[e] = 1;
        if (pass.mean) {
          mean[e] = static_cast<const float*>(pass.mean)[plane + v * W + e];
          rstd[e] = static_cast<const float*>(pass.rstd)[plane + v * W + e];
        }
      }
#pragma unroll 1
      for (int row = threadIdx.x / warp_size; row < tiling.height() + K - 1; row += pixel_warps)
        fill_row<W>(row, lane / lanes, warp_size / lanes, channel + v * W, to + v * W, mean, rstd);
    }
  }

  // A vector of each pixel of a row, from the first on.
  template <int W>
  __device__ __forceinline__ void fill_row(
      int row, int first, int step, int channel, int to, const float (&mean)[W], const float (&rstd)[W]) const {
    constexpr int depth = 8 / sizeof(T);  // in flight
    const int at_y = read<K>(pass, 0, y - pass.padding[0] + row), channels = pass.groups * pass.in_channels;
    const int64_t start = (sample * pass.input_size[0] + max(at_y, 0)) * pass.input_size[1];
    const T* const from = static_cast<const T*>(pass.input) + start * channels + channel;
#pragma unroll 1
    for (int column = first; column < columns(); column += depth * step) {
      Raw<T, W> raw[depth];
      int at[depth];
#pragma unroll
      for (int d = 0; d < depth; ++d) {
        const bool exists = at_y >= 0 && column + d * step < columns();
        at[d] = exists ? read<K>(pass, 1, x - pass.padding[1] + column + d * step) : -1;
        if (at[d] >= 0) raw[d] = load<T, W>(from + at[d] * channels);
      }
#pragma unroll
      for (int d = 0; d < depth; ++d) {
        float wide[W] = {};
        if (at[d] >= 0) {
          unpack<T, W>(raw[d], wide);
#pragma unroll
          for (int e = 0; e < W; ++e) wide[e] = (wide[e] - mean[e]) * rstd[e];
        }
        if (column + d * step < columns())
          store<float, W>(image + (row * columns() + column + d * step) * tiling.pitch + to, pack<float, W>(wide));
      }
    }
  }
};

template <typename T, int K, bool folds>
__global__ void __maxnreg__(folds ? 128 : 104) convolve_pixels(TilePass pass, PixelTiling tiling) {
  const PixelTile<T, K> tile(pass, tiling);
  const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
  const int line = warp / tiling.columns * height_of<1>, column = warp % tiling.columns * side;
  const int out = tile.first_out + lane, channels = pass.groups * pass.out_channels;
  const bool idle = warp >= tiling.columns * tiling.lines || out >= channels;
  const int group = idle ? 0 : out / pass.out_channels - tile.first_group;
  Outputs<K, 1, folds, false> outputs(pass, tile.y + line, tile.x + column);
  const float* const from =
      tile.image + (idle ? 0 : (line * tile.columns() + column + K / 2) * tiling.pitch + group * tiling.held);
  for_each_channel(tile, [&](int h) {
    if (idle) return;
    outputs.add_channel(
        from + h, tile.columns() * tiling.pitch, tiling.pitch, tile.weights + h * K * K * warp_size + lane, warp_size);
  });
  if (idle) return;
  const float bias = parameter(pass.bias, tile.sample, out, 0.0f);
#pragma unroll
  for (int i = 0; i < outputs.height; ++i)
#pragma unroll
    for (int j = 0; j < side; ++j) {
      const int y = outputs.y + i, x = outputs.x + j;
      const int64_t pixel = (tile.sample * pass.output_size[0] + y) * pass.output_size[1] + x;
      if (y < pass.output_size[0] && x < pass.output_size[1])
        static_cast<T*>(pass.output)[pixel * channels + out] = narrow<T>(outputs.of[0][i][j] + bias);
    }
}

template <typename T, int K, bool folds>
cudaError_t launch_pixels(const TilePass& pass, const Queue& queue) {
  const PixelTiling tiling = pixel_tiling_of<K>(pass);
  const int64_t bytes = (tiling.pixels<K>() * tiling.pitch + tiling.held * K * K * warp_size) * sizeof(float);
  const int64_t blocks = pass.samples * tiling.down * tiling.across * tiling.parts;
  const Plan plan = {{}, 0, blocks, pixel_warps * warp_size, 1, bytes};
  return launch(convolve_pixels<T, K, folds>, plan, queue, pass, tiling);
}

}  // namespace fastnorm::cuda
