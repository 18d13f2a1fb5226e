// The moments of planes that are made part by part, while their rows are still in cache.
//
// A part is the rows of a chunk: which they are depends on shapes alone, and parts are merged in their order, so every
// number of threads gives the same bits.

#pragma once

#include <vector>

#include "statistics.h"

namespace fastnorm::FASTNORM_ISA {

// Sums of deviations from a pivot near the mean, and of their squares: single precision for a row, double for all of them.
template <class W>
class PartMoments {
 public:
  bool empty() const { return count_ == 0; }
  W pivot() const { return pivot_; }
  void begin(W pivot) { pivot_ = pivot; }

  void add(Vector<W> deviations, Vector<W> squares, int64_t count) {
    gather(deviations_, deviations);
    gather(squares_, squares);
    count_ += count;
  }

  int64_t count() const { return count_; }
  Sums<double> moments() const {
    return Moments<W>::template moments<double>(pivot_, sum<double>(deviations_), sum<double>(squares_), count_);
  }

 private:
  static void gather(Doubles& sums, const Vector<W>& v) {
    W numbers[lanes<W>];
    store(numbers, v);
    for (int first = 0; first < lanes<W>; first += lanes<double>) sums += load_doubles(numbers + first, Whole{});
  }

  W pivot_ = 0;
  int64_t count_ = 0;
  Doubles deviations_ = {}, squares_ = {};
};

class PlaneStatistics {
 public:
  void begin(int64_t planes, int64_t parts) {
    parts_ = parts;
    found_.resize(planes * parts);
  }

  template <class W>
  void put(int64_t plane, int64_t part, const PartMoments<W>& moments) {
    found_[plane * parts_ + part] = {moments.moments(), static_cast<double>(moments.count())};
  }

  template <class W>
  void write(const VarianceRule& rule, W* mean, W* rstd) const {
    for (size_t first = 0, plane = 0; first < found_.size(); first += parts_, ++plane) {
      Part all = found_[first];
      for (int64_t part = 1; part < parts_; ++part) {
        const Part& next = found_[first + part];
        all.sums = Moments<W>::merge(all.sums, all.count, next.sums, next.count);
        all.count += next.count;
      }
      mean[plane] = static_cast<W>(all.sums.first);
      rstd[plane] = static_cast<W>(rstd_of(all.sums, rule, static_cast<int64_t>(all.count)));
    }
  }

 private:
  struct Part {
    Sums<double> sums;
    double count;
  };

  int64_t parts_ = 0;
  std::vector<Part> found_;
};

}  // namespace fastnorm::FASTNORM_ISA
