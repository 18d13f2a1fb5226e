// Dense 3x3 convolutions, and those of a map upsampled by 2, with fewer multiplications: minimal filtering, Winograd 1980;
// Lavin and Gray, arXiv:1509.09308. A kernel of 9x9 is nine of 3x3, of the input and of what lies 3 and 6 further; one of
// 3x3x3 is three, of a slice each.
//
// A tile of outputs needs a few elements of a channel. These are first added up, then multiplied with filters that are added
// up likewise, summed over channels, and added up to outputs. In one dimension:
//
//   3 taps, 2 outputs: 4 products.   data d0-d2, d1+d2, d2-d1, d1-d3    filter g0, (g0+g1+g2)/2, (g0-g1+g2)/2, g2
//                                    outputs m0+m1+m2, m1-m2-m3
//   3 taps, 4 outputs: 6 products, of polynomials' values at 0, a, -a, b, -b and infinity.
//   upsampled, 4 outputs: 6 products, 3 for either phase: of 2 taps of its own, which make 2 outputs.
//                                    data d0-d1, d1, d1-d2, d2, d2-d3   filter g0, g0+g1, g1    outputs m0+m1, m1-m2
//   upsampled, 5 taps: 8 products for 4 outputs, or 12 for 8: either phase has 3 taps, as above.
//   a stride of 2, 2 outputs: every second tap meets every second element. 2 taps as a phase above: 3 products; a single
//   one: 2. 3 taps have 5 products, 4 taps 6.
//   transposed, stride 2, 4 outputs: of 3 taps one phase has 2, the other a single one: 5 products.
//
// So in both dimensions 36 products do for 16 outputs, not 144, or 24 for 8, or 16 for 4; upsampled, 36 do for 16, not 64, or
// 96 for 32, not 288; by a stride 25 or 36 do for 4, not 36 or 64; transposed, 25 do for 16, not 36. The data of a tile are lines with a lane for
// each tile, so each product is a convolution by one tap: tiles of registers as everywhere (tile.h). Where an infinity enters,
// differences of products make NaN of its outputs.

#pragma once

#include "finish.h"
#include "tile.h"

namespace fastnorm::FASTNORM_ISA {

// In height or width, a tile reads `reach` elements, `step` after those of the one before. The convolution has `taps` (or in
// both dimensions parts of as many), and its elements lie `apart`.
template <int outputs>
struct PlainFiltering;

template <>
struct PlainFiltering<2> {
  static constexpr int taps = 3, stride = 1, apart = 1;
  static constexpr int reach = 4, step = 2, data = 4, products = 4, outputs = 2;

  static constexpr int data_of(int product) { return product; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    to[0] = g[0];
    to[1] = (g[0] + g[2] + g[1]) * 0.5f;
    to[2] = (g[0] + g[2] - g[1]) * 0.5f;
    to[3] = g[2];
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
};

// By points at which values in both directions err least. Of a direct sum's error as torch's are, for 64, 128 and 256
// channels: with 2 outputs in the other dimension 1.06, 0.76 and 0.55, with 4 outputs 1.8, 1.3 and 0.9.
template <>
struct PlainFiltering<4> {
  static constexpr int taps = 3, stride = 1, apart = 1;
  static constexpr int reach = 6, step = 4, data = 6, products = 6, outputs = 4;
  static constexpr float a = 0.6875f, b = 1.5f, aa = a * a, bb = b * b;

