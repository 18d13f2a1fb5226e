// Upsampling and padding, and their gradient.

#include "checks.h"

using namespace fastnorm;

namespace {

// An upsampling and padding, number by number: output[p] = input[inside(p - before) / scale].
void check_upsampling(Upsampling shape, const int64_t* after) {
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
    complain(
        "upsampling, %s: %g, not %g (type %d, border %d, channels_last %d)\n", what, found, expected, int(shape.element),
        int(shape.border), shape.channels_last);
  };
  for (int64_t plane = 0; plane < planes; ++plane)
    for (int64_t p = 0; p < results; ++p) {
      const int64_t n = plane / shape.channels, c = plane % shape.channels;
      const Position at = position(p, shape.output);
      const int64_t to = place(shape.channels_last, shape.channels, shape.output, n, c, at);
      Position seen;
      bool zero = false;
      for (int d = 0; d < 3; ++d) {
        const int64_t read = inside(at[d] - shape.padding[d], shape.input[d] * shape.scale[d], shape.border);
        zero |= read < 0;
        seen[d] = read / shape.scale[d];
      }
      const int64_t from = zero ? 0 : place(shape.channels_last, shape.channels, shape.input, n, c, seen);
      check("output", output.get(to), zero ? 0 : input.get(from), 0);
      if (!zero) sums[from] += grad.get(to);
    }
  for (int64_t i = 0; i < planes * pixels; ++i) check("gradient", grad_input.get(i), sums[i], tolerance_of(shape.element));
}

}  // namespace

void fastnorm::check_upsamplings(Element element) {
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
        check_upsampling(shape, map.after);
      }
}
