// instance_stats: one read of the map, 4 flops an element.
//
// A team copies a chunk to shared memory and takes its moments from there. Where a block or a cluster can hold a plane,
// they are its statistics; elsewhere a second kernel merges the chunks.

#include "reduce.cuh"

namespace fastnorm::cuda {
namespace {

// Vectors in flight per thread where a plane is taken in chunks: 32 KB a block.
constexpr int depth = 8;

template <typename T, int W, int P>
__global__ void __maxnreg__(registers<P>)
    stats_of_chunks(const void* input, Split split, Moments<Wide<T>, 1>* parts, FinishStats<Wide<T>> finish) {
  const Walk<W, P> walk(split);
  Held<T, W> x(0, split.depth);
  Moments<Wide<T>, P> moments = {};
  for (int v = 0; v < walk.count; v += split.depth) {
    const int count = min(split.depth, walk.count - v);
    x.fill(input, walk, v, count);
    wait_for_copies();
    moments.merge(moments_of<P>(x, count));
  }
  if constexpr (P == 1)
    if (walk.edge >= 0) moments.merge(moments_of(edge_of<T>(input, walk)));
  deliver(merge_team<W, P>(moments, split), walk, split, parts, finish);
  leave_team();
}

}  // namespace

cudaError_t run(const InstanceStats& args, const Queue& queue) {
  return visit(args.planes, std::array{args.input}, [&](auto form, const Access& access) {
    using F = decltype(form);
    using N = Wide<typename F::T>;
    static DeviceOf device_of;
    const auto kernel = stats_of_chunks<typename F::T, F::W, F::P>;
    Device device;
    if (const cudaError_t error = device_of(kernel, device)) return error;
    Plan plan;
    if (!resident_plan(args.planes, access, 1, device, plan))
      plan = streaming_plan(args.planes, access, depth, true, F::W * sizeof(typename F::T));
    const FinishStats<N> finish(args.rule, args.planes, args.mean, args.rstd);
    return launch_reduction<Moments<N, 1>>(kernel, args.planes, plan, queue, finish, args.input);
  });
}

}  // namespace fastnorm::cuda
