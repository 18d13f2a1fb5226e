// The end of a result's row: its phases side by side, a bias, an activation, its moments, and memory.

#pragma once

#include "rows.h"

namespace fastnorm::FASTNORM_ISA {

// Phases `pitch` apart, each of which has every `phases`-th element, to a line that has room for whole vectors of them.
template <class W>
inline void interleave(const W* row, int64_t phases, int64_t pitch, int64_t length, W* line) {
  if (phases == 2) {
    for (int64_t q = 0; 2 * q < length; q += lanes<W>) {
      const Vector<W> even = load(row + q), odd = load(row + pitch + q);
      store(line + 2 * q, in_turn<false, W>(even, odd));
      store(line + 2 * q + lanes<W>, in_turn<true, W>(even, odd));
    }
    return;
  }
  for (int64_t phase = 0; phase < phases; ++phase)
    for (int64_t q = 0; q * phases + phase < length; ++q) line[q * phases + phase] = row[phase * pitch + q];
}

// `out` may be the row itself.
template <class T, class W>
inline void finish_row(
    T* out, const W* row, int64_t length, W bias, const Activation& activation, PartMoments<W>* moments) {
  const Vector<W> add = broadcast(bias);
  const int code = activation.code;
  const W slope = static_cast<W>(activation.slope);
  const auto value = [&](int64_t i, auto count) IN_PLACE { return activate(load(row + i, count) + add, code, slope); };
  if (!moments) {
    for_each_vector<W>(0, length, [&](int64_t i, auto count) { store(out + i, value(i, count), count); });
    return;
  }
  if (moments->empty()) {
    Vector<W> total = {};
    for_each_vector<W>(0, length, [&](int64_t i, auto count) { total += keep<W>(value(i, count), count); });
    moments->begin(sum<W>(total) / static_cast<W>(length));
  }
  const Vector<W> pivot = broadcast(moments->pivot());
  Vector<W> deviations[2] = {}, squares[2] = {};
  const auto take = [&](int64_t i, int a, auto count) IN_PLACE {
    const Vector<W> v = value(i, count), d = keep<W>(v - pivot, count);
    deviations[a] += d;
    squares[a] += d * d;
    store(out + i, v, count);
  };
  int64_t i = 0;
  for (; i + 2 * lanes<W> <= length; i += 2 * lanes<W>) {
    take(i, 0, Whole{});
    take(i + lanes<W>, 1, Whole{});
  }
  for_each_vector<W>(i, length, [&](int64_t j, auto count) { take(j, 0, count); });
  moments->add(deviations[0] + deviations[1], squares[0] + squares[1], length);
}

}  // namespace fastnorm::FASTNORM_ISA
