// index[p] = argmax over q of <content patch p, style patch q> / |style patch q|; score is that, over |content patch p|.
//
// 2 * C flops for each pair of a content pixel and a style pixel: a product of pixels is part of the products of k * k pairs
// of patches, and is found once. Beside it what adds them up is little: 2 * k additions, and a comparison.
//
//   1. Both maps are packed, line by line, in the order in which tiles of registers read them. With a stride of s, pixels
//      meet only those as many steps from the beginning of a patch: lines are dealt in s phases, and the rest is never met.
//   2. products = line y of the content by line v of the style, a product of matrices. Lanes are positions in the content.
//   3. folded = products, shifted along both lines and added up: of all pairs of patches, the lines y and v.
//   4. A line below is met by a line below: a task follows diagonals, keeps the last k of what is folded, and adds them up
//      to the products of patches. All of these stay in L2; of scores, each lane keeps the largest, and whose it is.
//   5. What tasks found is merged: the largest, of equal ones the first. So it does not matter who found what, or when.
//
// Of equal patches the products are equal, to the bit: every one is summed in the same order.

#include <limits>
#include <tuple>
#include <utility>

#include "lanes.h"
#include "patches.h"
#include "positions.h"
#include "products.h"

namespace fastnorm::FASTNORM_ISA {

namespace {

// Diagonals that a task follows side by side: a line of the content then meets so many of the style while it is at hand.
constexpr int64_t most_diagonals = 4;

// A number of a lane, as wide as W.
template <class W>
using Number = std::remove_reference_t<decltype(std::declval<Mask<W>&>()[0])>;

// body(first, Group<vectors>) for panels of up to three vectors; none of one, where that can be.
template <class Body>
void for_each_panel(int64_t vectors, const Body& body) {
  for (int64_t first = 0; first < vectors;) {
    const int64_t left = vectors - first;
    if (left >= 3 && left != 4) body(first, Group<3>{}), first += 3;
    else if (left >= 2) body(first, Group<2>{}), first += 2;
    else body(first, Group<1>{}), first += 1;
  }
}

// body(how many) for each of the patches' lines: what is usual is known to the compiler.
template <class Body>
void with_size(int64_t size, const Body& body) {
  if (size == 3) body(Group<3>{});
  else body(size);
}

// Of one sample: packed maps, and lengths of patches.
template <class W>
class Matching {
 public:
  const Patches content, style;
  const int64_t channels, size, stride, phases;
  const int64_t vectors;  // of a line's patches of the content

  explicit Matching(const PatchMatch& call)
      : content(call.contents, call.width, call.patch_size, call.stride),
        style(call.styles, call.style_width, call.patch_size, call.stride),
        channels(call.contents.channels),
        size(call.patch_size),
        stride(call.stride),
        phases(smaller(size, stride)),
        vectors(ceil_div(content.columns, lanes<W>)),
        packed_content_(content.height * content_line()),
        packed_style_(style.height * style_line()),
        content_squares_(content.height * content.width),
        style_squares_(style.height * style.width),
        content_inverse_(content.count()),
        style_inverse_(style.count()),
        shift_(size) {
    for (int64_t d = 0; d < size; ++d)
      shift_.get()[d] = d % stride * length(style, 0) * line() + d / stride * (line() + 1);
  }

  // Numbers of a line of content patches, and of all its pairs with a line of style patches.
  int64_t pitch() const { return vectors * lanes<W>; }
  int64_t pairs() const { return style.columns * pitch(); }
  // Lines that are in patches, and diagonals: a stride apart, each begins anew at the style's first line.
  int64_t lines(const Patches& patches) const { return (patches.rows - 1) * stride + size; }
  int64_t diagonals() const { return ceil_div(lines(style), stride); }
  bool in_a_patch(int64_t line) const { return line % stride < size; }

  W inverse_of_content(int64_t patch) const { return content_inverse_.get()[patch]; }
  W inverse_of_style(int64_t patch) const { return style_inverse_.get()[patch]; }

