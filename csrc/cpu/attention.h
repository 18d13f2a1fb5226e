// What attention and its backward share: how keys are divided, and where values are 0.

#pragma once

#include <algorithm>

#include "positions.h"
#include "products.h"

namespace fastnorm::FASTNORM_ISA {

// Keys of a block: with a panel's weights they fit in L1.
constexpr int64_t keys_of_a_block = 96;
// Bytes of keys and values that are packed at a time, of as many samples as they are.
constexpr int64_t packed_bytes = int64_t(32) << 20;

// Of each channel the median of a few positions, of which 0 takes the place of what is no number: a value that no query
// attends to may be far from all others, and a mean with it.
template <class T>
inline void find_centres(const Positions<const T>& values, Wide<T>* centre) {
  using W = Wide<T>;
  constexpr int few = 5;
  const Buffer<W> rows(values.channels * few);
  for (int64_t i = 0; i < few; ++i) values.read(0, values.channels, i * (values.size - 1) / (few - 1), 1, 1, rows.get() + i, few);
  for (int64_t c = 0; c < values.channels; ++c) {
    W* found = rows.get() + c * few;
    for (int i = 0; i < few; ++i)
      if (!std::isfinite(found[i])) found[i] = 0;
    std::nth_element(found, found + few / 2, found + few);
    centre[c] = found[few / 2];
  }
}

// Values of some positions less their channels' centres.
template <class T>
inline void read_centred(
    const Positions<const T>& values, int64_t first, int64_t count, const Wide<T>* centre, Wide<T>* rows, int64_t stride) {
  using W = Wide<T>;
  values.read(0, values.channels, first, count, 1, rows, stride);
  for (int64_t d = 0; d < values.channels; ++d) {
    W* row = rows + d * stride;
    const Vector<W> less = broadcast(centre[d]);
    for_each_vector<W>(0, count, [&](int64_t i, auto part) { store(row + i, load(row + i, part) - less, part); });
  }
}

}  // namespace fastnorm::FASTNORM_ISA
