// What is summed over a plane: its moments, or its gradients.
//
// A reduction gives two numbers per plane. It works on chunks, in the wide type, and merges chunks in double, always in
// the same order: the result does not depend on the threads. `span` is a chunk of one plane; `rows` is a chunk of rows of
// `length` channels, with a result for each position in the row.

#pragma once

#include "spans.h"

namespace fastnorm::FASTNORM_ISA {

struct Total {
  double first = 0, second = 0, count = 0;
};

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

// Mean and sum of squared deviations. A chunk is read twice, the second time from cache, around its own rounded mean: no
// difference of large numbers is taken, and the rounding of the mean is put right by the deviations' own sum.
template <class T>
struct Moments {
  using W = Wide<T>;
  static constexpr int arrays = 3;  // what `rows` gives per position: center, sum of deviations, of their squares

  const T* input;

  Total span(int64_t offset, int64_t n, const Coefficients<W>&) const {
    const T* x = input + offset;
    Vector<W> sums[accumulators] = {};
    int64_t i = 0;
    for (; i + accumulators * lanes<W> <= n; i += accumulators * lanes<W>)
      for (int a = 0; a < accumulators; ++a) sums[a] += load(x + i + a * lanes<W>);
    for_each_vector<W>(n - i, [&](int64_t j, auto count) { sums[0] += load(x + i + j, count); });
    const W center = static_cast<W>(total(sums) / n);

    Vector<W> deviations[accumulators] = {}, squares[accumulators] = {};
    const auto add = [&](int a, Vector<W> d) {
      deviations[a] += d;
      squares[a] += d * d;
    };
    for (i = 0; i + accumulators * lanes<W> <= n; i += accumulators * lanes<W>)
      for (int a = 0; a < accumulators; ++a) add(a, load(x + i + a * lanes<W>) - center);
    for_each_vector<W>(
        n - i, [&](int64_t j, auto count) { add(0, keep<W>(load(x + i + j, count) - center, count)); });
    return moments(center, total(deviations), total(squares), n);
  }

  void rows(int64_t offset, int64_t count, int64_t length, const Coefficients<W>&, W* result) const {
    W *center = result, *deviations = result + length, *squares = result + 2 * length;
    const T* x = input + offset;
    for_each_vector<W>(length, [&](int64_t i, auto part) {
      Vector<W> sum = {};
      for (int64_t row = 0; row < count; ++row) sum += load(x + row * length + i, part);
      const Vector<W> mean = sum / static_cast<W>(count);
      Vector<W> d_sum = {}, square_sum = {};
      for (int64_t row = 0; row < count; ++row) {
        const Vector<W> d = load(x + row * length + i, part) - mean;
        d_sum += d;
        square_sum += d * d;
      }
      store(center + i, mean, part);
      store(deviations + i, d_sum, part);
      store(squares + i, square_sum, part);
    });
  }

  static Total at(const W* result, int64_t length, int64_t i, int64_t count) {
    return moments(result[i], result[length + i], result[2 * length + i], count);
  }

  static Total moments(double center, double deviations, double squares, double n) {
    return {center + deviations / n, squares - deviations * deviations / n, n};
  }

  // Chan, Golub and LeVeque 1979.
  static Total merge(const Total& a, const Total& b) {
    const double n = a.count + b.count, delta = b.first - a.first, weight = b.count / n;
    return {a.first + delta * weight, a.second + b.second + delta * delta * a.count * weight, n};
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
  static constexpr int arrays = 2;

  Forward forward;
  const T* grad;

  Total span(int64_t offset, int64_t n, const Coefficients<W>& coefficients) const {
    const OnePlane<W> coefs(coefficients);
    const Forward here = forward + offset;
    const T* g = grad + offset;
    Vector<W> firsts[accumulators] = {}, seconds[accumulators] = {};
    int64_t i = 0;
    for (; i + accumulators * lanes<W> <= n; i += accumulators * lanes<W>)
      for (int a = 0; a < accumulators; ++a) add(here, g, i + a * lanes<W>, Whole{}, coefs, firsts[a], seconds[a]);
    const Forward rest = here + i;
    for_each_vector<W>(
        n - i, [&](int64_t j, auto count) { add(rest, g + i, j, count, coefs, firsts[0], seconds[0]); });
    return {Moments<T>::total(firsts), Moments<T>::total(seconds), static_cast<double>(n)};
  }

  void rows(int64_t offset, int64_t count, int64_t length, const Coefficients<W>& coefficients, W* result) const {
    const ManyChannels<W> coefs{coefficients};
    for_each_vector<W>(length, [&](int64_t i, auto part) {
      Vector<W> first = {}, second = {};
      for (int64_t row = 0; row < count; ++row) {
        const int64_t start = offset + row * length;
        add(forward + start, grad + start, i, part, coefs, first, second);
      }
      store(result + i, first, part);
      store(result + length + i, second, part);
    });
  }

  static Total at(const W* result, int64_t length, int64_t i, int64_t count) {
    return {result[i], result[length + i], static_cast<double>(count)};
  }

  static Total merge(const Total& a, const Total& b) {
    return {a.first + b.first, a.second + b.second, a.count + b.count};
  }

 private:
  template <class Count, class Coefs>
  static inline void add(
      const Forward& forward, const T* grad, int64_t i, Count count, const Coefs& coefs, Vector<W>& first,
      Vector<W>& second) {
    const Point<W> point = forward.at(i, count, coefs);
    Vector<W> g = forward.through_activation(load(grad + i, count), point);
    g = forward.through_gamma(g, point);
    first += keep<W>(g * point.centred, count);
    second += keep<W>(g, count);
  }
};

}  // namespace fastnorm::FASTNORM_ISA