  template <class T>
  void pack(const PatchMatch& call, int64_t sample, const Threads& threads) {
    const Positions<const T> map(call.contents, call.content, sample);
    pack_lines<T>(map, content, content_squares_.get(), threads, [&](int64_t y, auto pixels) {
      W* to = packed_content_.get() + y * content_line();
      for (int64_t phase = 0; phase < phases; ++phase)
        for_each_panel(vectors_of(phase), [&](int64_t first, auto panel) {
          constexpr int64_t width = panel * lanes<W>;
          const int64_t begin = first * lanes<W>, count = smaller(width, length(content, phase) - begin);
          for (int64_t c = 0; c < channels; ++c, to += width)
            for (int64_t i = 0; i < width; ++i) to[i] = i < count ? pixels(c, (begin + i) * stride + phase) : W(0);
        });
    });
    find_inverse_lengths(content, content_squares_.get(), content_inverse_.get());
  }

  template <class T>
  void pack_style(const PatchMatch& call, int64_t sample, const Threads& threads) {
    const Positions<const T> map(call.styles, call.style, sample);
    pack_lines<T>(map, style, style_squares_.get(), threads, [&](int64_t v, auto pixels) {
      W* to = packed_style_.get() + v * style_line();
      for (int64_t phase = 0; phase < phases; ++phase)
        for_each_piece([&](int64_t channel, int64_t depth) {
          for_each_tile(0, length(style, phase), [&](int64_t first, auto tile) {
            for (int64_t c = channel; c < channel + depth; ++c, to += tile)
              for (int i = 0; i < tile; ++i) to[i] = pixels(c, (first + i) * stride + phase);
          });
        });
    });
    find_inverse_lengths(style, style_squares_.get(), style_inverse_.get());
  }

  // Room for the products of two lines, of all phases, and for reading a shift beyond them.
  int64_t room() const { return phases * length(style, 0) * line() + size; }

  // Products of line y of the content with line v of the style, added up along both: (style patches, pitch).
  void fold(int64_t y, int64_t v, W* products, W* folded) const {
    const int64_t each = length(style, 0) * line();
    const W *lines = packed_content_.get() + y * content_line(), *weights = packed_style_.get() + v * style_line();
    for (int64_t phase = 0; phase < phases; ++phase) {
      const int64_t count = length(style, phase);
      for_each_panel(vectors_of(phase), [&](int64_t first, auto panel) {
        multiply<panel>(weights, count, lines, products + phase * each + first * lanes<W>, line());
        lines += channels * panel * lanes<W>;
      });
      weights += channels * count;
    }
    const int64_t *shift = shift_.get(), width = pitch(), line = this->line();
    with_size(size, [&](auto size) {
      for (int64_t u = 0; u < style.columns; ++u, products += line, folded += width)
        for (int64_t i = 0; i < width; i += lanes<W>) {
          Vector<W> sum = {};
          for (int64_t d = 0; d < size; ++d) sum += load(products + shift[d] + i);
          store(folded + i, sum);
        }
    });
  }

 private:
  // Positions of a phase in a line, at most so many that a patch has.
  int64_t length(const Patches& patches, int64_t phase) const {
    return (patches.columns - 1) + (size - 1 - phase) / stride + 1;
  }
  // Between products of neighbours in the style.
  int64_t line() const { return vectors_of(0) * lanes<W>; }
  int64_t vectors_of(int64_t phase) const { return ceil_div(length(content, phase), lanes<W>); }
  int64_t content_line() const {
    int64_t line = 0;
    for (int64_t phase = 0; phase < phases; ++phase) line += channels * vectors_of(phase) * lanes<W>;
    return line;
  }
  int64_t style_line() const {
    int64_t line = 0;
    for (int64_t phase = 0; phase < phases; ++phase) line += channels * length(style, phase);
    return line;
  }

  // body(first, count) for channels whose products are summed in one piece: in L1 are then those of one panel.
  template <class Body>
  void for_each_piece(const Body& body) const {
    constexpr int64_t longest = Products<W>::longest;
    int64_t first = 0;
    do {
      body(first, smaller(longest, channels - first));
      first += longest;
    } while (first < channels);
  }