  static constexpr int data_of(int product) { return product; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    const V even_a = d[4] - d[2] * bb, odd_a = (d[3] - d[1] * bb) * a;
    const V even_b = d[4] - d[2] * aa, odd_b = (d[3] - d[1] * aa) * b;
    to[0] = even_a - (d[2] - d[0] * bb) * aa;
    to[1] = even_a + odd_a, to[2] = even_a - odd_a;
    to[3] = even_b + odd_b, to[4] = even_b - odd_b;
    to[5] = d[5] - d[3] * bb - (d[3] - d[1] * bb) * aa;
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    const V even_a = (g[0] + g[2] * aa) * of_a, odd_a = g[1] * (a * of_a);
    const V even_b = (g[0] + g[2] * bb) * of_b, odd_b = g[1] * (b * of_b);
    to[0] = g[0] * (1 / (aa * bb));
    to[1] = even_a + odd_a, to[2] = even_a - odd_a;
    to[3] = even_b + odd_b, to[4] = even_b - odd_b;
    to[5] = g[2];
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    const V even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = odd_a * a + odd_b * b;
    y[2] = even_a * aa + even_b * bb;
    y[3] = odd_a * (a * aa) + odd_b * (b * bb) + m[5];
  }

 private:
  static constexpr float of_a = 1 / (2 * aa * (aa - bb)), of_b = 1 / (2 * bb * (bb - aa));
};

// 2 taps, 2 outputs: what a phase is made of, of every second element or tap.
struct TwoTaps {
  template <class V>
  IN_PLACE static void spread(V d0, V d1, V d2, V* to) {
    to[0] = d0 - d1, to[1] = d1, to[2] = d1 - d2;
  }
  template <class V>
  static void filter(V g0, V g1, V* to) {
    to[0] = g0, to[1] = g0 + g1, to[2] = g1;
  }
  template <class V>
  IN_PLACE static V first(const V* m) { return m[0] + m[1]; }
  template <class V>
  IN_PLACE static V second(const V* m) { return m[1] - m[2]; }
};

struct UpsampledFiltering {
  static constexpr int taps = 4, stride = 1, apart = 2;
  static constexpr int reach = 4, step = 2, data = 5, products = 6, outputs = 4;

  static constexpr int data_of(int product) { return product / 3 * 2 + product % 3; }
  // The phases share a difference.
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    TwoTaps::spread(d[0], d[1], d[2], to);
    TwoTaps::spread(d[1], d[2], d[3], to + 2);
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    TwoTaps::filter(g[0], g[2], to);
    TwoTaps::filter(g[1], g[3], to + 3);
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    y[0] = TwoTaps::first(m), y[1] = TwoTaps::first(m + 3);
    y[2] = TwoTaps::second(m), y[3] = TwoTaps::second(m + 3);
  }
};

// Of 5 taps, which meet 6 where the elements lie apart: the even ones make the odd outputs. Either phase has `count`.
template <int count>
struct UpsampledWideFiltering {
  using Phase = PlainFiltering<count>;
  static constexpr int taps = 6, stride = 1, apart = 2;
  static constexpr int reach = Phase::reach, step = count, data = Phase::data, products = 2 * Phase::products;
  static constexpr int outputs = 2 * count;

  static constexpr int data_of(int product) { return product % data; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    Phase::spread(d, to);
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    for (int phase = 0; phase < 2; ++phase) {
      const V own[] = {g[1 - phase], g[3 - phase], g[5 - phase]};
      V products_of_phase[data];
      Phase::filter(own, products_of_phase);
      for (int i = 0; i < data; ++i) to[data * phase + i] = products_of_phase[i];
    }
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    unrolled<2>([&](int phase) IN_PLACE {
      V own[data], outputs_of_phase[count];
      unrolled<data>([&](int i) IN_PLACE { own[i] = m[data * phase + i]; });
      Phase::collect(own, outputs_of_phase);
      unrolled<count>([&](int i) IN_PLACE { y[2 * i + phase] = outputs_of_phase[i]; });
    });
  }
};

// Of 3 or 4 taps: the even ones are 2, the odd ones 1 or 2.
template <int width>
struct StridedFiltering {
  static constexpr int taps = width, stride = 2, apart = 1;
  static constexpr int reach = width + 2, step = 4, data = width + 2, products = width + 2, outputs = 2;

