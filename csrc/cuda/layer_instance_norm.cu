// layer_instance_norm: two reads and one write of the map; 7 flops an element. Backward: four reads and one write.
//
// The passes are those of instance_stats and scale_shift. Between them a block for each sample blends the numbers of its
// planes.

#define FASTNORM_ISA cuda
#include "../cpu/layer_blend.h"
#include "reduce.cuh"

namespace fastnorm::cuda {
namespace {

struct Total {
  using Number = double;
  double sum;
  __device__ __forceinline__ void merge(const Total& other) { sum += other.sum; }
};

// The sum of term(channel), for every thread of the block.
template <class Term>
__device__ __forceinline__ double block_sum(int64_t channels, const Term& term) {
  __shared__ double of_warp[block_size / warp_size];
  Total total = {0};
  for (int64_t c = threadIdx.x; c < channels; c += block_size) total.sum += term(c);
  merge_lanes(total, 1, warp_size);
  if (threadIdx.x % warp_size == 0) of_warp[threadIdx.x / warp_size] = total.sum;
  __syncthreads();
  double sum = 0;
  for (const double part : of_warp) sum += part;
  __syncthreads();
  return sum;
}

// What the kernels below know of the planes.
template <typename N>
struct Statistics {
  LayerRule rule;
  int64_t channels;
  Parameter rho, weight, bias;
  const N* mean;
  N* var;

  template <class Arguments>
  Statistics(const Arguments& args, const void* mean, const void* var)
      : rule(args.planes, args.rule),
        channels(args.planes.channels),
        rho(args.rho),
        weight(args.weight),
        bias(args.bias),
        mean(static_cast<const N*>(mean)),
        var(static_cast<N*>(const_cast<void*>(var))) {}
};

// The blend of each of a sample's planes.
template <typename N>
struct Sample {
  const Statistics<N>& of;
  unsigned index;
  int64_t first;
  Layer layer;

  __device__ __forceinline__ Sample(const Statistics<N>& of, unsigned index)
      : of(of), index(index), first(index * of.channels) {
    layer = of.rule.layer(
        [&](int64_t c) -> double { return of.mean[first + c]; }, [&](int64_t c) -> double { return of.var[first + c]; },
        [&](const auto& term) { return sum(term); });
  }

  template <class Term>
  __device__ __forceinline__ double sum(const Term& term) const {
    return block_sum(of.channels, term);
  }

