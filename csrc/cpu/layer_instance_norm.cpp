// output = act((rho * (x - mean) * rstd + (1 - rho) * (x - layer_mean) * layer_rstd) * weight + bias + residual), and its
// backward.
//
// Forward: two reads and one write, a read more for a residual; 7 flops an element. No plane can be written before all
// planes of its sample are read. Backward: four reads and one write.

#include "layer_blend.h"
#include "sweep.h"

namespace fastnorm::FASTNORM_ISA {

namespace {

// The blends of a map's planes, one sample after another: body(plane, blend), with what a sample's channels sum to.
template <class Call, class Mean, class Var, class Body>
void for_each_sample(const Call& call, const LayerRule& rule, const Mean& mean, const Var& var, const Body& body) {
  const int64_t channels = call.planes.channels;
  for (int64_t first = 0; first < call.planes.samples * channels; first += channels) {
    const auto sum = [&](const auto& term) {
      double total = 0;
      for (int64_t c = 0; c < channels; ++c) total += term(c);
      return total;
    };
    const Layer layer = rule.layer([&](int64_t c) { return mean(first + c); }, [&](int64_t c) { return var(first + c); }, sum);
    const auto blend = [&](int64_t c) {
      const int64_t plane = first + c;
      return Blend{
          read(call.rho, call.planes, plane, 0),
          read(call.weight, call.planes, plane, 1),
          read(call.bias, call.planes, plane, 0),
          mean(plane) - layer.mean,
          rule.rstd(var(plane)),
          layer.rstd};
    };
    body(first, blend, sum);
  }
}

template <class W>
void set(const Coefficients<W>& coefs, int64_t plane, const Blend& blend, double mean) {
  // Elements are centred on the rounded mean; what the rounding took, the shift gives back.
  const W center = static_cast<W>(mean);
  coefs.center[plane] = center;
  coefs.scale[plane] = static_cast<W>(blend.scale());
  coefs.shift[plane] = static_cast<W>(blend.shift() + blend.scale() * (center - mean));
}

}  // namespace

void layer_instance_norm(const LayerInstanceNorm& call, const Threads& threads) {
  with_forward(call.planes.element, call.input, call.maps, call.activation, [&](const auto& forward) {
    using T = typename std::decay_t<decltype(forward)>::T;
    using W = Wide<T>;
    const CoefficientBuffer<W> buffer(call.planes);
    const Coefficients<W> coefs = buffer.get();
    const int64_t planes = call.planes.samples * call.planes.channels;
    const Buffer<double> means(planes), vars(planes);
    const auto finish_statistics = [&](int64_t plane, const Sums<double>& moments) {
      means.get()[plane] = moments.first;
      vars.get()[plane] = moments.second / call.planes.size;
      static_cast<W*>(call.mean)[plane] = static_cast<W>(means.get()[plane]);
      static_cast<W*>(call.var)[plane] = static_cast<W>(vars.get()[plane]);
    };
    const auto write_nothing = [](const Run&, const auto&) {};
    sweep<T>(call.planes, threads, coefs, Moments<T>{forward.input}, finish_statistics, write_nothing, true, false);

    const auto mean = [&](int64_t plane) { return means.get()[plane]; };
    const auto var = [&](int64_t plane) { return vars.get()[plane]; };
    for_each_sample(call, {call.planes, call.rule}, mean, var, [&](int64_t first, const auto& blend, const auto&) {
      for (int64_t c = 0; c < call.planes.channels; ++c) set(coefs, first + c, blend(c), mean(first + c));
    });

    const Output<T> output(call.output, call.planes);
    const auto apply_run = [&](const Run& run, const auto& c) { apply(forward, output, run, c); };
    const auto nothing = [](int64_t, const Sums<double>&) {};
    sweep<T>(call.planes, threads, coefs, NoReduction<T>{}, nothing, apply_run, false, true);
  });
}

void layer_instance_norm_backward(const LayerInstanceNormBackward& call, const Threads& threads) {
  with_forward(call.planes.element, call.input, call.maps, call.activation, [&](const auto& forward) {
    using T = typename std::decay_t<decltype(forward)>::T;
    using W = Wide<T>;
    const CoefficientBuffer<W> buffer(call.planes);
    const Coefficients<W> coefs = buffer.get();
    const LayerRule rule(call.planes, call.rule);
    const auto mean = [&](int64_t plane) -> double { return static_cast<const W*>(call.mean)[plane]; };
    const auto var = [&](int64_t plane) -> double { return static_cast<const W*>(call.var)[plane]; };
    for_each_sample(call, rule, mean, var, [&](int64_t first, const auto& blend, const auto&) {
      for (int64_t c = 0; c < call.planes.channels; ++c) set(coefs, first + c, blend(c), mean(first + c));
    });

    const T* grad = static_cast<const T*>(call.grad);
    const Buffer<PlaneSums> sums(call.planes.samples * call.planes.channels);
    const auto finish_sums = [&](int64_t plane, const Sums<double>& total) {
      sums.get()[plane] = {total.first, total.second};
    };
    const auto write_nothing = [](const Run&, const auto&) {};
    const GradientSums<std::decay_t<decltype(forward)>> reduction{forward, grad};
    sweep<T>(call.planes, threads, coefs, reduction, finish_sums, write_nothing, true, false);

    for_each_sample(call, rule, mean, var, [&](int64_t first, const auto& blend, const auto& sum) {
      const auto sums_of = [&](int64_t c) { return sums.get()[first + c]; };
      const LayerGradient layer = rule.layer_gradient(blend, sums_of, sum);
      for (int64_t c = 0; c < call.planes.channels; ++c) {
        const int64_t plane = first + c;
        const BlendGradient gradient = rule.gradient(blend(c), sums_of(c), layer);
        static_cast<W*>(call.grad_rho)[plane] = static_cast<W>(gradient.rho);
        static_cast<W*>(call.grad_weight)[plane] = static_cast<W>(gradient.weight);
        static_cast<W*>(call.grad_bias)[plane] = static_cast<W>(gradient.bias);
        coefs.input_scale[plane] = static_cast<W>(gradient.input_scale);
        coefs.input_shift[plane] = static_cast<W>(gradient.input_shift);
      }
    });

    const Gradients<T> gradients(call.grad_input, nullptr, call.grad_residual, call.planes);
    const auto apply_run = [&](const Run& run, const auto& c) { apply_backward(forward, grad, gradients, run, c); };
    const auto nothing = [](int64_t, const Sums<double>&) {};
    sweep<T>(call.planes, threads, coefs, NoReduction<T>{}, nothing, apply_run, false, true);
  });
}

}  // namespace fastnorm::FASTNORM_ISA
