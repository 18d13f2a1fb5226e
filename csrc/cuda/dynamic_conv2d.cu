// dynamic_conv2d: one read of the input, one write of the output, and the filters once; 2 * K * C_in / groups flops for
// an output, K the taps of the kernel. Backward: two reads and one write, twice the flops.
//
// Images under 3 x 3 and 1 x 1 filters at a stride of 1, forward and in reverse: a block brings a tile to shared memory
// once. Any other kernel, stride and dilation: a thread gathers what its output reads, or who reads its input. The
// gradient of a filter is a sum over positions: a block takes a patch of one, or of 32 beside each other in
// channels_last, and merges what its threads found in a fixed order; chunks of a long plane leave parts to a second
// kernel.

#include "launch.cuh"
#include "passes.h"
#include "tile_pixels.cuh"
#include "tile_planes.cuh"
#include "walk.cuh"

namespace fastnorm::cuda {
namespace {

template <typename T>
__global__ void __maxnreg__(80) gather(DynamicConv2d args) {
  using N = Wide<T>;
  const Convolution& shape = args.shape;
  const Layout input = input_of(shape), output = output_of(shape);
  const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= output.count()) return;
  const Place place = output.place(index);
  const int64_t first = place.channel / shape.out_channels * shape.in_channels;
  N sum = parameter(args.bias, place.sample, place.channel, N(0));
  each_read(shape, place.at, [&](int64_t tap, int64_t position) {
    N of_tap = 0;
#pragma unroll 1
    for (int64_t c = 0; c < shape.in_channels; ++c) {
      const Normed<T> x(args.input, args.mean, args.rstd, place.sample * input.channels + first + c);
      const N weight = widen(filter<T>(args.weight, shape, place.sample, place.channel, c)[tap]);
      of_tap += weight * x[input.offset(place.sample, first + c, position)];
    }
    sum += of_tap;
  });
  static_cast<T*>(args.output)[index] = narrow<T>(sum);
}

template <typename T>
__global__ void __maxnreg__(sizeof(T) == 8 ? 168 : 128) gather_gradient(DynamicConv2dBackward args) {
  using N = Wide<T>;
  const Convolution& shape = args.shape;
  const Layout input = input_of(shape), output = output_of(shape);
  const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= input.count()) return;
  const Place place = input.place(index);
  const int64_t group = place.channel / shape.in_channels, first = group * shape.out_channels;
  N sum = 0;
  each_reader(shape, place.at, [&](int64_t tap, int64_t position) {
    N of_tap = 0;
#pragma unroll 1
    for (int64_t o = first; o < first + shape.out_channels; ++o) {
      const int64_t in = place.channel - group * shape.in_channels;
      const N weight = widen(filter<T>(args.weight, shape, place.sample, o, in)[tap]);
      of_tap += weight * widen(static_cast<const T*>(args.grad)[output.offset(place.sample, o, position)]);
    }
    sum += of_tap;
  });
  static_cast<T*>(args.grad_input)[index] = narrow<T>(sum);
}

// -- The filters' gradient

// A thread keeps the sums of a patch of the kernel, so many taps wide and high: it finds its rows and columns once.
constexpr int patch = 3;

// How the sums are dealt to blocks: `lanes` filters side by side, a patch of each, a chunk of the positions.
struct Dealt {
  int64_t filters, bundles, chunks, chunk;  // filters of a sample, in bundles of `lanes`; positions of a chunk
  unsigned columns, rows, patches;          // patches beside each other, above each other, and all of a filter
  int lanes, threads;

  explicit Dealt(const Convolution& shape)
      : filters(shape.groups * shape.out_channels * shape.in_channels),
        columns(ceil_div(shape.kernel[2], patch)),
        rows(ceil_div(shape.kernel[1], patch)),
        patches(shape.kernel[0] * rows * columns),
        lanes(shape.channels_last ? warp_size : 1) {
    bundles = ceil_div(filters, lanes);
    const int64_t positions = output_of(shape).plane();
    // Many positions for each thread, for what it costs to merge them; few enough to fill a device.
    const int64_t wanted = ceil_div(enough_blocks, shape.samples * bundles * patches);
    chunk = std::max<int64_t>(ceil_div(positions, wanted), helping * block_size / lanes);
    threads = std::clamp<int64_t>(power_of_two(ceil_div(positions, helping)) * lanes, warp_size, block_size);
    chunks = ceil_div(positions, chunk);
  }

  int64_t blocks(const Convolution& shape) const { return shape.samples * bundles * patches * chunks; }

  static constexpr int64_t enough_blocks = 2048, helping = 16;
};

// A patch of the kernel, and where its rows and columns read for an output: -1 for zeros.
struct Patch {
  const Convolution& shape;
  int first[3];