  template <int panel>
  void multiply(const W* weights, int64_t count, const W* lines, W* to, int64_t stride) const {
    const auto& products = std::get<Products<W, panel>>(products_);
    for_each_piece([&](int64_t channel, int64_t depth) {
      products.multiply(
          weights + channel * count, count, lines + channel * panel * lanes<W>, depth, channel == 0, to, stride);
    });
  }

  // body(line, pixels), pixels(channel, x) being a number of that line; and the sum of each pixel's squares.
  template <class T, class Body>
  void pack_lines(
      const Positions<const T>& map, const Patches& patches, W* squares, const Threads& threads, const Body& body) const {
    const int64_t width = patches.width;
    parallel_parts(threads, patches.height, channels * width, [&](int64_t first, int64_t last) {
      const Buffer<W> rows(channels * width);
      for (int64_t y = first; y < last; ++y) {
        map.read(0, channels, y * width, width, 1, rows.get(), width);
        body(y, [&](int64_t c, int64_t x) { return rows.get()[c * width + x]; });
        for_each_vector<W>(0, width, [&](int64_t x, auto part) {
          store(squares + y * width + x, sum_of_squares(rows.get() + x, width, part), part);
        });
      }
    });
  }

  // Of all channels, in pieces, of which each is short enough to be exact.
  template <class Part>
  Vector<W> sum_of_squares(const W* rows, int64_t width, Part part) const {
    Vector<W> sum = {};
    for (int64_t first = 0; first < channels; first += piece) {
      Vector<W> some = {};
      for (int64_t c = first; c < smaller(channels, first + piece); ++c) {
        const Vector<W> x = load(rows + c * width, part);
        some += x * x;
      }
      sum += some;
    }
    return sum;
  }

  // 0 for a patch without length.
  void find_inverse_lengths(const Patches& patches, const W* squares, W* inverse) const {
    for (int64_t patch = 0; patch < patches.count(); ++patch) {
      W sum = 0;
      for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x) sum += squares[patches.position(patch) + y * patches.width + x];
      inverse[patch] = sum > 0 ? 1 / std::sqrt(sum) : W(0);
    }
  }

  const std::tuple<Products<W, 1>, Products<W, 2>, Products<W, 3>> products_;
  const Buffer<W> packed_content_, packed_style_, content_squares_, style_squares_, content_inverse_, style_inverse_;
  const Buffer<int64_t> shift_;  // of the pixels of a patch, among products
};

// The largest scores so far, a line of patches after the other, and whose they are.
template <class W>
struct Best {
  const Buffer<W> score;
  const Buffer<Number<W>> index;

