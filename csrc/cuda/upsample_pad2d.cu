// upsample_pad2d: one read of the input and one write of the output, and the reverse backward; no flops, an addition for
// each number of the gradient.
//
// A row is one of the depth times height of a map; its pixels are single numbers in NCHW, all channels in channels_last.
// Forward, a thread writes 16 bytes of a row of the output, as they lie on the boundaries of memory, and gathers what they
// are; numbers are moved as they are, by their size. Backward, a thread gathers who was made of its number, or of 16 bytes
// of channels.

#include <array>

#include "launch.cuh"
#include "window.cuh"

namespace fastnorm::cuda {
namespace {

// Along one dimension; `upsampled` counts without the padding. Indices are of 32 bits where the map allows it: a division
// of 64 takes longer than the memory.
template <typename Index>
struct Line {
  Index source, scale, before, upsampled, padded;

  explicit Line(const Upsampling& shape, int dim)
      : source(shape.input[dim]),
        scale(shape.scale[dim]),
        before(shape.padding[dim]),
        upsampled(shape.input[dim] * shape.scale[dim]),
        padded(shape.output[dim]) {}

  // The source position that a padded one is read at, -1 for a zero.
  __device__ __forceinline__ Index source_of(Index position, Border border) const {
    const Index at = inside(border, position - before, upsampled);
    return at < 0 || scale == 1 ? at : at / scale;
  }
};

// The padded positions that a source position became: its own, then their images in front, then those behind.
template <typename Index>
struct Readers {
  Index own, in_front, behind, end_of_own, end_of_front, count;

  __device__ __forceinline__ Readers(const Line<Index>& line, Index source, Border border) {
    const Index begin = source * line.scale, end = begin + line.scale, size = line.upsampled;
    const Index after = line.padded - line.before - size;
    // Of the upsampled map: where images in front begin and end, and those behind.
    Index front = 0, front_end = 0, back = size, back_end = size;
    if (border == Border::reflect) {
      front = 1 - end, front_end = 1 - begin;
      back = 2 * size - 1 - end, back_end = 2 * size - 1 - begin;
    } else if (border == Border::circular) {
      front = begin - size, front_end = end - size;
      back = begin + size, back_end = end + size;
    } else if (border == Border::replicate) {
      if (begin == 0) front = -line.before;
      if (end == size) back_end = size + after;
    }
    front = max(front, -line.before), front_end = min(front_end, Index(0));
    back = max(back, size), back_end = min(back_end, size + after);
    end_of_own = line.scale;
    end_of_front = end_of_own + max(front_end - front, Index(0));
    count = end_of_front + max(back_end - back, Index(0));
    own = line.before + begin;
    in_front = line.before + front - end_of_own;
    behind = line.before + back - end_of_front;
  }

  // body(position) for each of them. Where they begin is chosen anew each time: a table would not be in registers.
  template <class Body>
  __device__ __forceinline__ void each(const Body& body) const {
#pragma unroll 1
    for (Index i = 0; i < count; ++i) body(i + (i < end_of_own ? own : i < end_of_front ? in_front : behind));
  }
};

// A map as the kernels see it, and how its rows are dealt: `columns` threads to a row.
template <typename Index>
struct Cut {
  Line<Index> depth, height, width;
  Index planes, pixel;
  int columns;
  Border border;

