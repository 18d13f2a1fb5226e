// Patches: matched, and swapped.

#include "checks.h"

#include <algorithm>

using namespace fastnorm;

namespace {

struct Map {
  Planes planes;
  int64_t width;

  Map(Element element, int64_t samples, int64_t channels, int64_t height, int64_t width, bool channels_last)
      : planes{element, samples, channels, height * width, channels_last}, width(width) {}

  int64_t at(int64_t n, int64_t c, int64_t i) const {
    const Planes& p = planes;
    return p.channels_last ? (n * p.size + i) * p.channels + c : (n * p.channels + c) * p.size + i;
  }
  int64_t columns(int64_t size, int64_t stride) const { return (width - size) / stride + 1; }
  int64_t patches(int64_t size, int64_t stride) const {
    return ((planes.size / width - size) / stride + 1) * columns(size, stride);
  }
  // Pixel `i` of a patch.
  int64_t pixel(int64_t patch, int64_t size, int64_t stride, int64_t i) const {
    const int64_t count = columns(size, stride);
    return (patch / count * stride + i / size) * width + patch % count * stride + i % size;
  }
};

double product(
    const Map& a, const Array& one, int64_t n, int64_t p, const Map& b, const Array& other, int64_t m, int64_t q,
    int64_t size, int64_t stride) {
  double sum = 0;
  for (int64_t c = 0; c < a.planes.channels; ++c)
    for (int64_t i = 0; i < size * size; ++i)
      sum += one.get(a.at(n, c, a.pixel(p, size, stride, i))) * other.get(b.at(m, c, b.pixel(q, size, stride, i)));
  return sum;
}

// As far as rounding lets one see: no patch of the style correlates better than the one that was chosen.
void check_match(const Map& contents, const Map& styles, int64_t size, int64_t stride, double penalty) {
  const Element element = contents.planes.element;
  Array content(element, elements_of(contents.planes)), style(element, elements_of(styles.planes));
  content.fill(1), style.fill(2);
  const int64_t patches = contents.patches(size, stride), of_style = styles.patches(size, stride);
  std::vector<int64_t> index(contents.planes.samples * patches, -1);
  Array score(wide_of(element), contents.planes.samples * patches);
  kernels().patch_match(
      {contents.planes, styles.planes, contents.width, styles.width, size, stride, penalty, content.data, style.data,
       index.data(), score.data},
      three);
  for (int64_t n = 0; n < contents.planes.samples; ++n) {
    const int64_t m = styles.planes.samples == 1 ? 0 : n;
    std::vector<int64_t> used(of_style, 0);
    for (int64_t p = 0; p < patches; ++p) {
      const int64_t found = index[n * patches + p];
      const auto complain_of = [&](const char* what, double value, double expected) {
        complain(
            "patch_match, element %d, %d pixels of %d and of %d, patches of %d every %d: %s %g, expected %g\n", int(element),
            int(contents.planes.size), int(contents.width), int(styles.width), int(size), int(stride), what, value,
            expected);
      };
      if (found < 0 || found >= of_style) {
        complain_of("index", double(found), double(of_style));
        return;
      }
      const double length = std::sqrt(product(contents, content, n, p, contents, content, n, p, size, stride));
      double best = -INFINITY, chosen = 0;
      for (int64_t q = 0; q < of_style; ++q) {
        const double own = std::sqrt(product(styles, style, m, q, styles, style, m, q, size, stride));
        const double dot = product(contents, content, n, p, styles, style, m, q, size, stride);
        const double correlation = length * own > 0 ? dot / (length * own) : 0;
        best = std::max(best, correlation - penalty * used[q]);
        if (q == found) chosen = correlation;
      }
      const double value = chosen - penalty * used[found];
      if (!(value >= best - 1e-5)) complain_of("chosen", value, best);
      if (!(std::abs(score.get(n * patches + p) - chosen) <= 1e-5)) complain_of("score", score.get(n * patches + p), chosen);
      ++used[found];
    }
  }
}

void check_swap(const Map& styles, const Map& swapped, int64_t size, int64_t stride, bool forward) {
  const Element element = styles.planes.element;
  const Map &from = forward ? styles : swapped, &to = forward ? swapped : styles;
  Array input(element, elements_of(from.planes)), output(element, elements_of(to.planes));
  input.fill(3);
  const int64_t patches = swapped.patches(size, stride), of_style = styles.patches(size, stride);
  std::vector<int64_t> index(styles.planes.samples * patches);
  for (size_t i = 0; i < index.size(); ++i) index[i] = i * 7919 % of_style;
  kernels().swap_patches(
      {styles.planes, swapped.planes, styles.width, swapped.width, size, stride, forward, index.data(), input.data,
       output.data},
      three);
  std::vector<double> covered(swapped.planes.size, 0);
  for (int64_t p = 0; p < patches; ++p)
    for (int64_t i = 0; i < size * size; ++i) ++covered[swapped.pixel(p, size, stride, i)];
  std::vector<double> expected(elements_of(to.planes), 0);
  for (int64_t n = 0; n < styles.planes.samples; ++n)
    for (int64_t c = 0; c < styles.planes.channels; ++c)
      for (int64_t p = 0; p < patches; ++p)
        for (int64_t i = 0; i < size * size; ++i) {
          const int64_t here = swapped.pixel(p, size, stride, i);
          const int64_t there = styles.pixel(index[n * patches + p], size, stride, i);
          expected[to.at(n, c, forward ? here : there)] += input.get(from.at(n, c, forward ? there : here)) / covered[here];
        }
  for (int64_t i = 0; i < output.size; ++i)
    if (!(std::abs(output.get(i) - expected[i]) <= tolerance_of(element) * (1 + std::abs(expected[i]))))
      complain(
          "swap_patches %d, element %d, %d pixels to %d, patches of %d every %d: %g, expected %g\n", forward, int(element),
          int(styles.planes.size), int(swapped.planes.size), int(size), int(stride), output.get(i), expected[i]);
}

}  // namespace

void fastnorm::check_patches(Element element) {
  struct {
    int64_t samples, styles, channels, height, width, style_height, style_width, size, stride;
  } const sizes[] = {
      {2, 2, 5, 6, 19, 7, 9, 3, 1}, {2, 1, 17, 5, 6, 4, 21, 2, 2}, {1, 1, 100, 7, 34, 8, 5, 3, 2},
      {1, 1, 3, 9, 9, 8, 11, 2, 3}, {1, 1, 0, 3, 3, 4, 4, 3, 1},   {1, 1, 2, 1, 70, 2, 1, 1, 1},
      {1, 1, 4, 11, 12, 13, 9, 5, 4},
  };
  for (const auto& s : sizes)
    for (const bool channels_last : {false, true}) {
      const Map contents(element, s.samples, s.channels, s.height, s.width, channels_last);
      const Map styles(element, s.styles, s.channels, s.style_height, s.style_width, !channels_last);
      check_match(contents, styles, s.size, s.stride, 0);
      check_match(contents, styles, s.size, s.stride, 0.2);
      const Map every(element, s.samples, s.channels, s.style_height, s.style_width, channels_last);
      check_swap(every, contents, s.size, s.stride, true);
      check_swap(every, contents, s.size, s.stride, false);
    }
}
