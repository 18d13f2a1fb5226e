// Convolutions and their gradients; whole layers.

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

// -- A layer ----------------------------------------------------------------------------------------------------------

struct Statistics {
  std::vector<double> mean, rstd;
};

Statistics statistics_of(const Planes& planes, const VarianceRule& rule, const std::vector<double>& map) {
  Statistics found = {std::vector<double>(count_of(planes)), std::vector<double>(count_of(planes))};
  std::vector<double> var(count_of(planes));
  const int64_t elements = elements_of(planes);
  for (int64_t i = 0; i < elements; ++i) found.mean[plane_of(planes, i)] += map[i] / planes.size;
  for (int64_t i = 0; i < elements; ++i) {
    const int64_t plane = plane_of(planes, i);
    var[plane] += std::pow(map[i] - found.mean[plane], 2) / (planes.size - rule.correction);
  }
  for (int64_t plane = 0; plane < count_of(planes); ++plane)
    found.rstd[plane] = rule.eps_on_std ? 1 / (std::sqrt(var[plane]) + rule.eps) : 1 / std::sqrt(var[plane] + rule.eps);
  return found;
}

// What a layer may have, by name. At its entry: mean, scale, shift, residual, act_in, entered (written, too), and stats_in
// (of the input, which is normalised by them). At its exit: bias, act_out, stats_out.
struct Layer {
  const Convolution conv;
  const bool per_sample;  // filters and bias
  const std::string parts;
  const int code;  // of its activations

  const Planes in = input_planes(conv), out = output_planes(conv);
  const Element type = conv.element, wide = wide_of(type);
  const Element filter_type = has_lattice(conv) ? wide : type;  // there, taps were added up
  const int64_t filters = per_sample ? conv.samples : 1;
  const Activation entry{has("act_in") ? code : 0, slope}, exit{has("act_out") ? activations - 1 - code : 0, slope};
  const VarianceRule entry_rule{1e-2, 0, false}, exit_rule{1e-2, 1, true};

  Array input{type, elements_of(in)}, residual{type, elements_of(in)}, entered{type, elements_of(in)};
  Array mean{wide, count_of(in)}, scale{type, count_of(in)}, shift{type, in.channels};
  Array own_mean{wide, count_of(in)}, own_rstd{wide, count_of(in)};
  Array weight{filter_type, filters * out.channels * conv.in_channels * volume(conv.kernel)};
  Array bias{type, filters * out.channels};
  Array output{type, elements_of(out)}, output_mean{wide, count_of(out)}, output_rstd{wide, count_of(out)};

  bool has(const char* part) const { return parts.find(part) != std::string::npos; }
  int64_t filter_stride() const { return per_sample ? weight.size / filters : 0; }

  // Small filters: large outputs would make an activation's ones and zeros.
  void fill() {
    input.fill(1), residual.fill(2), mean.fill(3), scale.fill(4, 1.0f / 32), shift.fill(5);
    weight.fill(6, 1.0f / 128), bias.fill(7);
  }

  NormConv2d call() const {
    NormConv2d call = {conv};
    if (has("mean")) call.entry.mean = {mean.data, wide, in.channels, 1};
    if (has("scale")) call.entry.scale = {scale.data, type, in.channels, 1};
    if (has("shift")) call.entry.shift = {shift.data, type, 0, 1};
    call.entry.activation = entry;
    if (has("residual")) call.entry.residual = residual.data;
    if (has("entered")) call.entry.entered = entered.data;
    call.entry.rule = entry_rule;
    if (has("stats_in")) call.entry.own_mean = own_mean.data, call.entry.own_rstd = own_rstd.data;
    call.input = input.data;
    call.weight = {weight.data, filter_stride(), filter_type != type};
    if (has("bias")) call.bias = {bias.data, type, per_sample ? out.channels : 0, 1};
    call.exit = {exit, exit_rule};
    if (has("stats_out")) call.exit.mean = output_mean.data, call.exit.rstd = output_rstd.data;
    call.output = output.data;
    return call;
  }

