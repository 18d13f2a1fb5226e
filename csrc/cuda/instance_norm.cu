// instance_norm: one read and one write of the map, one read more for each of gamma and residual; 7 flops an element.
// Backward: two reads and one write.
//
// Planes are held in shared memory, so each is read once: small ones side by side in a block, by a few lanes or a warp
// each; larger ones by a block, or by the blocks of a cluster, which read what the others found out of their memory. A
// plane that no cluster can hold takes two passes, the statistics first; what is still in cache is not read again.

#include "reduce.cuh"

namespace fastnorm::cuda {
namespace {

template <typename T, int W, int P>
__global__ void __maxnreg__(registers<P>)
    forward_of_planes(ForwardPass pass, Split split, FinishStats<Wide<T>> finish) {
  using N = Wide<T>;
  const Walk<W, P> walk(split);
  Held<T, W> x(0, split.depth);
  x.fill(pass.input, walk, 0, walk.count);
  const T edge = edge_of<T>(pass.input, walk);
  Affine<N, P> affine;
  affine.load(pass.transform, walk);
  wait_for_copies();

  Moments<N, P> moments = moments_of<P>(x, walk.count);
  if constexpr (P == 1)
    if (walk.edge >= 0) moments.merge(moments_of(edge));
  moments = merge_team<W, P>(moments, split);
  deliver(moments, walk, split, static_cast<Moments<N, 1>*>(nullptr), finish);

#pragma unroll
  for (int p = 0; p < P; ++p)
    affine.set(p, mean_of(moments.plane(p)), rstd_of(moments.plane(p), finish.rule, split.size), pass.transform.alpha);
  write_outputs(x, edge, walk, pass.transform, affine, pass.output);
  leave_team();
}

template <typename T, int W, int P>
__global__ void __maxnreg__(registers<P>)
    backward_of_planes(BackwardPass pass, Split split, FinishSums<Wide<T>> finish) {
  using N = Wide<T>;
  const Walk<W, P> walk(split);
  Held<T, W> grad(0, split.depth), input(1, split.depth);
  grad.fill(pass.grad, walk, 0, walk.count);
  input.fill(pass.input, walk, 0, walk.count);
  const T edge_grad = edge_of<T>(pass.grad, walk), edge_input = edge_of<T>(pass.input, walk);
  Affine<N, P> affine;
  affine.load_all(pass.transform, walk);
  wait_for_copies();
  const auto each = [&](const auto& body) {
    each_gradient(grad, input, walk, 0, walk.count, pass.transform, affine, body);
    edge_gradient(edge_grad, edge_input, walk, pass.transform, affine, body);
  };

  Sums<N, P> sums = {};
  each([&](const auto& gradient, int64_t) { sums.add(gradient); });
  sums = merge_team<W, P>(sums, split);
  deliver(sums, walk, split, static_cast<Sums<N, 1>*>(nullptr), finish);

  Sums<N, P> from_statistics;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    const Sums<N, 1> of_plane = finish.from_statistics(walk.plane + p, sums.plane(p));
    from_statistics.scale[p] = of_plane.scale[0];
    from_statistics.shift[p] = of_plane.shift[0];
  }
  each([&](const auto& gradient, int64_t at) { write_gradient<T>(pass.maps, at, gradient, affine, from_statistics); });
  leave_team();
}

cudaError_t in_two_passes(ForwardPass pass, const VarianceRule& rule, void* mean, void* rstd, const Queue& queue) {
  if (const cudaError_t error = run(InstanceStats{pass.planes, rule, pass.input, mean, rstd}, queue)) return error;
  pass.transform.mean = statistic(pass.planes, mean);
  pass.transform.rstd = statistic(pass.planes, rstd);
  return run(pass, queue);
}

// The sums and what they say of the statistics, then the maps.
template <typename N>
cudaError_t in_two_passes(const BackwardPass& pass, const Queue& queue) {
  const int64_t planes = pass.planes.samples * pass.planes.channels;
  N* const scales = allocate<N>(queue, 2 * planes);
  BackwardPass sums = pass, maps = pass;
  sums.maps = {};
  sums.sums.input_scale = scales;
  sums.sums.input_shift = scales + planes;
  if (const cudaError_t error = run(sums, queue)) return error;
  maps.sums = {};
  maps.input_scale = statistic(pass.planes, scales);
  maps.input_shift = statistic(pass.planes, scales + planes);
  return run(maps, queue);
}

}  // namespace

cudaError_t run(const InstanceNorm& args, const Queue& queue) {
  ForwardPass pass = {};
  pass.planes = args.planes;
  pass.transform = {{}, {}, args.weight, args.bias, args.alpha, args.activation, args.maps};
  pass.input = args.input;
  pass.output = args.output;
  return visit(args.planes, maps_of(pass), [&](auto form, const Access& access) {
    using F = decltype(form);
    if constexpr (F::W > 1) {
      static DeviceOf device_of;
      const auto kernel = forward_of_planes<typename F::T, F::W, F::P>;
      Device device;
      if (const cudaError_t error = device_of(kernel, device)) return error;
      Plan plan;
      if (resident_plan(args.planes, access, 1, device, plan)) {
        const FinishStats<Wide<typename F::T>> finish(args.rule, args.planes, args.mean, args.rstd);
        return launch(kernel, plan, queue, pass, plan.split, finish);
      }
    }
    return in_two_passes(pass, args.rule, args.mean, args.rstd, queue);
  });
}

cudaError_t run(const InstanceNormBackward& args, const Queue& queue) {
  const Planes& planes = args.planes;
  BackwardPass pass = {};
  pass.planes = planes;
  pass.transform.mean = statistic(planes, args.mean);
  pass.transform.rstd = statistic(planes, args.rstd);
  pass.transform.weight = args.weight;
  pass.transform.bias = args.bias;
  pass.transform.alpha = args.alpha;
  pass.transform.activation = args.activation;
  pass.transform.maps = args.maps;
  pass.grad = args.grad;
  pass.input = args.input;
  pass.maps = {args.grad_input, args.grad_gamma, args.grad_residual};
  pass.sums = {args.grad_weight, args.grad_bias, nullptr, nullptr, args.rule};
  return visit(planes, maps_of(pass), [&](auto form, const Access& access) {
    using F = decltype(form);
    using N = Wide<typename F::T>;
    if constexpr (F::W > 1) {
      static DeviceOf device_of;
      const auto kernel = backward_of_planes<typename F::T, F::W, F::P>;
      Device device;
      if (const cudaError_t error = device_of(kernel, device)) return error;
      Plan plan;
      if (resident_plan(planes, access, 2, device, plan))
        return launch(kernel, plan, queue, pass, plan.split, FinishSums<N>(pass));
    }
    return in_two_passes<N>(pass, queue);
  });
}

}  // namespace fastnorm::cuda
