// The way of every kernel over a map: reduce each plane, finish its coefficients, apply them to each element.
//
// The cut into chunks depends on the shape alone; threads only share them out. So every number of threads gives the same
// bits. Where a plane is small enough it is applied right after it was reduced, from cache.

#pragma once

#include <cstdlib>
#include <new>

#include "reductions.h"

namespace fastnorm::FASTNORM_ISA {

// A chunk is read twice by `Moments`: the second time from L1.
constexpr int64_t chunk_size = 4096;
// In channels_last a chunk is rows of channels, and its result costs three numbers per channel: more elements, from L2.
constexpr int64_t row_chunk_size = 32768;
// A row shorter than this costs more to begin than to run.
constexpr int64_t min_row_length = 256;
// Partial results of a sample in channels_last: enough for as many threads, few enough to merge.
constexpr int64_t max_segments = 32;
// Channels that are merged as one task.
constexpr int64_t channel_block = 64;
// What one core keeps at hand between reducing and applying: half of the L2 of current servers.
constexpr int64_t cached_bytes = 1 << 20;
// Below this many elements a second thread costs more than it brings.
constexpr int64_t worth_a_thread = 32768;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

template <class W>
class Buffer {
 public:
  // Aligned to lines of the cache, so that no vector lies in two.
  explicit Buffer(int64_t size)
      : data_(static_cast<W*>(std::aligned_alloc(64, (larger(size, 1) * sizeof(W) + 63) / 64 * 64))) {
    if (!data_) throw std::bad_alloc();
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  W* get() const { return data_; }

 private:
  W* data_;
};

// body(first, last) on parts of 0..tasks, each task of `work` elements.
template <class Body>
inline void parallel_parts(const Threads& threads, int64_t tasks, int64_t work, const Body& body) {
  const auto run = [](void* context, int64_t first, int64_t last) { (*static_cast<const Body*>(context))(first, last); };
  void* context = const_cast<Body*>(&body);
  if (threads.count == 1 || tasks <= 1 || tasks * work < worth_a_thread)
    run(context, 0, tasks);
  else
    threads.run(tasks, run, context);
}

// body(task) for every task.
template <class Body>
inline void parallel(const Threads& threads, int64_t tasks, int64_t work, const Body& body) {
  parallel_parts(threads, tasks, work, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) body(task);
  });
}


// For a kernel that only applies, or only reduces.
template <class T>
struct NoReduction {
  using W = Wide<T>;
  static constexpr int maps = 0, arrays = 0;
  Sums<double> span(int64_t, int64_t, const Coefficients<W>&) const { return {}; }
  void rows(int64_t, int64_t, int64_t, const Coefficients<W>&, W*) const {}
  template <class Count>
  static Sums<Doubles> from_rows(const W*, int64_t, int64_t, Count, double) {
    return {};
  }
  template <class V>
  static Sums<V> merge(const Sums<V>&, double, const Sums<V>&, double) {
    return {};
  }
};

