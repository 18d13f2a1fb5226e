// A depthwise kernel of 3x3 whose result is as wide as its source: no row is brought to cache, there is nothing to keep.
//
// A vector's neighbours to the left and to the right are shifted together from it and the next ones, in registers, and the
// border into them. Four rows of the result share the six of the source that they meet.

#pragma once

#include "rows.h"

namespace fastnorm::FASTNORM_ISA {

template <class T>
class Nine {
 public:
  using W = Wide<T>;
  static constexpr int rows = 4, side = 3;
  // Of planes up to here the next one is asked for meanwhile: the processor's own look-ahead ends with each page.
  static constexpr int64_t page_limit = 32 << 10;

  static bool fits(const Convolution& conv) {
    const auto same = [&](int dim) { return conv.stride[dim] == 1 && conv.dilation[dim] == 1; };
    return !conv.channels_last && conv.in_channels == 1 && conv.out_channels == 1 && conv.kernel[0] == 1 &&
        conv.kernel[1] == side && conv.kernel[2] == side && same(0) && same(1) && same(2) && conv.padding[0] == 0 &&
        conv.output[0] == conv.input[0] && conv.padding[2] == 1 && conv.output[2] == conv.input[2];
  }

  explicit Nine(const Pass<T>& pass)
      : pass_(pass),
        conv_(pass.conv),
        folds_(!pass.forward && conv_.border != Border::zeros),
        planes_(conv_.samples * conv_.groups),
        length_(conv_.input[2]),
        source_height_(pass.source_size()[1]),
        ahead_(
            source_height_ * length_ * int64_t(sizeof(T)) <= page_limit ? conv_.input[0] * source_height_ * length_ : 0),
        left_(pass.forward ? inside(-1, length_, conv_.border) : -1),
        right_(pass.forward ? inside(length_, length_, conv_.border) : -1),
        left_of_gradient_(inside(-1, length_, conv_.border)),
        right_of_gradient_(inside(length_, length_, conv_.border)),
        height_(conv_, 1, pass.direction),
        regular_(height_.results()) {
    find_regular();
  }

  // Whether a task has the whole of a plane.
  bool owns_planes() const { return segments() == 1; }

