// Which rows a convolution meets, and when they are brought to cache: made once for a call, and the same for every plane.
//
// A convolution and its transpose differ in direction only. Either goes from source rows to result rows; a row is one of
// the depth times height of a map. Rows beyond a border are no rows: those that are read in their place are.

#pragma once

#include "sweep.h"

namespace fastnorm::FASTNORM_ISA {

// The position inside that one beyond the border is read at; negative for one that is zero.
inline int64_t inside(int64_t position, int64_t size, Border border) {
  if (position >= 0 && position < size) return position;
  switch (border) {
    case Border::reflect: return position < 0 ? -position : 2 * (size - 1) - position;
    case Border::replicate: return position < 0 ? 0 : size - 1;
    case Border::circular: return position < 0 ? position + size : position - size;
    default: return -1;
  }
}

enum class Direction { forward, backward };

// Along one dimension: for each index of the result, the indices of the source that it is made of, and by which taps. A
// convolution's result has all its taps, where they meet zeros, too: a negative source.
class Reach {
 public:
  struct Meeting {
    int32_t source, tap;
  };

  Reach(const Convolution& conv, int dim, Direction direction)
      : results_(direction == Direction::forward ? conv.output[dim] : conv.input[dim]),
        first_(results_ + 2),
        meetings_(conv.output[dim] * conv.kernel[dim]) {
    const auto each = [&](const auto& body) {
      for (int64_t o = 0; o < conv.output[dim]; ++o)
        for (int64_t tap = 0; tap < conv.kernel[dim]; ++tap) {
          const int64_t at = o * conv.stride[dim] + tap * conv.dilation[dim] - conv.padding[dim];
          if (at % conv.input_dilation[dim] != 0) continue;  // between elements
          const int64_t i = inside(at / conv.input_dilation[dim], conv.input[dim], conv.border);
          if (direction == Direction::forward) body(o, i, tap);
          else if (i >= 0) body(i, o, tap);
        }
    };
    // Sorted by result: counted, summed up, and put in place.
    int32_t* first = first_.get();
    for (int64_t i = 0; i < results_ + 2; ++i) first[i] = 0;
    each([&](int64_t result, int64_t, int64_t) { ++first[result + 2]; });
    for (int64_t i = 2; i < results_ + 2; ++i) first[i] += first[i - 1];
    each([&](int64_t result, int64_t source, int64_t tap) {
      meetings_.get()[first[result + 1]++] = {static_cast<int32_t>(source), static_cast<int32_t>(tap)};
    });
  }

  int64_t results() const { return results_; }
  // Of one result, at most.
  int64_t most() const {
    int64_t most = 0;
    for (int64_t i = 0; i < results_; ++i) most = larger(most, end(i) - begin(i));
    return most;
  }
  int64_t total() const { return first_.get()[results_]; }
  const Meeting* begin(int64_t result) const { return meetings_.get() + first_.get()[result]; }
  const Meeting* end(int64_t result) const { return meetings_.get() + first_.get()[result + 1]; }

 private:
  int64_t results_;
  Buffer<int32_t> first_;
  Buffer<Meeting> meetings_;
};

// The result's rows in chunks; for each chunk, which source rows to bring to which slot of the cache; for each result row,
// the slots that it is made of, and by which taps (of depth and height together). Chunks come in segments, each of which
// begins with an empty cache: who works on a segment need not know of the others.
class Schedule {
 public:
  struct Load {
    int32_t source, slot;
    bool first = false;  // of this source row, in all chunks
  };
  struct Tap {
    int32_t slot, tap;
  };
  struct Range {
    int64_t first, last;
  };

