// Dense 3x3 convolutions, and those of a map upsampled by 2, with fewer multiplications: by minimal filterings (filterings.h)
// down the map and along its rows. A kernel of 9x9 is nine of 3x3, of the input and of what lies 3 and 6 further; one of
// 3x3x3 is three, of a slice each.
//
// In both dimensions 36 products do for 16 outputs, not 144, or 24 for 8, or 16 for 4; upsampled, 36 do for 16, not 64, or 96
// for 32, not 288; by a stride 25 or 36 do for 4, not 36 or 64; transposed, 25 do for 16, not 36. The data of a tile are
// lines with a lane for each tile, so each product is a convolution by one tap: tiles of registers as everywhere (tile.h).
// Where an infinity enters, differences of products make NaN of its outputs.

#pragma once

#include "filterings.h"
#include "finish.h"
#include "tile.h"

namespace fastnorm::FASTNORM_ISA {

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

// What happens in cache, whatever the maps' type: a filtering down the map and one along its rows, which are of one kind.
template <class Down, class Along>
class Tiles {
 public:
  using W = float;
  static constexpr int data = Down::data * Along::data, products = Down::products * Along::products;
  static constexpr int taps = Down::taps, stride = Down::stride, apart = Down::apart;
  static_assert(taps == Along::taps && stride == Along::stride && apart == Along::apart);
  // Fewer channels, and adding up costs more than it saves. Of fewer than 128, tiles of 4 by 4 outputs would err more than twice
  // as much as a direct sum, whose error grows with the channels.
  static constexpr bool is_largest = std::is_same_v<Along, PlainFiltering<4>>;
  static constexpr int64_t least_channels = is_largest ? 128 : apart == 1 ? 16 : 8;
  // Products that the largest tiles sum in one piece, where that divides the sum: it halves their error where much of a map is
  // zero. Shorter pieces gain no more, what is left is that of adding up.
  static constexpr int64_t piece_of_sum = 16;
  // Tiles whose data and products are in L2 at a time: of all input channels or a part. What a line is too short for is to
  // read all filters once more.
  static constexpr int64_t line_tiles = 96, line_tiles_of_parts = 64;
  // Of which one more or less for a thread does not matter.
  static constexpr int64_t many_chunks = 32;

  static bool fit(const Convolution& conv) {
    if (conv.groups != 1 || conv.input_dilation[0] != 1) return false;
    const int64_t parts = conv.kernel[1] / taps;
    if (smaller(conv.in_channels * parts * parts, conv.out_channels) < least_channels) return false;
    const Convolution tiled = convolution_of_tiles<Down, Along>(conv);
    for (int dim = 1; dim < 3; ++dim) {
      const bool right = conv.input_dilation[dim] == apart && conv.stride[dim] == stride;
      // Elements that lie apart: which taps meet them depends on the padding.
      const bool in_phase = apart == 1 || conv.padding[dim] == taps / 2;
      // The last tile may reach further beyond a border than the convolution does.
      const int64_t behind = (tiled.output[dim] - 1) * tiled.stride[dim] + tiled.kernel[dim] - tiled.padding[dim] - conv.input[dim];
      const bool near = larger(tiled.padding[dim], behind) < conv.input[dim];
      const bool whole = conv.kernel[dim] == parts * taps && (parts == 1 || apart == 1);
      if (!right || !in_phase || !near || !whole || conv.dilation[dim] != 1) return false;
    }
    // Rows of tiles without a row of the result, and lanes without a tile, are work for nothing.
    if (4 * conv.output[1] < 3 * Down::outputs * ceil_div(conv.output[1], Down::outputs)) return false;
    const int64_t tiles = ceil_div(conv.output[2], Along::outputs), lanes_used = ceil_div(tiles, lanes<W>) * lanes<W>;
    // Of a volume each row is brought for every slice that meets it: that pays with all lanes at work, and without a stride.
    if (conv.kernel[0] > 1) return stride == 1 && 8 * tiles >= 7 * lanes_used;
    return 4 * tiles >= 3 * lanes_used;
  }

