// Nearest upsampling and padding, and its backward: one read of the one map and one write of the other; no flops, an
// addition for each number of the gradient.
//
// A row is one of the depth times height of a map; its pixels are single numbers in NCHW, all channels in channels_last.
// Forward, a piece of a source row is upsampled in L1 once, and copied to each row that it becomes. Backward, the rows that
// were made of one are added up in L1 first, then what lies beyond the border to where it was read, then neighbours.
//
// Both are gathers of whole pieces: any number of threads gives the same bits.

#include <cstring>

#include "rows.h"

namespace fastnorm::FASTNORM_ISA {

namespace {

// Of an upsampled piece: with the rows that it goes to or comes from, it stays in L1.
constexpr int64_t piece_bytes = 16 << 10;

// Positions first..last.
struct Span {
  int64_t first, last;
  int64_t size() const { return last - first; }
};

inline Span common(const Span& a, const Span& b) { return {larger(a.first, b.first), smaller(a.last, b.last)}; }

// Along one dimension. `upsampled` counts without the padding.
struct Line {
  int64_t source, scale, before, upsampled, padded;
  Border border;

  Line(const Upsampling& shape, int dim)
      : source(shape.input[dim]),
        scale(shape.scale[dim]),
        before(shape.padding[dim]),
        upsampled(source * scale),
        padded(shape.output[dim]),
        border(shape.border) {}

  Span front() const { return {0, before}; }
  Span back() const { return {before + upsampled, padded}; }

  // The upsampled position that a padded one is read at; negative for a zero.
  int64_t read_at(int64_t position) const { return inside(position - before, upsampled, border); }
  int64_t source_of(int64_t position) const {
    const int64_t at = read_at(position);
    return at < 0 || scale == 1 ? at : at / scale;
  }

  // The padded positions that read upsampled ones: these themselves, and their images in front and behind.
  struct Readers {
    Span spans[3];
  };
  Readers readers(const Span& read) const {
    Span in_front = {0, 0}, behind = {0, 0};
    switch (border) {
      case Border::reflect:
        in_front = {1 - read.last, 1 - read.first};
        behind = {2 * upsampled - 1 - read.last, 2 * upsampled - 1 - read.first};
        break;
      case Border::replicate:
        if (read.first == 0) in_front = {-before, 0};
        if (read.last == upsampled) behind = {upsampled, padded - before};
        break;
      case Border::circular:
        in_front = {read.first - upsampled, read.last - upsampled};
        behind = {read.first + upsampled, read.last + upsampled};
        break;
      default: break;
    }
    const auto of_padded = [&](const Span& span) { return Span{span.first + before, span.last + before}; };
    return {{of_padded(read), common(of_padded(in_front), front()), common(of_padded(behind), back())}};
  }
  Readers readers_of(int64_t at) const { return readers({at * scale, (at + 1) * scale}); }
};

// How a map is cut: planes of rows of pixels, and rows into pieces of `width` source pixels.
struct Cut {
  Line depth, height, width;
  int64_t planes, pixel, piece, pieces;

  Cut(const Upsampling& shape, int64_t number_bytes)
      : depth(shape, 0),
        height(shape, 1),
        width(shape, 2),
        planes(shape.channels_last ? shape.samples : shape.samples * shape.channels),
        pixel(shape.channels_last ? shape.channels : 1),
        piece(larger(1, piece_bytes / larger(1, width.scale * pixel * number_bytes))),
        pieces(ceil_div(width.source, piece)) {}

  bool empty() const { return planes * pixel * depth.padded * height.padded * width.padded == 0; }
  int64_t source_numbers() const { return planes * pixel * depth.source * height.source * width.source; }
  int64_t padded_numbers() const { return planes * pixel * depth.padded * height.padded * width.padded; }
  int64_t upsampled_piece() const { return piece * width.scale * pixel; }
  Span source_of(int64_t index) const { return {index * piece, smaller(width.source, (index + 1) * piece)}; }

