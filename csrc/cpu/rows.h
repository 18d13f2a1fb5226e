// Rows of a map between memory and the convolution: widened, normalised, padded, each channel's by itself.
//
// In channels_last the rows of a vector of channels are transposed on the way; in NCHW they are copied.

#pragma once

#include "lanes.h"
#include "pass.h"

namespace fastnorm::FASTNORM_ISA {

template <class T>
inline Wide<T> widened(const T* p) {
  if constexpr (sizeof(T) == sizeof(Wide<T>)) return *p;
  else return load(p, 1)[0];
}

// body(channel, channels, position, positions) for each square of a vector of channels by as many positions.
template <class W, class Body>
inline void for_each_square(int64_t length, int64_t channels, const Body& body) {
  for (int64_t c = 0; c < channels; c += lanes<W>)
    for (int64_t x = 0; x < length; x += lanes<W>)
      body(c, static_cast<int>(smaller(lanes<W>, channels - c)), x, static_cast<int>(smaller(lanes<W>, length - x)));
}

// The shape of a row in cache, in which the source's begins with a vector. What lies before and behind comes from inside
// the row, or is zero. A stride of s leaves the elements in s phases, each a segment in which neighbours are s apart: taps
// then read whole vectors, and in each segment the source's begins with one. Elements that lie apart lie side by side here:
// it is the result that then has phases.
template <class W>
class RowShape {
 public:
  // As a convolution reads its input; or, with its transpose, the gradient of its output.
  RowShape(const Convolution& conv, Direction direction)
      : length_(direction == Direction::forward ? conv.input[2] : conv.output[2]),
        stride_(conv.stride[2]),
        phases_(direction == Direction::forward ? stride_ : 1),
        border_(direction == Direction::forward ? conv.border : Border::zeros),
        before_(
            direction == Direction::forward ? conv.padding[2] / conv.input_dilation[2]
                                            : ceil_div(reach(conv), stride_)),
        padded_(direction == Direction::forward ? padded(conv) : before_ + length_),
        margin_(padded_) {
    const int64_t results =
        direction == Direction::forward ? ceil_div(conv.output[2], conv.input_dilation[2])
                                        : ceil_div(larger(seen(conv), conv.padding[2] + conv.input[2]), stride_);
    vectors_ = ceil_div(results, lanes<W>);
    const int64_t lead = ceil_div(before_, phases_);  // of a segment
    skew_ = lead * phases_ - before_;
    start_ = ceil_div(lead, lanes<W>) * lanes<W> - lead;
    int64_t last_offset = direction == Direction::forward ? start_ + (skew_ + reach(conv)) / stride_ : first() + 1;
    if (conv.input_dilation[2] > 1) last_offset = first() + 1 + reach(conv) / conv.input_dilation[2];
    const int64_t brought = first() + ceil_div(ceil_div(length_, phases_), lanes<W>) * lanes<W>;
    segment_ = ceil_div(larger(vectors_ * lanes<W> + last_offset, brought), lanes<W>) * lanes<W>;
    pitch_ = phases_ * segment_;
    find_margins();
  }

  int64_t pitch() const { return pitch_; }
  // Between slots of so many channels: an odd number of lines, or rows below each other would share a few sets of L1.
  int64_t slot_stride(int64_t channels) const { return (channels * pitch_ / lanes<W> | 1) * lanes<W>; }
  int64_t vectors() const { return vectors_; }  // of a phase of the result
  int64_t position(int64_t padded) const {
    const int64_t skewed = padded + skew_;
    return skewed % phases_ * segment_ + start_ + skewed / phases_;
  }