  Cut(const Upsampling& shape)
      : depth(shape, 0),
        height(shape, 1),
        width(shape, 2),
        planes(shape.channels_last ? shape.samples : shape.samples * shape.channels),
        pixel(shape.channels_last ? shape.channels : 1),
        border(shape.border) {}
};

template <typename U, int W, bool whole, typename Index>
__global__ void __maxnreg__(64) upsample_and_pad(Cut<Index> cut, const U* input, U* output) {
  const Index rows_of_block = blockDim.x / cut.columns;
  const Index row = blockIdx.x * rows_of_block + threadIdx.x / cut.columns;
  const Index rows_of_plane = cut.depth.padded * cut.height.padded;
  if (row >= cut.planes * rows_of_plane) return;
  const Index plane = row / rows_of_plane, in_plane = row - plane * rows_of_plane;
  const Index above = in_plane / cut.height.padded;
  const Index z = cut.depth.source_of(above, cut.border);
  const Index y = cut.height.source_of(in_plane - above * cut.height.padded, cut.border);
  const bool zeros = z < 0 || y < 0;
  const U* const source =
      input + ((int64_t(plane) * cut.depth.source + z) * cut.height.source + y) * cut.width.source * cut.pixel;
  const Index length = cut.width.padded * cut.pixel;
  const int64_t start = int64_t(row) * length;
  // Whole vectors begin with the row; others on the boundary of memory before it.
  const Index skew = whole ? 0 : reinterpret_cast<uintptr_t>(output + start) % sizeof(Raw<U, W>) / sizeof(U);
  for (Index v = threadIdx.x % cut.columns * W; v < length + skew; v += cut.columns * W) {
    if constexpr (whole) {
      const Index x = v / cut.pixel;
      const Index from = zeros ? -1 : cut.width.source_of(x, cut.border);
      const Raw<U, W> nothing = {};
      store<U, W>(
          output + start + v, from < 0 ? nothing : load<U, W>(source + int64_t(from) * cut.pixel + (v - x * cut.pixel)));
    } else {
      U numbers[W];
      const Index first = max(v - skew, Index(0)), last = min(v - skew + W, length);
      Index x = first / cut.pixel, channel = first - x * cut.pixel;
      Index from = zeros ? -1 : cut.width.source_of(x, cut.border);
#pragma unroll
      for (int e = 0; e < W; ++e) {
        const Index at = v - skew + e;
        numbers[e] = U();
        if (at < first || at >= last) continue;
        if (from >= 0) numbers[e] = source[int64_t(from) * cut.pixel + channel];
        if (++channel == cut.pixel && at + 1 < last) {
          channel = 0;
          from = zeros ? -1 : cut.width.source_of(++x, cut.border);
        }
      }
      if (last - first == W) {
        Raw<U, W> raw;
        memcpy(&raw, numbers, sizeof raw);
        store<U, W>(output + start + first, raw);
      } else {
#pragma unroll
        for (int e = 0; e < W; ++e)
          if (v - skew + e >= first && v - skew + e < last) output[start + (v - skew + e)] = numbers[e];
      }
    }
  }
}

template <typename T, int W, typename Index>
__global__ void __maxnreg__(sizeof(Index) == 8 ? 96 : 64) sum_of_readers(Cut<Index> cut, const T* grad, T* grad_input) {
  using N = Wide<T>;
  const Index rows_of_block = blockDim.x / cut.columns;
  const Index row = blockIdx.x * rows_of_block + threadIdx.x / cut.columns;
  const Index rows_of_plane = cut.depth.source * cut.height.source;
  if (row >= cut.planes * rows_of_plane) return;
  const Index plane = row / rows_of_plane, in_plane = row - plane * rows_of_plane;
  const Index above = in_plane / cut.height.source;
  const Readers<Index> deep(cut.depth, above, cut.border);
  const Readers<Index> high(cut.height, in_plane - above * cut.height.source, cut.border);
  const Index length = cut.width.source * cut.pixel;
  for (Index v = threadIdx.x % cut.columns * W; v < length; v += cut.columns * W) {
    const Index x = v / cut.pixel, channel = v - x * cut.pixel;
    const Readers<Index> wide(cut.width, x, cut.border);
    N sums[W] = {};
    deep.each([&](Index z) {
      high.each([&](Index y) {
        const int64_t of_rows = (int64_t(plane) * cut.depth.padded + z) * cut.height.padded + y;
        const T* const from = grad + of_rows * cut.width.padded * cut.pixel + channel;
        wide.each([&](Index at) {
          N numbers[W];
          unpack<T, W>(load<T, W>(from + int64_t(at) * cut.pixel), numbers);
#pragma unroll
          for (int e = 0; e < W; ++e) sums[e] += numbers[e];
        });
      });
    });
    store<T, W>(grad_input + int64_t(row) * length + v, pack<T, W>(sums));
  }
}

// -- Launches

// As many threads for a row as have something to do, and a block of them for several rows.
template <typename Index, class Kernel, class... Maps>
cudaError_t launch_rows(
    Kernel kernel, const Upsampling& shape, const int64_t (&size)[3], int W, const Queue& queue, Maps... maps) {
  Cut<Index> cut(shape);
  const int64_t vectors = ceil_div(size[2] * cut.pixel, W) + 1;
  cut.columns = static_cast<int>(std::min<int64_t>(power_of_two(vectors), block_size));
  const int64_t rows = cut.planes * size[0] * size[1];
  const Plan plan = {{}, 0, ceil_div(rows, block_size / cut.columns), block_size, 1, 0};
  return launch(kernel, plan, queue, cut, maps...);
}

// Whether rows and the numbers of a row can be counted in 32 bits, with room for a row of threads and a border.
bool counts_in_32_bits(const Upsampling& shape) {
  const int64_t pixel = shape.channels_last ? shape.channels : 1;
  const int64_t planes = shape.samples * shape.channels / pixel;
  constexpr int64_t most = INT32_MAX / 4;
  return planes * shape.output[0] * shape.output[1] < most && shape.output[2] * pixel < most && shape.output[0] < most;
}

bool empty(const Upsampling& shape, const int64_t (&size)[3]) {
  return shape.samples * shape.channels * size[0] * size[1] * size[2] == 0;
}

// Whether every pixel of both maps is made of whole vectors.
bool moves_vectors(const Upsampling& shape, int W, const void* from, const void* to) {
  return shape.channels_last && shape.channels % W == 0 && aligned(std::array<const void*, 2>{from, to});
}

template <typename U>
cudaError_t run_as(const UpsamplePad2d& args, const Queue& queue) {
  constexpr int W = 16 / sizeof(U);
  const auto launch_with = [&](auto index) {
    using Index = decltype(index);
    const bool whole = moves_vectors(args.shape, W, args.input, args.output);
    const auto kernel = whole ? upsample_and_pad<U, W, true, Index> : upsample_and_pad<U, W, false, Index>;
    return launch_rows<Index>(
        kernel, args.shape, args.shape.output, W, queue, static_cast<const U*>(args.input), static_cast<U*>(args.output));
  };
  return counts_in_32_bits(args.shape) ? launch_with(int32_t()) : launch_with(int64_t());
}

template <typename T>
cudaError_t run_as(const UpsamplePad2dBackward& args, const Queue& queue) {
  constexpr int V = 16 / sizeof(T);
  const bool vectors = moves_vectors(args.shape, V, args.grad, args.grad_input);
  const auto launch_with = [&](auto index) {
    using Index = decltype(index);
    const auto kernel = vectors ? sum_of_readers<T, V, Index> : sum_of_readers<T, 1, Index>;
    return launch_rows<Index>(
        kernel, args.shape, args.shape.input, vectors ? V : 1, queue, static_cast<const T*>(args.grad),
        static_cast<T*>(args.grad_input));
  };
  return counts_in_32_bits(args.shape) ? launch_with(int32_t()) : launch_with(int64_t());
}

}  // namespace

cudaError_t run(const UpsamplePad2d& args, const Queue& queue) {
  if (empty(args.shape, args.shape.output)) return cudaSuccess;
  switch (args.shape.element) {
    case Element::f64: return run_as<unsigned long long>(args, queue);
    case Element::f32: return run_as<unsigned>(args, queue);
    default: return run_as<unsigned short>(args, queue);
  }
}

cudaError_t run(const UpsamplePad2dBackward& args, const Queue& queue) {
  if (empty(args.shape, args.shape.input)) return cudaSuccess;
  switch (args.shape.element) {
    case Element::f64: return run_as<double>(args, queue);
    case Element::bf16: return run_as<__nv_bfloat16>(args, queue);
    case Element::f16: return run_as<__half>(args, queue);
    default: return run_as<float>(args, queue);
  }
}

}  // namespace fastnorm::cuda
