// Norms and their gradients.

#include "checks.h"

using namespace fastnorm;

namespace {

struct Case {
  Planes planes;
  double tolerance;

  int64_t count() const { return count_of(planes); }
  int64_t elements() const { return elements_of(planes); }
  int64_t index(int64_t plane, int64_t i) const {
    const int64_t n = plane / planes.channels, c = plane % planes.channels;
    return planes.channels_last ? (n * planes.size + i) * planes.channels + c : plane * planes.size + i;
  }
  void check(const char* what, double found, double expected) const {
    if (std::abs(found - expected) <= tolerance * (1 + std::abs(expected))) return;
    complain(
        "%s, element %d, (%d, %d, %d), channels_last %d: expected %g, got %g\n", what, int(planes.element),
        int(planes.samples), int(planes.channels), int(planes.size), planes.channels_last, expected, found);
  }
};

double derivative(int code, double x) {
  if (code == 0) return 1;
  if (code < 3) return x > 0 ? 1 : code == 1 ? 0 : slope;
  const double step = 1e-6;
  return (act(code, x + step) - act(code, x - step)) / (2 * step);
}

void check_norm(const Case& c, int code, bool with_maps) {
  const Planes& p = c.planes;
  const Element wide = wide_of(p.element);
  Array x(p.element, c.elements()), gamma(p.element, c.elements()), residual(p.element, c.elements());
  Array grad(p.element, c.elements()), weight(p.element, c.count()), bias(p.element, c.count());
  Array output(p.element, c.elements()), mean(wide, c.count()), rstd(wide, c.count());
  Array grad_x(p.element, c.elements()), grad_gamma(p.element, c.elements()), grad_residual(p.element, c.elements());
  Array grad_weight(wide, c.count()), grad_bias(wide, c.count());
  x.fill(1), gamma.fill(2), residual.fill(3), grad.fill(4), weight.fill(5), bias.fill(6);

  const VarianceRule rule{1e-2, 0, false};
  const Activation activation{code, slope};
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
  const Element wide = wide_of(p.element);
  Array x(p.element, c.elements()), residual(p.element, c.elements()), grad(p.element, c.elements());
  Array rho(p.element, p.channels), weight(p.element, c.count()), bias(p.element, p.channels);
  Array output(p.element, c.elements()), mean(wide, c.count()), var(wide, c.count());
  Array grad_x(p.element, c.elements()), grad_residual(p.element, c.elements());
  Array grad_rho(wide, c.count()), grad_weight(wide, c.count()), grad_bias(wide, c.count());
  x.fill(1), residual.fill(3), grad.fill(4), weight.fill(5), bias.fill(6), rho.fill(7);

  const VarianceRule rule{1e-2, 0, false};
  const Activation activation{code, slope};
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

}  // namespace

void fastnorm::check_norms(Element element) {
  const int64_t shapes[][3] = {{1, 1, 1}, {2, 3, 1}, {1, 5, 7}, {2, 16, 15}, {1, 17, 33}, {3, 2, 4097}, {1, 3, 12289}, {1, 70, 600}};
  for (const auto& shape : shapes)
    for (const bool channels_last : {false, true})
      for (int code = 0; code < activations; ++code) {
        const Case c{{element, shape[0], shape[1], shape[2], channels_last}, tolerance_of(element)};
        check_norm(c, code, code % 2);
        check_layer(c, code, code % 2);
      }
}