  explicit Best(const Matching<W>& matching, int64_t parts)
      : score(parts * matching.content.rows * matching.pitch()), index(parts * matching.content.rows * matching.pitch()) {
    for (int64_t i = 0; i < parts * matching.content.rows * matching.pitch(); ++i) {
      score.get()[i] = -std::numeric_limits<W>::infinity();
      index.get()[i] = 0;
    }
  }
};

template <class W>
void keep_larger(Vector<W> score, Mask<W> index, W* best, Number<W>* best_index) {
  const Vector<W> before = load(best);
  const Mask<W> index_before = read<Mask<W>>(best_index);
  const Mask<W> better = (score > before) | ((score == before) & (index < index_before));
  store(best, better ? score : before);
  write(best_index, better ? index : index_before);
}

// What the last lines of a diagonal make of a line of style patches: the best of each lane.
template <class W>
void compare(
    const Matching<W>& matching, const W* const* folded, int64_t style_row, W* best, Number<W>* best_index) {
  const int64_t first = style_row * matching.style.columns;
  with_size(matching.size, [&](auto size) {
    for (int64_t i = 0; i < matching.pitch(); i += lanes<W>) {
      Vector<W> largest = broadcast(-std::numeric_limits<W>::infinity());
      Mask<W> index = Mask<W>{} + static_cast<Number<W>>(first), at = index;
      for (int64_t u = 0; u < matching.style.columns; ++u) {
        Vector<W> sum = {};
        for (int64_t d = 0; d < size; ++d) sum += load(folded[d] + u * matching.pitch() + i);
        sum *= matching.inverse_of_style(first + u);
        const Mask<W> better = sum > largest;
        largest = better ? sum : largest;
        at = better ? index : at;
        index += 1;
      }
      keep_larger<W>(largest, at, best + i, best_index + i);
    }
  });
}

// Diagonals from `first` to `last`, side by side.
template <class W>
void follow(const Matching<W>& matching, int64_t first, int64_t last, W* best, Number<W>* best_index) {
  const int64_t size = matching.size, stride = matching.stride, pairs = matching.pairs(), ring = size * pairs;
  const Buffer<W> products(matching.room()), folded((last - first) * ring);
  const Buffer<const W*> lines(size);
  for (int64_t y = 0; y < matching.lines(matching.content); ++y) {
    if (!matching.in_a_patch(y)) continue;
    for (int64_t diagonal = first; diagonal < last; ++diagonal) {
      const int64_t v = (y + diagonal * stride) % (matching.diagonals() * stride);
      if (v >= matching.lines(matching.style)) continue;
      W* slots = folded.get() + (diagonal - first) * ring;
      matching.fold(y, v, products.get(), slots + y % size * pairs);
      const int64_t above = y - size + 1;
      if (above < 0 || v < size - 1 || above % stride) continue;
      for (int64_t d = 0; d < size; ++d) lines.get()[d] = slots + (above + d) % size * pairs;
      const int64_t row = above / stride * matching.pitch();
      compare(matching, lines.get(), (v - size + 1) / stride, best + row, best_index + row);
    }
  }
}

template <class W>
void match(const Matching<W>& matching, int64_t* index, W* score, const Threads& threads) {
  const int64_t diagonals = matching.diagonals(), numbers = matching.content.rows * matching.pitch();
  const int64_t parts = smaller(threads.count, diagonals);
  const Best<W> best(matching, parts);
  const int64_t work = diagonals / parts * matching.content.height * matching.pairs() * (matching.channels + 1);
  parallel(threads, parts, work, [&](int64_t part) {
    const int64_t end = (part + 1) * diagonals / parts;
    for (int64_t first = part * diagonals / parts; first < end; first += most_diagonals)
      follow(matching, first, smaller(first + most_diagonals, end), best.score.get() + part * numbers,
             best.index.get() + part * numbers);
  });
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t i = 0; i < numbers; i += lanes<W>)
      keep_larger<W>(
          load(best.score.get() + part * numbers + i), read<Mask<W>>(best.index.get() + part * numbers + i),
          best.score.get() + i, best.index.get() + i);
  for (int64_t patch = 0; patch < matching.content.count(); ++patch) {
    const int64_t columns = matching.content.columns, i = patch / columns * matching.pitch() + patch % columns;
    index[patch] = best.index.get()[i];
    const W largest = best.score.get()[i];
    // There was no number.
    const bool none = largest == -std::numeric_limits<W>::infinity();
    score[patch] = none ? std::numeric_limits<W>::quiet_NaN() : largest * matching.inverse_of_content(patch);
  }
}

// The correlations of one line of content patches with all style patches, (content patches, style patches), from all that is
// folded of its lines.
template <class W>
void correlate(
    const Matching<W>& matching, const W* const* folded, int64_t row, int64_t style_row, W* correlations) {
  const int64_t columns = matching.content.columns, patches = matching.style.count();
  const int64_t line = style_row * matching.style.columns;
  for_each_square<W>(columns, matching.style.columns, [&](int64_t u, int width, int64_t x, int length) {
    Vector<W> square[lanes<W>] = {};
    for (int j = 0; j < width; ++j) {
      for (int64_t d = 0; d < matching.size; ++d) square[j] += load(folded[d] + (u + j) * matching.pitch() + x);
      square[j] *= matching.inverse_of_style(line + u + j);
    }
    transpose<W>(square);
    for (int i = 0; i < length; ++i)
      store(
          correlations + (x + i) * patches + line + u,
          square[i] * matching.inverse_of_content(row * columns + x + i), width);
  });
}

