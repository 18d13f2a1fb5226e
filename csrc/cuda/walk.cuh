// A thread's way through its bundle, and the maps it meets there. NCHW and channels_last differ here and nowhere else.

#pragma once

#include "split.h"
#include "vector.cuh"

namespace fastnorm::cuda {

template <int V>
using Size = std::integral_constant<int, V>;

// `count` vectors of W elements, one every `stride` elements from `offset` on. They belong to the P planes from
// (sample, channel) on: one in NCHW, one per element in channels_last.
//
// In NCHW, where W does not divide a plane, its vectors lie on the boundaries of memory, and up to W - 1 elements on
// either side are left over: each is the `edge` of one thread.
template <int W, int P>
struct Walk {
  int64_t offset, stride, edge = -1;
  int count;
  unsigned sample, channel, plane, chunk;
  bool leads;  // speaks for its planes in this chunk

  __device__ explicit Walk(const Split& split) {
    const int member = threadIdx.x & ((1 << split.team) - 1);
    const int column = member & ((1 << split.columns) - 1), row = member >> split.columns;
    const int rows = split.team - split.columns;  // as a power of two
    unsigned team = blockIdx.x * (blockDim.x >> split.team) + (threadIdx.x >> split.team);
    bool idle = team >= split.teams;
    if (idle) team = 0;
    if (split.reversed) team = split.teams - 1 - team;
    const unsigned bundle = team / split.chunks;
    chunk = team - bundle * split.chunks;
    sample = bundle / split.groups;
    channel = bundle - sample * split.groups;

    int64_t positions, pitch;
    if (P > 1 || (W == 1 && split.channels_last)) {
      channel = ((channel << split.columns) + column) * P;
      if (channel >= split.channels) {
        idle = true;
        channel = 0;
      }
      offset = sample * split.size * split.channels + channel;
      pitch = split.channels;
      positions = split.size;
    } else {
      const int64_t start = bundle * split.size;
      const int head = min(-start & (W - 1), split.size);
      const int tail = (split.size - head) & (W - 1);
      offset = start + head;
      pitch = W;
      positions = (split.size - head) / W;
      if (chunk == 0 && !idle && member < head + tail)
        edge = member < head ? start + member : start + split.size - tail + (member - head);
    }
    plane = sample * split.channels + channel;
    const int64_t before = int64_t(chunk) * split.chunk;
    const int here = static_cast<int>(min(positions - before, int64_t(split.chunk)));  // positions of the chunk
    offset += (before + row) * pitch;
    stride = pitch << rows;
    count = idle || here <= row ? 0 : ((here - row - 1) >> rows) + 1;
    leads = !idle && row == 0;
  }

  __device__ __forceinline__ int64_t at(int v) const { return offset + v * stride; }

  // body(Size<V>, v) for whole tiles of vectors v..v + V among the first `to`, then body(Size<1>, v) for those left.
  template <int V, typename Body>
  __device__ __forceinline__ void tiles(int to, const Body& body) const {
    int v = 0;
#pragma unroll 1
    for (; v + V <= to; v += V) body(Size<V>(), v);
    if constexpr (V > 1)
#pragma unroll 1
      for (; v < to; ++v) body(Size<1>(), v);
  }
};

// The element of a map beside the whole vectors, if the thread has one; zero if not, or if the map is absent.
template <typename T, int W, int P>
__device__ __forceinline__ T edge_of(const void* map, const Walk<W, P>& walk) {
  return map && walk.edge >= 0 ? static_cast<const T*>(map)[walk.edge] : T();
}

// A parameter's number for a plane.
template <typename N>
__device__ __forceinline__ N parameter(const Parameter& from, unsigned sample, unsigned channel, N absent) {
  if (!from.data) return absent;
  const int64_t at = sample * from.sample_stride + channel * from.channel_stride;
  switch (from.element) {
    case Element::f64: return static_cast<const double*>(from.data)[at];
    case Element::bf16: return widen(static_cast<const __nv_bfloat16*>(from.data)[at]);
    case Element::f16: return widen(static_cast<const __half*>(from.data)[at]);
    default: return static_cast<const float*>(from.data)[at];
  }
}

}  // namespace fastnorm::cuda