  // body(plane, piece, rows) on parts of all pieces of all rows; those above each other follow each other.
  template <class Body>
  void each(const Threads& threads, int64_t rows, int64_t work, const Body& body) const {
    parallel_parts(threads, planes * pieces * rows, work, [&](int64_t first, int64_t last) {
      while (first < last) {
        const int64_t column = first / rows, row = first % rows, end = smaller(rows, row + last - first);
        body(column / pieces, column % pieces, Span{row, end});
        first += end - row;
      }
      fence();
    });
  }
};

// Elements from p to the next boundary.
template <class T>
inline int64_t to_boundary(const T* p, int64_t bytes) {
  const int64_t beyond = reinterpret_cast<uintptr_t>(p) % bytes;
  return beyond ? (bytes - beyond) / int64_t(sizeof(T)) : 0;
}

// -- Forward: numbers are moved as they are, by their size

// Stores are aligned to lines of the cache; a store across two takes twice as long.
template <class U>
inline void copy(U* to, const U* from, int64_t count, bool past_caches) {
  constexpr int64_t V = lanes<U>;
  if (count < V) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
    return;
  }
  int64_t i = to_boundary(to, vector_bytes);
  if (past_caches) {
    std::memcpy(to, from, i * sizeof(U));
    for (; i + V <= count; i += V) stream(reinterpret_cast<float*>(to + i), read<Floats>(from + i));
    std::memcpy(to + i, from + i, (count - i) * sizeof(U));
  } else {
    // The ends overlap with what is between them.
    write(to, read<Floats>(from));
    for (; i + V <= count; i += V) write(to + i, read<Floats>(from + i));
    write(to + count - V, read<Floats>(from + count - V));
  }
}

// Pixels of a row, zero where there is none.
template <class U>
inline void gather(U* to, const U* row, const int64_t* pixels, int64_t count, int64_t pixel) {
  if (pixel == 1)
    for (int64_t i = 0; i < count; ++i) to[i] = pixels[i] < 0 ? U{} : row[pixels[i]];
  else
    for (int64_t i = 0; i < count; ++i)
      if (pixels[i] < 0) std::memset(to + i * pixel, 0, pixel * sizeof(U));
      else std::memcpy(to + i * pixel, row + pixels[i] * pixel, pixel * sizeof(U));
}

// Each of `count` numbers `scale` times. It may write a vector beyond the last.
template <class U>
inline void repeat(U* to, const U* from, int64_t count, int64_t scale) {
  using V = Vector<U>;
  int64_t i = 0;
  if (scale == 2)
    for (; i + lanes<U> <= count; i += lanes<U>) {
      const V v = read<V>(from + i);
      V low, high;
#if defined(__clang__)
      for (int j = 0; j < lanes<U>; ++j) low[j] = v[j / 2], high[j] = v[(lanes<U> + j) / 2];
#else
      V first, second;
      for (int j = 0; j < lanes<U>; ++j) first[j] = j / 2, second[j] = (lanes<U> + j) / 2;
      low = __builtin_shuffle(v, first), high = __builtin_shuffle(v, second);
#endif
      write(to + 2 * i, low);
      write(to + 2 * i + lanes<U>, high);
    }
  // A vector of copies, of which the next number takes what is too many.
  for (; i < count; ++i)
    for (int64_t k = 0; k < scale; k += lanes<U>) write(to + i * scale + k, from[i] - V{});
}

template <class U>
inline void repeat_pixels(U* to, const U* from, int64_t count, int64_t scale, int64_t pixel) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t k = 0; k < scale; ++k) std::memcpy(to + (i * scale + k) * pixel, from + i * pixel, pixel * sizeof(U));
}

