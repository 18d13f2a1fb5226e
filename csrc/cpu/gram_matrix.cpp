// gram[i, j] = sum over p of (x[i, p] - mean[i]) * (x[j, p] - mean[j]), or of x itself.
//
// For each sample C^2 flops a position, for one half is computed, and one read of the map.
//
//   1. Positions are cut into segments, as the shape says, each with a matrix of its own. A task takes a segment of a
//      sample, or a band of its rows where there are more threads than segments.
//   2. It packs a piece of positions as panels of channels, a few vectors of them at each position, less their mean.
//   3. A tile of registers is a few channels i, whose numbers are broadcast, by a panel of channels j, which are lanes. Both
//      come from the packed piece, so that it lies in cache once. Tiles that lie beyond the diagonal are left out.
//   4. Segments are added in their order, and the half that is there is copied to the other.
//
// With few channels a panel would be mostly empty: there, lanes are positions, and nothing is packed.

#include "positions.h"
#include "products.h"

namespace fastnorm::FASTNORM_ISA {

void instance_stats(const InstanceStats&, const Threads&);

namespace {

// Positions of a piece, which are summed at once: of two panels they fit in L1.
constexpr int64_t positions_of_a_piece = Products<float>::longest;
static_assert(positions_of_a_piece % lanes<float> == 0);
// Bytes of pieces that are packed at a time, for L2. Rows of planes are then read in longer runs.
constexpr int64_t packed_bytes = 256 << 10;
// Of the matrices of all segments, about, and of as many samples as have no more; and how many pieces are worth one.
constexpr int64_t sums_bytes = int64_t(4) << 20, most_segments = 64, pieces_of_a_segment = 4;

// From the sums of `segments`, each a matrix with rows of `row_size`, of samples from `first_sample` on: squares at and below
// the diagonal, of which those at it are whole; and their transposes above it.
template <class W>
void add_segments(
    const GramMatrix& call, const Threads& threads, int64_t first_sample, int64_t samples, int64_t segments,
    int64_t row_size, const W* sums) {
  const int64_t channels = call.planes.channels, squares = ceil_div(channels, lanes<W>), size = row_size * row_size;
  parallel(threads, samples * squares, segments * lanes<W> * channels, [&](int64_t task) {
    const int64_t sample = task / squares, i = task % squares * lanes<W>;
    const W* first = sums + sample * segments * size + i * row_size;
    W* gram = static_cast<W*>(call.gram) + (first_sample + sample) * channels * channels;
    const int height = static_cast<int>(smaller(lanes<W>, channels - i));
    for_each_vector<W>(0, smaller(i + lanes<W>, channels), [&](int64_t j, auto width) {
      Vector<W> square[lanes<W>];
      for (int row = 0; row < lanes<W>; ++row) {
        square[row] = load(first + row * row_size + j);
        for (int64_t s = 1; s < segments; ++s) square[row] += load(first + s * size + row * row_size + j);
      }
      for (int row = 0; row < height; ++row) store(gram + (i + row) * channels + j, square[row], width);
      if (j == i) return;
      transpose<W>(square);
      for (int row = 0; row < lanes<W>; ++row) store(gram + (j + row) * channels + i, square[row], height);
    });
  });
}

// Of few channels. A task is a segment of a sample: of a block of positions, rows of channels, which are in L1; a tile of
// registers is four channels by three, of which each sum is a vector, along positions.
template <class T>
class GramOfFew {
 public:
  using W = Wide<T>;
  // With more, what is left of a panel of channels is little, and there are fewer loads for a product.
  static constexpr int64_t most_channels = 32;

  explicit GramOfFew(const GramMatrix& call)
      : call_(call),
        channels_(call.planes.channels),
        row_size_(ceil_div(channels_, lanes<W>) * lanes<W>),
        blocks_(larger(1, ceil_div(call.planes.size, positions_of_a_block))),
        segments_(larger(1, smaller(most_segments, blocks_ / blocks_of_a_segment))) {}

