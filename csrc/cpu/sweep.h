// The way of every kernel over a map: reduce each plane, finish its coefficients, apply them to each element.
//
// The cut into chunks depends on the shape alone; threads only share them out. So every number of threads gives the same
// bits. Where a plane is small enough it is applied right after it was reduced, from cache.

#pragma once

#include <cstdlib>

#include "reductions.h"

namespace fastnorm::FASTNORM_ISA {

// A chunk is read twice by `Moments`: the second time from L1.
constexpr int64_t chunk_size = 4096;
// In channels_last a chunk is rows of channels, and its result costs three numbers per channel: more elements, from L2.
constexpr int64_t row_chunk_size = 16384;
// Partial results of a sample in channels_last: enough for as many threads, few enough to merge.
constexpr int64_t max_segments = 32;
// What one core keeps at hand between reducing and applying: half of the L2 of current servers.
constexpr int64_t cached_bytes = 1 << 20;
// Below this many elements a second thread costs more than it brings.
constexpr int64_t worth_a_thread = 32768;

template <class W>
class Buffer {
 public:
  explicit Buffer(int64_t size) : data_(static_cast<W*>(std::malloc((size > 0 ? size : 1) * sizeof(W)))) {}
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  W* get() const { return data_; }

 private:
  W* data_;
};

// body(task) for every task in 0..tasks, each of `work` elements.
template <class Body>
inline void parallel(const Threads& threads, int64_t tasks, int64_t work, const Body& body) {
  const auto run = [](void* context, int64_t first, int64_t last) {
    const Body& body = *static_cast<const Body*>(context);
    for (int64_t task = first; task < last; ++task) body(task);
  };
  void* context = const_cast<Body*>(&body);
  if (threads.count == 1 || tasks <= 1 || tasks * work < worth_a_thread)
    run(context, 0, tasks);
  else
    threads.run(tasks, run, context);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// For a kernel that only applies, or only reduces.
template <class T>
struct NoReduction {
  static constexpr int arrays = 0;
  Total span(int64_t, int64_t, const Coefficients<Wide<T>>&) const { return {}; }
  void rows(int64_t, int64_t, int64_t, const Coefficients<Wide<T>>&, Wide<T>*) const {}
  static Total at(const Wide<T>*, int64_t, int64_t, int64_t) { return {}; }
  static Total merge(const Total&, const Total&) { return {}; }
};

// finish(plane, total) turns a plane's two sums into its coefficients; apply(offset, n, coefs) writes a run of elements.
template <class T, class Reduction, class Finish, class Apply>
class Sweep {
  using W = Wide<T>;

 public:
  Sweep(
      const Planes& planes, const Threads& threads, const Coefficients<W>& coefficients, const Reduction& reduction,
      const Finish& finish, const Apply& apply, bool reduces, bool applies)
      : planes_(planes),
        threads_(threads),
        coefficients_(coefficients),
        reduction_(reduction),
        finish_(finish),
        apply_(apply),
        reduces_(reduces),
        applies_(applies) {}

  void run() const {
    if (planes_.samples * planes_.channels * planes_.size == 0) return;
    if (planes_.channels_last)
      run_channels_last();
    else
      run_contiguous();
  }

 private:
  // -- NCHW: plane after plane

  void run_contiguous() const {
    const int64_t count = planes_.samples * planes_.channels;
    const bool balanced = count % threads_.count == 0 || count >= 4 * threads_.count;
    const Threads alone{1, nullptr};
    if (balanced && planes_.size * sizeof(T) <= cached_bytes)
      parallel(threads_, count, planes_.size, [&](int64_t plane) { sweep_plane(plane, alone); });
    else
      for (int64_t plane = 0; plane < count; ++plane) sweep_plane(plane, threads_);
  }

  void sweep_plane(int64_t plane, const Threads& threads) const {
    const int64_t start = plane * planes_.size, chunks = ceil_div(planes_.size, chunk_size);
    const auto size_of = [&](int64_t chunk) { return smaller(chunk_size, planes_.size - chunk * chunk_size); };
    if (reduces_) {
      Total total;
      if (threads.count == 1) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
          total = Reduction::merge(total, reduce_chunk(plane, start, chunk, size_of(chunk)));
      } else {
        Buffer<Total> parts(chunks);
        parallel(threads, chunks, chunk_size, [&](int64_t chunk) {
          parts.get()[chunk] = reduce_chunk(plane, start, chunk, size_of(chunk));
        });
        for (int64_t chunk = 0; chunk < chunks; ++chunk) total = Reduction::merge(total, parts.get()[chunk]);
      }
      finish_(plane, total);
    }
    if (applies_) {
      const OnePlane<W> coefs(coefficients_ + plane);
      parallel(threads, chunks, chunk_size, [&](int64_t chunk) {
        apply_(start + chunk * chunk_size, size_of(chunk), coefs);
      });
    }
  }

  Total reduce_chunk(int64_t plane, int64_t start, int64_t chunk, int64_t size) const {
    return reduction_.span(start + chunk * chunk_size, size, coefficients_ + plane);
  }

  // -- channels_last: rows of channels

  // A row is one pixel, or as many as make its length a multiple of the vector; the pixels left over are a short row.
  struct Rows {
    int64_t fold = 1, length, count, left_over;

    explicit Rows(const Planes& planes) {
      while (planes.channels * fold % lanes<W>) fold *= 2;
      length = planes.channels * fold;
      count = planes.size / fold;
      left_over = planes.size % fold;
    }
  };

  void run_channels_last() const {
    const Rows rows(planes_);
    const int64_t sample_bytes = planes_.channels * planes_.size * sizeof(T);
    const Threads alone{1, nullptr};
    if (planes_.samples >= threads_.count && sample_bytes <= cached_bytes)
      parallel(threads_, planes_.samples, planes_.channels * planes_.size, [&](int64_t n) { sweep_sample(n, rows, alone); });
    else
      for (int64_t n = 0; n < planes_.samples; ++n) sweep_sample(n, rows, threads_);
  }

  void sweep_sample(int64_t n, const Rows& rows, const Threads& threads) const {
    const int64_t first_plane = n * planes_.channels, start = first_plane * planes_.size;
    Buffer<W> repeated(rows.fold == 1 ? 0 : 5 * rows.length);
    const int64_t per_chunk = larger(1, row_chunk_size / rows.length), chunks = ceil_div(rows.count, per_chunk);
    const auto rows_of = [&](int64_t chunk) { return smaller(per_chunk, rows.count - chunk * per_chunk); };

    if (reduces_) {
      const int64_t segments = larger(1, smaller(chunks, max_segments));
      Buffer<Total> totals(segments * planes_.channels);
      const Coefficients<W> coefs = repeat(first_plane, rows, repeated.get());
      parallel(threads, segments, planes_.channels * planes_.size / segments, [&](int64_t segment) {
        Total* into = totals.get() + segment * planes_.channels;
        for (int64_t c = 0; c < planes_.channels; ++c) into[c] = Total{};
        Buffer<W> result(Reduction::arrays * rows.length);
        for (int64_t chunk = segment * chunks / segments; chunk < (segment + 1) * chunks / segments; ++chunk) {
          const int64_t offset = start + chunk * per_chunk * rows.length;
          reduction_.rows(offset, rows_of(chunk), rows.length, coefs, result.get());
          merge_positions(result.get(), rows.length, rows.length, rows_of(chunk), into);
        }
        if (segment == segments - 1 && rows.left_over) {
          const int64_t length = rows.left_over * planes_.channels;
          reduction_.rows(start + rows.count * rows.length, 1, length, coefs, result.get());
          merge_positions(result.get(), length, length, 1, into);
        }
      });
      parallel(threads, planes_.channels, segments * 16, [&](int64_t c) {
        Total total;
        for (int64_t segment = 0; segment < segments; ++segment)
          total = Reduction::merge(total, totals.get()[segment * planes_.channels + c]);
        finish_(first_plane + c, total);
      });
    }
    if (applies_) {
      const ManyChannels<W> coefs{repeat(first_plane, rows, repeated.get())};
      parallel(threads, chunks, row_chunk_size, [&](int64_t chunk) {
        const int64_t offset = start + chunk * per_chunk * rows.length;
        for (int64_t row = 0; row < rows_of(chunk); ++row) apply_(offset + row * rows.length, rows.length, coefs);
      });
      if (rows.left_over) apply_(start + rows.count * rows.length, rows.left_over * planes_.channels, coefs);
    }
  }

  void merge_positions(const W* result, int64_t length, int64_t positions, int64_t count, Total* into) const {
    for (int64_t i = 0; i < positions; ++i) {
      Total& total = into[i % planes_.channels];
      total = Reduction::merge(total, Reduction::at(result, length, i, count));
    }
  }

  // A sample's coefficients, one for each position of a row.
  Coefficients<W> repeat(int64_t first_plane, const Rows& rows, W* buffer) const {
    const Coefficients<W> once = coefficients_ + first_plane;
    if (rows.fold == 1) return once;
    const Coefficients<W> all{
        buffer, buffer + rows.length, buffer + 2 * rows.length, buffer + 3 * rows.length, buffer + 4 * rows.length};
    const auto copy = [&](const W* from, W* to) {
      for (int64_t i = 0; i < rows.length; ++i) to[i] = from[i % planes_.channels];
    };
    copy(once.center, all.center);
    copy(once.scale, all.scale);
    copy(once.shift, all.shift);
    copy(once.input_scale, all.input_scale);
    copy(once.input_shift, all.input_shift);
    return all;
  }

  const Planes& planes_;
  const Threads& threads_;
  const Coefficients<W>& coefficients_;
  const Reduction& reduction_;
  const Finish& finish_;
  const Apply& apply_;
  const bool reduces_, applies_;
};

template <class T, class Reduction, class Finish, class Apply>
inline void sweep(
    const Planes& planes, const Threads& threads, const Coefficients<Wide<T>>& coefficients, const Reduction& reduction,
    const Finish& finish, const Apply& apply, bool reduces = true, bool applies = true) {
  Sweep<T, Reduction, Finish, Apply>(
      planes, threads, coefficients, reduction, finish, apply, reduces, applies)
      .run();
}

// -- Coefficients -----------------------------------------------------------------------------------------------------

template <class W>
class CoefficientBuffer {
 public:
  explicit CoefficientBuffer(const Planes& planes)
      : count_(planes.samples * planes.channels), storage_(5 * count_) {
    for (int64_t i = 0; i < 5 * count_; ++i) storage_.get()[i] = 0;
  }
  Coefficients<W> get() const {
    W* p = storage_.get();
    return {p, p + count_, p + 2 * count_, p + 3 * count_, p + 4 * count_};
  }

 private:
  int64_t count_;
  Buffer<W> storage_;
};

inline double read(const Parameter& p, const Planes& planes, int64_t plane, double absent) {
  if (!p.data) return absent;
  const int64_t i = plane / planes.channels * p.sample_stride + plane % planes.channels * p.channel_stride;
  switch (p.element) {
    case Element::f32: return static_cast<const float*>(p.data)[i];
    case Element::f64: return static_cast<const double*>(p.data)[i];
    case Element::bf16: return load(static_cast<const BFloat16*>(p.data) + i, 1)[0];
    case Element::f16: return load(static_cast<const Half*>(p.data) + i, 1)[0];
  }
  return absent;
}

}  // namespace fastnorm::FASTNORM_ISA
