// torch's C shim knows the current stream, in a library that only a torch with CUDA has. Asked for by name at run time, so
// that this one loads, and can be built and checked, beside a torch without CUDA.

#include "current_stream.h"

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

namespace fastnorm {
namespace {

using GetStream = AOTITorchError (*)(int32_t device, void** stream);

GetStream find() {
  void* const torch_cuda = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  return torch_cuda ? reinterpret_cast<GetStream>(dlsym(torch_cuda, "aoti_torch_get_current_cuda_stream")) : nullptr;
}

}  // namespace

CurrentStream::CurrentStream(int32_t device) {
  static const GetStream get_stream = find();
  STD_TORCH_CHECK(device >= 0 && get_stream, "expected CUDA tensors, and a torch that is built for CUDA");
  guard_.emplace(device);
  TORCH_ERROR_CODE_CHECK(get_stream(device, &stream_));
}

}  // namespace fastnorm