  void run(const Threads& threads) const {
    const int64_t size = row_size_ * row_size_, samples = call_.planes.samples;
    const int64_t at_a_time = larger(1, smaller(samples, sums_bytes / int64_t(segments_ * size * sizeof(W))));
    const Buffer<W> sums(at_a_time * segments_ * size);
    for (int64_t from = 0; from < samples; from += at_a_time) {
      const int64_t some = smaller(at_a_time, samples - from);
      const int64_t work = blocks_ / segments_ * positions_of_a_block * row_size_ * (tiles() + 1) / 4;
      parallel_parts(threads, some * segments_, work, [&](int64_t first, int64_t last) {
        const Buffer<W> rows((channels_ + height) * positions_of_a_block), parts(tiles() * height * width * lanes<W>);
        for (int64_t task = first; task < last; ++task)
          add_up(from + task / segments_, task % segments_, rows.get(), parts.get(), sums.get() + task * size);
      });
      add_segments(call_, threads, from, some, segments_, row_size_, sums.get());
    }
  }

 private:
  static constexpr int height = 4, width = 3;
  static constexpr int64_t positions_of_a_block = 16 * lanes<W>, blocks_of_a_segment = 16;

  // body(i, j) for tiles that are not beyond the diagonal.
  template <class Body>
  void for_each_pair(const Body& body) const {
    for (int64_t i = 0; i < channels_; i += height)
      for (int64_t j = 0; j < smaller(i + height, channels_); j += width) body(i, j);
  }
  int64_t tiles() const {
    int64_t count = 0;
    for_each_pair([&](int64_t, int64_t) { ++count; });
    return count;
  }

  void add_up(int64_t sample, int64_t segment, W* rows, W* parts, W* sums) const {
    const int64_t begin = segment * blocks_ / segments_, end = (segment + 1) * blocks_ / segments_;
    for (int64_t block = begin; block < end; ++block) {
      read(sample, block, rows);
      W* part = parts;
      for_each_pair([&](int64_t i, int64_t j) {
        multiply(rows + i * positions_of_a_block, rows + j * positions_of_a_block, block == begin, part);
        part += height * width * lanes<W>;
      });
    }
    const W* part = parts;
    for_each_pair([&](int64_t i, int64_t j) {
      for (int row = 0; row < height; ++row)
        for (int column = 0; column < width; ++column, part += lanes<W>)
          if (i + row < channels_ && j + column < channels_)
            sums[(i + row) * row_size_ + j + column] = sums[(j + column) * row_size_ + i + row] = sum<W>(load(part));
    });
  }

  // A block's rows, less their mean; zeros for what is no channel or no position.
  void read(int64_t sample, int64_t block, W* rows) const {
    const int64_t first = block * positions_of_a_block, count = smaller(positions_of_a_block, call_.planes.size - first);
    if (count < positions_of_a_block) __builtin_memset(rows, 0, channels_ * positions_of_a_block * sizeof(W));
    __builtin_memset(rows + channels_ * positions_of_a_block, 0, height * positions_of_a_block * sizeof(W));
    Positions<const T>(call_.planes, call_.input, sample).read(0, channels_, first, count, 1, rows, positions_of_a_block);
    if (!call_.mean) return;
    for (int64_t c = 0; c < channels_; ++c) {
      W* row = rows + c * positions_of_a_block;
      const Vector<W> less = broadcast(static_cast<const W*>(call_.mean)[sample * channels_ + c]);
      for_each_vector<W>(0, count, [&](int64_t i, auto part) { store(row + i, load(row + i, part) - less, part); });
    }
  }

  static void multiply(const W* rows, const W* columns, bool from_zero, W* part) {
    Vector<W> sums[height][width] = {};
    for (int64_t i = 0; i < positions_of_a_block; i += lanes<W>) {
      Vector<W> column[width];
      unrolled<width>([&](int j) IN_PLACE { column[j] = load(columns + j * positions_of_a_block + i); });
      unrolled<height>([&](int row) IN_PLACE {
        const Vector<W> x = load(rows + row * positions_of_a_block + i);
        unrolled<width>([&](int j) IN_PLACE { sums[row][j] += x * column[j]; });
      });
    }
    unrolled<height * width>([&](int k) IN_PLACE {
      W* p = part + k * lanes<W>;
      store(p, from_zero ? sums[k / width][k % width] : load(p) + sums[k / width][k % width]);
    });
  }