// The style patch that correlates best, less what it has lost. In double: losses may be large.
template <class W>
int64_t choose(const W* correlations, const double* losses, int64_t count) {
  using Some = typename VectorOf<W, lanes<double>>::type;
  constexpr int width = lanes<double>;
  Vector<double> largest = broadcast(-std::numeric_limits<double>::infinity());
  Mask<double> index = {}, at = {};
  for (int lane = 0; lane < width; ++lane) index[lane] = lane;
  int64_t q = 0;
  for (; q + width <= count; q += width, index += width) {
    const auto value = __builtin_convertvector(read<Some>(correlations + q), Vector<double>) - load(losses + q);
    const Mask<double> better = value > largest;
    largest = better ? value : largest;
    at = better ? index : at;
  }
  double best = -std::numeric_limits<double>::infinity();
  int64_t found = 0;
  for (int lane = 0; lane < width; ++lane)
    if (largest[lane] > best || (largest[lane] == best && at[lane] < found)) best = largest[lane], found = at[lane];
  for (; q < count; ++q)
    if (correlations[q] - losses[q] > best) best = correlations[q] - losses[q], found = q;
  return found;
}

// One line of content patches after the other: their correlations by all threads, their choices by one.
template <class W>
void match_in_turn(const Matching<W>& matching, double penalty, int64_t* index, W* score, const Threads& threads) {
  const int64_t size = matching.size, stride = matching.stride, pairs = matching.pairs(), patches = matching.style.count();
  const int64_t columns = matching.content.columns, slot = matching.diagonals() * pairs;
  const Buffer<W> folded(size * slot), correlations(columns * patches);
  const Buffer<double> used(patches), losses(patches);
  for (int64_t q = 0; q < patches; ++q) used.get()[q] = losses.get()[q] = 0;
  for (int64_t y = 0; y < matching.lines(matching.content); ++y) {
    if (!matching.in_a_patch(y)) continue;
    parallel_parts(threads, matching.diagonals(), pairs * (matching.channels + 1), [&](int64_t first, int64_t last) {
      const Buffer<W> products(matching.room());
      for (int64_t i = first; i < last; ++i) {
        const int64_t v = i * stride + y % stride;
        if (v >= matching.lines(matching.style)) continue;
        matching.fold(y, v, products.get(), folded.get() + y % size * slot + i * pairs);
      }
    });
    const int64_t above = y - size + 1;
    if (above < 0 || above % stride) continue;
    const int64_t row = above / stride;
    parallel(threads, matching.style.rows, pairs, [&](int64_t style_row) {
      const Buffer<const W*> lines(size);
      for (int64_t d = 0; d < size; ++d)
        lines.get()[d] = folded.get() + (above + d) % size * slot + (style_row + d / stride) * pairs;
      correlate(matching, lines.get(), row, style_row, correlations.get());
    });
    for (int64_t x = 0; x < columns; ++x) {
      const W* values = correlations.get() + x * patches;
      const int64_t found = choose(values, losses.get(), patches);
      index[row * columns + x] = found;
      score[row * columns + x] = values[found];
      used.get()[found] += 1;
      losses.get()[found] = penalty * used.get()[found];
    }
  }
}

template <class T>
void patch_match_of(const PatchMatch& call, const Threads& threads) {
  using W = Wide<T>;
  Matching<W> matching(call);
  const int64_t patches = matching.content.count();
  for (int64_t sample = 0; sample < call.contents.samples; ++sample) {
    if (sample == 0 || call.styles.samples > 1) matching.template pack_style<T>(call, sample, threads);
    matching.template pack<T>(call, sample, threads);
    int64_t* index = call.index + sample * patches;
    W* score = static_cast<W*>(call.score) + sample * patches;
    if (call.usage_penalty > 0) match_in_turn(matching, call.usage_penalty, index, score, threads);
    else match(matching, index, score, threads);
  }
}

}  // namespace

void patch_match(const PatchMatch& call, const Threads& threads) {
  with_element(call.contents.element, [&](auto element) { patch_match_of<decltype(element)>(call, threads); });
}

}  // namespace fastnorm::FASTNORM_ISA