  __device__ __forceinline__ Blend blend(int64_t c) const {
    return {
        parameter(of.rho, index, c, 0.0),
        parameter(of.weight, index, c, 1.0),
        parameter(of.bias, index, c, 0.0),
        of.mean[first + c] - layer.mean,
        of.rule.rstd(of.var[first + c]),
        layer.rstd};
  }
};

// rstd is 1 / sqrt(var), from which var is made; or null where var is known.
template <typename N>
__global__ void __maxnreg__(64) blend_planes(Statistics<N> of, const N* rstd, N* scale, N* shift) {
  const int64_t first = blockIdx.x * of.channels;
  if (rstd) {
    for (int64_t c = threadIdx.x; c < of.channels; c += block_size) {
      const double inverse = rstd[first + c];
      of.var[first + c] = 1 / (inverse * inverse);
    }
    __syncthreads();
  }
  const Sample<N> sample(of, blockIdx.x);
  for (int64_t c = threadIdx.x; c < of.channels; c += block_size) {
    const Blend blend = sample.blend(c);
    scale[first + c] = blend.scale();
    shift[first + c] = blend.shift();
  }
}

template <typename N>
__global__ void __maxnreg__(64)
    blend_gradients(Statistics<N> of, const N* scales, N* rho, N* weight, const N* shifts, N* input_scale, N* input_shift) {
  const Sample<N> sample(of, blockIdx.x);
  const int64_t first = sample.first;
  const auto blend = [&](int64_t c) { return sample.blend(c); };
  const auto sums = [&](int64_t c) { return PlaneSums{scales[first + c], shifts[first + c]}; };
  const auto sum = [&](const auto& term) { return sample.sum(term); };
  const LayerGradient layer = of.rule.layer_gradient(blend, sums, sum);
  for (int64_t c = threadIdx.x; c < of.channels; c += block_size) {
    const BlendGradient gradient = of.rule.gradient(blend(c), sums(c), layer);
    rho[first + c] = gradient.rho;
    weight[first + c] = gradient.weight;
    input_scale[first + c] = gradient.input_scale;
    input_shift[first + c] = gradient.input_shift;
  }
}

template <class... Parameters, class... Arguments>
cudaError_t launch_samples(
    void (*kernel)(Parameters...), const Planes& planes, const Queue& queue, const Arguments&... arguments) {
  return launch(kernel, {{}, planes.samples, planes.samples, block_size, 1, 0}, queue, arguments...);
}

template <typename N>
cudaError_t forward(const LayerInstanceNorm& args, const Queue& queue) {
  const Planes& planes = args.planes;
  const int64_t count = planes.samples * planes.channels;
  N *const rstd = allocate<N>(queue, 3 * count), *const scale = rstd + count, *const shift = scale + count;
  const VarianceRule plain = {0, 0, false};
  if (const cudaError_t error = run(InstanceStats{planes, plain, args.input, args.mean, rstd}, queue)) return error;
  const Statistics<N> of(args, args.mean, args.var);
  const cudaError_t error = launch_samples(blend_planes<N>, planes, queue, of, static_cast<const N*>(rstd), scale, shift);
  if (error) return error;
  return run(
      ScaleShift{
          planes, args.activation, args.input, statistic(planes, args.mean), statistic(planes, scale),
          statistic(planes, shift), args.maps, args.output},
      queue);
}

template <typename N>
cudaError_t backward(const LayerInstanceNormBackward& args, const Queue& queue) {
  const Planes& planes = args.planes;
  const int64_t count = planes.samples * planes.channels;
  N *const scale = allocate<N>(queue, 5 * count), *const shift = scale + count, *const grad_scale = shift + count;
  N *const input_scale = grad_scale + count, *const input_shift = input_scale + count;
  const Statistics<N> of(args, args.mean, args.var);
  cudaError_t error = launch_samples(blend_planes<N>, planes, queue, of, static_cast<const N*>(nullptr), scale, shift);
  if (error) return error;

  ScaleShiftBackward sums = {};
  sums.planes = planes;
  sums.activation = args.activation;
  sums.grad = args.grad;
  sums.input = args.input;
  sums.mean = statistic(planes, args.mean);
  sums.scale = statistic(planes, scale);
  sums.shift = statistic(planes, shift);
  sums.maps = args.maps;
  ScaleShiftBackward maps = sums;
  sums.grad_scale = grad_scale;
  sums.grad_shift = args.grad_bias;
  if ((error = run(sums, queue))) return error;

  error = launch_samples(
      blend_gradients<N>, planes, queue, of, static_cast<const N*>(grad_scale), static_cast<N*>(args.grad_rho),
      static_cast<N*>(args.grad_weight), static_cast<const N*>(args.grad_bias), input_scale, input_shift);
  if (error) return error;
  maps.input_scale = statistic(planes, input_scale);
  maps.input_shift = statistic(planes, input_shift);
  maps.grad_input = args.grad_input;
  maps.grad_residual = args.grad_residual;
  return run(maps, queue);
}

// Nothing for an empty map.
template <class Arguments, class Body>
cudaError_t in_wide(const Arguments& args, const Body& body) {
  if (args.planes.samples * args.planes.channels * args.planes.size == 0) return cudaSuccess;
  return args.planes.element == Element::f64 ? body(double()) : body(float());
}

}  // namespace

cudaError_t run(const LayerInstanceNorm& args, const Queue& queue) {
  return in_wide(args, [&](auto number) { return forward<decltype(number)>(args, queue); });
}

cudaError_t run(const LayerInstanceNormBackward& args, const Queue& queue) {
  return in_wide(args, [&](auto number) { return backward<decltype(number)>(args, queue); });
}

}  // namespace fastnorm::cuda