  Tiles(const Convolution& conv, const Threads& threads)
      : conv(conv),
        tiles(convolution_of_tiles<Down, Along>(conv)),
        side(conv.kernel[1] / taps),
        parts(conv.kernel[0] * side * side),
        block(conv, conv.in_channels, conv.out_channels, larger(1, smaller(in_limit, piece / parts)), outs_of_a_task(conv)),
        shape(tiles, Direction::forward),
        line(block.in_parts() == 1 ? line_tiles : line_tiles_of_parts),
        data_stride(block.ins * parts * line + lanes<W>),
        sum_pitch(shape.vectors() * lanes<W> * Along::outputs),
        depth(tiles, 0, Direction::forward),
        height(tiles, 1, Direction::forward),
        schedule(depth, height, tiles, Direction::forward, rows_of_a_chunk(), segments(threads)),
        sum_stride(schedule.largest_chunk() * Down::outputs * sum_pitch),
        channel_taps_(block.ins * parts),
        packed_(conv.out_channels * conv.in_channels * parts * products) {
    for (int64_t i = 0; i < block.ins * parts; ++i) channel_taps_.get()[i] = {i * line, i};
  }

  // What a thread needs: rows; the data of a line of tiles, (data, channels, parts of the kernel), each of which one product
  // after the other reads all of; their products; outputs.
  struct Workspace {
    RowCache<W> rows;
    Buffer<W> spread, products_of, sums, bias;

    explicit Workspace(const Tiles& of)
        : rows(of.shape, of.block.ins, of.schedule.slots()),
          spread(data * of.data_stride),
          products_of(of.block.outs * products * of.line),
          sums(of.block.outs * of.sum_stride),
          bias(of.block.outs) {}
  };

  // Filters of the convolution to those of the tiles.
  void pack(const W* filters, const Threads& threads) const {
    // A few elements are a vector's work.
    parallel(threads, ceil_div(conv.out_channels, 8), conv.in_channels * parts * products, [&](int64_t task) {
      for_each_tile(8 * task, smaller(8 * task + 8, conv.out_channels), [&](int64_t out, auto tile) {
        for (int64_t in = 0; in < block.in; in += block.ins) pack<tile>(filters, out, in, smaller(block.ins, block.in - in));
      });
    });
  }

  // The products of `vectors` of tiles in each of some rows, with input channels that were brought. Product after product, so
  // that what all tiles of outputs read stays in L1.
  void multiply(
      const Workspace& space, Schedule::Range rows, int64_t first, int64_t vectors, int64_t in, int64_t ins, int64_t out,
      int64_t outs) const {
    spread(space, rows, ins, first, vectors);
    for (int product = 0; product < products; ++product)
      for_each_tile(0, outs, [&](int64_t c, auto tile) {
        multiply<tile>(
            space.spread.get(), product, out + c, in, ins, vectors * (rows.last - rows.first), in == 0,
            space.products_of.get() + c * products * line);
      });
  }

  // Their outputs.
  void collect(const Workspace& space, Schedule::Range rows, int64_t first, int64_t vectors, int64_t outs) const {
    for_each_tile(0, outs, [&](int64_t c, auto tile) {
      collect<tile>(space.products_of.get() + c * products * line, rows, first, vectors, space.sums.get() + c * sum_stride);
    });
  }

  const Convolution& conv;
  const Convolution tiles;
  const int64_t side, parts;  // of the kernel
  const Blocks block;
  const RowShape<W> shape;
  const int64_t line;
  const int64_t data_stride;  // a line of cache more than they take, or all would be in the same few sets
  const int64_t sum_pitch;
  const Reach depth, height;
  const Schedule schedule;
  const int64_t sum_stride;

 private:
  // Of many input channels each task makes the data anew: more outputs then share them. So they do of a stride, which has
  // more data for an output.
  static int64_t outs_of_a_task(const Convolution& conv) {
    const int64_t outs = out_limit * stride;
    return conv.in_channels > in_limit ? 2 * outs : outs;
  }

  // Rows of tiles: as many as fit a line, lie in one slice, and leave chunks that a few threads can share evenly.
  int64_t rows_of_a_chunk() const {
    const int64_t all = tiles.output[0] * tiles.output[1];
    int64_t rows = larger(1, line / (shape.vectors() * lanes<W>));
    const auto even = [&] { return all >= many_chunks * rows || (all % rows == 0 && all / rows % 4 == 0); };
    const auto in_one_slice = [&] { return tiles.output[0] == 1 || tiles.output[1] % rows == 0; };
    while (rows > 1 && !(even() && in_one_slice())) --rows;
    return rows;
  }

  int64_t segments(const Threads& threads) const {
    if (block.in_parts() > 1) return INT32_MAX;
    return segments_for(conv.samples * block.out_parts, threads.count);
  }