  const GramMatrix& call_;
  const int64_t channels_, row_size_, blocks_, segments_;
};

// In panels of as many vectors as make whole tiles.
template <class T>
class GramOfMany {
 public:
  using W = Wide<T>;

  GramOfMany(const GramMatrix& call, const Threads& threads)
      : call_(call),
        threads_(threads),
        channels_(call.planes.channels),
        panels_(ceil_div(channels_, panel)),
        pieces_(larger(1, ceil_div(call.planes.size, positions_of_a_piece))),
        segments_(larger(
            1, smaller(smaller(most_segments, pieces_ / pieces_of_a_segment), sums_bytes / bytes(sums_size())))),
        pieces_at_a_time_(larger(1, packed_bytes / bytes(piece_size()))),
        samples_at_a_time_(larger(1, smaller(call.planes.samples, sums_bytes / bytes(segments_ * sums_size())))),
        sums_(samples_at_a_time_ * segments_ * sums_size()),
        products_(tiles_of_a_panel) {}

  void run() const {
    for (int64_t sample = 0; sample < call_.planes.samples; sample += samples_at_a_time_) {
      const int64_t samples = smaller(samples_at_a_time_, call_.planes.samples - sample);
      multiply(sample, samples);
      add_segments(call_, threads_, sample, samples, segments_, row_size(), sums_.get());
    }
  }

 private:
  static constexpr int of_a_tile = tile_channels > lanes<W> ? tile_channels / lanes<W> : 1;
  static constexpr int vectors = tile_vectors<tile_channels> / of_a_tile * of_a_tile;
  static constexpr int64_t panel = vectors * lanes<W>, tiles_of_a_panel = panel / tile_channels;
  static_assert(panel % tile_channels == 0);

  static int64_t bytes(int64_t size) { return size * int64_t(sizeof(W)); }
  int64_t row_size() const { return panels_ * panel; }
  int64_t sums_size() const { return row_size() * row_size(); }
  int64_t piece_size() const { return row_size() * positions_of_a_piece; }

  // Of each sample and segment the tiles that are not beyond the diagonal.
  void multiply(int64_t first_sample, int64_t samples) const {
    const int64_t tiles = ceil_div(channels_, tile_channels), units = samples * segments_;
    const int64_t bands = smaller(tiles, segments_for(units, threads_.count));
    // Of the same area each, of a triangle.
    const auto bound = [&](int64_t band) {
      return static_cast<int64_t>(std::lround(static_cast<double>(tiles) * std::sqrt(double(band) / double(bands))));
    };
    const int64_t work = ceil_div(pieces_ * piece_size(), segments_) * ceil_div(tiles, bands);
    parallel_parts(threads_, units * bands, work, [&](int64_t first, int64_t last) {
      const Buffer<W> rows(panel * positions_of_a_piece), packed(smaller(pieces_at_a_time_, pieces_) * piece_size());
      for (int64_t task = first; task < last; ++task) {
        const int64_t unit = task / bands, band = task % bands, segment = unit % segments_;
        const Band of = {bound(band), bound(band + 1), sums_.get() + unit * sums_size()};
        const int64_t begin = segment * pieces_ / segments_, end = (segment + 1) * pieces_ / segments_;
        for (int64_t piece = begin; piece < end; piece += pieces_at_a_time_) {
          const int64_t pieces = smaller(pieces_at_a_time_, end - piece);
          pack(first_sample + unit / segments_, piece, pieces, of, rows.get(), packed.get());
          for (int64_t i = 0; i < pieces; ++i)
            multiply_piece(packed.get() + i * piece_size(), positions_of(piece + i), of, piece + i == begin);
        }
      }
    });
  }

  // Rows of tiles from `first` to `last`.
  struct Band {
    int64_t first, last;
    W* sums;

    int64_t panels() const { return ceil_div(last, tiles_of_a_panel); }  // up to the one that the diagonal is in
  };

  int64_t positions_of(int64_t piece) const {
    return smaller(positions_of_a_piece, call_.planes.size - piece * positions_of_a_piece);
  }

