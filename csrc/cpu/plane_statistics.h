// The moments of planes that are made part by part, while their rows are still in cache.
//
// A part is the rows of a chunk: which they are depends on shapes alone, and parts are merged in their order, so every
// number of threads gives the same bits.

#pragma once

#include <vector>

#include "statistics.h"

namespace fastnorm::FASTNORM_ISA {

// Sums of deviations from a pivot near the mean, and of their squares: of a few rows in single precision, of all in double.
template <class W>
class PartMoments {
 public:
  bool empty() const { return count_ == 0; }
  W pivot() const { return pivot_; }
  void begin(W pivot) { pivot_ = pivot; }

  // No more of them at a time than a sum in single precision may have.
  void add(Vector<W> deviations, Vector<W> squares, int64_t count) {
    if (count + waiting_ > chunk_size) gather();
    new_deviations_ += deviations;
    new_squares_ += squares;
    waiting_ += count;
    count_ += count;
  }

  int64_t count() const { return count_; }
  Sums<double> moments() {
    gather();
    return Moments<W>::template moments<double>(pivot_, sum<double>(deviations_), sum<double>(squares_), count_);
  }

 private:
  void gather() {
    gather(deviations_, new_deviations_);
    gather(squares_, new_squares_);
    new_deviations_ = new_squares_ = Vector<W>{};
    waiting_ = 0;
  }

  static void gather(Doubles& sums, const Vector<W>& v) {
    W numbers[lanes<W>];
    store(numbers, v);
    for (int first = 0; first < lanes<W>; first += lanes<double>) sums += load_doubles(numbers + first, Whole{});
  }

  W pivot_ = 0;
  int64_t count_ = 0, waiting_ = 0;
  Vector<W> new_deviations_ = {}, new_squares_ = {};
  Doubles deviations_ = {}, squares_ = {};
};

class PlaneStatistics {
 public:
  void begin(int64_t planes, int64_t parts) {
    parts_ = parts;
    found_.resize(planes * parts);
  }

  template <class W>
  void put(int64_t plane, int64_t part, PartMoments<W>& moments) {
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
