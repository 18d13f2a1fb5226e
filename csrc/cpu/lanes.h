// Lanes of vectors that change places.

#pragma once

#include "vector.h"

namespace fastnorm::FASTNORM_ISA {

// Lanes `first`, first + 1, ... of two vectors side by side.
template <int first, class W>
IN_PLACE inline Vector<W> shifted(Vector<W> a, Vector<W> b) {
#if defined(__clang__)
  Vector<W> result;
  for (int i = 0; i < lanes<W>; ++i) result[i] = first + i < lanes<W> ? a[first + i] : b[first + i - lanes<W>];
  return result;
#else
  Mask<W> index;
  for (int i = 0; i < lanes<W>; ++i) index[i] = first + i;
  return __builtin_shuffle(a, b, index);
#endif
}

// Of two vectors side by side, each second lane from `first` on.
template <int first, class W>
IN_PLACE inline Vector<W> every_second(Vector<W> a, Vector<W> b) {
#if defined(__clang__)
  Vector<W> result;
  for (int i = 0; i < lanes<W>; ++i) result[i] = 2 * i < lanes<W> ? a[2 * i + first] : b[2 * i + first - lanes<W>];
  return result;
#else
  Mask<W> index;
  for (int i = 0; i < lanes<W>; ++i) index[i] = 2 * i + first;
  return __builtin_shuffle(a, b, index);
#endif
}

// Lanes of two vectors in turn: those of their lower halves, or of their upper ones.
template <bool upper, class W>
IN_PLACE inline Vector<W> in_turn(Vector<W> a, Vector<W> b) {
  constexpr int start = upper ? lanes<W> / 2 : 0;
#if defined(__clang__)
  Vector<W> result;
  for (int i = 0; i < lanes<W>; ++i) result[i] = i % 2 ? b[start + i / 2] : a[start + i / 2];
  return result;
#else
  Mask<W> index;
  for (int i = 0; i < lanes<W>; ++i) index[i] = start + i / 2 + (i % 2 ? lanes<W> : 0);
  return __builtin_shuffle(a, b, index);
#endif
}

// Of a square of vectors, by Eklundh's exchanges of ever smaller quarters.
template <int step, class W>
inline void exchange_quarters(Vector<W> (&square)[lanes<W>]) {
  using Index = Mask<W>;
  Index low, high;  // of two vectors side by side, what stays where it is and what changes places
  for (int i = 0; i < lanes<W>; ++i) {
    low[i] = i & step ? lanes<W> + i - step : i;
    high[i] = i & step ? lanes<W> + i : i + step;
  }
  for (int i = 0; i < lanes<W>; ++i)
    if (!(i & step)) {
      const Vector<W> a = square[i], b = square[i + step];
#if defined(__clang__)
      for (int j = 0; j < lanes<W>; ++j) {
        square[i][j] = j & step ? b[j - step] : a[j];
        square[i + step][j] = j & step ? b[j] : a[j + step];
      }
#else
      square[i] = __builtin_shuffle(a, b, low);
      square[i + step] = __builtin_shuffle(a, b, high);
#endif
    }
}

template <class W>
IN_PLACE inline void transpose(Vector<W> (&square)[lanes<W>]) {
  if constexpr (lanes<W> > 8) exchange_quarters<8, W>(square);
  if constexpr (lanes<W> > 4) exchange_quarters<4, W>(square);
  if constexpr (lanes<W> > 2) exchange_quarters<2, W>(square);
  exchange_quarters<1, W>(square);
}

}  // namespace fastnorm::FASTNORM_ISA
