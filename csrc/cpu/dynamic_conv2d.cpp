// A convolution with a filter per sample, of the input or of what its statistics normalise; and its backward.
//
// Forward: one read and one write of a map; 2 * taps * in_channels flops for each output. Depthwise, that is 18 flops for 8
// bytes: memory is the limit. Dense, arithmetic is.
//
//   1. A task is the planes of a group (in channels_last a vector of channels and more), or some of their rows.
//   2. It brings the rows that a chunk of the result needs to cache: widened, normalised, padded (rows.h, window.h).
//   3. A tile of output channels by vectors of pixels stays in registers while all taps of all input channels pass.
//   4. The result's rows are written at the end, with the bias.
//
// The gradient of the input is the same with input and output exchanged: the convolution's transpose, whose result is
// folded back at the borders. The gradient of the filters sums products of rows, in the same tiles.

#include "convolver.h"
#include "dense_filter_gradient.h"
#include "depthwise_last.h"
#include "filter_gradient.h"
#include "nine.h"
#include "statistics.h"

namespace fastnorm::FASTNORM_ISA {

void instance_stats(const InstanceStats&, const Threads&);
void instance_norm_backward(const InstanceNormBackward&, const Threads&);

namespace {

// -- Normalisation ----------------------------------------------------------------------------------------------------

inline Planes planes_of(const Convolution& conv) {
  const int64_t size = conv.input[0] * conv.input[1] * conv.input[2];
  return {conv.element, conv.samples, conv.groups * conv.in_channels, size, conv.channels_last};
}

// The statistics of `count` planes from `first` on.
template <class T>
void statistics_of(const DynamicConv2d& call, int64_t first, int64_t count) {
  const int64_t size = planes_of(call.shape).size;
  for (int64_t plane = first; plane < first + count; ++plane) {
    const Sums<double> moments = moments_of(static_cast<const T*>(call.input) + plane * size, size);
    static_cast<Wide<T>*>(call.mean)[plane] = static_cast<Wide<T>>(moments.first);
    static_cast<Wide<T>*>(call.rstd)[plane] = static_cast<Wide<T>>(rstd_of(moments, call.rule, size));
  }
}

// From the gradient by what was normalised, in grad_input, to that by the input.
template <class W>
void through_normalization(const DynamicConv2dBackward& call, const Threads& threads) {
  const Planes planes = planes_of(call.shape);
  Buffer<W> unwanted(planes.samples * planes.channels);
  InstanceNormBackward norm = {};
  norm.planes = planes;
  norm.rule = call.rule;
  norm.alpha = 1;
  norm.grad = norm.grad_input = call.grad_input;
  norm.input = call.input;
  norm.mean = call.mean;
  norm.rstd = call.rstd;
  norm.grad_weight = norm.grad_bias = unwanted.get();
  instance_norm_backward(norm, threads);
}

}  // namespace

// Runs the convolver that is made for this shape.
template <class T, class Body>
void with_convolver(const Pass<T>& pass, const Body& body) {
  if (Nine<T>::fits(pass.conv)) body(Nine<T>(pass));
  else if (DepthwiseLast<T>::fits(pass.conv)) body(DepthwiseLast<T>(pass));
  else body(Convolver<T>(pass));
}

void dynamic_conv2d(const DynamicConv2d& call, const Threads& threads) {
  if (!call.output) return;
  with_element(call.shape.element, [&](auto element) {
    using T = decltype(element);
    using W = Wide<T>;
    const Normalization<W> norm{static_cast<const W*>(call.mean), static_cast<const W*>(call.rstd)};
    const auto run = [&](const auto& convolver) {
      // A task that has its planes to itself takes their statistics first, and finds them in cache when it convolves.
      const bool together = call.mean && convolver.owns_planes();
      if (call.mean && !together)
        instance_stats({planes_of(call.shape), call.rule, call.input, call.mean, call.rstd}, threads);
      convolver.run([&](int64_t plane, int64_t count) {
        if (together) statistics_of<T>(call, plane, count);
      });
    };
    with_convolver(
        Pass<T>(call.shape, Direction::forward, call.input, call.weight, call.bias, call.output, norm, threads), run);
  });
}

void dynamic_conv2d_backward(const DynamicConv2dBackward& call, const Threads& threads) {
  with_element(call.shape.element, [&](auto element) {
    using T = decltype(element);
    using W = Wide<T>;
    if (call.grad_weight || call.grad_bias) {
      const Normalization<W> norm{static_cast<const W*>(call.mean), static_cast<const W*>(call.rstd)};
      if (DenseFilterGradient<T>::fits(call)) DenseFilterGradient<T>(call, norm, threads).run();
      else FilterGradient<T>(call, norm, threads).run();
    }
    if (!call.grad_input) return;
    with_convolver(
        Pass<T>(call.shape, Direction::backward, call.grad, call.weight, {}, call.grad_input, {}, threads),
        [](const auto& convolver) { convolver.run([](int64_t, int64_t) {}); });
    if (call.mean) through_normalization<W>(call, threads);
  });
}

}  // namespace fastnorm::FASTNORM_ISA
