// output = act(((x - mean) * scale + shift) * (1 + gamma) + residual), and its backward.
//
// Forward: one read and one write, a read more for each map. Backward: two reads (grad, x) for the sums, two reads and one
// write for the input's gradient; the second pair from cache where a plane fits.

#include <type_traits>

#include "sweep.h"

namespace fastnorm::FASTNORM_ISA {

namespace {

template <class W>
void fill(
    const Coefficients<W>& coefs, const Planes& planes, const Parameter& mean, const Parameter& scale,
    const Parameter& shift) {
  for (int64_t plane = 0; plane < planes.samples * planes.channels; ++plane) {
    coefs.center[plane] = static_cast<W>(read(mean, planes, plane, 0));
    coefs.scale[plane] = static_cast<W>(read(scale, planes, plane, 1));
    coefs.shift[plane] = static_cast<W>(read(shift, planes, plane, 0));
  }
}

}  // namespace

void scale_shift(const ScaleShift& call, const Threads& threads) {
  with_forward(call.planes.element, call.input, call.maps, call.activation, [&](const auto& forward) {
    using T = typename std::decay_t<decltype(forward)>::T;
    const CoefficientBuffer<Wide<T>> buffer(call.planes);
    const Coefficients<Wide<T>> coefs = buffer.get();
    fill(coefs, call.planes, call.mean, call.scale, call.shift);
    const Output<T> output(call.output, call.planes);
    const auto apply_run = [&](const Run& run, const auto& c) { apply(forward, output, run, c); };
    const auto nothing = [](int64_t, const Sums<double>&) {};
    sweep<T>(call.planes, threads, coefs, NoReduction<T>{}, nothing, apply_run, false, true);
  });
}

void scale_shift_backward(const ScaleShiftBackward& call, const Threads& threads) {
  with_forward(call.planes.element, call.input, call.maps, call.activation, [&](const auto& forward) {
    using T = typename std::decay_t<decltype(forward)>::T;
    using W = Wide<T>;
    const CoefficientBuffer<W> buffer(call.planes);
    const Coefficients<W> coefs = buffer.get();
    fill(coefs, call.planes, call.mean, call.scale, call.shift);
    for (int64_t plane = 0; plane < call.planes.samples * call.planes.channels; ++plane) {
      coefs.input_scale[plane] = static_cast<W>(read(call.input_scale, call.planes, plane, 0));
      coefs.input_shift[plane] = static_cast<W>(read(call.input_shift, call.planes, plane, 0));
    }
    const T* grad = static_cast<const T*>(call.grad);
    const Gradients<T> gradients(call.grad_input, call.grad_gamma, call.grad_residual, call.planes);
    const auto finish = [&](int64_t plane, const Sums<double>& total) {
      static_cast<W*>(call.grad_scale)[plane] = static_cast<W>(total.first);
      static_cast<W*>(call.grad_shift)[plane] = static_cast<W>(total.second);
    };
    const auto apply_run = [&](const Run& run, const auto& c) { apply_backward(forward, grad, gradients, run, c); };
    const GradientSums<std::decay_t<decltype(forward)>> sums{forward, grad};
    sweep<T>(call.planes, threads, coefs, sums, finish, apply_run, call.grad_scale != nullptr, gradients.wanted());
  });
}

}  // namespace fastnorm::FASTNORM_ISA
