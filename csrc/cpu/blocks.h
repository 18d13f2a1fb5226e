// How a convolution's channels are divided: among tasks, and within one in tiles.

#pragma once

#include <numeric>

#include "rows.h"

namespace fastnorm::FASTNORM_ISA {

// What a task keeps in cache: of a few channels in L1, of many in L2 beside their filters.
constexpr int64_t few_rows_bytes = 24 << 10, many_rows_bytes = 384 << 10;
// Pairs of channels that are many.
constexpr int64_t many_pairs = 256;
// Channels of a block in channels_last, whose lines are then read whole.
constexpr int64_t channels_of_lines = 32;
// Channels of input and output that a task works on at a time.
constexpr int64_t in_limit = 64, out_limit = 64;
// Tasks for each thread, where planes are few.
constexpr int64_t tasks_per_thread = 4;

constexpr int registers = vector_bytes == 64 ? 32 : 16;

// Output channels of a tile. By as many vectors of pixels as leave a quarter of the registers: 8 by 3, or 4 by 3.
constexpr int tile_channels = registers == 32 ? 8 : 4;

// body(first, Group<channels>) over first..last, in tiles as large as they may be, and what is left: a picture has three.
template <int channels = tile_channels, class Body>
inline void for_each_tile(int64_t first, int64_t last, const Body& body) {
  for (; first + channels <= last; first += channels) body(first, Group<channels>{});
  if constexpr (channels > 4) for_each_tile<4>(first, last, body);
  else if constexpr (channels > 1) for_each_tile<channels - 1>(first, last, body);
}

// Parts of each of `units`, for every thread to have as many.
inline int64_t segments_for(int64_t units, int64_t threads) {
  return units == 0 || units >= tasks_per_thread * threads ? 1 : threads / std::gcd(units, threads);
}

inline int64_t kernel_size(const Convolution& conv) { return conv.kernel[0] * conv.kernel[1] * conv.kernel[2]; }

// Which channels a task works on: several small groups, or a part of one. `in` and `out` are of the direction.
struct Blocks {
  int64_t in, out;                // channels of a group
  int64_t groups, ins, outs;      // of a block, at most
  int64_t blocks, out_parts;      // of a sample

  Blocks(const Convolution& conv, int64_t in, int64_t out, int64_t in_limit, int64_t out_limit) : in(in), out(out) {
    const int64_t channels = larger(1, smaller(in, out));
    groups = conv.channels_last ? larger(1, smaller(conv.groups, channels_of_lines / channels)) : 1;
    ins = larger(1, groups > 1 ? groups * in : smaller(in, in_limit));
    outs = larger(1, groups > 1 ? groups * out : smaller(out, out_limit));
    blocks = ceil_div(conv.groups, groups);
    out_parts = groups > 1 ? 1 : ceil_div(out, outs);
  }

  bool many() const { return ins * outs / groups >= many_pairs; }
  int64_t in_parts() const { return groups > 1 ? 1 : larger(1, ceil_div(in, ins)); }
};

}  // namespace fastnorm::FASTNORM_ISA
