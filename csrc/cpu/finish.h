// The end of a result's row: its phases side by side, a bias, an activation, its moments, and memory.

#pragma once

#include <type_traits>

#include "blocks.h"

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
    T* out, const W* row, int64_t length, W bias, const Activation& activation, PartMoments<W>* moments,
    bool past_caches = false) {
  const Vector<W> add = broadcast(bias);
  const int code = activation.code;
  const W slope = static_cast<W>(activation.slope);
  const auto value = [&](int64_t i, auto count) IN_PLACE { return activate_beside(load(row + i, count) + add, code, slope); };
  const bool streams = past_caches && is_aligned(out);
  const auto put = [&](int64_t i, Vector<W> v, auto count) IN_PLACE {
    if constexpr (std::is_same_v<decltype(count), Whole>)
      if (streams) return stream(out + i, v);
    store(out + i, v, count);
  };
  if (!moments) {
    for_each_vector<W>(0, length, [&](int64_t i, auto count) { put(i, value(i, count), count); });
    return;
  }
  if (moments->empty()) {
    Vector<W> total = {};
    const int64_t enough = smaller(length, chunk_size);
    for_each_vector<W>(0, enough, [&](int64_t i, auto count) { total += keep<W>(value(i, count), count); });
    moments->begin(sum<W>(total) / static_cast<W>(enough));
  }
  const Vector<W> pivot = broadcast(moments->pivot());
  // A long row in pieces: longer sums would lose digits.
  for (int64_t i = 0; i < length;) {
    const int64_t first = i, end = smaller(length, first + chunk_size);
    Vector<W> deviations[2] = {}, squares[2] = {};
    const auto take = [&](int64_t j, int a, auto count) IN_PLACE {
      const Vector<W> v = value(j, count), d = keep<W>(v - pivot, count);
      deviations[a] += d;
      squares[a] += d * d;
      put(j, v, count);
    };
    for (; i + 2 * lanes<W> <= end; i += 2 * lanes<W>) {
      take(i, 0, Whole{});
      take(i + lanes<W>, 1, Whole{});
    }
    for_each_vector<W>(i, end, [&](int64_t j, auto count) { take(j, 0, count); });
    moments->add(deviations[0] + deviations[1], squares[0] + squares[1], end - first);
    i = end;
  }
}

// Rows of `channels` planes from `plane` on: each channel's `stride` after the one before, each row's `pitch`. Their share of
// the statistics is that of a part.
template <class T>
inline void finish_rows(
    const Pass<T>& pass, int64_t plane, int64_t channels, Schedule::Range rows, Wide<T>* sums, int64_t stride, int64_t pitch,
    const Wide<T>* bias, int64_t part) {
  using W = Wide<T>;
  const int64_t all = pass.out_channels();
  const Plane<T> result = planes_of(pass.conv, pass.result, pass.result_size(), all, plane / all, plane % all);
  for (int64_t c = 0; c < channels; ++c) {
    PartMoments<W> moments;
    for (int64_t row = rows.first; row < rows.last; ++row) {
      W* of_row = sums + c * stride + (row - rows.first) * pitch;
      const auto finish = [&](auto* out) {
        finish_row(
            out, of_row, result.length, bias[c], pass.result_activation, pass.statistics ? &moments : nullptr,
            pass.past_caches && !result.channels_last);
      };
      if (result.channels_last) finish(of_row);
      else finish(result.at(c, row));
    }
    if (pass.statistics) pass.statistics->put(plane + c, part, moments);
  }
  if (!result.channels_last) return;
  for (int64_t row = rows.first; row < rows.last; ++row)
    write_rows(
        result, channels, row, sums + (row - rows.first) * pitch, stride, static_cast<const W*>(nullptr), pass.past_caches);
}

}  // namespace fastnorm::FASTNORM_ISA