// finish(plane, sums) turns a plane's two sums into its coefficients; apply(run, coefs) writes a run of elements.
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
    // A plane that one core cannot keep is kept by all of them, as long as each has enough to do.
    const bool kept_by_all = planes_.size >= threads_.count * worth_a_thread;
    if (balanced && (Reduction::maps * planes_.size * sizeof(T) <= cached_bytes || !kept_by_all))
      parallel(threads_, count, planes_.size, [&](int64_t plane) { sweep_plane(plane, alone); });
    else
      for (int64_t plane = 0; plane < count; ++plane) sweep_plane(plane, threads_);
  }

  void sweep_plane(int64_t plane, const Threads& threads) const {
    const int64_t start = plane * planes_.size, chunks = ceil_div(planes_.size, chunk_size);
    const auto size_of = [&](int64_t chunk) { return smaller(chunk_size, planes_.size - chunk * chunk_size); };
    if (reduces_) {
      Sums<double> sums;
      const auto merge = [&](int64_t chunk, const Sums<double>& part) {
        sums = Reduction::merge(sums, chunk * chunk_size, part, size_of(chunk));
      };
      if (threads.count == 1) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) merge(chunk, reduce_chunk(plane, start, chunk, size_of(chunk)));
      } else {
        Buffer<Sums<double>> parts(chunks);
        parallel(threads, chunks, chunk_size, [&](int64_t chunk) {
          parts.get()[chunk] = reduce_chunk(plane, start, chunk, size_of(chunk));
        });
        for (int64_t chunk = 0; chunk < chunks; ++chunk) merge(chunk, parts.get()[chunk]);
      }
      finish_(plane, sums);
    }
    if (applies_) {
      const OnePlane<W> coefs(coefficients_ + plane);
      // One thread goes on to the next plane; several go on to the next chunks of this one.
      const int64_t ahead = reduces_ && threads.count == 1 ? planes_.size : 0;
      parallel(threads, chunks, chunk_size, [&](int64_t chunk) {
        apply_(Run{start + chunk * chunk_size, size_of(chunk), ahead}, coefs);
        fence();
      });
    }
  }

  Sums<double> reduce_chunk(int64_t plane, int64_t start, int64_t chunk, int64_t size) const {
    return reduction_.span(start + chunk * chunk_size, size, coefficients_ + plane);
  }

  // -- channels_last: rows of channels

  // A row is one pixel, or as many as make its length a multiple of the vector; the pixels left over are a short row.
  struct Rows {
    int64_t fold = 1, length, count, left_over;

    explicit Rows(const Planes& planes) {
      while (planes.channels * fold % lanes<W> || planes.channels * fold < min_row_length) fold *= 2;
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
      SegmentSums partial(segments, planes_.channels);
      const Coefficients<W> coefs = repeat(first_plane, rows, repeated.get());
      parallel(threads, segments, planes_.channels * planes_.size / segments, [&](int64_t segment) {
        partial.clear(segment);
        Buffer<W> result(Reduction::arrays * rows.length);
        for (int64_t chunk = segment * chunks / segments; chunk < (segment + 1) * chunks / segments; ++chunk) {
          const int64_t offset = start + chunk * per_chunk * rows.length;
          reduction_.rows(offset, rows_of(chunk), rows.length, coefs, result.get());
          partial.merge_rows(segment, result.get(), rows.length, rows_of(chunk));
        }
        if (segment == segments - 1 && rows.left_over) {
          const int64_t length = rows.left_over * planes_.channels;
          reduction_.rows(start + rows.count * rows.length, 1, length, coefs, result.get());
          partial.merge_rows(segment, result.get(), length, 1);
        }
      });
      const int64_t blocks = ceil_div(planes_.channels, channel_block);
      parallel(threads, blocks, segments * channel_block, [&](int64_t block) {
        const int64_t first = block * channel_block;
        for_each_vector<double>(0, smaller(channel_block, planes_.channels - first), [&](int64_t i, auto count) {
          const Sums<Doubles> sums = partial.total(first + i, count);
          for (int lane = 0; lane < number_of<double>(count); ++lane)
            finish_(first_plane + first + i + lane, Sums<double>{sums.first[lane], sums.second[lane]});
        });
      });
    }
    if (applies_) {
      const ManyChannels<W> coefs{repeat(first_plane, rows, repeated.get())};
      parallel(threads, chunks, row_chunk_size, [&](int64_t chunk) {
        const int64_t offset = start + chunk * per_chunk * rows.length;
        for (int64_t row = 0; row < rows_of(chunk); ++row) apply_(Run{offset + row * rows.length, rows.length, 0}, coefs);
        fence();
      });
      if (rows.left_over) {
        apply_(Run{start + rows.count * rows.length, rows.left_over * planes_.channels, 0}, coefs);
        fence();
      }
    }
  }

  // The sums of a sample's channels in each of its segments.
  class SegmentSums {
   public:
    SegmentSums(int64_t segments, int64_t channels)
        : segments_(segments), channels_(channels), sums_(2 * segments * channels), counts_(segments) {}

    void clear(int64_t segment) {
      double* first = sums_.get() + 2 * segment * channels_;
      for (int64_t i = 0; i < 2 * channels_; ++i) first[i] = 0;
      counts_.get()[segment] = 0;
    }

    // A row of `length` holds the channels several times over.
    void merge_rows(int64_t segment, const W* result, int64_t length, int64_t rows) {
      double *first = sums_.get() + 2 * segment * channels_, *second = first + channels_;
      double& count = counts_.get()[segment];
      for (int64_t start = 0; start < length; start += channels_, count += rows)
        for_each_vector<double>(0, channels_, [&](int64_t c, auto part) {
          const Sums<Doubles> before{load(first + c, part), load(second + c, part)};
          const Sums<Doubles> more = Reduction::from_rows(result, length, start + c, part, rows);
          const Sums<Doubles> after = Reduction::merge(before, count, more, rows);
          store(first + c, after.first, part);
          store(second + c, after.second, part);
        });
    }

    template <class Count>
    Sums<Doubles> total(int64_t channel, Count part) const {
      Sums<Doubles> sums;
      double count = 0;
      for (int64_t segment = 0; segment < segments_; ++segment) {
        const double* first = sums_.get() + 2 * segment * channels_ + channel;
        const Sums<Doubles> more{load(first, part), load(first + channels_, part)};
        sums = Reduction::merge(sums, count, more, counts_.get()[segment]);
        count += counts_.get()[segment];
      }
      return sums;
    }

   private:
    int64_t segments_, channels_;
    Buffer<double> sums_, counts_;
  };

  // A sample's coefficients, one for each position of a row.
  Coefficients<W> repeat(int64_t first_plane, const Rows& rows, W* buffer) const {
    const Coefficients<W> once = coefficients_ + first_plane;
    if (rows.fold == 1) return once;
    const Coefficients<W> all{
        buffer, buffer + rows.length, buffer + 2 * rows.length, buffer + 3 * rows.length, buffer + 4 * rows.length};
    const auto copy = [&](const W* from, W* to) {
      for (int64_t i = 0; i < planes_.channels; ++i) to[i] = from[i];
      for (int64_t i = planes_.channels; i < rows.length; ++i) to[i] = to[i - planes_.channels];
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
