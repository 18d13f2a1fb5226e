// Reductions over planes: from what a thread holds to a value, from the values of chunks to a plane's.

#pragma once

#include "launch.cuh"
#include "statistics.cuh"
#include "team.cuh"
#include "transform.cuh"

namespace fastnorm::cuda {

// Of the `count` vectors that a thread holds.
template <int P, typename T, int W>
__device__ __forceinline__ Moments<Wide<T>, P> moments_of(const Held<T, W>& held, int count) {
  using N = Wide<T>;
  Moments<N, P> moments = {};
  if (count == 0) return moments;
  N first[W], sum[P] = {}, squares[P] = {};
  held.unpack(0, first);
#pragma unroll 4
  for (int v = 0; v < count; ++v) {
    N x[W], vector_sum[P] = {}, vector_squares[P] = {};
    held.unpack(v, x);
#pragma unroll
    for (int e = 0; e < W; ++e) {
      const int p = plane_of<P>(e);
      const N shifted = x[e] - first[p];
      vector_sum[p] += shifted;
      vector_squares[p] += shifted * shifted;
    }
#pragma unroll
    for (int p = 0; p < P; ++p) {
      sum[p] += vector_sum[p];
      squares[p] += vector_squares[p];
    }
  }
  moments.count = count * (W / P);
#pragma unroll
  for (int p = 0; p < P; ++p) {
    moments.shift[p] = first[p];
    moments.mean[p] = sum[p] / moments.count;
    const N rest = squares[p] - sum[p] * moments.mean[p];
    moments.squares[p] = rest < 0 ? 0 : rest;  // NaN stays
    moments.settle(p);
  }
  return moments;
}

template <typename T>
__device__ __forceinline__ Moments<Wide<T>, 1> moments_of(T element) {
  return {1, {widen(element)}, {0}, {0}};
}

// A team that saw the whole bundle finishes its planes at once; one that saw a chunk leaves its part.
template <int W, int P, class Value, class Finish>
__device__ __forceinline__ void deliver(
    const Value& value, const Walk<W, P>& walk, const Split& split, decltype(value.plane(0))* parts,
    const Finish& finish) {
  if (!walk.leads || (!parts && walk.chunk > 0)) return;
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (parts) parts[int64_t(walk.plane + p) * split.chunks + walk.chunk] = value.plane(p);
    else finish(walk.plane + p, value.plane(p));
}

// A warp merges the parts of a plane.
template <class Value, class Finish>
__global__ void __maxnreg__(64) finish_planes(const Value* parts, unsigned planes, unsigned chunks, Finish finish) {
  const unsigned plane = blockIdx.x * (blockDim.x / warp_size) + threadIdx.x / warp_size;
  if (plane >= planes) return;
  Value value = {};
#pragma unroll 4
  for (unsigned chunk = threadIdx.x % warp_size; chunk < chunks; chunk += warp_size)
    value.merge(parts[int64_t(plane) * chunks + chunk]);
  merge_lanes(value, 1, warp_size);
  if (threadIdx.x % warp_size == 0) finish(plane, value);
}

// Launches kernel(arguments..., split, parts, finish), and merges the parts where chunks leave several.
template <class Value, class Finish, class Kernel, class... Arguments>
cudaError_t launch_reduction(
    Kernel kernel, const Planes& map, const Plan& plan, const Queue& queue, const Finish& finish,
    const Arguments&... arguments) {
  const unsigned planes = map.samples * map.channels, chunks = plan.cluster > 1 ? 1 : plan.split.chunks;
  Value* const parts = chunks > 1 && finish.wanted() ? allocate<Value>(queue, int64_t(planes) * chunks) : nullptr;
  const cudaError_t error = launch(kernel, plan, queue, arguments..., plan.split, parts, finish);
  if (error || !parts) return error;
  const Plan merging = {{}, planes, ceil_div(planes, block_size / warp_size), block_size, 1, 0};
  return launch(finish_planes<Value, Finish>, merging, queue, parts, planes, chunks, finish);
}

template <typename N>
struct FinishStats {
  VarianceRule rule;
  int64_t size;
  N *mean, *rstd;

  FinishStats(const VarianceRule& rule, const Planes& planes, void* mean, void* rstd)
      : rule(rule), size(planes.size), mean(static_cast<N*>(mean)), rstd(static_cast<N*>(rstd)) {}

  bool wanted() const { return true; }

  __device__ __forceinline__ void operator()(unsigned plane, const Moments<N, 1>& moments) const {
    mean[plane] = mean_of(moments);
    rstd[plane] = rstd_of(moments, rule, size);
  }
};

// What a plane's sums say: the gradients of weight and bias, and how the statistics depend on the input, which adds
// (input - mean) * input_scale + input_shift to its gradient. A null pointer is not wanted.
template <typename N>
struct FinishSums {
  Transform transform;
  unsigned channels;
  int64_t size;
  GradientSums to;

  explicit FinishSums(const BackwardPass& pass)
      : transform(pass.transform), channels(pass.planes.channels), size(pass.planes.size), to(pass.sums) {}

  __host__ __device__ bool wanted() const { return to.weight || to.input_scale; }

  __device__ __forceinline__ N of_plane(const Parameter& from, unsigned plane) const {
    return parameter(from, plane / channels, plane % channels, N(1));
  }

  __device__ __forceinline__ Sums<N, 1> from_statistics(unsigned plane, const Sums<N, 1>& sums) const {
    const N gain = N(transform.alpha) * of_plane(transform.weight, plane), rstd = of_plane(transform.rstd, plane);
    return {{gain * sums.scale[0] * rstd_slope(rstd, to.rule, size)}, {-gain * rstd * sums.shift[0] / N(size)}};
  }

  __device__ __forceinline__ void operator()(unsigned plane, const Sums<N, 1>& sums) const {
    if (to.weight) {
      static_cast<N*>(to.weight)[plane] = N(transform.alpha) * of_plane(transform.rstd, plane) * sums.scale[0];
      static_cast<N*>(to.bias)[plane] = N(transform.alpha) * sums.shift[0];
    }
    if (to.input_scale) {
      const Sums<N, 1> dependence = from_statistics(plane, sums);
      static_cast<N*>(to.input_scale)[plane] = dependence.scale[0];
      static_cast<N*>(to.input_shift)[plane] = dependence.shift[0];
    }
  }
};

}  // namespace fastnorm::cuda
