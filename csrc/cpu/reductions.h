// What is summed over a plane: its moments, or its gradients.
//
// A reduction gives two numbers per plane. It works on chunks, in the wide type, and merges chunks in double, always in
// the same order: the result does not depend on the threads. `span` is a chunk of one plane; `rows` is a chunk of rows of
// `length` channels, with a result for each position in the row.

#pragma once

#include "spans.h"

namespace fastnorm::FASTNORM_ISA {

// Two sums, of one plane (V is double) or of several side by side (V is a vector of doubles).
template <class V>
struct Sums {
  V first = {}, second = {};
};

using Doubles = Vector<double>;

// As many numbers as a vector of doubles holds.
inline Doubles load_doubles(const double* p, Whole) { return load(p); }
inline Doubles load_doubles(const float* p, Whole) {
  return __builtin_convertvector(read<VectorOf<float, lanes<double>>::type>(p), Doubles);
}
template <class W>
inline Doubles load_doubles(const W* p, int count) {
  W part[lanes<double>] = {};
  __builtin_memcpy(part, p, count * sizeof(W));
  return load_doubles(static_cast<const W*>(part), Whole{});
}

// Several accumulators hide the latency of an addition: 4 cycles, and two can start in each.
constexpr int accumulators = 8;

// The rest of a vector of which only the first `count` lanes hold elements, cleared.
template <class W>
inline Vector<W> keep(Vector<W> v, Whole) {
  return v;
}

template <class W>
inline Vector<W> keep(Vector<W> v, int count) {
  for (int lane = count; lane < lanes<W>; ++lane) v[lane] = 0;
  return v;
}

// body(row, group) over 0..count, in groups of rows that share the loads and stores of what they are added to.
template <int size>
struct Group {
  constexpr operator int() const { return size; }
};

template <class Body>
inline void for_each_group(int64_t count, const Body& body) {
  int64_t row = 0;
  for (; row + 4 <= count; row += 4) body(row, Group<4>{});
  for (; row < count; ++row) body(row, Group<1>{});
}

// Mean and sum of squared deviations. A chunk is read twice, the second time from cache, around its own rounded mean: no
// difference of large numbers is taken, and the rounding of the mean is put right by the deviations' own sum. Meanwhile the
// chunk behind it comes in.
template <class T>
struct Moments {
  using W = Wide<T>;
  static constexpr int maps = 1;    // what it reads
  static constexpr int arrays = 3;  // what `rows` gives per position: center, sum of deviations, of their squares

  const T* input;

  Sums<double> span(int64_t offset, int64_t n, const Coefficients<W>&) const {
    const T* x = input + offset;
    Vector<W> sums[accumulators] = {};
    int64_t i = 0;
    for (; i + accumulators * lanes<W> <= n; i += accumulators * lanes<W>)
      unrolled<accumulators>([&](int a) { sums[a] += load(x + i + a * lanes<W>); });
    for_each_vector<W>(i, n, [&](int64_t j, auto count) { sums[0] += load(x + j, count); });
    const W center = static_cast<W>(total(sums) / n);

    Vector<W> deviations[accumulators] = {}, squares[accumulators] = {};
    const auto add = [&](int a, Vector<W> d) {
      deviations[a] += d;
      squares[a] += d * d;
    };
    for (i = 0; i + accumulators * lanes<W> <= n; i += accumulators * lanes<W>)
      unrolled<accumulators>([&](int a) {
        prefetch(x + n + i + a * lanes<W>);
        add(a, load(x + i + a * lanes<W>) - center);
      });
    for_each_vector<W>(
        i, n, [&](int64_t j, auto count) { add(0, keep<W>(load(x + j, count) - center, count)); });
    return moments<double>(center, total(deviations), total(squares), n);
  }

  void rows(int64_t offset, int64_t count, int64_t length, const Coefficients<W>&, W* result) const {
    W *center = result, *deviations = result + length, *squares = result + 2 * length;
    const T* x = input + offset;
    for (int64_t i = 0; i < 3 * length; ++i) result[i] = 0;
    for_each_group(count, [&](int64_t row, auto group) {
      for_each_vector<W>(0, length, [&](int64_t i, auto part) {
        Vector<W> sum = load(center + i, part);
        unrolled<group>([&](int r) { sum += load(x + (row + r) * length + i, part); });
        store(center + i, sum, part);
      });
    });
    for (int64_t i = 0; i < length; ++i) center[i] /= static_cast<W>(count);
    for_each_group(count, [&](int64_t row, auto group) {
      for_each_vector<W>(0, length, [&](int64_t i, auto part) {
        const Vector<W> mean = load(center + i, part);
        Vector<W> sum = load(deviations + i, part), square_sum = load(squares + i, part);
        unrolled<group>([&](int r) {
          prefetch(x + (count + row + r) * length + i);
          const Vector<W> d = load(x + (row + r) * length + i, part) - mean;
          sum += d;
          square_sum += d * d;
        });
        store(deviations + i, sum, part);
        store(squares + i, square_sum, part);
      });
    });
  }

