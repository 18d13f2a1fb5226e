// The CPU kernels without torch: every operator, type and layout, on sizes around each boundary, held against loops in
// double. Built with sanitizers, where a read past an end is an error.

#include "../../csrc/cpu/kernels.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

using namespace fastnorm;

namespace {

int failures = 0;

// A pool of three that takes its parts in reverse.
const Threads three{3, [](int64_t tasks, void (*body)(void*, int64_t, int64_t), void* context) {
  std::vector<std::thread> pool;
  for (int64_t part = 2; part >= 0; --part)
    pool.emplace_back([=] { body(context, part * tasks / 3, (part + 1) * tasks / 3); });
  for (std::thread& thread : pool) thread.join();
}};

size_t width(Element element) { return element == Element::f64 ? 8 : element == Element::f32 ? 4 : 2; }
bool wide_is_double(Element element) { return element == Element::f64; }

// Exactly as long as it must be, so that a sanitizer sees the first byte beyond.
struct Array {
  Element element;
  int64_t size;
  void* data;

  Array(Element element, int64_t size) : element(element), size(size), data(std::malloc(size * width(element) + !size)) {
    std::memset(data, 0xff, size * width(element));  // NaN in every type
  }
  Array(const Array&) = delete;
  ~Array() { std::free(data); }

  double get(int64_t i) const {
    if (element == Element::f64) return static_cast<double*>(data)[i];
    if (element == Element::f32) return static_cast<float*>(data)[i];
    const uint16_t bits = static_cast<uint16_t*>(data)[i];
    if (element == Element::bf16) {
      const uint32_t wide = uint32_t(bits) << 16;
      float value;
      std::memcpy(&value, &wide, 4);
      return value;
    }
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
        : exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
  }

  // Multiples of 1/8 up to 4: exact in every type.
  void fill(unsigned seed) {
    for (int64_t i = 0; i < size; ++i) {
      seed = seed * 1664525 + 1013904223;
      const float value = (int(seed >> 16) % 65 - 32) / 8.0f;
      if (element == Element::f64) static_cast<double*>(data)[i] = value;
      else if (element == Element::f32) static_cast<float*>(data)[i] = value;
      else {
        uint32_t wide;
        std::memcpy(&wide, &value, 4);
        uint16_t& bits = static_cast<uint16_t*>(data)[i];
        bits = wide >> 16;
        if (element == Element::f16) {
          const int exponent = int(wide >> 23 & 255) - 112;
          bits = (wide >> 16 & 0x8000) | (wide << 1 ? exponent << 10 | (wide >> 13 & 1023) : 0);
        }
      }
    }
  }
};

struct Case {
  Planes planes;
  const char* isa;
  double tolerance;

