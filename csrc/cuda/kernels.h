// What the CUDA kernels offer: the operators' arguments, queued on a stream. No torch.

#pragma once

#include <cuda_runtime.h>

#include "../cpu/kernels.h"

namespace fastnorm::cuda {

// Where a call runs, and where it finds scratch memory that lives until its kernels are through.
struct Queue {
  cudaStream_t stream;
  void* (*allocate)(void* context, int64_t bytes);
  void* context;
};

cudaError_t run(const InstanceStats&, const Queue&);
cudaError_t run(const ScaleShift&, const Queue&);
cudaError_t run(const ScaleShiftBackward&, const Queue&);
cudaError_t run(const InstanceNorm&, const Queue&);
cudaError_t run(const InstanceNormBackward&, const Queue&);
cudaError_t run(const LayerInstanceNorm&, const Queue&);
cudaError_t run(const LayerInstanceNormBackward&, const Queue&);
cudaError_t run(const DynamicConv2d&, const Queue&);
cudaError_t run(const DynamicConv2dBackward&, const Queue&);
cudaError_t run(const UpsamplePad2d&, const Queue&);
cudaError_t run(const UpsamplePad2dBackward&, const Queue&);

}  // namespace fastnorm::cuda
