// Maps held in shared memory, packed as they lie in memory. A slot belongs to one thread, which fills it and reads it:
// no barrier stands between the two, only the thread's own wait.

#pragma once

#include "walk.cuh"

namespace fastnorm::cuda {

// Of a thread: three blocks of 256 on a processor. In channels_last with 2-byte elements it keeps the numbers of eight
// planes: two blocks.
template <int P>
constexpr int registers = P > 4 ? 128 : 80;

// Past the registers, so that a thread has all of its vectors in flight at once; those of 16 bytes past L1 too.
template <typename R>
__device__ __forceinline__ void copy_async(R* shared, const void* global) {
#ifdef __CUDA_ARCH__
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (sizeof(R) == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
    return;
  } else if constexpr (sizeof(R) >= 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(sizeof(R)) : "memory");
    return;
  }
#endif
  *shared = *static_cast<const R*>(global);
}

__device__ __forceinline__ void wait_for_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// The n-th of the maps that a block holds, `depth` slots for each of its threads.
template <typename T, int W>
class Held {
 public:
  __device__ __forceinline__ Held(int n, int depth) {
    extern __shared__ uint4 held_memory[];
    slots_ = reinterpret_cast<Raw<T, W>*>(held_memory) + n * depth * blockDim.x + threadIdx.x;
  }

  // `count` vectors of a map, from the v-th of the walk on; they are there after wait_for_copies().
  template <int P>
  __device__ __forceinline__ void fill(const void* map, const Walk<W, P>& walk, int v, int count) {
    const T* from = static_cast<const T*>(map) + walk.at(v);
#pragma unroll 4
    for (int slot = 0; slot < count; ++slot, from += walk.stride) copy_async(slots_ + slot * blockDim.x, from);
  }

  __device__ __forceinline__ void unpack(int slot, Wide<T> (&wide)[W]) const {
    cuda::unpack<T, W>(slots_[slot * blockDim.x], wide);
  }

 private:
  Raw<T, W>* slots_;
};

}  // namespace fastnorm::cuda