  static constexpr int data_of(int product) { return product; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    TwoTaps::spread(d[0], d[2], d[4], to);
    if constexpr (width == 4) TwoTaps::spread(d[1], d[3], d[5], to + 3);
    else to[3] = d[1], to[4] = d[3];
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    TwoTaps::filter(g[0], g[2], to);
    if constexpr (width == 4) TwoTaps::filter(g[1], g[3], to + 3);
    else to[3] = to[4] = g[1];
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    y[0] = TwoTaps::first(m), y[1] = TwoTaps::second(m);
    if constexpr (width == 4) y[0] += TwoTaps::first(m + 3), y[1] += TwoTaps::second(m + 3);
    else y[0] += m[3], y[1] += m[4];
  }
};

// Of 3 taps, padded by 1: the middle one makes the even outputs, the others the odd.
struct TransposedFiltering {
  static constexpr int taps = 3, stride = 1, apart = 2;
  static constexpr int reach = 3, step = 2, data = 4, products = 5, outputs = 4;

  static constexpr int data_of(int product) { return product < 4 ? product : 1; }
  template <class V>
  IN_PLACE static void spread(const V (&d)[reach], V (&to)[data]) {
    TwoTaps::spread(d[0], d[1], d[2], to);
    to[3] = d[0];
  }
  template <class V>
  static void filter(const V (&g)[taps], V (&to)[products]) {
    TwoTaps::filter(g[0], g[2], to);
    to[3] = to[4] = g[1];
  }
  template <class V>
  IN_PLACE static void collect(const V (&m)[products], V (&y)[outputs]) {
    y[0] = m[3], y[1] = TwoTaps::first(m);
    y[2] = m[4], y[3] = TwoTaps::second(m);
  }
};

// Vectors of `count` side by side, lane by lane: 2 or 4 of them.
template <int count, class W>
IN_PLACE inline void store_in_turn(W* to, const Vector<W> (&v)[count]) {
  if constexpr (count == 2) {
    store(to, in_turn<false, W>(v[0], v[1]));
    store(to + lanes<W>, in_turn<true, W>(v[0], v[1]));
  } else {
    const Vector<W> even[] = {in_turn<false, W>(v[0], v[2]), in_turn<true, W>(v[0], v[2])};
    const Vector<W> odd[] = {in_turn<false, W>(v[1], v[3]), in_turn<true, W>(v[1], v[3])};
    for (int half = 0; half < 2; ++half) {
      store(to + 2 * half * lanes<W>, in_turn<false, W>(even[half], odd[half]));
      store(to + (2 * half + 1) * lanes<W>, in_turn<true, W>(even[half], odd[half]));
    }
  }
}

// The convolution whose outputs are tiles: what lies where in cache is the same as for it.
template <class Down, class Along>
inline Convolution convolution_of_tiles(const Convolution& conv) {
  Convolution tiles = conv;
  const auto set = [&](int dim, auto filtering) {
    using Filtering = decltype(filtering);
    tiles.padding[dim] = conv.padding[dim] / Filtering::apart;
    tiles.input_dilation[dim] = 1;
    tiles.kernel[dim] = Filtering::reach + conv.kernel[dim] - Filtering::taps;
    tiles.stride[dim] = Filtering::step;
    tiles.output[dim] = ceil_div(conv.output[dim], Filtering::outputs);
  };
  set(1, Down{}), set(2, Along{});
  return tiles;
}

// By one filtering down the map and one along its rows, which are of the same kind.
template <class T, class Down, class Along = Down>
class Minimal {
 public:
  using W = Wide<T>;
  static constexpr int data = Down::data * Along::data, products = Down::products * Along::products;
  static constexpr int taps = Down::taps, stride = Down::stride, apart = Down::apart;
  static_assert(taps == Along::taps && stride == Along::stride && apart == Along::apart);
  // Fewer channels, and adding up costs more than it saves. By 4 outputs in both dimensions it would err more than a direct
  // sum, too, whose error grows with the channels. In double, exactness is what is asked for: nothing is minimal.
  static constexpr bool is_largest = Down::reach == 6 && Along::reach == 6 && stride == 1;
  static constexpr int64_t least_channels = is_largest ? 128 : apart == 1 ? 16 : 8;
  // Tiles whose data and products are in L2 at a time: of all input channels or a part. What a line is too short for is to
  // read all filters once more.
  static constexpr int64_t line_tiles = 96, line_tiles_of_parts = 64;
  // Of which one more or less for a thread does not matter.
  static constexpr int64_t many_chunks = 32;

