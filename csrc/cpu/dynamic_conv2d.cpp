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

#include "convolvers.h"
#include "dense_filter_gradient.h"
#include "filter_gradient.h"

namespace fastnorm::FASTNORM_ISA {

void norm_conv2d(const NormConv2d&, const Threads&);
void instance_norm_backward(const InstanceNormBackward&, const Threads&);

namespace {

// -- Normalisation ----------------------------------------------------------------------------------------------------

// From the gradient by what was normalised, in grad_input, to that by the input.
template <class W>
void through_normalization(const DynamicConv2dBackward& call, const Threads& threads) {
  const Planes planes = input_planes(call.shape);
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

void dynamic_conv2d(const DynamicConv2d& call, const Threads& threads) {
  NormConv2d layer = {call.shape};
  layer.entry.rule = call.rule;
  layer.entry.own_mean = call.mean;
  layer.entry.own_rstd = call.rstd;
  layer.input = call.input;
  layer.weight = call.weight;
  layer.bias = call.bias;
  layer.output = call.output;
  norm_conv2d(layer, threads);
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
    convolve<Direction::backward>(
        Pass<T>(call.shape, Direction::backward, call.grad, call.weight, {}, call.grad_input, {}, threads),
        [](const auto& convolver) { convolver.run([](int64_t, int64_t) {}); });
    if (call.mean) through_normalization<W>(call, threads);
  });
}

}  // namespace fastnorm::FASTNORM_ISA
