// Positions of a map, of many channels each, between memory and rows in cache: one row for each channel.

#pragma once

#include <type_traits>

#include "rows.h"

namespace fastnorm::FASTNORM_ISA {

// One sample.
template <class T>
struct Positions {
  using W = Wide<std::remove_const_t<T>>;

  T* data;
  int64_t channels, size;
  bool channels_last;

  template <class E>
  Positions(const Planes& planes, E* map, int64_t sample)
      : data(static_cast<T*>(map) + sample * planes.channels * planes.size),
        channels(planes.channels),
        size(planes.size),
        channels_last(planes.channels_last) {}

  // Rows of `count` positions, of channels from `channel` to `end`, `stride` apart: times `scale`.
  void read(int64_t channel, int64_t end, int64_t first, int64_t count, W scale, W* rows, int64_t stride) const {
    const Vector<W> factor = broadcast(scale);
    if (!channels_last) {
      for (int64_t c = channel; c < end; ++c, rows += stride) {
        const T* from = data + c * size + first;
        for_each_vector<W>(0, count, [&](int64_t i, auto part) { store(rows + i, load(from + i, part) * factor, part); });
      }
      return;
    }
    for_each_square<W>(count, end - channel, [&](int64_t c, int width, int64_t x, int length) {
      Vector<W> square[lanes<W>] = {};
      for (int i = 0; i < length; ++i) square[i] = load_line(at(channel + c, first + x + i), width) * factor;
      transpose<W>(square);
      for (int i = 0; i < width; ++i) store_part(rows + (c + i) * stride + x, square[i], length);
    });
  }

  // The same way back.
  void write(int64_t channel, int64_t end, int64_t first, int64_t count, const W* rows, int64_t stride) const {
    if (!channels_last) {
      for (int64_t c = channel; c < end; ++c, rows += stride) {
        T* to = data + c * size + first;
        for_each_vector<W>(0, count, [&](int64_t i, auto part) { store(to + i, load(rows + i, part), part); });
      }
      return;
    }
    for_each_square<W>(count, end - channel, [&](int64_t c, int width, int64_t x, int length) {
      Vector<W> square[lanes<W>] = {};
      for (int i = 0; i < width; ++i) square[i] = load_part(rows + (c + i) * stride + x, length);
      transpose<W>(square);
      for (int i = 0; i < length; ++i) store_part(at(channel + c, first + x + i), square[i], width);
    });
  }
  void write(int64_t first, int64_t count, const W* rows, int64_t stride) const {
    write(0, channels, first, count, rows, stride);
  }

 private:
  // Whole wherever the map goes on: what lies beyond a few channels is not looked at.
  Vector<W> load_line(const T* p, int count) const {
    return p + lanes<W> <= data + channels * size ? load(p) : load(p, count);
  }

  // Most parts are whole.
  template <class E>
  static Vector<W> load_part(const E* p, int count) {
    return count == lanes<W> ? load(p) : load(p, count);
  }
  template <class E>
  static void store_part(E* p, Vector<W> v, int count) {
    count == lanes<W> ? store(p, v) : store(p, v, count);
  }

  T* at(int64_t channel, int64_t position) const { return data + position * channels + channel; }
};

}  // namespace fastnorm::FASTNORM_ISA
