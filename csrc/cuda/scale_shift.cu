// scale_shift: one read and one write of a map, one read more for each of gamma and residual; 3 flops an element.
//
// A thread copies a few vectors to shared memory, all at once, and writes from there; the device's many blocks are the
// loop. The end of the map goes first, for where a pass before this one has read the map, its end is still in cache.

#include "reduce.cuh"

namespace fastnorm::cuda {
namespace {

// Vectors of each map in flight per thread: 16 KB a block.
constexpr int depth = 4;

template <typename T, int W, int P>
__global__ void __maxnreg__(registers<P>) forward_of_chunks(ForwardPass pass, Split split) {
  const Walk<W, P> walk(split);
  Held<T, W> input(0, split.depth);
  input.fill(pass.input, walk, 0, walk.count);
  Affine<Wide<T>, P> affine;
  affine.load_all(pass.transform, walk);
  wait_for_copies();
  write_outputs(input, edge_of<T>(pass.input, walk), walk, pass.transform, affine, pass.output);
}

// Where sums are wanted a thread takes several helpings, so that the parts are few.
template <typename T, int W, int P>
__global__ void __maxnreg__(P > 4 ? 168 : 112)
    backward_of_chunks(BackwardPass pass, Split split, Sums<Wide<T>, 1>* parts, FinishSums<Wide<T>> finish) {
  using N = Wide<T>;
  const Walk<W, P> walk(split);
  Held<T, W> grad(0, split.depth), input(1, split.depth);
  Affine<N, P> affine;
  affine.load_all(pass.transform, walk);
  Sums<N, P> sums = {}, from_statistics;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    from_statistics.scale[p] = parameter(pass.input_scale, walk.sample, walk.channel + p, N(0));
    from_statistics.shift[p] = parameter(pass.input_shift, walk.sample, walk.channel + p, N(0));
  }
  const auto body = [&](const auto& gradient, int64_t at) {
    sums.add(gradient);
    write_gradient<T>(pass.maps, at, gradient, affine, from_statistics);
  };
  for (int v = 0; v < walk.count; v += split.depth) {
    const int count = min(split.depth, walk.count - v);
    grad.fill(pass.grad, walk, v, count);
    input.fill(pass.input, walk, v, count);
    wait_for_copies();
    each_gradient(grad, input, walk, v, count, pass.transform, affine, body);
  }
  edge_gradient(edge_of<T>(pass.grad, walk), edge_of<T>(pass.input, walk), walk, pass.transform, affine, body);
  if (finish.wanted()) deliver(merge_team<W, P>(sums, split), walk, split, parts, finish);
}

}  // namespace

cudaError_t run(const ForwardPass& pass, const Queue& queue) {
  return visit(pass.planes, maps_of(pass), [&](auto form, const Access& access) {
    using F = decltype(form);
    Plan plan = streaming_plan(pass.planes, access, depth, false, F::W * sizeof(typename F::T));
    plan.split.reversed = true;
    return launch(forward_of_chunks<typename F::T, F::W, F::P>, plan, queue, pass, plan.split);
  });
}

cudaError_t run(const BackwardPass& pass, const Queue& queue) {
  return visit(pass.planes, maps_of(pass), [&](auto form, const Access& access) {
    using F = decltype(form);
    using N = Wide<typename F::T>;
    const auto kernel = backward_of_chunks<typename F::T, F::W, F::P>;
    const FinishSums<N> finish(pass);
    Plan plan = streaming_plan(pass.planes, access, depth, finish.wanted(), 2 * F::W * sizeof(typename F::T));
    plan.split.reversed = !finish.wanted();
    return launch_reduction<Sums<N, 1>>(kernel, pass.planes, plan, queue, finish, pass);
  });
}

cudaError_t run(const ScaleShift& args, const Queue& queue) {
  const Transform transform = {args.mean, {}, args.scale, args.shift, 1.0, args.activation, args.maps};
  return run(ForwardPass{args.planes, transform, args.input, args.output}, queue);
}

cudaError_t run(const ScaleShiftBackward& args, const Queue& queue) {
  BackwardPass pass = {};
  pass.planes = args.planes;
  pass.transform = {args.mean, {}, args.scale, args.shift, 1.0, args.activation, args.maps};
  pass.grad = args.grad;
  pass.input = args.input;
  pass.input_scale = args.input_scale;
  pass.input_shift = args.input_shift;
  pass.maps = {args.grad_input, args.grad_gamma, args.grad_residual};
  pass.sums.weight = args.grad_scale;
  pass.sums.bias = args.grad_shift;
  return run(pass, queue);
}

}  // namespace fastnorm::cuda