  Schedule(
      const Reach& depth, const Reach& height, const Convolution& conv, Direction direction, int64_t rows,
      int64_t segments)
      : height_(height.results()),
        rows_(depth.results() * height_),
        chunk_(larger(1, smaller(rows, rows_))),
        chunks_(ceil_div(rows_, chunk_)),
        segments_(larger(1, smaller(segments, chunks_))),
        source_height_(direction == Direction::forward ? conv.input[1] : conv.output[1]),
        kernel_height_(conv.kernel[1]),
        first_load_(chunks_ + 1),
        first_tap_(rows_ + 1),
        loads_(depth.total() * height.total()),
        taps_(depth.total() * height.total()) {
    const int64_t sources = source_height_ * (direction == Direction::forward ? conv.input[0] : conv.output[0]);
    Buffer<int32_t> slot_of(sources), needed_by(sources), row_in(sources);
    Buffer<bool> met(sources);
    for (int64_t row = 0; row < sources; ++row) {
      needed_by.get()[row] = -1;
      met.get()[row] = false;
    }
    int64_t loads = 0, taps = 0;
    for (int64_t chunk = 0, segment = -1; chunk < chunks_; ++chunk) {
      if (segment + 1 < segments_ && chunk == chunks_of(segment + 1).first) {
        ++segment;
        for (int64_t row = 0; row < sources; ++row) slot_of.get()[row] = -1;
        for (int64_t slot = 0; slot < slots_; ++slot) row_in.get()[slot] = -1;
      }
      first_load_.get()[chunk] = loads;
      const Range results = rows_of(chunk);
      each_tap(depth, height, results, [&](int32_t row, int32_t) {
        if (row >= 0) needed_by.get()[row] = chunk;
      });
      int64_t free = 0;
      for (int64_t result = results.first; result < results.last; ++result) {
        first_tap_.get()[result] = taps;
        each_tap(depth, height, {result, result + 1}, [&](int32_t row, int32_t tap) {
          if (row < 0) {
            taps_.get()[taps++] = {-1, tap};
            return;
          }
          int32_t& slot = slot_of.get()[row];
          if (slot < 0) {
            const auto in_use = [&](int32_t held) { return held >= 0 && needed_by.get()[held] == chunk; };
            while (free < slots_ && in_use(row_in.get()[free])) ++free;
            if (free == slots_) ++slots_;
            else if (row_in.get()[free] >= 0) slot_of.get()[row_in.get()[free]] = -1;
            slot = free;
            row_in.get()[free] = row;
            loads_.get()[loads++] = {row, slot, !met.get()[row]};
            met.get()[row] = true;
          }
          taps_.get()[taps++] = {slot, tap};
        });
      }
    }
    first_load_.get()[chunks_] = loads;
    first_tap_.get()[rows_] = taps;
  }

  int64_t rows() const { return rows_; }
  int64_t largest_chunk() const { return chunk_; }
  int64_t taps() const { return first_tap_.get()[rows_]; }  // of all rows
  int64_t slots() const { return slots_ + 1; }
  int64_t nothing() const { return slots_; }  // the slot that holds zeros
  int64_t chunks() const { return chunks_; }
  int64_t segments() const { return segments_; }

  Range chunks_of(int64_t segment) const { return {segment * chunks_ / segments_, (segment + 1) * chunks_ / segments_}; }
  Range rows_of(int64_t chunk) const { return {chunk * chunk_, smaller(rows_, (chunk + 1) * chunk_)}; }
  Range loads_of(int64_t chunk) const { return {first_load_.get()[chunk], first_load_.get()[chunk + 1]}; }
  Range taps_of(int64_t row) const { return {first_tap_.get()[row], first_tap_.get()[row + 1]}; }
  Load load(int64_t index) const { return loads_.get()[index]; }
  Tap tap(int64_t index) const {
    const Tap tap = taps_.get()[index];
    return {tap.slot < 0 ? static_cast<int32_t>(nothing()) : tap.slot, tap.tap};
  }

 private:
  template <class Body>
  void each_tap(const Reach& depth, const Reach& height, Range results, const Body& body) const {
    for (int64_t result = results.first; result < results.last; ++result)
      for (const auto* z = depth.begin(result / height_); z != depth.end(result / height_); ++z)
        for (const auto* y = height.begin(result % height_); y != height.end(result % height_); ++y)
          body(
              z->source < 0 || y->source < 0 ? -1 : z->source * source_height_ + y->source,
              z->tap * kernel_height_ + y->tap);
  }

  int64_t height_, rows_, chunk_, chunks_, segments_, source_height_, kernel_height_, slots_ = 0;
  Buffer<int64_t> first_load_, first_tap_;
  Buffer<Load> loads_;
  Buffer<Tap> taps_;
};

}  // namespace fastnorm::FASTNORM_ISA
