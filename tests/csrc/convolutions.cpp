// Convolutions and their gradients.

#include "checks.h"

#include <string>

using namespace fastnorm;

namespace {

int64_t volume(const int64_t* size) { return size[0] * size[1] * size[2]; }
bool has_lattice(const Convolution& conv) { return volume(conv.input_dilation) > 1; }

Planes input_planes(const Convolution& conv) {
  return {conv.element, conv.samples, conv.groups * conv.in_channels, volume(conv.input), conv.channels_last};
}
Planes output_planes(const Convolution& conv) {
  return {conv.element, conv.samples, conv.groups * conv.out_channels, volume(conv.output), conv.channels_last};
}

// body(output, input, weight) for each product that a convolution sums: where they lie. A sample's filters begin
// `filter_stride` after those of the one before.
template <class Body>
void for_each_product(const Convolution& conv, int64_t filter_stride, const Body& body) {
  const int64_t ins = conv.groups * conv.in_channels, outs = conv.groups * conv.out_channels, taps = volume(conv.kernel);
  for (int64_t p = 0; p < volume(conv.output); ++p)
    for (int64_t k = 0; k < taps; ++k) {
      const Position at = position(p, conv.output), tap = position(k, conv.kernel);
      Position seen;
      bool zero = false;
      for (int d = 0; d < 3; ++d) {
        const int64_t met = at[d] * conv.stride[d] + tap[d] * conv.dilation[d] - conv.padding[d];
        const int64_t apart = conv.input_dilation[d];
        seen[d] = met % apart ? -1 : inside(met / apart, conv.input[d], conv.border);
        zero |= seen[d] < 0;
      }
      if (zero) continue;
      for (int64_t n = 0; n < conv.samples; ++n)
        for (int64_t o = 0; o < outs; ++o)
          for (int64_t i = 0; i < conv.in_channels; ++i) {
            const int64_t in = o / conv.out_channels * conv.in_channels + i;
            body(
                place(conv.channels_last, outs, conv.output, n, o, at),
                place(conv.channels_last, ins, conv.input, n, in, seen),
                n * filter_stride + (o * conv.in_channels + i) * taps + k);
          }
    }
}

// What is allowed is a part of the largest.
void compare(
    const std::string& what, const Convolution& conv, const Array& found, const std::vector<double>& expected) {
  double largest = 1;
  for (const double value : expected) largest = std::fmax(largest, std::fabs(value));
  for (int64_t i = 0; i < found.size; ++i)
    if (!(std::fabs(found.get(i) - expected[i]) <= tolerance_of(found.element) * largest))
      return complain(
          "%s: element %d is %g, not %g (type %d, %d groups of %d to %d, %dx%dx%d, border %d, channels_last %d)\n",
          what.c_str(), int(i), found.get(i), expected[i], int(conv.element), int(conv.groups), int(conv.in_channels),
          int(conv.out_channels), int(conv.kernel[0]), int(conv.kernel[1]), int(conv.kernel[2]), int(conv.border),
          conv.channels_last);
}

// -- A convolution and its gradients ----------------------------------------------------------------------------------

struct Sums {
  std::vector<double> output, grad_input, grad_weight, grad_bias;
};

Sums sums_of(const Convolution& conv, const Array& input, const Array& weight, const Array& bias, const Array& grad) {
  Sums sums;
  sums.output.resize(grad.size);
  sums.grad_input.resize(input.size);
  sums.grad_weight.resize(weight.size);
  sums.grad_bias.resize(bias.size);
  for (int64_t i = 0; i < grad.size; ++i) {
    const int64_t plane = plane_of(output_planes(conv), i);
    sums.output[i] = bias.get(plane);
    sums.grad_bias[plane] += grad.get(i);
  }
  for_each_product(conv, weight.size / conv.samples, [&](int64_t to, int64_t from, int64_t w) {
    sums.output[to] += weight.get(w) * input.get(from);
    sums.grad_input[from] += weight.get(w) * grad.get(to);
    sums.grad_weight[w] += input.get(from) * grad.get(to);
  });
  return sums;
}

void check_convolution(Convolution conv) {
  for (int d = 0; d < 3; ++d) {
    const int64_t padded = conv.input[d] + 2 * conv.padding[d];
    conv.output[d] = (padded - conv.dilation[d] * (conv.kernel[d] - 1) - 1) / conv.stride[d] + 1;
  }
  const Planes in = input_planes(conv), out = output_planes(conv);
  Array input(conv.element, elements_of(in));
  Array weight(conv.element, count_of(out) * conv.in_channels * volume(conv.kernel));
  Array bias(conv.element, count_of(out)), grad(conv.element, elements_of(out)), output(conv.element, elements_of(out));
  Array grad_input(conv.element, input.size), grad_weight(conv.element, weight.size);
  Array grad_bias(wide_of(conv.element), bias.size);
  input.fill(1), weight.fill(2), bias.fill(3), grad.fill(4);
  const Filters filters = {weight.data, weight.size / conv.samples};
  const Parameter of_planes = {bias.data, conv.element, out.channels, 1};
  kernels().dynamic_conv2d({conv, {}, input.data, filters, of_planes, output.data, nullptr, nullptr}, three);
  kernels().dynamic_conv2d_backward(
      {conv, {}, grad.data, input.data, nullptr, nullptr, filters, grad_input.data, grad_weight.data, grad_bias.data}, three);
  const Sums expected = sums_of(conv, input, weight, bias, grad);
  compare("output", conv, output, expected.output);
  compare("gradient of input", conv, grad_input, expected.grad_input);
  compare("gradient of filters", conv, grad_weight, expected.grad_weight);
  compare("gradient of bias", conv, grad_bias, expected.grad_bias);
}

// -- Cases ------------------------------------------------------------------------------------------------------------

const Border borders[] = {Border::zeros, Border::reflect, Border::replicate, Border::circular};

void check_gradients(Element element) {
  // Samples, groups, channels in and out of one, then input, output (found), kernel, stride, padding and dilation.
  const Convolution convolutions[] = {
      {element, false, 2, 5, 1, 1, {1, 9, 33}, {}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, Border::zeros},
      {element, false, 1, 40, 1, 1, {1, 8, 16}, {}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, Border::zeros},
      {element, false, 1, 3, 1, 2, {1, 7, 50}, {}, {1, 5, 2}, {1, 2, 3}, {0, 2, 1}, {1, 1, 2}, Border::zeros},
      {element, false, 2, 2, 4, 5, {1, 6, 17}, {}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, Border::zeros},
      {element, false, 1, 1, 21, 19, {1, 5, 20}, {}, {1, 3, 3}, {1, 2, 2}, {0, 2, 2}, {1, 2, 1}, Border::zeros},
      {element, false, 1, 1, 14, 37, {1, 3, 530}, {}, {1, 1, 3}, {1, 1, 1}, {0, 0, 1}, {1, 1, 1}, Border::zeros},
      {element, false, 1, 2, 3, 2, {4, 5, 6}, {}, {3, 2, 3}, {1, 1, 2}, {1, 1, 2}, {1, 1, 1}, Border::zeros},
      {element, false, 2, 2, 2, 2, {1, 1, 1000}, {}, {1, 1, 7}, {1, 1, 1}, {0, 0, 3}, {1, 1, 1}, Border::zeros},
  };
  for (Convolution conv : convolutions)
    for (const Border border : borders)
      for (const bool channels_last : {false, true}) {
        conv.border = border;
        conv.channels_last = channels_last;
        check_convolution(conv);
      }
}

}  // namespace

void fastnorm::check_convolutions(Element element) {
  check_gradients(element);
}
