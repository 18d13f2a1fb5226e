// Where torch queues work on a device.

#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <cstdint>
#include <optional>

namespace fastnorm {

// Makes a device current for as long as it lives, and knows the stream in use there.
class CurrentStream {
 public:
  explicit CurrentStream(int32_t device);
  void* get() const { return stream_; }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  void* stream_ = nullptr;
};

}  // namespace fastnorm
