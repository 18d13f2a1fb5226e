// Minimal filterings of one dimension: Winograd 1980; Lavin and Gray, arXiv:1509.09308. A few elements are added up, multiplied
// with filters that are added up likewise, and the products added up to outputs:
//
//   3 taps, 2 outputs: 4 products.   data d0-d2, d1+d2, d2-d1, d1-d3    filter g0, (g0+g1+g2)/2, (g0-g1+g2)/2, g2
//                                    outputs m0+m1+m2, m1-m2-m3
//   3 taps, 4 outputs: 6 products, of polynomials' values at 0, a, -a, b, -b and infinity.
//   upsampled, 4 outputs: 6 products, 3 for either phase: of 2 taps of its own, which make 2 outputs.
//                                    data d0-d1, d1, d1-d2, d2, d2-d3   filter g0, g0+g1, g1    outputs m0+m1, m1-m2
//   upsampled, 5 taps: 8 products for 4 outputs, or 12 for 8: either phase has 3 taps, as above.
//   a stride of 2, 2 outputs: every second tap meets every second element. 2 taps as a phase above: 3 products; a single
//   one: 2. 3 taps have 5 products, 4 taps 6.
//   transposed, stride 2, 4 outputs: of 3 taps one phase has 2, the other a single one: 5 products.

#pragma once

#include "vector.h"

namespace fastnorm::FASTNORM_ISA {

// In height or width, a tile reads `reach` elements, `step` after those of the one before. The convolution has `taps` (or in
// both dimensions parts of as many), and its elements lie `apart`.
template <int outputs>
struct PlainFiltering;

template <>
struct PlainFiltering<2> {
  static constexpr int taps = 3, stride = 1, apart = 1;
  static constexpr int reach = 4, step = 2, data = 4, products = 4, outputs = 2;

  static constexpr int data_of(int product) { return product; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    to[0] = g[0];
    to[1] = (g[0] + g[2] + g[1]) * 0.5f;
    to[2] = (g[0] + g[2] - g[1]) * 0.5f;
    to[3] = g[2];
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
};

// By points at which values in both directions err least. Beside a direct sum as torch's, of 64, 128 and 256 channels of dense
// maps, errors are 1.06, 0.76 and 0.55 with 2 outputs in the other dimension; with 4, 1.8, and in short sums (minimal.h) 0.9
// and 0.7. Of sparse maps a direct sum is more exact: where a tenth is not zero, the last are 2.5 and 1.9.
template <>
struct PlainFiltering<4> {
  static constexpr int taps = 3, stride = 1, apart = 1;
  static constexpr int reach = 6, step = 4, data = 6, products = 6, outputs = 4;
  static constexpr float a = 0.6875f, b = 1.5f, aa = a * a, bb = b * b;

  static constexpr int data_of(int product) { return product; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    const V even_a = d[4] - d[2] * bb, odd_a = (d[3] - d[1] * bb) * a;
    const V even_b = d[4] - d[2] * aa, odd_b = (d[3] - d[1] * aa) * b;
    to[0] = even_a - (d[2] - d[0] * bb) * aa;
    to[1] = even_a + odd_a, to[2] = even_a - odd_a;
    to[3] = even_b + odd_b, to[4] = even_b - odd_b;
    to[5] = d[5] - d[3] * bb - (d[3] - d[1] * bb) * aa;
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    const V even_a = (g[0] + g[2] * aa) * of_a, odd_a = g[1] * (a * of_a);
    const V even_b = (g[0] + g[2] * bb) * of_b, odd_b = g[1] * (b * of_b);
    to[0] = g[0] * (1 / (aa * bb));
    to[1] = even_a + odd_a, to[2] = even_a - odd_a;
    to[3] = even_b + odd_b, to[4] = even_b - odd_b;
    to[5] = g[2];
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    const V even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = odd_a * a + odd_b * b;
    y[2] = even_a * aa + even_b * bb;
    y[3] = odd_a * (a * aa) + odd_b * (b * bb) + m[5];
  }