template <class U>
void upsample_and_pad(const UpsamplePad2d& call, const Threads& threads) {
  const Cut cut(call.shape, sizeof(U));
  if (cut.empty()) return;
  const bool past_caches = cut.padded_numbers() * int64_t(sizeof(U)) >= streamed_bytes;
  const Span front = cut.width.front(), back = cut.width.back();
  // Which pixel each one beyond the border is, for those in front and behind.
  Buffer<int64_t> beyond(front.size() + back.size());
  for (int64_t i = 0; i < front.size() + back.size(); ++i)
    beyond.get()[i] = cut.width.source_of(i < front.size() ? i : back.first + i - front.size());

  const int64_t all_rows = cut.depth.padded * cut.height.padded;
  cut.each(threads, all_rows, cut.upsampled_piece(), [&](int64_t plane, int64_t index, const Span& rows) {
    // Copies that no store can reach: they stay in registers.
    const Line depth = cut.depth, height = cut.height, width = cut.width;
    const int64_t pixel = cut.pixel, source_row = width.source * pixel, padded_row = width.padded * pixel;
    const Span piece = cut.source_of(index);
    const bool first = piece.first == 0, last = piece.last == width.source;
    const int64_t numbers = piece.size() * width.scale * pixel;
    const int64_t *const in_front = beyond.get(), *const behind = in_front + front.size();
    Buffer<U> buffer(cut.upsampled_piece() + lanes<U>);  // room for what `repeat` writes too many
    const U* body = nullptr;
    U* to = static_cast<U*>(call.output) + (plane * depth.padded * height.padded + rows.first) * padded_row;
    int64_t deep = rows.first / height.padded, high = rows.first % height.padded, held = -1;
    for (int64_t row = rows.first; row < rows.last; ++row, ++high, to += padded_row) {
      if (high == height.padded) high = 0, ++deep;
      U* const inner = to + (width.before + piece.first * width.scale) * pixel;
      const int64_t z = depth.source_of(deep), y = height.source_of(high);
      if (z < 0 || y < 0) {
        U* const start = first ? to : inner;
        U* const end = last ? to + padded_row : inner + numbers;
        std::memset(start, 0, (end - start) * sizeof(U));
        continue;
      }
      const int64_t source_index = (plane * depth.source + z) * height.source + y;
      const U* const source = static_cast<const U*>(call.input) + source_index * source_row;
      if (source_index != held) {
        held = source_index;
        body = buffer.get();
        const U* const from = source + piece.first * pixel;
        if (width.scale == 1) body = from;
        else if (pixel == 1) repeat(buffer.get(), from, piece.size(), width.scale);
        else repeat_pixels(buffer.get(), from, piece.size(), width.scale, pixel);
      }
      if (first) gather(to, source, in_front, front.size(), pixel);
      copy(inner, body, numbers, past_caches);
      if (last) gather(to + back.first * pixel, source, behind, back.size(), pixel);
    }
  });
}

// -- Backward

// The sum of rows, added to what is there or in its place.
template <class T, class W = Wide<T>>
inline void add_rows(W* sums, const T* const* rows, int count, int64_t numbers, bool in_place) {
  const auto add = [&](auto rows_known) {
    for_each_vector<W>(0, numbers, [&](int64_t i, auto n) IN_PLACE {
      Vector<W> sum = in_place ? load(sums + i, n) : Vector<W>{};
      for (int row = 0; row < (rows_known ? rows_known : count); ++row) sum += load(rows[row] + i, n);
      store(sums + i, sum, n);
    });
  };
  // Upsampled twice, far from the border.
  if (count == 2) add(std::integral_constant<int, 2>());
  else add(std::integral_constant<int, 0>());
}

// `count` sums of two neighbours, in place.
template <class W>
inline void add_neighbours(W* sums, int64_t count) {
  using V = Vector<W>;
  int64_t i = 0;
#if !defined(__clang__)
  Mask<W> even, odd;
  for (int j = 0; j < lanes<W>; ++j) even[j] = 2 * j, odd[j] = 2 * j + 1;
  for (; i + lanes<W> <= count; i += lanes<W>) {
    const V a = load(sums + 2 * i), b = load(sums + 2 * i + lanes<W>);
    store(sums + i, __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd));
  }
#endif
  for (; i < count; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
}

template <class W>
inline void add_pixels(W* sums, int64_t count, int64_t scale, int64_t pixel) {
  for (int64_t i = 0; i < count; ++i)
    for_each_vector<W>(0, pixel, [&](int64_t c, auto n) {
      Vector<W> sum = load(sums + i * scale * pixel + c, n);
      for (int64_t k = 1; k < scale; ++k) sum += load(sums + (i * scale + k) * pixel + c, n);
      store(sums + i * pixel + c, sum, n);
    });
}

// The sums of `scale` neighbours, in place.
template <class W>
inline void add_upsampled(W* sums, int64_t count, int64_t scale, int64_t pixel) {
  if (pixel > 1 && scale > 1) return add_pixels(sums, count, scale, pixel);
  for (; scale % 2 == 0; scale /= 2) add_neighbours(sums, count * scale / 2);
  for (int64_t i = 0; scale > 1 && i < count; ++i) {
    W sum = sums[i * scale];
    for (int64_t k = 1; k < scale; ++k) sum += sums[i * scale + k];
    sums[i] = sum;
  }
}