  // Brings one row to where there were zeros, or another one. Meanwhile the row `ahead` of it comes nearer: it is next.
  // `change(x, i, count)` is what becomes of the elements from i on.
  template <class T, class Change>
  void fill(W* row, const T* source, int64_t ahead, const Change& change) const {
    const auto changed = [&](int64_t i, auto count) IN_PLACE {
      prefetch(source + ahead + i);
      return change(load(source + i, count), i, count);
    };
    if (phases_ == 1) {
      for_each_vector<W>(0, length_, [&](int64_t i, auto count) { store(row + first() + i, changed(i, count), count); });
    } else if (phases_ == 2) {
      deal<2>(row + first(), changed);
    } else if (phases_ == 4) {
      deal<4>(row + first(), changed);
    } else {
      for_each_vector<W>(0, length_, [&](int64_t i, auto count) {
        W numbers[lanes<W>];
        store(numbers, changed(i, count));
        for (int lane = 0; lane < number_of<W>(count); ++lane) row[position(before_ + i + lane)] = numbers[lane];
      });
    }
    finish(row);
  }

  // What lies beyond the border, once the row itself is there.
  void finish(W* row) const {
    for (const Margin* m = margin_.get(); m != margin_.get() + margins_; ++m) row[m->at] = row[m->from];
  }

  bool contiguous() const { return phases_ == 1; }
  int64_t first() const { return start_ + (before_ + skew_) / phases_; }  // where the source's row begins
  int64_t length() const { return length_; }

 private:
  // Each of `phases` gets its elements, from `to` on, `segment_` apart.
  template <int phases, class Changed>
  IN_PLACE void deal(W* to, const Changed& changed) const {
    for (int64_t start = 0; start < length_; start += phases * lanes<W>, to += lanes<W>) {
      const int64_t rest = length_ - start;
      Vector<W> v[phases] = {};
      if (rest >= phases * lanes<W>) {
        unrolled<phases>([&](int i) IN_PLACE { v[i] = changed(start + i * lanes<W>, Whole{}); });
        sort(v);
        unrolled<phases>([&](int i) IN_PLACE { store(to + i * segment_, v[i]); });
        continue;
      }
      for (int i = 0; i * lanes<W> < rest; ++i)
        v[i] = changed(start + i * lanes<W>, static_cast<int>(smaller(lanes<W>, rest - i * lanes<W>)));
      sort(v);
      for (int i = 0; i < phases && i < rest; ++i)
        store(to + i * segment_, v[i], static_cast<int>((rest - i + phases - 1) / phases));
    }
  }

  // By phases.
  IN_PLACE static void sort(Vector<W> (&v)[2]) {
    const Vector<W> even = every_second<0, W>(v[0], v[1]), odd = every_second<1, W>(v[0], v[1]);
    v[0] = even, v[1] = odd;
  }
  IN_PLACE static void sort(Vector<W> (&v)[4]) {
    Vector<W> first[] = {v[0], v[1]}, second[] = {v[2], v[3]};
    sort(first), sort(second);
    Vector<W> even[] = {first[0], second[0]}, odd[] = {first[1], second[1]};
    sort(even), sort(odd);
    v[0] = even[0], v[1] = odd[0], v[2] = even[1], v[3] = odd[1];
  }

  // How far a kernel reaches beyond its first tap, and how much of the padded row all taps see.
  static int64_t reach(const Convolution& conv) { return (conv.kernel[2] - 1) * conv.dilation[2]; }
  static int64_t seen(const Convolution& conv) { return (conv.output[2] - 1) * conv.stride[2] + reach(conv) + 1; }
  // The same in elements, where these lie apart.
  static int64_t padded(const Convolution& conv) {
    const int64_t apart = conv.input_dilation[2], last = seen(conv) - 1 - conv.padding[2];
    return conv.padding[2] / apart + (last < 0 ? 0 : last / apart + 1);
  }

  // A position beyond the border, and the one that it is read at.
  struct Margin {
    int32_t at, from;
  };

  void find_margins() {
    const auto add = [&](int64_t padded) {
      const int64_t i = inside(padded - before_, length_, border_);
      if (i < 0) return;
      margin_.get()[margins_++] = {static_cast<int32_t>(position(padded)), static_cast<int32_t>(position(before_ + i))};
    };
    for (int64_t q = 0; q < smaller(before_, padded_); ++q) add(q);
    for (int64_t q = before_ + length_; q < padded_; ++q) add(q);
  }