  int64_t count() const { return planes.samples * planes.channels; }
  int64_t elements() const { return count() * planes.size; }
  int64_t index(int64_t plane, int64_t i) const {
    const int64_t n = plane / planes.channels, c = plane % planes.channels;
    return planes.channels_last ? (n * planes.size + i) * planes.channels + c : plane * planes.size + i;
  }
  void check(const char* what, double found, double expected) const {
    if (std::abs(found - expected) <= tolerance * (1 + std::abs(expected))) return;
    if (++failures < 20)
      std::printf("%s: %s, element %d, (%d, %d, %d), channels_last %d: expected %g, got %g\n", isa, what,
                  int(planes.element), int(planes.samples), int(planes.channels), int(planes.size),
                  planes.channels_last, expected, found);
  }
};

double act(int code, double x) {
  switch (code) {
    case 1: return x > 0 ? x : 0;
    case 2: return x > 0 ? x : 0.25 * x;
    case 3: return x / (1 + std::exp(-x));
    case 4: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    default: return x;
  }
}

double derivative(int code, double x) {
  if (code == 0) return 1;
  if (code < 3) return x > 0 ? 1 : code == 1 ? 0 : 0.25;
  const double step = 1e-6;
  return (act(code, x + step) - act(code, x - step)) / (2 * step);
}

void check_norm(const Case& c, int code, bool with_maps) {
  const Planes& p = c.planes;
  const Element wide = wide_is_double(p.element) ? Element::f64 : Element::f32;
  Array x(p.element, c.elements()), gamma(p.element, c.elements()), residual(p.element, c.elements());
  Array grad(p.element, c.elements()), weight(p.element, c.count()), bias(p.element, c.count());
  Array output(p.element, c.elements()), mean(wide, c.count()), rstd(wide, c.count());
  Array grad_x(p.element, c.elements()), grad_gamma(p.element, c.elements()), grad_residual(p.element, c.elements());
  Array grad_weight(wide, c.count()), grad_bias(wide, c.count());
  x.fill(1), gamma.fill(2), residual.fill(3), grad.fill(4), weight.fill(5), bias.fill(6);

  const VarianceRule rule{1e-2, 0, false};
  const Activation activation{code, 0.25};
  const Maps maps = with_maps ? Maps{gamma.data, residual.data} : Maps{};
  const Parameter w{weight.data, p.element, p.channels, 1}, b{bias.data, p.element, p.channels, 1};
  const double alpha = 0.75;
  kernels().instance_norm({p, rule, alpha, activation, x.data, w, b, maps, output.data, mean.data, rstd.data}, three);
  kernels().instance_norm_backward(
      {p, rule, alpha, activation, grad.data, x.data, mean.data, rstd.data, w, b, maps, grad_x.data, grad_weight.data,
       grad_bias.data, with_maps ? grad_gamma.data : nullptr, with_maps ? grad_residual.data : nullptr},
      three);

  for (int64_t plane = 0; plane < c.count(); ++plane) {
    double m = 0, v = 0;
    for (int64_t i = 0; i < p.size; ++i) m += x.get(c.index(plane, i)) / p.size;
    for (int64_t i = 0; i < p.size; ++i) v += std::pow(x.get(c.index(plane, i)) - m, 2) / p.size;
    const double r = 1 / std::sqrt(v + rule.eps), gain = alpha * r * weight.get(plane);
    c.check("mean", mean.get(plane), m);
    c.check("rstd", rstd.get(plane), r);
    double sum = 0, sum_x = 0;
    std::vector<double> g(p.size);
    for (int64_t i = 0; i < p.size; ++i) {
      const int64_t at = c.index(plane, i);
      const double affine = alpha * ((x.get(at) - m) * r * weight.get(plane) + bias.get(plane)) + (1 - alpha) * x.get(at);
      const double before = with_maps ? affine * (1 + gamma.get(at)) + residual.get(at) : affine;
      c.check("output", output.get(at), act(code, before));
      g[i] = grad.get(at) * derivative(code, before);
      if (with_maps) {
        c.check("grad_residual", grad_residual.get(at), g[i]);
        c.check("grad_gamma", grad_gamma.get(at), g[i] * affine);
        g[i] *= 1 + gamma.get(at);
      }
      sum += g[i];
      sum_x += g[i] * (x.get(at) - m);
    }
    c.check("grad_weight", grad_weight.get(plane) / p.size, alpha * r * sum_x / p.size);
    c.check("grad_bias", grad_bias.get(plane) / p.size, alpha * sum / p.size);
    for (int64_t i = 0; i < p.size; ++i) {
      const int64_t at = c.index(plane, i);
      const double expected = gain * (g[i] - sum / p.size - (x.get(at) - m) * r * r * sum_x / p.size) + (1 - alpha) * g[i];
      c.check("grad_input", grad_x.get(at), expected);
    }
  }
}

// The blend of instance and layer normalisation, each normalised apart.
void check_layer(const Case& c, int code, bool with_maps) {
  const Planes& p = c.planes;
  const Element wide = wide_is_double(p.element) ? Element::f64 : Element::f32;
  Array x(p.element, c.elements()), residual(p.element, c.elements()), grad(p.element, c.elements());
  Array rho(p.element, p.channels), weight(p.element, c.count()), bias(p.element, p.channels);
  Array output(p.element, c.elements()), mean(wide, c.count()), var(wide, c.count());
  Array grad_x(p.element, c.elements()), grad_residual(p.element, c.elements());
  Array grad_rho(wide, c.count()), grad_weight(wide, c.count()), grad_bias(wide, c.count());
  x.fill(1), residual.fill(3), grad.fill(4), weight.fill(5), bias.fill(6), rho.fill(7);

  const VarianceRule rule{1e-2, 0, false};
  const Activation activation{code, 0.25};
  const Maps maps = with_maps ? Maps{nullptr, residual.data} : Maps{};
  const Parameter r{rho.data, p.element, 0, 1}, w{weight.data, p.element, p.channels, 1}, b{bias.data, p.element, 0, 1};
  kernels().layer_instance_norm({p, rule, activation, x.data, r, w, b, maps, output.data, mean.data, var.data}, three);
  kernels().layer_instance_norm_backward(
      {p, rule, activation, grad.data, x.data, mean.data, var.data, r, w, b, maps, grad_x.data, grad_rho.data,
       grad_weight.data, grad_bias.data, with_maps ? grad_residual.data : nullptr},
      three);

  for (int64_t n = 0; n < p.samples; ++n) {
    const int64_t first = n * p.channels;
    const double layer_size = p.channels * p.size;
    std::vector<double> means(p.channels), vars(p.channels);
    double layer_mean = 0, layer_var = 0;
    for (int64_t k = 0; k < p.channels; ++k) {
      for (int64_t i = 0; i < p.size; ++i) means[k] += x.get(c.index(first + k, i)) / p.size;
      layer_mean += means[k] / p.channels;
    }
    for (int64_t k = 0; k < p.channels; ++k)
      for (int64_t i = 0; i < p.size; ++i) {
        vars[k] += std::pow(x.get(c.index(first + k, i)) - means[k], 2) / p.size;
        layer_var += std::pow(x.get(c.index(first + k, i)) - layer_mean, 2) / layer_size;
      }
    const double layer_rstd = 1 / std::sqrt(layer_var + rule.eps);
    // Gradients with respect to the two normalised maps, and their sums.
    std::vector<double> g(p.channels * p.size);
    double layer_sum = 0, layer_sum_x = 0;
    std::vector<double> sum(p.channels), sum_x(p.channels);
    for (int64_t k = 0; k < p.channels; ++k) {
      const double rstd = 1 / std::sqrt(vars[k] + rule.eps), ro = rho.get(k), we = weight.get(first + k);
      c.check("mean", mean.get(first + k), means[k]);
      c.check("var", var.get(first + k), vars[k]);
      double from_rho = 0, from_weight = 0, from_bias = 0;
      for (int64_t i = 0; i < p.size; ++i) {
        const int64_t at = c.index(first + k, i);
        const double own = (x.get(at) - means[k]) * rstd, of_layer = (x.get(at) - layer_mean) * layer_rstd;
        const double blended = ro * own + (1 - ro) * of_layer;
        const double before = blended * we + bias.get(k) + (with_maps ? residual.get(at) : 0);
        c.check("output", output.get(at), act(code, before));
        const double through = grad.get(at) * derivative(code, before);
        if (with_maps) c.check("grad_residual", grad_residual.get(at), through);
        from_rho += through * we * (own - of_layer);
        from_weight += through * blended;
        from_bias += through;
        g[k * p.size + i] = through * we;
        sum[k] += through * we * ro;
        sum_x[k] += through * we * ro * own;
        layer_sum += through * we * (1 - ro);
        layer_sum_x += through * we * (1 - ro) * of_layer;
      }
      c.check("grad_rho", grad_rho.get(first + k) / p.size, from_rho / p.size);
      c.check("grad_weight", grad_weight.get(first + k) / p.size, from_weight / p.size);
      c.check("grad_bias", grad_bias.get(first + k) / p.size, from_bias / p.size);
    }
    for (int64_t k = 0; k < p.channels; ++k) {
      const double rstd = 1 / std::sqrt(vars[k] + rule.eps), ro = rho.get(k);
      for (int64_t i = 0; i < p.size; ++i) {
        const int64_t at = c.index(first + k, i);
        const double own = (x.get(at) - means[k]) * rstd, of_layer = (x.get(at) - layer_mean) * layer_rstd;
        const double expected = rstd * (ro * g[k * p.size + i] - sum[k] / p.size - own * sum_x[k] / p.size) +
            layer_rstd * ((1 - ro) * g[k * p.size + i] - layer_sum / layer_size - of_layer * layer_sum_x / layer_size);
        c.check("grad_input", grad_x.get(at), expected);
      }
    }
  }
}

// A convolution and its gradients against their sums, written as they are.
struct Sums {
  std::vector<double> output, grad_input, grad_weight, grad_bias;
};

int64_t inside(int64_t at, int64_t size, Border border) {
  if (at >= 0 && at < size) return at;
  if (border == Border::zeros) return -1;
  if (border == Border::replicate) return at < 0 ? 0 : size - 1;
  if (border == Border::circular) return (at + size) % size;
  return at < 0 ? -at : 2 * (size - 1) - at;
}

// Where an element of a map of (channels, size) lies.
int64_t place(const Convolution& conv, int64_t channels, const int64_t* size, int64_t n, int64_t c, const int64_t* at) {
  const int64_t pixel = (at[0] * size[1] + at[1]) * size[2] + at[2], pixels = size[0] * size[1] * size[2];
  return conv.channels_last ? (n * pixels + pixel) * channels + c : (n * channels + c) * pixels + pixel;
}

Sums sums_of(const Convolution& conv, const Array& input, const Array& weight, const Array& bias, const Array& grad) {
  const int64_t ins = conv.groups * conv.in_channels, outs = conv.groups * conv.out_channels;
  const int64_t taps = conv.kernel[0] * conv.kernel[1] * conv.kernel[2];
  Sums sums;
  sums.output.resize(grad.size);
  sums.grad_input.resize(input.size);
  sums.grad_weight.resize(weight.size);
  sums.grad_bias.resize(conv.samples * outs);
  for (int64_t n = 0; n < conv.samples; ++n)
    for (int64_t o = 0; o < outs; ++o)
      for (int64_t p = 0; p < conv.output[0] * conv.output[1] * conv.output[2]; ++p) {
        const int64_t at[3] = {p / conv.output[2] / conv.output[1], p / conv.output[2] % conv.output[1], p % conv.output[2]};
        const int64_t to = place(conv, outs, conv.output, n, o, at);
        sums.output[to] += bias.get(n * outs + o);
        sums.grad_bias[n * outs + o] += grad.get(to);
        for (int64_t i = 0; i < conv.in_channels; ++i)
          for (int64_t k = 0; k < taps; ++k) {
            const int64_t tap[3] = {k / conv.kernel[2] / conv.kernel[1], k / conv.kernel[2] % conv.kernel[1], k % conv.kernel[2]};
            int64_t seen[3];
            bool zero = false;
            for (int d = 0; d < 3; ++d) {
              seen[d] = inside(at[d] * conv.stride[d] + tap[d] * conv.dilation[d] - conv.padding[d], conv.input[d], conv.border);
              zero |= seen[d] < 0;
            }
            if (zero) continue;
            const int64_t from = place(conv, ins, conv.input, n, o / conv.out_channels * conv.in_channels + i, seen);
            const int64_t w = ((n * outs + o) * conv.in_channels + i) * taps + k;
            sums.output[to] += weight.get(w) * input.get(from);
            sums.grad_input[from] += weight.get(w) * grad.get(to);
            sums.grad_weight[w] += input.get(from) * grad.get(to);
          }
      }
  return sums;
}

void compare(
    const char* what, const Convolution& conv, const char* isa, const Array& found, const std::vector<double>& expected,
    double tolerance) {
  double largest = 1;
  for (const double value : expected) largest = std::fmax(largest, std::fabs(value));
  for (int64_t i = 0; i < found.size; ++i)
    if (!(std::fabs(found.get(i) - expected[i]) <= tolerance * largest)) {
      std::printf(
          "%s: convolution, %s: element %d is %g, not %g (type %d, %d groups, channels_last %d)\n", isa, what, int(i),
          found.get(i), expected[i], int(found.element), int(conv.groups), conv.channels_last);
      ++failures;
      return;
    }
}

void check_convolution(Convolution conv, const char* isa, double tolerance) {
  const int64_t taps = conv.kernel[0] * conv.kernel[1] * conv.kernel[2];
  int64_t pixels = 1, results = 1;
  for (int d = 0; d < 3; ++d) {
    const int64_t padded = conv.input[d] + 2 * conv.padding[d];
    conv.output[d] = (padded - conv.dilation[d] * (conv.kernel[d] - 1) - 1) / conv.stride[d] + 1;
    pixels *= conv.input[d];
    results *= conv.output[d];
  }
  const int64_t outs = conv.samples * conv.groups * conv.out_channels;
  const Element wide = wide_is_double(conv.element) ? Element::f64 : Element::f32;
  Array input(conv.element, conv.samples * conv.groups * conv.in_channels * pixels);
  Array weight(conv.element, outs * conv.in_channels * taps);
  Array bias(conv.element, outs), grad(conv.element, outs * results), output(conv.element, outs * results);
  Array grad_input(conv.element, input.size), grad_weight(conv.element, weight.size), grad_bias(wide, outs);
  input.fill(1);
  weight.fill(2);
  bias.fill(3);
  grad.fill(4);
  const Filters filters = {weight.data, weight.size / conv.samples};
  const Parameter of_planes = {bias.data, conv.element, conv.groups * conv.out_channels, 1};
  kernels().dynamic_conv2d({conv, {}, input.data, filters, of_planes, output.data, nullptr, nullptr}, three);
  kernels().dynamic_conv2d_backward(
      {conv, {}, grad.data, input.data, nullptr, nullptr, filters, grad_input.data, grad_weight.data, grad_bias.data}, three);
  const Sums expected = sums_of(conv, input, weight, bias, grad);
  compare("output", conv, isa, output, expected.output, tolerance);
  compare("gradient of input", conv, isa, grad_input, expected.grad_input, tolerance);
  compare("gradient of filters", conv, isa, grad_weight, expected.grad_weight, tolerance);
  compare("gradient of bias", conv, isa, grad_bias, expected.grad_bias, tolerance);
}

void check_convolutions(Element element, const char* isa, double tolerance) {
  // Groups, channels in and out, then input, kernel, stride, padding and dilation.
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
    for (const Border border : {Border::zeros, Border::reflect, Border::replicate, Border::circular})
      for (const bool channels_last : {false, true}) {
        conv.border = border;
        conv.channels_last = channels_last;
        check_convolution(conv, isa, tolerance);
      }
}

// An upsampling and padding, number by number: output[p] = input[inside(p - before) / scale].
void check_upsampling(Upsampling shape, const int64_t* after, const char* isa, double tolerance) {
  Convolution map{};  // for `place`
  map.channels_last = shape.channels_last;
  int64_t pixels = 1, results = 1;
  for (int d = 0; d < 3; ++d) {
    shape.output[d] = shape.input[d] * shape.scale[d] + shape.padding[d] + after[d];
    pixels *= shape.input[d];
    results *= shape.output[d];
  }
  const int64_t planes = shape.samples * shape.channels;
  Array input(shape.element, planes * pixels), output(shape.element, planes * results);
  Array grad(shape.element, planes * results), grad_input(shape.element, planes * pixels);
  input.fill(1), grad.fill(2);
  kernels().upsample_pad2d({shape, input.data, output.data}, three);
  kernels().upsample_pad2d_backward({shape, grad.data, grad_input.data}, three);
  std::vector<double> sums(planes * pixels);
  const auto check = [&](const char* what, double found, double expected, double allowed) {
    if (std::abs(found - expected) <= allowed * (1 + std::abs(expected))) return;
    if (++failures < 20)
      std::printf("%s: upsampling, %s: %g, not %g (type %d, border %d, channels_last %d)\n", isa, what, found, expected,
                  int(shape.element), int(shape.border), shape.channels_last);
  };
  for (int64_t plane = 0; plane < planes; ++plane)
    for (int64_t p = 0; p < results; ++p) {
      const int64_t n = plane / shape.channels, c = plane % shape.channels;
      const int64_t at[3] = {
          p / shape.output[2] / shape.output[1], p / shape.output[2] % shape.output[1], p % shape.output[2]};
      const int64_t to = place(map, shape.channels, shape.output, n, c, at);
      int64_t seen[3];
      bool zero = false;
      for (int d = 0; d < 3; ++d) {
        const int64_t read = inside(at[d] - shape.padding[d], shape.input[d] * shape.scale[d], shape.border);
        zero |= read < 0;
        seen[d] = read / shape.scale[d];
      }
      const int64_t from = zero ? 0 : place(map, shape.channels, shape.input, n, c, seen);
      check("output", output.get(to), zero ? 0 : input.get(from), 0);
      if (!zero) sums[from] += grad.get(to);
    }
  for (int64_t i = 0; i < planes * pixels; ++i) check("gradient", grad_input.get(i), sums[i], tolerance);
}

void check_upsamplings(Element element, const char* isa, double tolerance) {
  struct {
    int64_t samples, channels, input[3], scale[3], before[3], after[3];
  } const maps[] = {
      {2, 3, {1, 5, 33}, {1, 2, 2}, {0, 1, 1}, {0, 1, 1}},
      {1, 17, {1, 6, 7}, {1, 1, 1}, {0, 3, 2}, {0, 0, 5}},
      {1, 2, {1, 3, 40}, {1, 1, 3}, {0, 2, 4}, {0, 2, 0}},
      {2, 16, {2, 3, 4}, {3, 1, 4}, {5, 2, 0}, {1, 0, 9}},
      {1, 1, {1, 2, 9001}, {1, 2, 2}, {0, 0, 77}, {0, 1, 3}},  // in several pieces
      {1, 5000, {1, 2, 3}, {1, 2, 1}, {0, 1, 1}, {0, 1, 1}},
      {1, 1, {1, 1, 1}, {1, 1, 70}, {0, 0, 3}, {0, 0, 4}},
  };
  for (const auto& map : maps)
    for (const Border border : {Border::zeros, Border::reflect, Border::replicate, Border::circular})
      for (const bool channels_last : {false, true}) {
        Upsampling shape = {element, channels_last, map.samples, map.channels, {}, {}, {}, {}, border};
        std::memcpy(shape.input, map.input, sizeof shape.input);
        std::memcpy(shape.scale, map.scale, sizeof shape.scale);
        std::memcpy(shape.padding, map.before, sizeof shape.padding);
        check_upsampling(shape, map.after, isa, tolerance);
      }
}

}  // namespace

int main() {
  const Element elements[] = {Element::f32, Element::f64, Element::bf16, Element::f16};
  const double tolerances[] = {2e-5, 1e-8, 3e-2, 4e-3};
  const int64_t shapes[][3] = {{1, 1, 1}, {2, 3, 1}, {1, 5, 7}, {2, 16, 15}, {1, 17, 33}, {3, 2, 4097}, {1, 3, 12289}, {1, 70, 600}};
  for (const char* const* isa = available_isas(); *isa; ++isa) {
    use_isa(*isa);
    for (int e = 0; e < 4; ++e) {
      check_convolutions(elements[e], *isa, tolerances[e]);
      check_upsamplings(elements[e], *isa, tolerances[e]);
      for (const auto& shape : shapes)
        for (const bool channels_last : {false, true})
          for (int code = 0; code < 5; ++code) {
            const Case c{{elements[e], shape[0], shape[1], shape[2], channels_last}, *isa, tolerances[e]};
            check_norm(c, code, code % 2);
            check_layer(c, code, code % 2);
          }
    }
    std::printf("%s: checked\n", *isa);
  }
  if (failures) std::printf("%d values are wrong\n", failures);
  return failures != 0;
}
