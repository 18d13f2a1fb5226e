// From an operator's arguments to a launch: the kernel's types, what the device can hold, the launch itself. Host code.

#pragma once

#include <mutex>

#include "kernels.h"
#include "split.h"
#include "vector.cuh"

namespace fastnorm::cuda {

// What a kernel is compiled for: elements of type T, in vectors of W that belong to P planes.
template <typename T_, int W_, int P_>
struct Form {
  using T = T_;
  static constexpr int W = W_, P = P_;
};

// Whether all maps, those that are not null, begin on a boundary of 16 bytes.
template <class Maps>
bool aligned(const Maps& maps) {
  for (const void* map : maps)
    if (reinterpret_cast<uintptr_t>(map) % 16) return false;
  return true;
}

template <typename T, class Maps, class Body>
cudaError_t visit_as(const Planes& planes, const Maps& maps, const Body& body) {
  // float64 is for checking gradients: element by element will do.
  if constexpr (!std::is_same_v<T, double>) {
    constexpr int W = 16 / sizeof(T);
    if (aligned(maps) && !planes.channels_last) return body(Form<T, W, 1>(), Access{W, 1});
    if (aligned(maps) && planes.channels % W == 0) return body(Form<T, W, W>(), Access{W, W});
  }
  return body(Form<T, 1, 1>(), Access{1, 1});
}

// body(Form, Access) for the widest access that these maps allow. Nothing for an empty map.
template <class Maps, class Body>
cudaError_t visit(const Planes& planes, const Maps& maps, const Body& body) {
  if (planes.samples * planes.channels * planes.size == 0) return cudaSuccess;
  // Planes are numbered in 32 bits, their elements in 64.
  if (planes.samples * planes.channels > INT32_MAX) return cudaErrorInvalidValue;
  switch (planes.element) {
    case Element::f64: return visit_as<double>(planes, maps, body);
    case Element::bf16: return visit_as<__nv_bfloat16>(planes, maps, body);
    case Element::f16: return visit_as<__half>(planes, maps, body);
    default: return visit_as<float>(planes, maps, body);
  }
}

// A launch of blocks in clusters; of single blocks where `cluster` is 1.
class Launch {
 public:
  Launch(int64_t blocks, int threads, int cluster, int64_t shared_bytes, cudaStream_t stream) {
    attribute_.id = cudaLaunchAttributeClusterDimension;
    attribute_.val.clusterDim.x = cluster;
    attribute_.val.clusterDim.y = attribute_.val.clusterDim.z = 1;
    config_.gridDim = dim3(static_cast<unsigned>(blocks));
    config_.blockDim = dim3(threads);
    config_.dynamicSmemBytes = shared_bytes;
    config_.stream = stream;
    config_.attrs = &attribute_;
    config_.numAttrs = cluster > 1;
  }
  Launch(const Launch&) = delete;

  const cudaLaunchConfig_t* config() const { return &config_; }

 private:
  cudaLaunchAttribute attribute_ = {};
  cudaLaunchConfig_t config_ = {};
};

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const Plan& plan, const Queue& queue, const Arguments&... arguments) {
  if (plan.teams > INT32_MAX || plan.blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  const Launch launch(plan.blocks, plan.threads, plan.cluster, plan.held, queue.stream);
  return cudaLaunchKernelEx(launch.config(), kernel, arguments...);
}

// What the current device can hold, as far as a kernel goes. Asked once: the driver takes its time.
class DeviceOf {
 public:
  template <class... Parameters>
  cudaError_t operator()(void (*kernel)(Parameters...), Device& device) {
    int index = 0;
    if (const cudaError_t error = cudaGetDevice(&index)) return error;
    if (index >= most_devices) return ask(kernel, index, device);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!known_[index].processors)
      if (const cudaError_t error = ask(kernel, index, known_[index])) return error;
    device = known_[index];
    return cudaSuccess;
  }

 private:
  template <class... Parameters>
  static cudaError_t ask(void (*kernel)(Parameters...), int index, Device& device) {
    int processors, of_processor, of_block, reserved, clusters;
    cudaFuncAttributes attributes;
    for (const cudaError_t error :
         {cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index),
          cudaDeviceGetAttribute(&of_processor, cudaDevAttrMaxSharedMemoryPerMultiprocessor, index),
          cudaDeviceGetAttribute(&of_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
          cudaDeviceGetAttribute(&reserved, cudaDevAttrReservedSharedMemoryPerBlock, index),
          cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, index),
          cudaFuncGetAttributes(&attributes, kernel)})
      if (error) return error;
    const int64_t largest = of_block - static_cast<int64_t>(attributes.sharedSizeBytes);
    const int64_t third = of_processor / 3 - reserved - static_cast<int64_t>(attributes.sharedSizeBytes);
    // A kernel must ask for more than 48 KB, for L1 to make room for them, and for more than 8 blocks in a cluster.
    for (const cudaError_t error :
         {cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(largest)),
          cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared)})
      if (error) return error;
    if (clusters && cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1)) cudaGetLastError();
    device = {processors, {{block_size, std::min(third, largest), 1}, {largest_block, largest, 1}}};
    if (clusters)
      for (Room& room : device.rooms) room.cluster = largest_cluster(kernel, room, processors);
    return cudaSuccess;
  }

  // The largest cluster that lets the kernel use half of the device: clusters of 16 fit few groups of processors whole.
  template <class... Parameters>
  static int largest_cluster(void (*kernel)(Parameters...), const Room& room, int processors) {
    for (int cluster = 16; cluster > 1; cluster /= 2) {
      const Launch launch(cluster, room.threads, cluster, room.bytes, nullptr);
      int active = 0;
      const cudaError_t error = cudaOccupancyMaxActiveClusters(&active, kernel, launch.config());
      if (!error && active * cluster * room.threads >= processors * block_size) return cluster;
      if (error) cudaGetLastError();
    }
    return 1;
  }

  static constexpr int most_devices = 64;
  std::mutex mutex_;
  Device known_[most_devices] = {};
};

template <typename N>
N* allocate(const Queue& queue, int64_t count) {
  return static_cast<N*>(queue.allocate(queue.context, count * sizeof(N)));
}

}  // namespace fastnorm::cuda