 private:
  static constexpr float of_a = 1 / (2 * aa * (aa - bb)), of_b = 1 / (2 * bb * (bb - aa));
};

// 2 taps, 2 outputs: what a phase is made of, of every second element or tap.
struct TwoTaps {
  template <class V>
  IN_PLACE static void spread(V d0, V d1, V d2, V* to) {
    to[0] = d0 - d1, to[1] = d1, to[2] = d1 - d2;
  }
  template <class V>
  static void filter(V g0, V g1, V* to) {
    to[0] = g0, to[1] = g0 + g1, to[2] = g1;
  }
  template <class V>
  IN_PLACE static V first(const V* m) { return m[0] + m[1]; }
  template <class V>
  IN_PLACE static V second(const V* m) { return m[1] - m[2]; }
};

struct UpsampledFiltering {
  static constexpr int taps = 4, stride = 1, apart = 2;
  static constexpr int reach = 4, step = 2, data = 5, products = 6, outputs = 4;

  static constexpr int data_of(int product) { return product / 3 * 2 + product % 3; }
  // The phases share a difference.
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    TwoTaps::spread(d[0], d[1], d[2], to);
    TwoTaps::spread(d[1], d[2], d[3], to + 2);
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    TwoTaps::filter(g[0], g[2], to);
    TwoTaps::filter(g[1], g[3], to + 3);
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    y[0] = TwoTaps::first(m), y[1] = TwoTaps::first(m + 3);
    y[2] = TwoTaps::second(m), y[3] = TwoTaps::second(m + 3);
  }
};

// Of 5 taps, which meet 6 where the elements lie apart: the even ones make the odd outputs. Either phase has `count`.
template <int count>
struct UpsampledWideFiltering {
  using Phase = PlainFiltering<count>;
  static constexpr int taps = 6, stride = 1, apart = 2;
  static constexpr int reach = Phase::reach, step = count, data = Phase::data, products = 2 * Phase::products;
  static constexpr int outputs = 2 * count;

  static constexpr int data_of(int product) { return product % data; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    Phase::spread(d, to);
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    for (int phase = 0; phase < 2; ++phase) {
      const V own[] = {g[1 - phase], g[3 - phase], g[5 - phase]};
      V products_of_phase[data];
      Phase::filter(own, products_of_phase);
      for (int i = 0; i < data; ++i) to[data * phase + i] = products_of_phase[i];
    }
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    unrolled<2>([&](int phase) IN_PLACE {
      V own[data], outputs_of_phase[count];
      unrolled<data>([&](int i) IN_PLACE { own[i] = m[data * phase + i]; });
      Phase::collect(own, outputs_of_phase);
      unrolled<count>([&](int i) IN_PLACE { y[2 * i + phase] = outputs_of_phase[i]; });
    });
  }
};

// Of 3 or 4 taps: the even ones are 2, the odd ones 1 or 2.
template <int width>
struct StridedFiltering {
  static constexpr int taps = width, stride = 2, apart = 1;
  static constexpr int reach = width + 2, step = 4, data = width + 2, products = width + 2, outputs = 2;

  static constexpr int data_of(int product) { return product; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    TwoTaps::spread(d[0], d[2], d[4], to);
    if constexpr (width == 4) TwoTaps::spread(d[1], d[3], d[5], to + 3);
    else to[3] = d[1], to[4] = d[3];
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    TwoTaps::filter(g[0], g[2], to);
    if constexpr (width == 4) TwoTaps::filter(g[1], g[3], to + 3);
    else to[3] = to[4] = g[1];
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    y[0] = TwoTaps::first(m), y[1] = TwoTaps::second(m);
    if constexpr (width == 4) y[0] += TwoTaps::first(m + 3), y[1] += TwoTaps::second(m + 3);
    else y[0] += m[3], y[1] += m[4];
  }
};

// Of 3 taps, padded by 1: the middle one makes the even outputs, the others the odd.
struct TransposedFiltering {
  static constexpr int taps = 3, stride = 1, apart = 2;
  static constexpr int reach = 3, step = 2, data = 4, products = 5, outputs = 4;

  static constexpr int data_of(int product) { return product < 4 ? product : 1; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    TwoTaps::spread(d[0], d[1], d[2], to);
    to[3] = d[0];
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    TwoTaps::filter(g[0], g[2], to);
    to[3] = to[4] = g[1];
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    y[0] = m[3], y[1] = TwoTaps::first(m);
    y[2] = m[4], y[3] = TwoTaps::second(m);
  }
};

}  // namespace fastnorm::FASTNORM_ISA
