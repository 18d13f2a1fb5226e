// The CUDA kernels as torch's operators, through its stable ABI.

#include <cstdint>
#include <vector>

#include "../cuda/kernels.h"
#include "current_stream.h"
#include "operators.h"

// The emulator of tests/cuda registers them for tensors that it can reach.
#ifndef FASTNORM_DISPATCH_KEY
#define FASTNORM_DISPATCH_KEY CUDA
#endif

namespace fastnorm {
namespace {

// Memory of torch's allocator: it is reused in the stream's order, so it may go back as soon as the kernels are queued.
struct Scratch {
  const Tensor& like;
  std::vector<Tensor> tensors;

  static void* allocate(void* self, int64_t bytes) {
    Scratch& scratch = *static_cast<Scratch*>(self);
    scratch.tensors.push_back(new_empty(scratch.like, {(bytes + 7) / 8}, ScalarType::Double));
    return scratch.tensors.back().mutable_data_ptr();
  }
};

struct Cuda {
  static void check(const char* op, const Tensor& input, std::initializer_list<NamedTensor> others) {
    for (const NamedTensor& other : others)
      STD_TORCH_CHECK(
          !other.tensor.has_value() || other.tensor->device() == input.device(),
          op, ": ", other.name, ": expected a tensor on the input's device");
  }

  template <class Arguments>
  static void run(const char* op, const Tensor& input, const Arguments& arguments) {
    const int32_t device = input.get_device_index();
    const CurrentStream stream(device);
    Scratch scratch{input, {}};
    // This library has a CUDA runtime of its own, which did not see torch choose the device.
    cudaError_t error = cudaSetDevice(device);
    if (error == cudaSuccess)
      error = cuda::run(arguments, {static_cast<cudaStream_t>(stream.get()), &Scratch::allocate, &scratch});
    STD_TORCH_CHECK(error == cudaSuccess, op, ": ", cudaGetErrorString(error));
  }
};

}  // namespace
}  // namespace fastnorm

STABLE_TORCH_LIBRARY_IMPL(fastnorm, FASTNORM_DISPATCH_KEY, m) { fastnorm::register_operators<fastnorm::Cuda>(m); }