  static bool fits(const Pass<T>& pass) {
    const Convolution& conv = pass.conv;
    const bool shared = !pass.filters.sample_stride || conv.samples == 1;
    if (!pass.forward || conv.groups != 1 || !shared || conv.input_dilation[0] != 1) return false;
    const int64_t parts = conv.kernel[1] / taps;
    if (smaller(conv.in_channels * parts * parts, conv.out_channels) < least_channels) return false;
    for (int dim = 1; dim < 3; ++dim) {
      const bool right = conv.input_dilation[dim] == apart && conv.stride[dim] == stride;
      // Elements that lie apart: which taps meet them depends on the padding.
      const bool in_phase = apart == 1 || conv.padding[dim] == taps / 2;
      // The last tile may reach beyond a border by 2 more than the convolution does.
      const bool far = conv.input[dim] >= conv.padding[dim] + 4;
      const bool whole = conv.kernel[dim] == parts * taps && (parts == 1 || apart == 1);
      if (!right || !in_phase || !far || !whole || conv.dilation[dim] != 1) return false;
    }
    // Rows of tiles without a row of the result, and lanes without a tile, are work for nothing.
    if (4 * conv.output[1] < 3 * Down::outputs * ceil_div(conv.output[1], Down::outputs)) return false;
    const int64_t tiles = ceil_div(conv.output[2], Along::outputs), lanes_used = ceil_div(tiles, lanes<W>) * lanes<W>;
    // Of a volume each row is brought for every slice that meets it: that pays with all lanes at work, and without a stride.
    if (conv.kernel[0] > 1) return stride == 1 && 8 * tiles >= 7 * lanes_used;
    return 4 * tiles >= 3 * lanes_used;
  }

  explicit Minimal(const Pass<T>& pass)
      : pass_(pass),
        conv_(pass.conv),
        tiles_(convolution_of_tiles<Down, Along>(conv_)),
        side_(conv_.kernel[1] / taps),
        parts_(conv_.kernel[0] * side_ * side_),
        block_(conv_, conv_.in_channels, conv_.out_channels, larger(1, smaller(in_limit, piece / parts_)), outs_of_a_task(conv_)),
        shape_(tiles_, Direction::forward),
        line_(block_.in_parts() == 1 ? line_tiles : line_tiles_of_parts),
        data_stride_(block_.ins * parts_ * line_ + lanes<W>),
        sum_pitch_(shape_.vectors() * lanes<W> * Along::outputs),
        depth_(tiles_, 0, Direction::forward),
        height_(tiles_, 1, Direction::forward),
        schedule_(depth_, height_, tiles_, Direction::forward, rows_of_a_chunk(), segments()),
        column_taps_(block_.ins * parts_),
        weights_(conv_.out_channels * conv_.in_channels * parts_ * products) {
    for (int64_t i = 0; i < block_.ins * parts_; ++i) column_taps_.get()[i] = {i * line_, i};
  }

  bool owns_planes() const { return false; }

  template <class Before>
  void run(const Before&) const {
    pack();
    if (pass_.statistics) pass_.statistics->begin(conv_.samples * conv_.out_channels, schedule_.chunks());
    const int64_t segments = schedule_.segments(), tasks = conv_.samples * block_.out_parts * segments;
    const int64_t work = schedule_.rows() * sum_pitch_ * Down::outputs * block_.outs / segments;
    parallel_parts(pass_.threads, tasks, work, [&](int64_t first, int64_t last) {
      Workspace space(*this);
      for (int64_t task = first; task < last; ++task) {
        const int64_t unit = task / segments, out = unit % block_.out_parts * block_.outs;
        const Part part = {unit / block_.out_parts, out, smaller(block_.outs, block_.out - out)};
        const auto chunks = schedule_.chunks_of(task % segments);
        for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk) convolve(part, chunk, space);
      }
      fence();
    });
  }

