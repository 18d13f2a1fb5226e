// output = act((alpha * ((x - mean) * rstd * weight + bias) + (1 - alpha) * x) * (1 + gamma) + residual), and its backward.
//
// Forward: one read and one write, a read more for each map; 7 flops an element. Backward: two reads (grad, x) and one
// write; 14 flops. A plane that fits in L2 is read from memory once and applied from cache.

#include <type_traits>

#include "statistics.h"
#include "sweep.h"

namespace fastnorm::FASTNORM_ISA {

void instance_norm(const InstanceNorm& call, const Threads& threads) {
  with_forward(call.planes.element, call.input, call.maps, call.activation, [&](const auto& forward) {
    using T = typename std::decay_t<decltype(forward)>::T;
    using W = Wide<T>;
    const CoefficientBuffer<W> buffer(call.planes);
    const Coefficients<W> coefs = buffer.get();

    const auto finish = [&](int64_t plane, const Sums<double>& moments) {
      const double mean = moments.first, rstd = rstd_of(moments, call.rule, call.planes.size);
      const double gain = call.alpha * rstd * read(call.weight, call.planes, plane, 1);
      // Elements are centred on the rounded mean; what the rounding took, the shift gives back.
      const double center = static_cast<W>(mean);
      coefs.center[plane] = static_cast<W>(mean);
      coefs.scale[plane] = static_cast<W>(gain + (1 - call.alpha));
      coefs.shift[plane] = static_cast<W>(
          gain * (center - mean) + call.alpha * read(call.bias, call.planes, plane, 0) + (1 - call.alpha) * center);
      static_cast<W*>(call.mean)[plane] = static_cast<W>(mean);
      static_cast<W*>(call.rstd)[plane] = static_cast<W>(rstd);
    };
    const Output<T> output(call.output, call.planes);
    const auto apply_run = [&](const Run& run, const auto& c) { apply(forward, output, run, c); };
    sweep<T>(call.planes, threads, coefs, Moments<T>{forward.input}, finish, apply_run);
  });
}

void instance_norm_backward(const InstanceNormBackward& call, const Threads& threads) {
  with_forward(call.planes.element, call.input, call.maps, call.activation, [&](const auto& forward) {
    using T = typename std::decay_t<decltype(forward)>::T;
    using W = Wide<T>;
    const CoefficientBuffer<W> buffer(call.planes);
    const Coefficients<W> coefs = buffer.get();
    const W *means = static_cast<const W*>(call.mean), *rstds = static_cast<const W*>(call.rstd);
    const auto gain_of = [&](int64_t plane) { return call.alpha * read(call.weight, call.planes, plane, 1); };
    for (int64_t plane = 0; plane < call.planes.samples * call.planes.channels; ++plane) {
      const double bias = read(call.bias, call.planes, plane, 0);
      coefs.center[plane] = means[plane];
      coefs.scale[plane] = static_cast<W>(gain_of(plane) * rstds[plane] + (1 - call.alpha));
      coefs.shift[plane] = static_cast<W>(call.alpha * bias + (1 - call.alpha) * means[plane]);
    }

    const double size = static_cast<double>(call.planes.size);
    const auto finish = [&](int64_t plane, const Sums<double>& sums) {
      const double gain = gain_of(plane), rstd = rstds[plane];
      coefs.input_scale[plane] = static_cast<W>(gain * sums.first * rstd_slope(rstd, call.rule, size));
      coefs.input_shift[plane] = static_cast<W>(-gain * rstd * sums.second / size);
      static_cast<W*>(call.grad_weight)[plane] = static_cast<W>(call.alpha * rstd * sums.first);
      static_cast<W*>(call.grad_bias)[plane] = static_cast<W>(call.alpha * sums.second);
    };
    const T* grad = static_cast<const T*>(call.grad);
    const Gradients<T> gradients(call.grad_input, call.grad_gamma, call.grad_residual, call.planes);
    const auto apply_run = [&](const Run& run, const auto& c) { apply_backward(forward, grad, gradients, run, c); };
    const GradientSums<std::decay_t<decltype(forward)>> sums{forward, grad};
    sweep<T>(call.planes, threads, coefs, sums, finish, apply_run);
  });
}

}  // namespace fastnorm::FASTNORM_ISA