  // Pieces as (panels, positions, channels of a panel).
  void pack(int64_t sample, int64_t first_piece, int64_t pieces, const Band& band, W* rows, W* packed) const {
    for (int64_t p = 0; p < band.panels(); ++p)
      for (int64_t piece = 0; piece < pieces; ++piece) {
        W* to = packed + piece * piece_size() + p * panel * positions_of_a_piece;
        pack_panel(sample, p * panel, first_piece + piece, rows, to);
      }
  }

  void pack_panel(int64_t sample, int64_t channel, int64_t piece, W* rows, W* to) const {
    const Positions<const T> map(call_.planes, call_.input, sample);
    const int64_t first = piece * positions_of_a_piece, count = positions_of(piece);
    const int64_t channels = smaller(panel, channels_ - channel);
    const W* mean = call_.mean ? static_cast<const W*>(call_.mean) + sample * channels_ + channel : nullptr;
    // What is no channel is zero.
    if (map.channels_last) {
      if (channels < panel) __builtin_memset(to, 0, count * panel * sizeof(W));
      const T* from = map.data + first * channels_ + channel;
      for (int64_t i = 0; i < count; ++i, from += channels_, to += panel)
        for_each_vector<W>(0, channels, [&](int64_t c, auto part) {
          const Vector<W> x = load(from + c, part);
          store(to + c, mean ? x - load(mean + c, part) : x, part);
        });
      return;
    }
    if (channels < panel) __builtin_memset(rows, 0, panel * positions_of_a_piece * sizeof(W));
    for (int64_t c = 0; c < channels; ++c) {
      const T* from = map.data + (channel + c) * map.size + first;
      const Vector<W> less = mean ? broadcast(mean[c]) : Vector<W>{};
      for_each_vector<W>(0, count, [&](int64_t i, auto part) {
        store(rows + c * positions_of_a_piece + i, load(from + i, part) - less);
      });
    }
    // Of these rows, for planes are often a power of two apart, and then share a few sets of L1.
    for (int64_t i = 0; i < count; i += lanes<W>)
      for (int64_t c = 0; c < panel; c += lanes<W>) {
        Vector<W> square[lanes<W>];
        unrolled<lanes<W>>([&](int row) IN_PLACE { square[row] = load(rows + (c + row) * positions_of_a_piece + i); });
        transpose<W>(square);
        unrolled<lanes<W>>([&](int row) IN_PLACE { store(to + (i + row) * panel + c, square[row]); });
      }
  }

  void multiply_piece(const W* piece, int64_t count, const Band& band, bool from_zero) const {
    constexpr int64_t size = panel * positions_of_a_piece;
    for (int64_t p = 0; p < band.panels(); ++p)
      for (int64_t t = larger(band.first, p * tiles_of_a_panel); t < band.last; ++t) {
        const W* weights = piece + t / tiles_of_a_panel * size + t % tiles_of_a_panel * tile_channels;
        W* sums = band.sums + t * tile_channels * row_size() + p * panel;
        products_.template multiply_tile<tile_channels>(weights, piece + p * size, count, from_zero, sums, row_size());
      }
  }

  const GramMatrix& call_;
  const Threads& threads_;
  const int64_t channels_, panels_, pieces_, segments_, pieces_at_a_time_, samples_at_a_time_;
  const Buffer<W> sums_;
  const Products<W, vectors> products_;
};

}  // namespace

void gram_matrix(const GramMatrix& call, const Threads& threads) {
  const Planes& planes = call.planes;
  if (planes.samples * planes.channels == 0) return;
  with_element(planes.element, [&](auto element) {
    using T = decltype(element);
    if (call.mean) {
      const Buffer<Wide<T>> unused(planes.samples * planes.channels);
      instance_stats({planes, {0, 0, false}, call.input, call.mean, unused.get()}, threads);
    }
    // In channels_last panels come as they lie, but of a picture's channels.
    const bool few = planes.channels <= (planes.channels_last ? lanes<Wide<T>> / 2 : GramOfFew<T>::most_channels);
    if (few) GramOfFew<T>(call).run(threads);
    else GramOfMany<T>(call, threads).run();
  });
}

}  // namespace fastnorm::FASTNORM_ISA