  int64_t length_, stride_, phases_;
  Border border_;
  int64_t before_, padded_;
  int64_t skew_;  // of padded positions, for the source's first element to be of the first phase
  int64_t start_, vectors_, segment_, pitch_, margins_ = 0;
  Buffer<Margin> margin_;
};

// Rows of several channels, in slots: the channels of a row lie side by side, in the order in which they are read. A slot
// to which nothing is brought holds zeros.
template <class W>
class RowCache {
 public:
  RowCache(const RowShape<W>& shape, int64_t channels, int64_t slots)
      : shape_(shape), channels_(channels), rows_(slots * slot_stride()) {
    // What no row covers stays zero.
    for (int64_t i = 0; i < slots * slot_stride(); i += lanes<W>) store(rows_.get() + i, Vector<W>{});
  }

  int64_t slot_stride() const { return shape_.slot_stride(channels_); }
  const W* channel(int64_t channel) const { return rows_.get() + channel * shape_.pitch(); }

  template <class T>
  __attribute__((flatten)) void bring(
      const Plane<const T>& plane, int64_t channels, const Schedule::Load& row, const Entering<T>& entering,
      int64_t ahead) {
    W* rows = rows_.get() + row.slot * slot_stride();
    if (plane.channels_last) {
      transpose_rows(plane, channels, row, rows, entering);
    } else if (!entering.changes()) {
      for (int64_t c = 0; c < channels; ++c)
        shape_.fill(
            rows + c * shape_.pitch(), plane.at(c, row.source), ahead,
            [](Vector<W> x, int64_t, auto) IN_PLACE { return x; });
    } else {
      for (int64_t c = 0; c < channels; ++c) {
        const EnteringRun<T> run = run_of(entering, row, c, ahead);
        const Normalization<W> norm = entering.norm + c;
        const Vector<W> center = broadcast(norm.center ? *norm.center : W(0));
        const Vector<W> scale = broadcast(norm.center ? *norm.scale : W(1));
        const Vector<W> shift = broadcast(norm.shift ? *norm.shift : W(0));
        shape_.fill(
            rows + c * shape_.pitch(), plane.at(c, row.source), ahead,
            [&](Vector<W> x, int64_t i, auto count) IN_PLACE { return run(x, center, scale, shift, i, count); });
      }
    }
  }

  // Of planes whose neighbours are next.
  template <class T>
  void bring(const Plane<const T>& plane, int64_t channels, const Schedule::Load& row, const Normalization<W>& norm) {
    bring(plane, channels, row, Entering<T>{norm}, channels * plane.rows * plane.length);
  }

 private:
  template <class T>
  static EnteringRun<T> run_of(
      const Entering<T>& entering, const Schedule::Load& row, int64_t channel, int64_t ahead) {
    const T* residual = entering.residual.data ? entering.residual.at(channel, row.source) : nullptr;
    T* entered = entering.entered.data && row.first ? entering.entered.at(channel, row.source) : nullptr;
    return {residual, entered, entering.activation.code, static_cast<W>(entering.activation.slope), ahead};
  }

