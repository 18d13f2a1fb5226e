// How a map's planes are dealt to blocks and threads. Host code without CUDA, and the numbers that a kernel gets.
//
// A *bundle* is what one team of threads walks: a plane in NCHW, a group of neighbouring channels of a sample in
// channels_last. It is walked in *positions*, `columns` vectors wide: a vector of a plane, a row of channels. A bundle
// may be cut into chunks, each with a team of its own.

#pragma once

#include <algorithm>
#include <cstdint>

#include "../cpu/kernels.h"

namespace fastnorm::cuda {

struct Split {
  int64_t size;            // of a plane
  unsigned channels;
  unsigned groups;         // bundles of a sample
  unsigned teams, chunks;  // all teams, and the chunks of each bundle
  int team, columns;       // log2 of the threads of a team, and of how many of them stand side by side
  int chunk;               // positions
  int depth;               // positions that a thread takes at a time
  bool channels_last;
  bool reversed;           // last chunk first
};

struct Plan {
  Split split;
  int64_t teams, blocks;
  int threads, cluster;
  int64_t held;  // bytes of shared memory in each block
};

// How a thread can read a map: vectors of `width` elements, which belong to `planes` planes.
struct Access {
  int width, planes;
};

// A way to hold planes: blocks of so many threads, with at most so many bytes each, in clusters of at most so many.
struct Room {
  int threads;
  int64_t bytes;
  int cluster;
};

struct Device {
  int processors;
  Room rooms[2];  // the first shares a processor among three blocks, the second takes it whole
};

constexpr int warp_size = 32;
constexpr int block_size = 256;
constexpr int largest_block = 512;
// Vectors of channels that a bundle is wide: a cache line of 128 bytes. Single elements come by the warp.
constexpr int most_vectors = 8;
constexpr int vector_bytes = 16;
// Vectors that a thread holds of all maps, where it has the choice. They share the several hundred instructions that it
// takes to find its way and to merge what it found.
constexpr int usual_depth = 16;
// Threads for each processor that planes are shared out among, where they are few.
constexpr int enough_threads = 512;
// Clusters of 8 fit any device that has clusters: more only where a plane needs them.
constexpr int portable_cluster = 8;
// Chunks of a reduced plane: enough to fill a device with a plane or two, few enough for one warp to merge.
constexpr int64_t most_parts = 256;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The exponent of the smallest power of two that is no less.
inline int log2_above(int64_t number) {
  int exponent = 0;
  while (int64_t(1) << exponent < number) ++exponent;
  return exponent;
}

inline int64_t power_of_two(int64_t at_least) { return int64_t(1) << log2_above(at_least); }

// Positions of the longest bundle; at least one, for its edges.
inline int64_t positions(const Planes& planes, const Access& access) {
  return planes.channels_last ? planes.size : std::max<int64_t>(planes.size / access.width, 1);
}

// The most columns that a bundle can have.
inline int64_t widest(const Planes& planes, const Access& access) {
  if (!planes.channels_last) return 1;
  return std::min<int64_t>(
      access.width > 1 ? most_vectors : warp_size, power_of_two(ceil_div(planes.channels, access.planes)));
}

// Bundles of a sample.
inline int64_t groups(const Planes& planes, const Access& access, int64_t columns) {
  return planes.channels_last ? ceil_div(planes.channels, columns * access.planes) : planes.channels;
}

// In channels_last a warp, for whole rows of columns. In NCHW a cache line of vectors; where planes begin or end
// between vectors, a thread for each element there.
inline int64_t smallest_team(const Planes& planes, const Access& access) {
  if (planes.channels_last) return warp_size;
  const bool whole = planes.size % access.width == 0;
  return whole ? std::min<int64_t>(8, power_of_two(positions(planes, access))) : 2 * access.width;
}

// Teams of a warp or less share a block of 128 threads, so that small planes fill a processor's 32 blocks.
inline int64_t threads_of(int64_t team) { return team <= warp_size ? 128 : team; }

// `held` is how many bytes each thread keeps of a position.
inline Plan plan_of(
    const Planes& planes, const Access& access, int64_t columns, int64_t team, int64_t depth, int64_t chunk,
    int64_t chunks, int64_t held) {
  const int64_t of_sample = groups(planes, access, columns);
  const int64_t teams = planes.samples * of_sample * chunks, threads = threads_of(team);
  const Split split = {
      planes.size, static_cast<unsigned>(planes.channels), static_cast<unsigned>(of_sample),
      static_cast<unsigned>(teams), static_cast<unsigned>(chunks), log2_above(team), log2_above(columns),
      static_cast<int>(chunk), static_cast<int>(depth), planes.channels_last, false};
  return {split, teams, ceil_div(teams, threads / team), static_cast<int>(threads), 1, threads * depth * held};
}

// A plan for kernels that read a map once, in chunks. Only a reduction minds how many there are: its teams then take
// several helpings of `depth` positions.
inline Plan streaming_plan(const Planes& planes, const Access& access, int64_t depth, bool reduces, int64_t held) {
  const int64_t columns = widest(planes, access), length = positions(planes, access);
  const int64_t team = std::clamp<int64_t>(
      power_of_two(ceil_div(length * columns, depth)), smallest_team(planes, access), block_size);
  const int64_t helping = depth * team / columns;
  const int64_t chunk = helping * (reduces ? ceil_div(ceil_div(length, helping), most_parts) : 1);
  return plan_of(planes, access, columns, team, depth, chunk, ceil_div(length, chunk), held);
}

// A plan for kernels that hold `maps` maps of a bundle in shared memory: of a block, or of a cluster with a chunk in
// each of its blocks. False where a bundle does not fit.
inline bool resident_plan(const Planes& planes, const Access& access, int maps, const Device& device, Plan& plan) {
  if (access.width == 1) return false;
  const int64_t length = positions(planes, access), held = vector_bytes * maps;
  // A narrow group of channels leaves part of each cache line to its neighbours: the widest first, and none below 32
  // bytes, where memory itself reads more.
  const int64_t most_columns = widest(planes, access);
  for (int64_t columns = most_columns; columns >= std::min<int64_t>(most_columns, 2); columns /= 2)
    for (const Room& room : device.rooms) {
      const int64_t work = length * columns;
      const int64_t bundles = planes.samples * groups(planes, access, columns);
      // Threads for each bundle that fill the device: a power of two, no more than use two vectors each.
      const int64_t wanted = power_of_two(std::min(device.processors * enough_threads / bundles, work / 2) / 2 + 1);
      const int64_t usual = power_of_two(ceil_div(work, usual_depth / maps));
      const int64_t team = std::clamp<int64_t>(std::max(usual, wanted), smallest_team(planes, access), room.threads);
      int64_t cluster = 1;
      const auto depth = [&] { return ceil_div(length, cluster * team / columns); };
      const auto fits = [&] { return depth() * threads_of(team) * held <= room.bytes; };
      const auto grows = [&] { return !fits() || (cluster < portable_cluster && cluster * team < wanted); };
      while (team > warp_size && cluster < room.cluster && grows()) cluster *= 2;
      if (!fits()) continue;
      plan = plan_of(planes, access, columns, team, depth(), depth() * team / columns, cluster, held);
      plan.cluster = static_cast<int>(cluster);
      return true;
    }
  return false;
}

}  // namespace fastnorm::cuda
