// Planes matched to the distribution of others.

#include "checks.h"

#include <algorithm>
#include <memory>
#include <numeric>

using namespace fastnorm;

namespace {

using Numbers = std::vector<double>;

// Exactly as long as it must be; every fourth position, about, does not count.
std::unique_ptr<bool[]> mask_of(const Planes& planes, unsigned seed) {
  std::unique_ptr<bool[]> mask(new bool[planes.samples * planes.size]);
  for (int64_t i = 0; i < planes.samples * planes.size; ++i) mask[i] = (seed = seed * 1664525 + 1013904223) >> 16 & 3;
  return mask;
}

std::vector<int64_t> taken_of(const Planes& planes, const bool* mask, int64_t sample) {
  std::vector<int64_t> taken;
  for (int64_t i = 0; i < planes.size; ++i)
    if (!mask || mask[sample * planes.size + i]) taken.push_back(i);
  return taken;
}

int64_t at(const Planes& p, int64_t n, int64_t c, int64_t i) {
  return p.channels_last ? (n * p.size + i) * p.channels + c : (n * p.channels + c) * p.size + i;
}

Numbers plane_of(const Planes& planes, const Array& map, const std::vector<int64_t>& taken, int64_t n, int64_t c) {
  Numbers numbers;
  for (const int64_t i : taken) numbers.push_back(map.get(at(planes, n, c, i)));
  return numbers;
}

// How much of number i target j is.
std::vector<Numbers> shares(const Numbers& x, const Numbers& y) {
  std::vector<size_t> order(y.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return y[a] < y[b]; });
  const double n = x.size(), m = y.size();
  std::vector<Numbers> shares(x.size(), Numbers(y.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const double below = std::count_if(x.begin(), x.end(), [&](double v) { return v < x[i]; });
    const double equal = std::count(x.begin(), x.end(), x[i]);
    for (size_t rank = 0; rank < y.size(); ++rank) {
      const double common = std::min((below + equal) * m, (rank + 1) * n) - std::max(below * m, rank * n);
      shares[i][order[rank]] = std::max(0.0, common) / (equal * m);
    }
  }
  return shares;
}

struct Histogram {
  double low, width;
  Numbers positions, upto;

  Histogram(const Numbers& x, int64_t bins) : upto(bins + 1) {
    low = *std::min_element(x.begin(), x.end());
    width = *std::max_element(x.begin(), x.end()) - low;
    for (const double v : x) positions.push_back((v - low) / (width ? width : 1) * bins);
    for (const double p : positions)
      for (int64_t k = std::min<int64_t>(p, bins - 1); k < bins; ++k) ++upto[k + 1];
  }
};

Numbers by_bins(const Numbers& x, const Numbers& y, int64_t bins) {
  const Histogram of(x, bins), to(y, bins);
  Numbers found;
  for (const double p : of.positions) {
    const int64_t k = std::min<int64_t>(p, bins - 1);
    const double level = (of.upto[k] + (of.upto[k + 1] - of.upto[k]) * (p - k)) * y.size() / x.size();
    int64_t j = 0;
    while (to.upto[j + 1] < level) ++j;
    const double inside = (level - to.upto[j]) / std::max(1.0, to.upto[j + 1] - to.upto[j]);
    const double mean = std::accumulate(y.begin(), y.end(), 0.0) / y.size();
    found.push_back(of.width ? to.low + (j + inside) / bins * to.width : mean);
  }
  return found;
}

void check_call(const Planes& inputs, const Planes& targets, int64_t bins, bool masked) {
  const Element element = inputs.element;
  Array input(element, elements_of(inputs)), target(element, elements_of(targets)), output(element, elements_of(inputs));
  Array grad(element, elements_of(inputs)), grad_input(element, elements_of(inputs));
  Array grad_target(element, elements_of(targets));
  input.fill(1), target.fill(2), grad.fill(3);
  const auto input_positions = mask_of(inputs, 4), target_positions = mask_of(targets, 5);
  const bool* const input_mask = masked ? input_positions.get() : nullptr;
  const bool* const target_mask = masked ? target_positions.get() : nullptr;
  const PositionMask of_inputs = {input_mask, inputs.size}, of_targets = {target_mask, targets.size};
  kernels().match_histogram({inputs, targets, bins, input.data, target.data, of_inputs, of_targets, output.data}, three);
  kernels().match_histogram_backward(
      {inputs, targets, bins, grad.data, input.data, target.data, of_inputs, of_targets, grad_input.data, grad_target.data},
      three);

  const auto check = [&](const char* what, double found, double expected) {
    if (std::abs(found - expected) <= tolerance_of(element) * (1 + std::abs(expected))) return;
    complain(
        "matching, %s, element %d, %d to %d numbers of %d channels, %d bins: expected %g, got %g\n", what, int(element),
        int(inputs.size), int(targets.size), int(inputs.channels), int(bins), expected, found);
  };
  Numbers of_target(elements_of(targets));
  for (int64_t n = 0; n < inputs.samples; ++n)
    for (int64_t c = 0; c < inputs.channels; ++c) {
      const int64_t t = n % targets.samples;
      const auto taken = taken_of(inputs, input_mask, n), given = taken_of(targets, target_mask, t);
      const Numbers x = plane_of(inputs, input, taken, n, c), y = plane_of(targets, target, given, t, c);
      std::vector<bool> matched(inputs.size);
      if (!x.empty() && !y.empty()) {
        const auto share = shares(x, y);
        const Numbers binned = bins ? by_bins(x, y, bins) : Numbers(x.size());
        for (size_t i = 0; i < x.size(); ++i) {
          const int64_t place = at(inputs, n, c, taken[i]);
          matched[taken[i]] = true;
          const double sorted = std::inner_product(y.begin(), y.end(), share[i].begin(), 0.0);
          check("a number", output.get(place), bins ? binned[i] : sorted);
          check("its gradient", grad_input.get(place), 0);
          for (size_t j = 0; !bins && j < y.size(); ++j)
            of_target[at(targets, t, c, given[j])] += grad.get(place) * share[i][j];
        }
      }
      for (int64_t i = 0; i < inputs.size; ++i)
        if (!matched[i]) {
          const int64_t place = at(inputs, n, c, i);
          check("a number that stays", output.get(place), input.get(place));
          check("its gradient", grad_input.get(place), grad.get(place));
        }
    }
  for (int64_t i = 0; i < elements_of(targets); ++i) check("gradient of a target", grad_target.get(i), of_target[i]);
}

}  // namespace

void fastnorm::check_matching(Element element) {
  struct {
    int64_t samples, target_samples, channels, size, target_size;
  } const sizes[] = {{2, 2, 3, 37, 41}, {3, 1, 19, 41, 37}, {1, 1, 1, 1, 1}, {1, 1, 40, 7, 300}, {1, 1, 1, 2100, 2200}};
  for (const auto& s : sizes)
    for (const bool channels_last : {false, true})
      for (const bool masked : {false, true})
        for (const int64_t bins : {0, 1, 16})
          if (s.size < 1000 || !(masked || bins))
            check_call(
                {element, s.samples, s.channels, s.size, channels_last},
                {element, s.target_samples, s.channels, s.target_size, !channels_last && masked}, bins, masked);
}