  std::vector<double> entered_by(const Statistics& own) const {
    const bool normalised = has("stats_in");
    std::vector<double> map(input.size);
    for (int64_t i = 0; i < input.size; ++i) {
      const int64_t plane = plane_of(in, i);
      const double center = normalised ? own.mean[plane] : has("mean") ? mean.get(plane) : 0;
      const double gain = normalised ? own.rstd[plane] : has("scale") ? scale.get(plane) : 1;
      const double offset = has("shift") ? shift.get(plane % in.channels) : 0;
      const double added = has("residual") ? residual.get(i) : 0;
      map[i] = act(entry.code, (input.get(i) - center) * gain + offset + added);
    }
    return map;
  }

  std::vector<double> output_of(const std::vector<double>& entered) const {
    std::vector<double> map(output.size);
    for (int64_t i = 0; i < output.size; ++i) map[i] = has("bias") ? bias.get(plane_of(out, i) % bias.size) : 0;
    for_each_product(conv, filter_stride(), [&](int64_t to, int64_t from, int64_t w) {
      map[to] += weight.get(w) * entered[from];
    });
    for (double& value : map) value = act(exit.code, value);
    return map;
  }
};

void check_layer(const Convolution& conv, bool per_sample, const char* parts, int code) {
  Layer layer{conv, per_sample, parts, code};
  layer.fill();
  kernels().norm_conv2d(layer.call(), three);
  const Statistics own = statistics_of(layer.in, layer.entry_rule, layer.input.values());
  const std::vector<double> entered = layer.entered_by(own), output = layer.output_of(entered);
  const Statistics of_output = statistics_of(layer.out, layer.exit_rule, output);
  const auto check = [&](const char* what, const Array& found, const std::vector<double>& expected) {
    compare(layer.parts + ", code " + std::to_string(code) + ": " + what, conv, found, expected);
  };
  check("output", layer.output, output);
  if (layer.has("entered")) check("entered", layer.entered, entered);
  if (layer.has("stats_in")) check("own mean", layer.own_mean, own.mean), check("own rstd", layer.own_rstd, own.rstd);
  if (layer.has("stats_out"))
    check("mean", layer.output_mean, of_output.mean), check("rstd", layer.output_rstd, of_output.rstd);
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

void check_layers(Element element) {
  // The same, the output given; then a border (each), and how far elements lie apart.
  struct {
    Convolution shape;
    bool per_sample;
  } const shapes[] = {
      // By minimal filtering: of 3x3, in blocks of channels, of 9x9, upsampled by 2, by a stride, and transposed.
      {{element, false, 2, 1, 16, 19, {1, 7, 31}, {1, 7, 31}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, {}}, false},
      {{element, false, 1, 1, 65, 66, {1, 5, 23}, {1, 5, 23}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, {}}, false},
      {{element, false, 2, 1, 3, 16, {1, 9, 31}, {1, 9, 31}, {1, 9, 9}, {1, 1, 1}, {0, 4, 4}, {1, 1, 1}, {}}, false},
      {{element, false, 2, 1, 9, 10, {1, 7, 31}, {1, 13, 62}, {1, 4, 4}, {1, 1, 1}, {0, 2, 2}, {1, 1, 1}, {}, {1, 2, 2}}, false},
      {{element, false, 2, 1, 9, 10, {1, 7, 31}, {1, 14, 62}, {1, 6, 6}, {1, 1, 1}, {0, 3, 3}, {1, 1, 1}, {}, {1, 2, 2}}, false},
      {{element, false, 2, 1, 16, 17, {1, 7, 61}, {1, 4, 31}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}, {}}, false},
      {{element, false, 1, 1, 65, 66, {1, 8, 62}, {1, 4, 31}, {1, 4, 4}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}, {}}, false},
      {{element, false, 2, 1, 9, 10, {1, 7, 31}, {1, 13, 61}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, {}, {1, 2, 2}}, false},
      {{element, false, 1, 1, 17, 16, {3, 5, 31}, {3, 5, 31}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {}}, false},
      {{element, false, 1, 1, 16, 17, {5, 5, 31}, {3, 5, 31}, {3, 3, 3}, {2, 1, 1}, {1, 1, 1}, {1, 1, 1}, {}}, false},
      // The same by four outputs.
      {{element, false, 1, 1, 65, 66, {1, 7, 31}, {1, 7, 31}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, {}}, false},
      {{element, false, 1, 1, 17, 16, {3, 7, 31}, {3, 7, 31}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {}}, false},
      // As a product of matrices.
      {{element, false, 1, 1, 146, 33, {1, 2, 101}, {1, 2, 101}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}, {}}, false},
      // Upsampled otherwise: few channels, by 3, filters of samples, a volume.
      {{element, false, 2, 1, 5, 6, {1, 5, 9}, {1, 10, 17}, {1, 4, 4}, {1, 1, 1}, {0, 2, 2}, {1, 1, 1}, {}, {1, 2, 2}}, false},
      {{element, false, 1, 1, 4, 6, {1, 5, 7}, {1, 15, 21}, {1, 5, 5}, {1, 1, 1}, {0, 3, 3}, {1, 1, 1}, {}, {1, 3, 3}}, false},
      {{element, false, 2, 2, 3, 4, {1, 5, 19}, {1, 10, 38}, {1, 4, 4}, {1, 1, 1}, {0, 2, 2}, {1, 1, 1}, {}, {1, 2, 2}}, true},
      {{element, false, 1, 1, 2, 3, {2, 3, 5}, {4, 3, 15}, {3, 1, 5}, {1, 1, 1}, {1, 0, 3}, {1, 1, 1}, {}, {2, 1, 3}}, false},
      // Stride, dilation, groups, single taps, filters of samples, and rows in pieces.
      {{element, false, 1, 1, 5, 8, {1, 9, 33}, {1, 5, 17}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}, {}}, false},
      {{element, false, 2, 3, 2, 3, {1, 11, 18}, {1, 11, 6}, {1, 3, 3}, {1, 1, 3}, {0, 2, 2}, {1, 2, 2}, {}}, true},
      {{element, false, 2, 37, 1, 1, {1, 9, 33}, {1, 9, 33}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, {}}, true},
      {{element, false, 2, 1, 12, 7, {1, 5, 21}, {1, 5, 21}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}, {}}, false},
      {{element, false, 2, 1, 17, 18, {1, 5, 33}, {1, 5, 33}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, {}}, true},
      {{element, false, 1, 1, 1, 2, {1, 2, 4117}, {1, 2, 4117}, {1, 1, 3}, {1, 1, 1}, {0, 0, 1}, {1, 1, 1}, {}}, false},
  };
  const char* const layers[] = {
      "bias act_out stats_out",
      "mean shift act_in stats_out",
      "mean scale shift residual act_in entered bias act_out stats_out",
      "residual act_in bias act_out",
      "scale entered",
      "stats_in bias",
  };
  int code = 0;
  for (auto [conv, per_sample] : shapes)
    for (const Border border : borders)
      for (const bool channels_last : {false, true})
        for (const char* layer : layers) {
          conv.border = border;
          conv.channels_last = channels_last;
          // Steps leave elements out, which do not enter; a lattice is not normalised by its own statistics.
          const bool steps = volume(conv.stride) * volume(conv.dilation) > 1;
          if (steps && std::strstr(layer, "entered")) continue;
          if (has_lattice(conv) && std::strstr(layer, "stats_in")) continue;
          check_layer(conv, per_sample, layer, code++ % activations);
        }
}

}  // namespace

void fastnorm::check_convolutions(Element element) {
  check_gradients(element);
  check_layers(element);
}