  // From position i of what `rows` gave for `rows_count` rows.
  template <class Count>
  static Sums<Doubles> from_rows(const W* result, int64_t length, int64_t i, Count count, double rows_count) {
    return moments(
        load_doubles(result + i, count), load_doubles(result + length + i, count),
        load_doubles(result + 2 * length + i, count), rows_count);
  }

  template <class V>
  static Sums<V> moments(V center, V deviations, V squares, double n) {
    return {center + deviations / n, squares - deviations * deviations / n};
  }

  // Chan, Golub and LeVeque 1979.
  template <class V>
  static Sums<V> merge(const Sums<V>& a, double a_count, const Sums<V>& b, double b_count) {
    const double weight = b_count / (a_count + b_count);
    const V delta = b.first - a.first;
    return {a.first + delta * weight, a.second + (b.second + delta * delta * (a_count * weight))};
  }

  static double total(const Vector<W> (&sums)[accumulators]) {
    double all = 0;
    for (const Vector<W>& v : sums) all += sum<W>(v);
    return all;
  }
};

// The gradients of scale and shift: sums of grad * (x - center) and of grad, behind activation and gamma.
template <class Forward>
struct GradientSums {
  using T = typename Forward::T;
  using W = Wide<T>;
  static constexpr int maps = 2, arrays = 2;

  Forward forward;
  const T* grad;

  Sums<double> span(int64_t offset, int64_t n, const Coefficients<W>& coefficients) const {
    const OnePlane<W> coefs(coefficients);
    const Forward way = forward;
    Vector<W> firsts[accumulators] = {}, seconds[accumulators] = {};
    int64_t i = 0;
    for (; i + accumulators * lanes<W> <= n; i += accumulators * lanes<W>)
      unrolled<accumulators>(
          [&](int a) { add(way, offset, i + a * lanes<W>, Whole{}, coefs, firsts[a], seconds[a]); });
    for_each_vector<W>(
        i, n, [&](int64_t j, auto count) { add(way, offset, j, count, coefs, firsts[0], seconds[0]); });
    return {Moments<T>::total(firsts), Moments<T>::total(seconds)};
  }

  void rows(int64_t offset, int64_t count, int64_t length, const Coefficients<W>& coefficients, W* result) const {
    const ManyChannels<W> coefs{coefficients};
    const Forward way = forward;
    for (int64_t i = 0; i < 2 * length; ++i) result[i] = 0;
    for_each_group(count, [&](int64_t row, auto group) {
      for_each_vector<W>(0, length, [&](int64_t i, auto part) {
        Vector<W> first = load(result + i, part), second = load(result + length + i, part);
        unrolled<group>([&](int r) {
          add(way, offset + (row + r) * length, i, part, coefs, first, second);
        });
        store(result + i, first, part);
        store(result + length + i, second, part);
      });
    });
  }

  template <class Count>
  static Sums<Doubles> from_rows(const W* result, int64_t length, int64_t i, Count count, double) {
    return {load_doubles(result + i, count), load_doubles(result + length + i, count)};
  }

  template <class V>
  static Sums<V> merge(const Sums<V>& a, double, const Sums<V>& b, double) {
    return {a.first + b.first, a.second + b.second};
  }

 private:
  template <class Count, class Coefs>
  void add(
      const Forward& way, int64_t offset, int64_t i, Count count, const Coefs& coefs, Vector<W>& first,
      Vector<W>& second) const {
    const Point<W> point = way.at(offset, i, count, coefs);
    Vector<W> g = way.through_activation(load(grad + offset + i, count), point);
    g = way.through_gamma(g, point);
    first += keep<W>(g * point.centred, count);
    second += keep<W>(g, count);
  }
};

}  // namespace fastnorm::FASTNORM_ISA