  // before(plane, count): of the source's planes that a task is about to read.
  template <class Before>
  void run(const Before& before) const {
    const int64_t parts = segments(), blocks = ceil_div(height_.results(), rows);
    const int64_t work = height_.results() * conv_.input[0] * length_ / parts;
    parallel_parts(pass_.threads, planes_ * parts, work, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t plane = task / parts, part = task % parts;
        before(plane, 1);
        convolve(plane, part * blocks / parts * rows, smaller(height_.results(), (part + 1) * blocks / parts * rows));
      }
      fence();
    });
  }

 private:
  // A row of the source, and the normalised elements beyond its ends; or zeros.
  struct Row {
    const T* data;
    W left, right;
  };

  // A plane's part of the work.
  struct Plane {
    const T* source;
    T* result;
    W bias;
    Vector<W> center, scale;
    Vector<W> weights[side * side];  // from left to right and top to bottom, as the source lies

    Vector<W> norm(Vector<W> x) const { return (x - center) * scale; }
  };

  // What a row of the gradient has beyond its ends, and where that belongs.
  struct Fold {
    W left, right;
  };

  int64_t segments() const {
    const int64_t threads = pass_.threads.count;
    if (threads == 1 || planes_ == 0 || planes_ % threads == 0 || planes_ >= 4 * threads) return 1;
    return larger(1, smaller(ceil_div(4 * threads, planes_), ceil_div(height_.results(), rows)));
  }

  // From which rows on the next ones each meet the source a row further down.
  void find_regular() {
    int64_t following = 0;
    for (int64_t y = height_.results() - 1; y >= 0; --y) {
      const Reach::Meeting* own = height_.begin(y);
      bool whole = height_.end(y) - own == side;
      for (int i = 0; whole && i < side; ++i) whole = own[i].tap == (pass_.forward ? i : side - 1 - i);
      bool goes_on = whole && following > 0;
      for (int i = 1; goes_on && i < side; ++i) goes_on = own[i].source == height_.begin(y + 1)[i - 1].source;
      following = goes_on ? following + 1 : whole ? 1 : 0;
      regular_.get()[y] = following >= rows;
    }
  }

  void convolve(int64_t index, int64_t first, int64_t last) const {
    const int64_t source_size = source_height_ * length_, result_size = height_.results() * length_;
    Plane plane;
    plane.bias = pass_.bias_of(index);
    plane.center = broadcast(pass_.norm.center ? pass_.norm.center[index] : W(0));
    plane.scale = broadcast(pass_.norm.scale ? pass_.norm.scale[index] : W(1));
    const T* weights = pass_.filters_of(index / conv_.groups) + index % conv_.groups * (side * side);
    for (int t = 0; t < side * side; ++t)
      plane.weights[t] = broadcast(widened(weights + (pass_.forward ? t : side * side - 1 - t)));
    for (int64_t z = index * conv_.input[0]; z < (index + 1) * conv_.input[0]; ++z) {
      plane.source = pass_.source + z * source_size;
      plane.result = pass_.result + z * result_size;
      for (int64_t y = first; y < last;) {
        const bool regular = y + rows <= last && regular_.get()[y];
        if (regular) convolve_rows(plane, y);
        else convolve_row(plane, y);
        y += regular ? rows : 1;
      }
    }
  }

  Row row_of(const Plane& plane, int64_t source) const {
    if (source < 0) return {nullptr, 0, 0};
    const T* data = plane.source + source * length_;
    if (left_ < 0) return {data, 0, 0};
    return {data, at(plane, data, left_), at(plane, data, right_)};
  }

  W at(const Plane& plane, const T* row, int64_t position) const {
    const W x = widened(row + position);
    return pass_.norm.center ? (x - plane.center[0]) * plane.scale[0] : x;
  }

  // The vectors around those from `v` on: one before, `vectors`, and one behind.
  template <int vectors>
  IN_PLACE inline void read_near(
      const Plane& plane, const Row& row, int64_t v, Vector<W> (&near)[vectors + 2]) const {
    unrolled<vectors + 2>([&](int i) IN_PLACE { near[i] = Vector<W>{}; });
    if (!row.data) return;
    const T* p = row.data + v * lanes<W>;
    const int64_t left_over = length_ - v * lanes<W>;
    unrolled<vectors>([&](int i) IN_PLACE { prefetch(p + ahead_ + i * lanes<W>); });
    if (left_over > (vectors + 1) * lanes<W>) {
      if (v > 0) near[0] = load(p - lanes<W>);
      unrolled<vectors + 1>([&](int i) IN_PLACE { near[i + 1] = load(p + i * lanes<W>); });
      if (pass_.norm.center) unrolled<vectors + 2>([&](int i) IN_PLACE { near[i] = plane.norm(near[i]); });
    } else {
      if (v > 0) near[0] = load(p - lanes<W>);
      unrolled<vectors + 1>([&](int i) IN_PLACE {
        const int64_t count = left_over - i * lanes<W>;
        if (count >= lanes<W>) near[i + 1] = load(p + i * lanes<W>);
        else if (count > 0) near[i + 1] = load(p + i * lanes<W>, static_cast<int>(count));
      });
      if (pass_.norm.center) unrolled<vectors + 2>([&](int i) IN_PLACE { near[i] = plane.norm(near[i]); });
      // The element behind the last.
      unrolled<vectors + 1>([&](int i) IN_PLACE {
        const int64_t lane = left_over - i * lanes<W>;
        if (lane == 0) near[i + 1] = broadcast(row.right);
        else if (lane > 0 && lane < lanes<W>) near[i + 1] = with_lane(near[i + 1], static_cast<int>(lane), row.right);
      });
    }
    if (v == 0) near[0] = broadcast(row.left);
  }

  // Four rows of the result.
  void convolve_rows(const Plane& plane, int64_t y) const {
    Row sources[rows + side - 1];
    for (int j = 0; j < rows + side - 1; ++j)
      sources[j] = row_of(plane, height_.begin(y + (j < rows ? j : rows - 1))[j < rows ? 0 : j - rows + 1].source);
    Fold folds[rows] = {};
    if (folds_)
      for (int r = 0; r < rows; ++r) folds[r] = fold_of(plane, y + r);
    T* out = plane.result + y * length_;
    int64_t v = 0;
    for (; (v + 1) * lanes<W> < length_; v += 2) convolve_tile<2>(plane, sources, v, folds, out);
    if (v * lanes<W> < length_) convolve_tile<1>(plane, sources, v, folds, out);
  }

  template <int vectors>
  IN_PLACE inline void convolve_tile(
      const Plane& plane, const Row (&sources)[rows + side - 1], int64_t v, const Fold* folds, T* out) const {
    Vector<W> tile[rows][vectors];
    unrolled<rows>([&](int r) IN_PLACE { unrolled<vectors>([&](int i) IN_PLACE { tile[r][i] = broadcast(plane.bias); }); });
    unrolled<rows + side - 1>([&](int j) IN_PLACE {
      Vector<W> near[vectors + 2];
      read_near<vectors>(plane, sources[j], v, near);
      unrolled<vectors>([&](int i) IN_PLACE {
        const Vector<W> left = in_register(shifted<lanes<W> - 1, W>(near[i], near[i + 1]));
        const Vector<W> right = in_register(shifted<1, W>(near[i + 1], near[i + 2]));
        unrolled<rows>([&](int r) IN_PLACE {
          if (j >= r && j < r + side) add(tile[r][i], left, near[i + 1], right, plane.weights + (j - r) * side);
        });
      });
    });
    unrolled<rows>([&](int r) IN_PLACE {
      unrolled<vectors>([&](int i) IN_PLACE { write(tile[r][i], v + i, folds[r], out + r * length_); });
    });
  }

  // A row by itself, which meets rows in any order.
  void convolve_row(const Plane& plane, int64_t y) const {
    const Fold fold = folds_ ? fold_of(plane, y) : Fold{};
    for (int64_t v = 0; v * lanes<W> < length_; ++v) {
      Vector<W> sum = broadcast(plane.bias);
      for (const auto* met = height_.begin(y); met != height_.end(y); ++met) {
        Vector<W> near[3];
        read_near<1>(plane, row_of(plane, met->source), v, near);
        const int top = pass_.forward ? met->tap : side - 1 - met->tap;
        add(sum, shifted<lanes<W> - 1, W>(near[0], near[1]), near[1], shifted<1, W>(near[1], near[2]),
            plane.weights + top * side);
      }
      write(sum, v, fold, plane.result + y * length_);
    }
  }

  IN_PLACE static inline void add(
      Vector<W>& sum, Vector<W> left, Vector<W> here, Vector<W> right, const Vector<W>* weights) {
    sum += left * weights[0];
    sum += here * weights[1];
    sum += right * weights[2];
  }

  Fold fold_of(const Plane& plane, int64_t y) const {
    Fold fold = {0, 0};
    for (const auto* met = height_.begin(y); met != height_.end(y); ++met) {
      const T* row = plane.source + met->source * length_;
      const Vector<W>* weights = plane.weights + (side - 1 - met->tap) * side;
      fold.left += widened(row) * weights[2][0];
      fold.right += widened(row + length_ - 1) * weights[0][0];
    }
    return fold;
  }

  // A lane of a variable number would send the vector through memory.
  IN_PLACE static inline Mask<W> is_lane(int lane) {
    Mask<W> number;
    for (int i = 0; i < lanes<W>; ++i) number[i] = i;
    return number == lane;
  }
  IN_PLACE static inline Vector<W> only(int lane, W value) {
    return as<Vector<W>>(as<Mask<W>>(broadcast(value)) & is_lane(lane));
  }
  IN_PLACE static inline Vector<W> with_lane(Vector<W> v, int lane, W value) {
    return is_lane(lane) ? broadcast(value) : v;
  }

  IN_PLACE inline void write(Vector<W> sum, int64_t v, const Fold& fold, T* row) const {
    const int64_t first = v * lanes<W>, left_over = length_ - first;
    if (folds_) {
      const auto take = [&](int64_t lane, W value) IN_PLACE {
        if (lane >= 0 && lane < lanes<W>) sum += only(static_cast<int>(lane), value);
      };
      take(left_of_gradient_ - first, fold.left);
      take(right_of_gradient_ - first, fold.right);
    }
    T* out = row + first;
    if (left_over < lanes<W>) store(out, sum, static_cast<int>(left_over));
    else if (pass_.past_caches && is_aligned(out)) stream(out, sum);
    else store(out, sum);
  }

  const Pass<T> pass_;
  const Convolution& conv_;
  const bool folds_;
  const int64_t planes_, length_, source_height_;
  const int64_t ahead_;  // what is asked for while a plane is read
  const int64_t left_, right_;  // what lies beyond the ends of a row; negative for zeros
  const int64_t left_of_gradient_, right_of_gradient_;  // and where a gradient there belongs
  const Reach height_;
  Buffer<bool> regular_;
};

}  // namespace fastnorm::FASTNORM_ISA