  template <class T>
  void transpose_rows(
      const Plane<const T>& plane, int64_t channels, const Schedule::Load& row, W* rows,
      const Entering<T>& entering) const {
    const T* source = plane.at(0, row.source);
    const EnteringRun<T> run = run_of(entering, row, 0, 0);
    const Normalization<W> norm = entering.norm;
    const bool changes = entering.changes();
    const int64_t length = ceil_div(shape_.length(), lanes<W>) * lanes<W>;
    Buffer<W> lines(shape_.contiguous() ? 0 : channels * length);
    const int64_t line_stride = shape_.contiguous() ? shape_.pitch() : length;
    W* const line = shape_.contiguous() ? rows + shape_.first() : lines.get();
    for_each_square<W>(shape_.length(), channels, [&](int64_t c, int width, int64_t x, int count) {
      Vector<W> square[lanes<W>] = {};
      const Vector<W> center = norm.center ? load(norm.center + c, width) : Vector<W>{};
      const Vector<W> scale = norm.center ? load(norm.scale + c, width) : broadcast(W(1));
      const Vector<W> shift = norm.shift ? load(norm.shift + c, width) : Vector<W>{};
      for (int i = 0; i < count; ++i) {
        const int64_t at = (x + i) * plane.channels + c;
        square[i] = width == lanes<W> ? load(source + at) : load(source + at, width);
        if (changes) square[i] = run(square[i], center, scale, shift, at, width);
      }
      transpose<W>(square);
      for (int i = 0; i < width; ++i) store(line + (c + i) * line_stride + x, square[i]);
    });
    for (int64_t c = 0; c < channels; ++c) {
      W* to = rows + c * shape_.pitch();
      if (shape_.contiguous()) shape_.finish(to);
      else shape_.fill(to, line + c * line_stride, 0, [](Vector<W> x, int64_t, auto) IN_PLACE { return x; });
    }
  }

  const RowShape<W>& shape_;
  int64_t channels_;
  Buffer<W> rows_;
};

// Brings the rows that a chunk needs, of channels of a sample. What they become is written by one task: the owner.
template <class T>
inline void bring_rows(
    RowCache<Wide<T>>& cache, const Pass<T>& pass, const Schedule& schedule, int64_t sample, int64_t channel, int64_t channels,
    bool owner, int64_t chunk) {
  const int64_t all = pass.in_channels();
  const auto planes = [&](auto* map) { return planes_of(pass.conv, map, pass.source_size(), all, sample, channel); };
  const auto source = planes(pass.source);
  Entering<T> entering = {pass.norm + (sample * all + channel), pass.activation};
  if (pass.residual) entering.residual = planes(pass.residual);
  if (pass.entered && owner) entering.entered = planes(pass.entered);
  const auto loads = schedule.loads_of(chunk);
  // What is next: other channels, or the rows of the next chunk.
  const int64_t ahead = (channels == all ? loads.last - loads.first : channels * source.rows) * source.length;
  for (int64_t i = loads.first; i < loads.last; ++i) cache.bring(source, channels, schedule.load(i), entering, ahead);
}

// Writes a row of each of `channels`, `stride` apart in `rows`, plus a bias for each.
template <class T, class W>
inline void write_rows(
    const Plane<T>& plane, int64_t channels, int64_t row, const W* rows, int64_t stride, const W* bias, bool past_caches) {
  if (!plane.channels_last) {
    for (int64_t c = 0; c < channels; ++c) {
      T* out = plane.at(c, row);
      const W* from = rows + c * stride;
      const Vector<W> add = broadcast(bias ? bias[c] : W(0));
      int64_t i = 0;
      if (past_caches && is_aligned(out))
        for (; i + lanes<W> <= plane.length; i += lanes<W>) stream(out + i, load(from + i) + add);
      for_each_vector<W>(i, plane.length, [&](int64_t j, auto part) { store(out + j, load(from + j, part) + add, part); });
    }
    return;
  }
  T* out = plane.at(0, row);
  for_each_square<W>(plane.length, channels, [&](int64_t c, int width, int64_t x, int count) {
    Vector<W> square[lanes<W>] = {};
    for (int i = 0; i < width; ++i) {
      const W* from = rows + (c + i) * stride + x;
      square[i] = count == lanes<W> ? load(from) : load(from, count);
    }
    transpose<W>(square);
    const Vector<W> add = bias ? load(bias + c, width) : Vector<W>{};
    for (int i = 0; i < count; ++i) {
      T* p = out + (x + i) * plane.channels + c;
      if (width == lanes<W>) store(p, square[i] + add);
      else store(p, square[i] + add, width);
    }
  });
}

}  // namespace fastnorm::FASTNORM_ISA
