// A GPU in a few functions: enough of CUDA to compile the kernels of csrc/cuda with a C++ compiler and run them.
//
// A thread of a block is a coroutine, a block a thread of the machine, so `__shared__` is `thread_local`. Blocks of a
// cluster run at the same time and reach into each other's thread-local memory; others run one after another. The order in
// which threads take turns can be changed: results that depend on it lack a barrier.

#pragma once

#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __shared__ thread_local

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::isfinite;
using std::max;
using std::min;

template <typename T>
T __ldg(const T* from) {
  return *from;
}

namespace emulator {

// What the lanes of a warp exchange: each gives a number and takes that of another.
uint64_t exchange(uint64_t number, unsigned lane);

template <typename T>
T exchange(T number, unsigned lane) {
  uint64_t bits = 0;
  std::memcpy(&bits, &number, sizeof number);
  bits = exchange(bits, lane);
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

}  // namespace emulator

template <typename T>
T __shfl_xor_sync(unsigned mask, T number, int bits) {
  if (mask != 0xffffffff) std::abort();
  return emulator::exchange(number, (threadIdx.x % 32) ^ bits);
}

template <typename T>
T __shfl_sync(unsigned mask, T number, int lane) {
  if (mask != 0xffffffff) std::abort();
  return emulator::exchange(number, lane);
}

void __syncthreads();
unsigned __clusterSizeInBlocks();
void __cluster_barrier_arrive();
inline void __cluster_barrier_arrive_relaxed() { __cluster_barrier_arrive(); }
void __cluster_barrier_wait();
void* __cluster_map_shared_rank(const void* shared, unsigned rank);

// -- The host's side

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorInvalidConfiguration };
const char* cudaGetErrorString(cudaError_t);
inline float __fdividef(float a, float b) { return a / b; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(bits) : 32; }

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device);

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrReservedSharedMemoryPerBlock,
  cudaDevAttrClusterLaunch,
};
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int device);

struct cudaFuncAttributes {
  size_t sharedSizeBytes;
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributePreferredSharedMemoryCarveout,
  cudaFuncAttributeNonPortableClusterSizeAllowed,
};
constexpr int cudaSharedmemCarveoutMaxShared = 100;

template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel) {
  attributes->sharedSizeBytes = 0;
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}

using cudaStream_t = struct CUstream_st*;
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    dim3 clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace emulator {

int largest_cluster();
cudaError_t launch(const cudaLaunchConfig_t&, const std::function<void()>& thread);

}  // namespace emulator

template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel, const cudaLaunchConfig_t* config) {
  *clusters = static_cast<int>(config->attrs->val.clusterDim.x) <= emulator::largest_cluster() ? 1 << 16 : 0;
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const std::tuple<Parameters...> given(arguments...);
  return emulator::launch(*config, [&] { std::apply(kernel, given); });
}