 private:
  struct Part {
    int64_t sample, out, outs;
  };

  // What a thread needs: rows; the data of a line of tiles, (data, channels, parts of the kernel), each of which one product
  // after the other reads all of; their products; outputs.
  struct Workspace {
    RowCache<W> rows;
    Buffer<W> spread, products_of, sums, bias;

    explicit Workspace(const Minimal& of)
        : rows(of.shape_, of.block_.ins, of.schedule_.slots()),
          spread(data * of.data_stride_),
          products_of(of.block_.outs * products * of.line_),
          sums(of.block_.outs * of.sum_stride()),
          bias(of.block_.outs) {}
  };

  // Of many input channels each task makes the data anew: more outputs then share them. So they do of a stride, which has
  // more data for an output.
  static int64_t outs_of_a_task(const Convolution& conv) {
    const int64_t outs = out_limit * stride;
    return conv.in_channels > in_limit ? 2 * outs : outs;
  }

  // Rows of tiles: as many as fit a line, lie in one slice, and leave chunks that a few threads can share evenly.
  int64_t rows_of_a_chunk() const {
    const int64_t all = tiles_.output[0] * tiles_.output[1];
    int64_t rows = larger(1, line_ / (shape_.vectors() * lanes<W>));
    const auto even = [&] { return all >= many_chunks * rows || (all % rows == 0 && all / rows % 4 == 0); };
    const auto in_one_slice = [&] { return tiles_.output[0] == 1 || tiles_.output[1] % rows == 0; };
    while (rows > 1 && !(even() && in_one_slice())) --rows;
    return rows;
  }
  int64_t sum_stride() const { return schedule_.largest_chunk() * Down::outputs * sum_pitch_; }

  int64_t segments() const {
    if (block_.in_parts() > 1) return INT32_MAX;
    return segments_for(conv_.samples * block_.out_parts, pass_.threads.count);
  }

  void convolve(const Part& work, int64_t chunk, Workspace& space) const {
    const auto rows = schedule_.rows_of(chunk);
    const int64_t width = shape_.vectors(), at_once = line_ / lanes<W> / (rows.last - rows.first);
    for (int64_t first = 0; first < width; first += at_once) {
      const int64_t vectors = smaller(at_once, width - first);
      for (int64_t part = 0; part < block_.in_parts(); ++part) {
        const int64_t in = part * block_.ins, ins = smaller(block_.ins, block_.in - in);
        if (first == 0 || block_.in_parts() > 1) bring_rows(space.rows, pass_, schedule_, work.sample, in, ins, work.out == 0, chunk);
        spread(space, rows, ins, first, vectors);
        // Product after product, so that what all tiles of outputs read stays in L1.
        for (int product = 0; product < products; ++product)
          for_each_tile(0, work.outs, [&](int64_t out, auto tile) {
            multiply<tile>(
                space.spread.get(), product, work.out + out, in, ins, vectors * (rows.last - rows.first), part == 0,
                space.products_of.get() + out * products * line_);
          });
      }
      for_each_tile(0, work.outs, [&](int64_t out, auto tile) {
        collect<tile>(
            space.products_of.get() + out * products * line_, rows, first, vectors, space.sums.get() + out * sum_stride());
      });
    }
    for (int64_t c = 0; c < work.outs; ++c)
      space.bias.get()[c] = pass_.bias_of(work.sample * conv_.out_channels + work.out + c);
    const int64_t slice = rows.first / tiles_.output[1], before = slice * tiles_.output[1], height = conv_.output[1];
    const Schedule::Range of_result = {
        slice * height + (rows.first - before) * Down::outputs, slice * height + smaller((rows.last - before) * Down::outputs, height)};
    const int64_t plane = work.sample * conv_.out_channels + work.out;
    finish_rows(
        pass_, plane, work.outs, of_result, space.sums.get(), sum_stride(), sum_pitch_, space.bias.get(), chunk);
  }