  __device__ __forceinline__ Patch(const Convolution& shape, const Dealt& dealt, unsigned index) : shape(shape) {
    const unsigned row = index / dealt.columns;
    first[0] = row / dealt.rows;
    first[1] = row % dealt.rows * patch;
    first[2] = index % dealt.columns * patch;
  }

  __device__ __forceinline__ bool has(int dim, int k) const { return first[dim] + k < shape.kernel[dim]; }

  __device__ __forceinline__ int64_t read(int dim, int k, int64_t output) const {
    if (!has(dim, k)) return -1;
    const int64_t at = output * shape.stride[dim] - shape.padding[dim] + (first[dim] + k) * shape.dilation[dim];
    return inside(shape.border, at, shape.input[dim]);
  }

  __device__ __forceinline__ int64_t tap(int row, int column) const {
    return (first[0] * shape.kernel[1] + first[1] + row) * shape.kernel[2] + first[2] + column;
  }
};

template <typename N>
struct PatchSums {
  N of[patch][patch] = {};

  // What an output adds; x(position) is the input there.
  template <class Input>
  __device__ __forceinline__ void add(N grad, const Patch& at, const int64_t (&output)[3], const Input& x) {
    const int64_t depth = at.read(0, 0, output[0]);
    if (depth < 0) return;
    int64_t columns[patch];
#pragma unroll
    for (int k = 0; k < patch; ++k) columns[k] = at.read(2, k, output[2]);
#pragma unroll
    for (int r = 0; r < patch; ++r) {
      const int64_t row = at.read(1, r, output[1]);
      const int64_t start = (depth * at.shape.input[1] + row) * at.shape.input[2];
#pragma unroll
      for (int k = 0; k < patch; ++k)
        if (row >= 0 && columns[k] >= 0) of[r][k] += grad * x(start + columns[k]);
    }
  }

  // The first of the threads that stand `lanes` apart gets the sums of all.
  __device__ __forceinline__ void merge(int lanes) {
    __shared__ PatchSums of_thread[block_size];
    of_thread[threadIdx.x] = *this;
    for (int half = blockDim.x / 2; half >= lanes; half /= 2) {
      __syncthreads();
      if (threadIdx.x >= half) continue;
#pragma unroll
      for (int r = 0; r < patch; ++r)
#pragma unroll
        for (int k = 0; k < patch; ++k)
          of_thread[threadIdx.x].of[r][k] = of[r][k] += of_thread[threadIdx.x + half].of[r][k];
    }
  }
};

template <typename T>
__global__ void __maxnreg__(128) sum_taps(DynamicConv2dBackward args, Dealt dealt, Wide<T>* parts) {
  using N = Wide<T>;
  const Convolution& shape = args.shape;
  const Layout input = input_of(shape), output = output_of(shape);
  const int64_t bundle = blockIdx.x / dealt.chunks, chunk = blockIdx.x - bundle * dealt.chunks;
  const Patch at(shape, dealt, bundle % dealt.patches);
  const int lane = threadIdx.x % dealt.lanes, row = threadIdx.x / dealt.lanes;
  const int64_t sample = bundle / dealt.patches / dealt.bundles;
  const int64_t filter = bundle / dealt.patches % dealt.bundles * dealt.lanes + lane;
  const bool idle = filter >= dealt.filters;
  const int64_t out = idle ? 0 : filter / shape.in_channels;
  const int64_t in = idle ? 0 : out / shape.out_channels * shape.in_channels + filter % shape.in_channels;

  const Normed<T> x(args.input, args.mean, args.rstd, sample * input.channels + in);
  PatchSums<N> sums;
  const int64_t end = idle ? 0 : min(output.plane(), (chunk + 1) * dealt.chunk);
  for (int64_t p = chunk * dealt.chunk + row; p < end; p += blockDim.x / dealt.lanes) {
    int64_t place[3];
    output.find(p, place);
    const N grad = widen(static_cast<const T*>(args.grad)[output.offset(sample, out, p)]);
    sums.add(grad, at, place, [&](int64_t position) { return x.centred(input.offset(sample, in, position)); });
  }

  sums.merge(dealt.lanes);
  if (row > 0 || idle) return;
#pragma unroll
  for (int r = 0; r < patch; ++r)
#pragma unroll
    for (int k = 0; k < patch; ++k) {
      const N sum = sums.of[r][k] * x.rstd;
      if (!at.has(1, r) || !at.has(2, k)) continue;
      const int64_t weight = (sample * dealt.filters + filter) * taps_of(shape) + at.tap(r, k);
      if (parts) parts[chunk * shape.samples * dealt.filters * taps_of(shape) + weight] = sum;
      else static_cast<T*>(args.grad_weight)[weight] = narrow<T>(sum);
    }
}

