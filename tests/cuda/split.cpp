// Plans for some thousand maps on four devices: what every plan must hold, and what some are meant to be.

#include "cuda/split.h"

#include <cstdio>
#include <cstdlib>

using namespace fastnorm;
using namespace fastnorm::cuda;

#define EXPECT(condition)                                                                                        \
  if (!(condition)) {                                                                                            \
    std::printf("%s:%d: %s\n(%lld, %lld, %lld) channels_last %d width %d: team %d columns %d depth %d chunk %d " \
                "chunks %u cluster %d threads %d held %lld\n",                                                   \
                __FILE__, __LINE__, #condition, (long long)planes.samples, (long long)planes.channels,           \
                (long long)planes.size, planes.channels_last, access.width, 1 << plan.split.team,                \
                1 << plan.split.columns, plan.split.depth, plan.split.chunk, plan.split.chunks, plan.cluster,    \
                plan.threads, (long long)plan.held);                                                             \
    std::exit(1);                                                                                                \
  }

constexpr Device hopper = {132, {{256, 75 << 10, 16}, {512, 226 << 10, 16}}};
constexpr Device hopper_mini = {132, {{256, 75 << 10, 8}, {512, 226 << 10, 8}}};
constexpr Device ampere = {108, {{256, 53 << 10, 1}, {512, 163 << 10, 1}}};
constexpr Device consumer = {170, {{256, 32 << 10, 8}, {512, 98 << 10, 8}}};

int64_t checked = 0;

void check(const Planes& planes, const Access& access, const Plan& plan, int64_t held) {
  const Split& split = plan.split;
  const int64_t team = int64_t(1) << split.team, columns = int64_t(1) << split.columns;
  const int64_t length = positions(planes, access);
  // Every position belongs to one chunk, every channel to one column.
  EXPECT(int64_t(split.chunk) * split.chunks >= length);
  EXPECT(split.groups * (planes.channels_last ? columns * access.planes : 1) >= planes.channels);
  EXPECT(plan.teams == planes.samples * split.groups * split.chunks);
  EXPECT(plan.blocks * (plan.threads / team) >= plan.teams && plan.blocks % plan.cluster == 0);
  // Threads: whole warps, whole teams; a team over a warp has its block to itself.
  EXPECT(plan.threads % warp_size == 0 && plan.threads % team == 0 && plan.threads <= largest_block);
  EXPECT(team <= warp_size || team == plan.threads);
  EXPECT(columns <= std::min<int64_t>(team, warp_size) && (planes.channels_last || columns == 1));
  // In NCHW each element beside the whole vectors finds a thread.
  EXPECT(planes.channels_last || planes.size % access.width == 0 || 2 * access.width - 2 <= team);
  // A column's parts are merged side by side in a block.
  EXPECT(columns * plan.cluster <= plan.threads);
  EXPECT(plan.held == plan.threads * split.depth * held && plan.held <= 227 << 10);
  ++checked;
}

void check_all(const Planes& planes, const Access& access) {
  const int64_t bytes = access.width * (planes.element == Element::f32 ? 4 : 2);
  for (const bool reduces : {false, true}) {
    const Plan plan = streaming_plan(planes, access, 4, reduces, bytes);
    check(planes, access, plan, bytes);
    EXPECT(!reduces || plan.split.chunks <= most_parts);
    EXPECT(reduces || plan.split.chunk <= plan.split.depth * ((1 << plan.split.team) >> plan.split.columns));
  }
  for (const Device* device : {&hopper, &hopper_mini, &ampere, &consumer})
    for (const int maps : {1, 2}) {
      Plan plan;
      if (!resident_plan(planes, access, maps, *device, plan)) continue;
      check(planes, access, plan, vector_bytes * maps);
      const Room& room = device->rooms[plan.threads > block_size || plan.held > device->rooms[0].bytes];
      EXPECT(plan.held <= room.bytes && plan.threads <= room.threads && plan.cluster <= room.cluster);
      EXPECT(plan.split.chunks == static_cast<unsigned>(plan.cluster));
      EXPECT(plan.cluster == 1 || plan.split.team > 5);
      // What is held is the whole chunk.
      EXPECT(plan.split.chunk <= plan.split.depth * ((1 << plan.split.team) >> plan.split.columns));
    }
}

// The plan for a map on a device: how many blocks share a plane or group of channels; 0 for none.
int blocks(const Device& device, int maps, Element element, int64_t n, int64_t c, int64_t size, bool channels_last = false) {
  const Planes planes = {element, n, c, size, channels_last};
  const int width = element == Element::f32 ? 4 : 8;
  Plan plan;
  return resident_plan(planes, {width, channels_last ? width : 1}, maps, device, plan) ? plan.cluster : 0;
}

#define EXPECT_BLOCKS(expected, ...)                                                                \
  if (const int found = blocks(__VA_ARGS__); found != expected) {                                   \
    std::printf("%s:%d: %s: %d blocks, expected %d\n", __FILE__, __LINE__, #__VA_ARGS__, found, expected); \
    std::exit(1);                                                                                   \
  }

int main() {
  for (const Element element : {Element::f32, Element::bf16}) {
    const int width = element == Element::f32 ? 4 : 8;
    for (const int64_t n : {1, 2, 7, 64})
      for (const int64_t c : {1, 3, 8, 24, 40, 64, 512, 4096})
        for (const int64_t size : {1, 2, 3, 7, 8, 15, 16, 17, 49, 64, 77, 255, 256, 1000, 1024, 4096, 16385, 65025, 65536,
                                   262144, 600000, 1048576, 16777216}) {
          check_all({element, n, c, size, false}, {width, 1});
          check_all({element, n, c, size, false}, {1, 1});
          check_all({element, n, c, size, true}, {1, 1});
          if (c % width == 0) check_all({element, n, c, size, true}, {width, width});
        }
  }

  // A plane of 1 MB: 64 KB in each block, so that three share a processor; where clusters end at 8, a processor for each.
  EXPECT_BLOCKS(16, hopper, 1, Element::f32, 1, 64, 512 * 512)
  EXPECT_BLOCKS(8, hopper_mini, 1, Element::f32, 1, 64, 512 * 512)
  EXPECT_BLOCKS(8, hopper, 1, Element::bf16, 1, 64, 512 * 512)
  // Backward holds two maps.
  EXPECT_BLOCKS(16, hopper, 2, Element::f32, 1, 64, 512 * 512)
  EXPECT_BLOCKS(0, hopper_mini, 2, Element::f32, 1, 64, 512 * 512)
  // Many planes of 16 KB fill a device one block each; a few of 64 KB are shared out.
  EXPECT_BLOCKS(1, hopper, 1, Element::f32, 8, 256, 64 * 64)
  EXPECT_BLOCKS(8, hopper, 1, Element::f32, 1, 32, 128 * 128)
  // In channels_last a group of channels is a plane of its own width.
  EXPECT_BLOCKS(8, hopper, 1, Element::f32, 8, 256, 64 * 64, true)
  EXPECT_BLOCKS(0, hopper, 1, Element::f32, 1, 64, 512 * 512, true)
  // Without clusters a plane fits a block, or is read twice.
  EXPECT_BLOCKS(1, ampere, 1, Element::bf16, 1, 64, 256 * 256)
  EXPECT_BLOCKS(0, ampere, 1, Element::f32, 1, 64, 256 * 256)
  std::printf("checked %lld plans\n", (long long)checked);
}