  void spread(const Workspace& space, Schedule::Range rows, int64_t ins, int64_t first, int64_t vectors) const {
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const int64_t met = schedule.taps_of(row).first;
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t z = part / (side * side), y = part / side % side * taps;
        const int64_t x = part % side * taps, first_tap = met + z * tiles.kernel[1] + y;
        const W* met_rows[Down::reach];
        for (int i = 0; i < Down::reach; ++i)
          met_rows[i] = space.rows.channel(0) + schedule.tap(first_tap + i).slot * shape.slot_stride(block.ins);
        for (int64_t c = 0; c < ins; ++c)
          for (int64_t v = 0; v < vectors; ++v)
            spread(
                met_rows, c * shape.pitch() + (first + v) * lanes<W>, x,
                space.spread.get() + (c * parts + part) * line + ((row - rows.first) * vectors + v) * lanes<W>);
      }
    }
  }

  // In a row in cache, elements `step` apart lie side by side.
  void spread(const W* const (&rows)[Down::reach], int64_t at, int64_t first, W* to) const {
    Vector<W> columns[Along::reach][Down::data];
    unrolled<Along::reach>([&](int x) IN_PLACE {
      Vector<W> d[Down::reach];
      unrolled<Down::reach>([&](int y) IN_PLACE { d[y] = load(rows[y] + at + shape.position(first + x)); });
      Down::spread(d, columns[x]);
    });
    unrolled<Down::data>([&](int y) IN_PLACE {
      Vector<W> d[Along::reach], all[Along::data];
      unrolled<Along::reach>([&](int x) IN_PLACE { d[x] = columns[x][y]; });
      Along::spread(d, all);
      unrolled<Along::data>([&](int x) IN_PLACE { store(to + (y * Along::data + x) * data_stride, all[x]); });
    });
  }

  template <int channels>
  void multiply(
      const W* spread, int product, int64_t out, int64_t in, int64_t ins, int64_t vectors, bool first, W* found) const {
    const int y = product / Along::products, x = product % Along::products;
    const int from = Down::data_of(y) * Along::data + Along::data_of(x);
    const int64_t sum = ins * parts, at_once = is_largest && sum % piece_of_sum == 0 ? piece_of_sum : sum;
    const Source<W> source = {spread + from * data_stride, at_once * line, sum / at_once, 0};
    const W* weights = packed_.get() + place_of_weights(product, out, in, ins);
    const Taps each_channel = {channel_taps_.get(), at_once, at_once};
    W* const to = found + product * channels * line;
    const Fresh<W> fresh[] = {{to, line}};
    const Partial<W> added[] = {{to, line, false}};
    if (first) convolve_rows<1, channels>(source, 0, vectors, each_channel, weights, at_once, fresh);
    else convolve_rows<1, channels>(source, 0, vectors, each_channel, weights, at_once, added);
  }

  template <int channels>
  void collect(const W* found, Schedule::Range rows, int64_t first, int64_t vectors, W* sums) const {
    for (int c = 0; c < channels; ++c)
      for (int64_t row = 0; row < rows.last - rows.first; ++row)
        for (int64_t v = 0; v < vectors; ++v) {
          const W* from = found + c * line + (row * vectors + v) * lanes<W>;
          W* to = sums + c * sum_stride + row * Down::outputs * sum_pitch + (first + v) * Along::outputs * lanes<W>;
          collect(from, channels * line, to);
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
      store_in_turn<Along::outputs, W>(to + y * sum_pitch, row);
    });
  }

  // Filters lie in the order in which they are read, so that what is next is on its way: (blocks of input channels, products,
  // tiles of output channels, input channels of the block, parts, channels of the tile).
  int64_t place_of_weights(int64_t product, int64_t out, int64_t in, int64_t ins) const {
    return (in * products * conv.out_channels + (product * conv.out_channels + out) * ins) * parts;
  }

  // Several channels' filters at a time, as vectors.
  template <int channels>
  void pack(const W* filters, int64_t out, int64_t in, int64_t ins) const {
    constexpr int width = channels % 2 ? 1 : channels;
    using V = typename VectorOf<W, width>::type;
    const int64_t length = side * taps, filter = conv.kernel[0] * length * length, distance = conv.in_channels * filter;
    W* const to = packed_.get() + place_of_weights(0, out, in, ins);
    const int64_t product_stride = place_of_weights(1, out, in, ins) - place_of_weights(0, out, in, ins);
    for (int c = 0; c < channels; c += width)
      for (int64_t i = 0; i < ins * parts; ++i) {
        const int64_t part = i % parts, slice = part / (side * side) * length * length;
        const int64_t corner = slice + part / side % side * taps * length + part % side * taps;
        const W* from = filters + (out + c) * distance + (in + i / parts) * filter + corner;
        V columns[taps][Down::products];
        for (int x = 0; x < taps; ++x) {
          V g[taps];
          for (int y = 0; y < taps; ++y)
            for (int lane = 0; lane < width; ++lane) g[y][lane] = from[lane * distance + y * length + x];
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

  Buffer<ColumnTap> channel_taps_;
  Buffer<W> packed_;
};

template <class T, class Down, class Along = Down>
class Minimal {
 public:
  using W = Wide<T>;

  static bool fits(const Pass<T>& pass) {
    const bool shared = !pass.filters.sample_stride || pass.conv.samples == 1;
    return pass.forward && shared && Tiles<Down, Along>::fit(pass.conv);
  }

  explicit Minimal(const Pass<T>& pass) : pass_(pass), of_(pass.conv, pass.threads) {}

  bool owns_planes() const { return false; }

  template <class Before>
  void run(const Before&) const {
    pack();
    const Convolution& conv = pass_.conv;
    if (pass_.statistics) pass_.statistics->begin(conv.samples * conv.out_channels, of_.schedule.chunks());
    const int64_t segments = of_.schedule.segments(), tasks = conv.samples * of_.block.out_parts * segments;
    const int64_t work = of_.schedule.rows() * of_.sum_pitch * Down::outputs * of_.block.outs / segments;
    parallel_parts(pass_.threads, tasks, work, [&](int64_t first, int64_t last) {
      Workspace space(of_);
      for (int64_t task = first; task < last; ++task) {
        const int64_t unit = task / segments, out = unit % of_.block.out_parts * of_.block.outs;
        const Part part = {unit / of_.block.out_parts, out, smaller(of_.block.outs, of_.block.out - out)};
        const auto chunks = of_.schedule.chunks_of(task % segments);
        for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk) convolve(part, chunk, space);
      }
      fence();
    });
  }

 private:
  using Workspace = typename Tiles<Down, Along>::Workspace;

  struct Part {
    int64_t sample, out, outs;
  };

  void pack() const {
    if constexpr (!std::is_same_v<T, W>) {
      if (!pass_.filters.wide) {
        const int64_t count = pass_.conv.out_channels * pass_.conv.in_channels * kernel_size(pass_.conv);
        Buffer<W> filters(count);
        parallel_parts(pass_.threads, count, 1, [&](int64_t first, int64_t last) {
          for_each_vector<W>(first, last, [&](int64_t i, auto n) { store(filters.get() + i, load(pass_.filters_of(0) + i, n), n); });
        });
        return of_.pack(filters.get(), pass_.threads);
      }
    }
    of_.pack(pass_.template filters_of<W>(0), pass_.threads);
  }

  void convolve(const Part& work, int64_t chunk, Workspace& space) const {
    const Schedule& schedule = of_.schedule;
    const Blocks& block = of_.block;
    const auto rows = schedule.rows_of(chunk);
    const int64_t width = of_.shape.vectors(), at_once = of_.line / lanes<W> / (rows.last - rows.first);
    for (int64_t first = 0; first < width; first += at_once) {
      const int64_t vectors = smaller(at_once, width - first);
      for (int64_t in = 0; in < block.in; in += block.ins) {
        const int64_t ins = smaller(block.ins, block.in - in);
        if (first == 0 || block.in_parts() > 1) bring_rows(space.rows, pass_, schedule, work.sample, in, ins, work.out == 0, chunk);
        of_.multiply(space, rows, first, vectors, in, ins, work.out, work.outs);
      }
      of_.collect(space, rows, first, vectors, work.outs);
    }
    const int64_t plane = work.sample * pass_.conv.out_channels + work.out;
    for (int64_t c = 0; c < work.outs; ++c) space.bias.get()[c] = pass_.bias_of(plane + c);
    const int64_t slice = rows.first / of_.tiles.output[1], before = slice * of_.tiles.output[1], height = pass_.conv.output[1];
    const Schedule::Range of_result = {
        slice * height + (rows.first - before) * Down::outputs,
        slice * height + smaller((rows.last - before) * Down::outputs, height)};
    finish_rows(
        pass_, plane, work.outs, of_result, space.sums.get(), of_.sum_stride, of_.sum_pitch, space.bias.get(), chunk);
  }

  const Pass<T> pass_;
  const Tiles<Down, Along> of_;
};

}  // namespace fastnorm::FASTNORM_ISA