  void spread(const Workspace& space, Schedule::Range rows, int64_t ins, int64_t first, int64_t vectors) const {
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const int64_t met = schedule_.taps_of(row).first;
      for (int64_t part = 0; part < parts_; ++part) {
        const int64_t z = part / (side_ * side_), y = part / side_ % side_ * taps;
        const int64_t x = part % side_ * taps, first_tap = met + z * tiles_.kernel[1] + y;
        const W* met_rows[Down::reach];
        for (int i = 0; i < Down::reach; ++i)
          met_rows[i] = space.rows.channel(0) + schedule_.tap(first_tap + i).slot * shape_.slot_stride(block_.ins);
        for (int64_t c = 0; c < ins; ++c)
          for (int64_t v = 0; v < vectors; ++v)
            spread(
                met_rows, c * shape_.pitch() + (first + v) * lanes<W>, x,
                space.spread.get() + (c * parts_ + part) * line_ + ((row - rows.first) * vectors + v) * lanes<W>);
      }
    }
  }

  // In a row in cache, elements `step` apart lie side by side.
  void spread(const W* const (&rows)[Down::reach], int64_t at, int64_t first, W* to) const {
    Vector<W> columns[Along::reach][Down::data];
    unrolled<Along::reach>([&](int x) IN_PLACE {
      Vector<W> d[Down::reach];
      unrolled<Down::reach>([&](int y) IN_PLACE { d[y] = load(rows[y] + at + shape_.position(first + x)); });
      Down::spread(d, columns[x]);
    });
    unrolled<Down::data>([&](int y) IN_PLACE {
      Vector<W> d[Along::reach], all[Along::data];
      unrolled<Along::reach>([&](int x) IN_PLACE { d[x] = columns[x][y]; });
      Along::spread(d, all);
      unrolled<Along::data>([&](int x) IN_PLACE { store(to + (y * Along::data + x) * data_stride_, all[x]); });
    });
  }

  template <int channels>
  void multiply(
      const W* spread, int product, int64_t out, int64_t in, int64_t ins, int64_t vectors, bool first, W* found) const {
    const int y = product / Along::products, x = product % Along::products;
    const int from = Down::data_of(y) * Along::data + Along::data_of(x);
    const Source<W> source = {spread + from * data_stride_, 0, 1, 0};
    const W* weights = weights_.get() + place_of_weights(product, out, in, ins);
    const Taps each_channel = {column_taps_.get(), ins * parts_};
    W* const to = found + product * channels * line_;
    const Fresh<W> fresh[] = {{to, line_}};
    const Partial<W> added[] = {{to, line_, false}};
    if (first) convolve_rows<1, channels>(source, 0, vectors, each_channel, weights, 0, fresh);
    else convolve_rows<1, channels>(source, 0, vectors, each_channel, weights, 0, added);
  }

  template <int channels>
  void collect(const W* found, Schedule::Range rows, int64_t first, int64_t vectors, W* sums) const {
    for (int c = 0; c < channels; ++c)
      for (int64_t row = 0; row < rows.last - rows.first; ++row)
        for (int64_t v = 0; v < vectors; ++v) {
          const W* from = found + c * line_ + (row * vectors + v) * lanes<W>;
          W* to = sums + c * sum_stride() + row * Down::outputs * sum_pitch_ + (first + v) * Along::outputs * lanes<W>;
          collect(from, channels * line_, to);
        }
  }

  void collect(const W* from, int64_t distance, W* to) const {
    Vector<W> columns[Along::products][Down::outputs];
    unrolled<Along::products>([&](int x) IN_PLACE {
      Vector<W> m[Down::products];
      unrolled<Down::products>([&](int y) IN_PLACE { m[y] = load(from + (y * Along::products + x) * distance); });
      Down::collect(m, columns[x]);
    });
    unrolled<Down::outputs>([&](int y) IN_PLACE {
      Vector<W> m[Along::products], row[Along::outputs];
      unrolled<Along::products>([&](int x) IN_PLACE { m[x] = columns[x][y]; });
      Along::collect(m, row);
      store_in_turn<Along::outputs, W>(to + y * sum_pitch_, row);
    });
  }

  // Filters lie in the order in which they are read, so that what is next is on its way: (blocks of input channels, products,
  // tiles of output channels, input channels of the block, parts, channels of the tile).
  int64_t place_of_weights(int64_t product, int64_t out, int64_t in, int64_t ins) const {
    return (in * products * conv_.out_channels + (product * conv_.out_channels + out) * ins) * parts_;
  }

  void pack() const {
    const int64_t filter = conv_.in_channels * parts_ * products;
    // A few elements are a vector's work.
    parallel(pass_.threads, ceil_div(conv_.out_channels, 8), filter, [&](int64_t task) {
      for_each_tile(8 * task, smaller(8 * task + 8, conv_.out_channels), [&](int64_t out, auto tile) {
        for (int64_t in = 0; in < block_.in; in += block_.ins) {
          const int64_t ins = smaller(block_.ins, block_.in - in);
          if (pass_.filters.wide) pack<tile>(pass_.template filters_of<W>(0), out, in, ins);
          else pack<tile>(pass_.filters_of(0), out, in, ins);
        }
      });
    });
  }

  // Several channels' filters at a time, as vectors.
  template <int channels, class F>
  void pack(const F* filters, int64_t out, int64_t in, int64_t ins) const {
    constexpr int width = channels % 2 ? 1 : channels;
    using V = typename VectorOf<W, width>::type;
    const int64_t length = side_ * taps, filter = conv_.kernel[0] * length * length, distance = conv_.in_channels * filter;
    W* const to = weights_.get() + place_of_weights(0, out, in, ins);
    const int64_t product_stride = place_of_weights(1, out, in, ins) - place_of_weights(0, out, in, ins);
    for (int c = 0; c < channels; c += width)
      for (int64_t i = 0; i < ins * parts_; ++i) {
        const int64_t part = i % parts_, slice = part / (side_ * side_) * length * length;
        const int64_t corner = slice + part / side_ % side_ * taps * length + part % side_ * taps;
        const F* from = filters + (out + c) * distance + (in + i / parts_) * filter + corner;
        V columns[taps][Down::products];
        for (int x = 0; x < taps; ++x) {
          V g[taps];
          for (int y = 0; y < taps; ++y)
            for (int lane = 0; lane < width; ++lane) g[y][lane] = widened(from + lane * distance + y * length + x);
          Down::filter(g, columns[x]);
        }
        for (int y = 0; y < Down::products; ++y) {
          V g[taps], all[Along::products];
          for (int x = 0; x < taps; ++x) g[x] = columns[x][y];
          Along::filter(g, all);
          W* const row = to + y * Along::products * product_stride + i * channels + c;
          for (int x = 0; x < Along::products; ++x) __builtin_memcpy(row + x * product_stride, all + x, sizeof(V));
        }
      }
  }

  const Pass<T> pass_;
  const Convolution& conv_;
  const Convolution tiles_;
  const int64_t side_, parts_;  // of the kernel
  const Blocks block_;
  const RowShape<W> shape_;
  const int64_t line_;
  const int64_t data_stride_;  // a line of cache more than they take, or all would be in the same few sets
  const int64_t sum_pitch_;
  const Reach depth_, height_;
  const Schedule schedule_;
  Buffer<ColumnTap> column_taps_;
  Buffer<W> weights_;
};

}  // namespace fastnorm::FASTNORM_ISA