template <typename T>
__global__ void __maxnreg__(64) merge_chunks(const Wide<T>* parts, int64_t chunks, int64_t count, T* grad_weight) {
  const int64_t weight = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (weight >= count) return;
  // Thousands of parts: one after the other in float32 they would lose three bits.
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += parts[chunk * count + weight];
  grad_weight[weight] = narrow<T>(static_cast<Wide<T>>(sum));
}

// -- Launches

template <class Body>
cudaError_t visit(Element element, const Body& body) {
  switch (element) {
    case Element::f64: return body(double());
    case Element::bf16: return body(__nv_bfloat16());
    case Element::f16: return body(__half());
    default: return body(float());
  }
}

// A thread for each of `count` numbers.
inline Plan plan_for(int64_t count) { return {{}, 0, ceil_div(count, block_size), block_size, 1, 0}; }

template <typename T, int K, bool folds>
cudaError_t launch_tiles(const TilePass& pass, const Queue& queue) {
  if (pass.channels_last) return launch_pixels<T, K, folds>(pass, queue);
  return launch_planes<T, K, folds>(pass, queue);
}

template <typename T>
cudaError_t launch_tiles(const TilePass& pass, const Queue& queue) {
  if (pass.kernel == 1) return launch_tiles<T, 1, false>(pass, queue);
  if (pass.folding == Border::zeros) return launch_tiles<T, 3, false>(pass, queue);
  return launch_tiles<T, 3, true>(pass, queue);
}

template <typename T>
cudaError_t gradient_of_input(const DynamicConv2dBackward& args, const Queue& queue) {
  if constexpr (sizeof(T) < 8)
    if (reverses(args.shape)) return launch_tiles<T>(tile_pass(args), queue);
  return launch(gather_gradient<T>, plan_for(input_of(args.shape).count()), queue, args);
}

template <typename T>
cudaError_t gradient_of_filters(const DynamicConv2dBackward& args, const Queue& queue) {
  using N = Wide<T>;
  const Dealt dealt(args.shape);
  const int64_t count = args.shape.samples * dealt.filters * taps_of(args.shape);
  N* const parts = dealt.chunks > 1 ? allocate<N>(queue, count * dealt.chunks) : nullptr;
  const Plan plan = {{}, 0, dealt.blocks(args.shape), dealt.threads, 1, 0};
  const cudaError_t error = launch(sum_taps<T>, plan, queue, args, dealt, parts);
  if (error || !parts) return error;
  return launch(merge_chunks<T>, plan_for(count), queue, parts, dealt.chunks, count, static_cast<T*>(args.grad_weight));
}

// The sums of the planes, which a scale_shift's backward finds too.
cudaError_t gradient_of_bias(const DynamicConv2dBackward& args, const Queue& queue) {
  const Planes planes = output_of(args.shape).planes(args.shape.element);
  ScaleShiftBackward sums = {};
  sums.planes = planes;
  sums.grad = sums.input = args.grad;
  sums.grad_scale = queue.allocate(queue.context, planes.samples * planes.channels * sizeof(double));
  sums.grad_shift = args.grad_bias;
  return run(sums, queue);
}

// From the gradient of the normalised input, in place: a thread reads what it writes before.
cudaError_t gradient_through_norm(const DynamicConv2dBackward& args, const Queue& queue) {
  InstanceNormBackward norm = {};
  norm.planes = input_of(args.shape).planes(args.shape.element);
  norm.rule = args.rule;
  norm.alpha = 1;
  norm.grad = norm.grad_input = args.grad_input;
  norm.input = args.input;
  norm.mean = args.mean;
  norm.rstd = args.rstd;
  return run(norm, queue);
}

}  // namespace

cudaError_t run(const DynamicConv2d& args, const Queue& queue) {
  const Convolution& shape = args.shape;
  if (args.mean) {
    const InstanceStats stats = {input_of(shape).planes(shape.element), args.rule, args.input, args.mean, args.rstd};
    if (const cudaError_t error = run(stats, queue)) return error;
  }
  const int64_t count = output_of(shape).count();
  if (count == 0) return cudaSuccess;
  return visit(shape.element, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) < 8)
      if (tiles_fit(shape)) return launch_tiles<T>(tile_pass(args), queue);
    return launch(gather<T>, plan_for(count), queue, args);
  });
}

cudaError_t run(const DynamicConv2dBackward& args, const Queue& queue) {
  return visit(args.shape.element, [&](auto t) {
    using T = decltype(t);
    cudaError_t error = cudaSuccess;
    if (args.grad_input) {
      error = gradient_of_input<T>(args, queue);
      if (!error && args.mean) error = gradient_through_norm(args, queue);
    }
    if (!error && args.grad_weight) error = gradient_of_filters<T>(args, queue);
    if (!error && args.grad_bias) error = gradient_of_bias(args, queue);
    return error;
  });
}

}  // namespace fastnorm::cuda
