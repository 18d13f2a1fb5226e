// Attention-weighted statistics.

#include "checks.h"

#include <algorithm>

using namespace fastnorm;

namespace {

int64_t at(const Planes& p, int64_t n, int64_t c, int64_t i) {
  return p.channels_last ? (n * p.size + i) * p.channels + c : (n * p.channels + c) * p.size + i;
}

void check_call(const Planes& queries, const Planes& keys, const Planes& values, double scale, double min_var, bool with_std) {
  const Element element = queries.element;
  Planes results = values;
  results.size = queries.size, results.channels_last = queries.channels_last;
  Array query(element, elements_of(queries)), key(element, elements_of(keys)), value(element, elements_of(values));
  const Element wide = wide_of(element);
  Array mean(wide, elements_of(results)), std(wide, elements_of(results));
  query.fill(1), key.fill(2), value.fill(3);
  kernels().attention_stats(
      {queries, keys, values, scale, min_var, query.data, key.data, value.data, mean.data,
       with_std ? std.data : nullptr},
      three);

  Array grad_mean(wide, elements_of(results)), grad_std(wide, elements_of(results));
  Array grad_query(element, elements_of(queries)), grad_key(element, elements_of(keys)), grad_value(element, elements_of(values));
  grad_mean.fill(4), grad_std.fill(5);
  kernels().attention_stats_backward(
      {queries, keys, values, results, scale, min_var, grad_mean.data, with_std ? grad_std.data : nullptr, query.data,
       key.data, value.data, mean.data, std.data, grad_query.data, grad_key.data, grad_value.data},
      three);
  std::vector<double> of_query(elements_of(queries)), of_key(elements_of(keys)), of_value(elements_of(values));

  const auto check = [&](const char* what, double found, double expected, double factor = 4) {
    if (std::abs(found - expected) <= factor * tolerance_of(element) * (1 + std::abs(expected))) return;
    complain(
        "attention %s, element %d, %d queries, %d keys, %d and %d channels: expected %g, got %g\n", what, int(element),
        int(queries.size), int(keys.size), int(queries.channels), int(values.channels), expected, found);
  };
  std::vector<double> weight(keys.size);
  for (int64_t n = 0; n < queries.samples; ++n)
    for (int64_t q = 0; q < queries.size; ++q) {
      for (int64_t k = 0; k < keys.size; ++k) {
        weight[k] = 0;
        for (int64_t c = 0; c < queries.channels; ++c)
          weight[k] += scale * query.get(at(queries, n, c, q)) * key.get(at(keys, n, c, k));
      }
      const double largest = *std::max_element(weight.begin(), weight.end());
      double total = 0;
      for (double& w : weight) total += w = std::exp(w - largest);
      std::vector<double> slope(keys.size);
      for (int64_t d = 0; d < values.channels; ++d) {
        double first = 0, second = 0;
        const auto x = [&](int64_t k) { return value.get(at(values, n, d, k)); };
        for (int64_t k = 0; k < keys.size; ++k) first += weight[k] / total * x(k);
        for (int64_t k = 0; k < keys.size; ++k) second += weight[k] / total * std::pow(x(k) - first, 2);
        const double deviation = std::sqrt(std::max(second, min_var));
        check("mean", mean.get(at(results, n, d, q)), first);
        if (with_std) check("deviation", std.get(at(results, n, d, q)), deviation);
        const double of_mean = grad_mean.get(at(results, n, d, q));
        const double of_var = with_std && second > min_var ? grad_std.get(at(results, n, d, q)) / (2 * deviation) : 0;
        for (int64_t k = 0; k < keys.size; ++k) {
          slope[k] += of_mean * x(k) + of_var * std::pow(x(k) - first, 2);
          of_value[at(values, n, d, k)] += weight[k] / total * (of_mean + 2 * of_var * (x(k) - first));
        }
      }
      double level = 0;
      for (int64_t k = 0; k < keys.size; ++k) level += weight[k] / total * slope[k];
      for (int64_t k = 0; k < keys.size; ++k)
        for (int64_t c = 0; c < queries.channels; ++c) {
          const double of_score = scale * weight[k] / total * (slope[k] - level);
          of_query[at(queries, n, c, q)] += of_score * key.get(at(keys, n, c, k));
          of_key[at(keys, n, c, k)] += of_score * query.get(at(queries, n, c, q));
        }
    }
  const auto check_all = [&](const char* what, const Array& found, const std::vector<double>& expected) {
    for (size_t i = 0; i < expected.size(); ++i) check(what, found.get(i), expected[i], 16);
  };
  check_all("gradient of a query", grad_query, of_query);
  check_all("gradient of a key", grad_key, of_key);
  check_all("gradient of a value", grad_value, of_value);
}

}  // namespace

void fastnorm::check_attention(Element element) {
  struct {
    int64_t samples, queries, keys, channels, value_channels;
  } const sizes[] = {{2, 53, 41, 5, 3}, {1, 1, 1, 1, 1}, {1, 97, 200, 19, 17}, {1, 400, 97, 3, 9}, {2, 7, 30, 0, 2}, {1, 5, 9, 200, 4}};
  for (const auto& s : sizes)
    for (const bool channels_last : {false, true})
      for (const bool with_std : {false, true}) {
        const Planes queries = {element, s.samples, s.channels, s.queries, channels_last};
        const Planes keys = {element, s.samples, s.channels, s.keys, !channels_last};
        // Far enough from 0 that no root of what is left of a difference is taken.
        check_call(queries, keys, {element, s.samples, s.value_channels, s.keys, channels_last}, 0.02, 0.5, with_std);
      }
}
