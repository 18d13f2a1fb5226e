// Merging what the threads of a team found: over lanes, warps and the blocks of a cluster, in a fixed order.

#pragma once

#include <cstring>

#include "cluster.cuh"
#include "split.h"

namespace fastnorm::cuda {

constexpr unsigned whole_warp = 0xffffffff;

template <class Value, class Exchange>
__device__ __forceinline__ Value exchange(const Value& value, const Exchange& word) {
  typename Value::Number words[sizeof(Value) / sizeof(typename Value::Number)];
  memcpy(words, &value, sizeof value);
#pragma unroll
  for (auto& number : words) number = word(number);
  Value other;
  memcpy(&other, words, sizeof value);
  return other;
}

// Over lanes whose numbers differ in the bits from `first` up to, not including, `last`. The result is in the lowest.
template <class Value>
__device__ __forceinline__ void merge_lanes(Value& value, int first, int last) {
  for (int bit = first; bit < last; bit *= 2)
    value.merge(exchange(value, [=](auto number) { return __shfl_xor_sync(whole_warp, number, bit); }));
}

// merged[column] of 2^count parts(index, column): at most a warp for each column, and a block for all of them.
template <class Value, class Part>
__device__ __forceinline__ void merge_parts(Value* merged, int columns, int count, const Part& part) {
  const int index = threadIdx.x & ((1 << count) - 1), column = threadIdx.x >> count;
  Value value = part(index, column & (columns - 1));
  merge_lanes(value, 1, 1 << count);
  if (index == 0 && column < columns) merged[column] = value;
  __syncthreads();
}

// The value of the whole bundle, for each thread that walks it. Every thread of a block calls it, once in a kernel, and
// `leave_team` at the kernel's end.
template <int W, int P, class Value>
__device__ __forceinline__ Value merge_team(Value value, const Split& split) {
  const int lane = threadIdx.x % warp_size, team = 1 << split.team, columns = 1 << split.columns;
  merge_lanes(value, columns, min(team, warp_size));
  if (team <= warp_size) {
    const int lowest = (lane & -team) + (lane & (columns - 1));
    return exchange(value, [=](auto number) { return __shfl_sync(whole_warp, number, lowest); });
  }

  constexpr int most_columns = W == 1 ? warp_size : P > 1 ? most_vectors : 1;
  __shared__ Value of_warp[largest_block / warp_size * most_columns];
  __shared__ Value of_block[most_columns];
  __shared__ Value of_cluster[most_columns];
  if (lane < columns) of_warp[threadIdx.x / warp_size * columns + lane] = value;
  __syncthreads();
  const int column = lane & (columns - 1), warps = split.team - 5;
  merge_parts(of_block, columns, warps, [&](int warp, int column) { return of_warp[warp * columns + column]; });
  if (cluster_size() == 1) return of_block[column];

  cluster_sync();
  const int ranks = __ffs(cluster_size()) - 1;
  merge_parts(of_cluster, columns, ranks, [&](int rank, int column) { return of_peer(of_block, rank)[column]; });
  cluster_arrive();
  return of_cluster[column];
}

// A block's shared memory lasts until its peers have read it.
__device__ __forceinline__ void leave_team() {
  if (cluster_size() > 1) cluster_wait();
}

}  // namespace fastnorm::cuda