template <class T>
inline void store_row(T* to, const Wide<T>* from, int64_t count, bool past_caches) {
  using W = Wide<T>;
  int64_t i = 0;
  if (past_caches) {
    const int64_t head = smaller(count, to_boundary(to, lanes<W> * sizeof(T)));
    if (head) store(to, load(from, static_cast<int>(head)), static_cast<int>(head));
    for (i = head; i + lanes<W> <= count; i += lanes<W>) stream(to + i, load(from + i));
  }
  for_each_vector<W>(i, count, [&](int64_t j, auto n) { store(to + j, load(from + j, n), n); });
}

template <class T>
void sum_of_readers(const UpsamplePad2dBackward& call, const Threads& threads) {
  using W = Wide<T>;
  const Cut cut(call.shape, sizeof(W));
  if (cut.source_numbers() == 0) return;
  const bool past_caches = cut.source_numbers() * int64_t(sizeof(T)) >= streamed_bytes;

  const int64_t work = cut.upsampled_piece() * cut.depth.scale * cut.height.scale;
  cut.each(threads, cut.depth.source * cut.height.source, work, [&](int64_t plane, int64_t index, const Span& rows) {
    const Line depth = cut.depth, height = cut.height, width = cut.width;
    const int64_t pixel = cut.pixel, source_row = width.source * pixel, padded_row = width.padded * pixel;
    const Span piece = cut.source_of(index), read = {piece.first * width.scale, piece.last * width.scale};
    const Line::Readers columns = width.readers(read);
    const int64_t numbers = read.size() * pixel;
    Buffer<W> buffer(cut.upsampled_piece());
    W* const sums = buffer.get();

    // Rows come one by one, and are added up a few at a time.
    const T* waiting[4];
    int count;
    bool begun;
    const auto add_waiting = [&] {
      const T* inner[4];
      for (int i = 0; i < count; ++i) inner[i] = waiting[i] + columns.spans[0].first * pixel;
      add_rows(sums, inner, count, numbers, begun);
      for (int side = 1; side < 3; ++side)
        for (int64_t x = columns.spans[side].first; x < columns.spans[side].last; ++x) {
          W* const to = sums + (width.read_at(x) - read.first) * pixel;
          for (int i = 0; i < count; ++i) {
            if (pixel == 1) *to += widened(waiting[i] + x);
            else add_rows(to, &(inner[i] = waiting[i] + x * pixel), 1, pixel, true);
          }
        }
      count = 0;
      begun = true;
    };

    for (int64_t row = rows.first; row < rows.last; ++row) {
      count = 0;
      begun = false;
      const int64_t above = row / height.source;
      const Line::Readers planes = depth.readers_of(above), lines = height.readers_of(row - above * height.source);
      for (const Span& deep : planes.spans)
        for (int64_t z = deep.first; z < deep.last; ++z)
          for (const Span& high : lines.spans)
            for (int64_t y = high.first; y < high.last; ++y) {
              if (count == 4) add_waiting();
              const int64_t padded_index = (plane * depth.padded + z) * height.padded + y;
              waiting[count++] = static_cast<const T*>(call.grad) + padded_index * padded_row;
            }
      if (count) add_waiting();
      add_upsampled(sums, piece.size(), width.scale, pixel);
      T* const to = static_cast<T*>(call.grad_input) + (plane * depth.source * height.source + row) * source_row;
      store_row(to + piece.first * pixel, sums, piece.size() * pixel, past_caches);
    }
  });
}

}  // namespace

void upsample_pad2d(const UpsamplePad2d& call, const Threads& threads) {
  switch (call.shape.element) {
    case Element::f64: return upsample_and_pad<uint64_t>(call, threads);
    case Element::f32: return upsample_and_pad<uint32_t>(call, threads);
    default: return upsample_and_pad<uint16_t>(call, threads);
  }
}

void upsample_pad2d_backward(const UpsamplePad2dBackward& call, const Threads& threads) {
  with_element(call.shape.element, [&](auto example) { sum_of_readers<decltype(example)>(call, threads); });
}

}  // namespace fastnorm::FASTNORM_ISA
