// Thread-block clusters: blocks that run at the same time and read each other's shared memory. From compute capability
// 9.0 on; before it a cluster is one block, and the host never asks for more.

#pragma once

namespace fastnorm::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900

__device__ __forceinline__ unsigned cluster_size() { return 1; }
__device__ __forceinline__ void cluster_sync() {}
__device__ __forceinline__ void cluster_arrive() {}
__device__ __forceinline__ void cluster_wait() {}
template <typename T>
__device__ __forceinline__ const T* of_peer(const T* shared, unsigned) {
  return shared;
}

#else

__device__ __forceinline__ unsigned cluster_size() { return __clusterSizeInBlocks(); }

// What a thread wrote before, every thread of the cluster sees after.
__device__ __forceinline__ void cluster_sync() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}

// A barrier in two halves that orders execution, not memory.
__device__ __forceinline__ void cluster_arrive() { __cluster_barrier_arrive_relaxed(); }
__device__ __forceinline__ void cluster_wait() { __cluster_barrier_wait(); }

// The same variable in the shared memory of another block of the cluster.
template <typename T>
__device__ __forceinline__ const T* of_peer(const T* shared, unsigned rank) {
  return static_cast<const T*>(__cluster_map_shared_rank(shared, rank));
}

#endif

}  // namespace fastnorm::cuda
