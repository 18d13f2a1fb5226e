// Products of channels, summed over positions.

#include "checks.h"

using namespace fastnorm;

namespace {

void check_call(const Planes& planes, bool centred) {
  const int64_t channels = planes.channels;
  Array input(planes.element, elements_of(planes));
  Array gram(wide_of(planes.element), planes.samples * channels * channels), mean(wide_of(planes.element), count_of(planes));
  input.fill(1);
  kernels().gram_matrix({planes, input.data, gram.data, centred ? mean.data : nullptr}, three);

  const auto at = [&](int64_t n, int64_t c, int64_t p) {
    return input.get(planes.channels_last ? (n * planes.size + p) * channels + c : (n * channels + c) * planes.size + p);
  };
  const auto check = [&](const char* what, double found, double expected, double scale) {
    if (std::abs(found - expected) <= tolerance_of(wide_of(planes.element)) * scale) return;
    complain(
        "gram %s, element %d, %d samples, %d channels, %d positions: expected %g, got %g\n", what, int(planes.element),
        int(planes.samples), int(channels), int(planes.size), expected, found);
  };
  std::vector<double> less(channels);
  for (int64_t n = 0; n < planes.samples; ++n) {
    for (int64_t c = 0; c < channels && centred; ++c) {
      less[c] = 0;
      for (int64_t p = 0; p < planes.size; ++p) less[c] += at(n, c, p) / planes.size;
      check("mean", mean.get(n * channels + c), less[c], 1);
    }
    for (int64_t i = 0; i < channels; ++i)
      for (int64_t j = 0; j <= i; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < planes.size; ++p) sum += (at(n, i, p) - less[i]) * (at(n, j, p) - less[j]);
        const double found = gram.get((n * channels + i) * channels + j);
        check("matrix", found, sum, 1 + planes.size);
        if (gram.get((n * channels + j) * channels + i) != found) complain("gram: row %d, column %d: not symmetric\n", int(j), int(i));
      }
  }
}

}  // namespace

void fastnorm::check_gram(Element element) {
  const int64_t sizes[][3] = {{2, 5, 53}, {1, 1, 1}, {1, 97, 20}, {3, 24, 97}, {1, 17, 1000}, {2, 49, 96}, {1, 8, 400}, {2, 0, 3}};
  for (const auto& [samples, channels, size] : sizes)
    for (const bool channels_last : {false, true})
      for (const bool centred : {false, true}) check_call({element, samples, channels, size, channels_last}, centred);
}
