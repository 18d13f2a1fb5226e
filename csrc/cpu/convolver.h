// One direction of a convolution for any filter: tiles of output channels by vectors of pixels, in registers.

#pragma once

#include <type_traits>

#include "blocks.h"

namespace fastnorm::FASTNORM_ISA {

// Products that are summed in one piece, and channels of input and output that a task works on at a time.
constexpr int64_t piece = 144, in_limit = 64, out_limit = 64;

struct ColumnTap {
  int64_t offset, tap;
};

// The taps of a row, of all its source rows and columns: where in a channel's rows, and which of the kernel.
struct Taps {
  const ColumnTap* taps;
  int64_t count;
};

// -- A tile in registers ----------------------------------------------------------------------------------------------

// Vectors of pixels in a tile of `channels`: a quarter of the registers is left to the input and a weight.
template <int channels>
constexpr int tile_vectors = registers * 3 / 4 / channels < 4 ? registers * 3 / 4 / channels : 4;

// Where a tile begins, and where it goes: rows of sums, `stride` apart, each a sum of parts. A long sum in one piece would
// be less exact: 5.6e-6 instead of 0.8e-6 for 512 channels of 3x3.
template <class W>
struct Partial {
  W* sums;
  int64_t stride;
  bool from_zero;

  IN_PLACE Partial at(int64_t vector) const { return {sums + vector * lanes<W>, stride, from_zero}; }
  IN_PLACE Vector<W> begin(int, int) const { return Vector<W>{}; }
  IN_PLACE void end(int channel, int vector, Vector<W> sum) const {
    W* p = sums + channel * stride + vector * lanes<W>;
    store(p, from_zero ? sum : load(p) + sum);
  }
};

// Or rows of the result in NCHW, planes `stride` apart, of which `length` elements are left; begun with a bias each.
template <class T>
struct Final {
  using W = Wide<T>;
  T* out;
  int64_t stride, length;
  const W* bias;
  bool past_caches;

  IN_PLACE Final at(int64_t vector) const {
    return {out + vector * lanes<W>, stride, length - vector * lanes<W>, bias, past_caches};
  }
  IN_PLACE Vector<W> begin(int channel, int) const { return broadcast(bias[channel]); }
  IN_PLACE void end(int channel, int vector, Vector<W> sum) const {
    T* p = out + channel * stride + vector * lanes<W>;
    const int64_t left = length - vector * lanes<W>;
    if (left >= lanes<W>) {
      if (past_caches && is_aligned(p)) stream(p, sum);
      else store(p, sum);
    } else if (left > 0) {
      store(p, sum, static_cast<int>(left));
    }
  }
};

// Whether a tile has two rows of pixels: few channels by few vectors would leave registers unused.
template <int channels, int vectors>
constexpr int tile_rows = channels * vectors * 4 <= registers ? 2 : 1;

// The source of a tile: rows of `in_channels`, `channel_stride` apart, and for a second row of pixels those `next` to them.
template <class W>
struct Source {
  const W* rows;
  int64_t channel_stride, in_channels, next;
};

// Adds source * weights (in_channels, kernel, channels), for `vectors` of pixels in each of two rows, or in one.
template <int channels, int vectors, int rows, class W, class Sums>
IN_PLACE inline void convolve_tile(
    const Source<W>& source, int64_t first, const Taps& taps, const W* weights, int64_t kernel, const Sums* sums) {
  constexpr int columns = rows * vectors;
  Vector<W> tile[channels][columns];
  unrolled<channels>([&](int c) IN_PLACE {
    unrolled<columns>([&](int i) IN_PLACE { tile[c][i] = sums[i / vectors].at(first).begin(c, i % vectors); });
  });
  for (int64_t i = 0; i < source.in_channels; ++i)
    for (int64_t t = 0; t < taps.count; ++t) {
      const W* x = source.rows + i * source.channel_stride + taps.taps[t].offset + first * lanes<W>;
      const W* weight = weights + (i * kernel + taps.taps[t].tap) * channels;
      Vector<W> pixels[columns];
      unrolled<columns>([&](int i) IN_PLACE { pixels[i] = load(x + i / vectors * source.next + i % vectors * lanes<W>); });
      unrolled<channels>([&](int c) IN_PLACE {
        const Vector<W> w = broadcast(weight[c]);
        unrolled<columns>([&](int i) IN_PLACE { tile[c][i] += pixels[i] * w; });
      });
    }
  unrolled<channels>([&](int c) IN_PLACE {
    unrolled<columns>([&](int i) IN_PLACE { sums[i / vectors].at(first).end(c, i % vectors, tile[c][i]); });
  });
}

// The same for one row or two of `width` vectors.
template <int rows, int channels, int vectors = tile_vectors<channels>, class W, class Sums>
inline void convolve_rows(
    const Source<W>& source, int64_t first, int64_t width, const Taps& taps, const W* weights, int64_t kernel,
    const Sums* sums) {
  for (; first + vectors <= width; first += vectors)
    if constexpr (rows <= tile_rows<channels, vectors>) {
      convolve_tile<channels, vectors, rows>(source, first, taps, weights, kernel, sums);
    } else {
      convolve_tile<channels, vectors, 1>(source, first, taps, weights, kernel, sums);
      const Source<W> next = {source.rows + source.next, source.channel_stride, source.in_channels, 0};
      convolve_tile<channels, vectors, 1>(next, first, taps, weights, kernel, sums + 1);
    }
  if constexpr (vectors > 1)
    if (first < width) convolve_rows<rows, channels, vectors - 1>(source, first, width, taps, weights, kernel, sums);
}

// -- The convolution ----------------------------------------------------------------------------------------------------

template <class T>
class Convolver {
 public:
  using W = Wide<T>;

  explicit Convolver(const Pass<T>& pass)
      : pass_(pass),
        conv_(pass.conv),
        block_(
            conv_, pass.in_channels() / conv_.groups, pass.out_channels() / conv_.groups,
            larger(1, smaller(in_limit, piece / kernel_size(conv_))), out_limit),
        shape_(conv_, pass.direction),
        phases_(pass.forward ? 1 : conv_.stride[2]),
        phase_pitch_(shape_.vectors() * lanes<W>),
        sum_pitch_(phases_ * phase_pitch_),
        depth_(conv_, 0, pass.direction),
        height_(conv_, 1, pass.direction),
        schedule_(depth_, height_, conv_, pass.direction, rows_of_a_chunk(), segments()),
        columns_(conv_.kernel[2]),
        first_column_(phases_ + 1),
        taps_(schedule_.taps() * conv_.kernel[2]),
        next_(schedule_.rows()) {
    find_columns();
    find_taps();
    find_next();
  }

  // Whether a task has all that there is of its source planes.
  bool owns_planes() const { return schedule_.segments() == 1 && block_.out_parts == 1 && !conv_.channels_last; }

  // before(plane, count): of the source's planes that a task is about to read.
  template <class Before>
  void run(const Before& before) const {
    const int64_t segments = schedule_.segments();
    const int64_t tasks = conv_.samples * block_.blocks * block_.out_parts * segments;
    const int64_t work = schedule_.rows() * sum_pitch_ * block_.outs / segments;
    parallel_parts(pass_.threads, tasks, work, [&](int64_t first, int64_t last) {
      Workspace space(*this);
      for (int64_t task = first; task < last; ++task) {
        const Part part = part_of(task / segments);
        before((part.sample * conv_.groups + part.group) * block_.in, part.groups * block_.in);
        convolve(part, schedule_.chunks_of(task % segments), space);
      }
      fence();
    });
  }

 private:
  // Groups of a sample, and which output channels of each.
  struct Part {
    int64_t sample, group, groups, out, outs;
  };

  Part part_of(int64_t index) const {
    const int64_t unit = index / block_.out_parts, group = unit % block_.blocks * block_.groups;
    const int64_t out = index % block_.out_parts * block_.outs;
    const int64_t outs = block_.groups > 1 ? block_.out : smaller(block_.outs, block_.out - out);
    return {unit / block_.blocks, group, smaller(block_.groups, conv_.groups - group), out, outs};
  }

  // What a thread needs.
  struct Workspace {
    int64_t sum_stride;
    RowCache<W> rows;
    Buffer<W> sums, weights, bias;

    explicit Workspace(const Convolver& of)
        : sum_stride(of.schedule_.largest_chunk() * of.sum_pitch_),
          rows(of.shape_, of.block_.ins, of.schedule_.slots()),
          sums(of.block_.outs * sum_stride),
          weights(8 * smaller(of.block_.ins, of.block_.in) * kernel_size(of.conv_)),
          bias(of.block_.outs) {}
  };

  int64_t rows_of_a_chunk() const {
    const int64_t in_rows = pass_.forward ? conv_.stride[1] : 1;
    const int64_t row = (block_.ins * shape_.pitch() * in_rows + block_.outs * sum_pitch_) * int64_t(sizeof(W));
    return larger(1, (block_.many() || block_.groups > 1 ? many_rows_bytes : few_rows_bytes) / row);
  }

  // Blocks of channels take turns in the cache: then no chunk finds there what the last one left.
  int64_t segments() const {
    if (block_.in_parts() > 1) return INT32_MAX;
    const int64_t units = conv_.samples * block_.blocks * block_.out_parts, threads = pass_.threads.count;
    if (threads == 1 || units == 0 || units % threads == 0 || units >= tasks_per_thread * threads) return 1;
    return ceil_div(tasks_per_thread * threads, units);
  }

  // Which taps a phase of the result has, and where its first element reads them: from left to right.
  void find_columns() {
    int64_t count = 0;
    for (int64_t phase = 0; phase < phases_; ++phase) {
      first_column_.get()[phase] = count;
      for (int64_t i = 0; i < conv_.kernel[2]; ++i) {
        const int64_t tap = pass_.forward ? i : conv_.kernel[2] - 1 - i;
        const int64_t ahead = tap * conv_.dilation[2], behind = phase - ahead;
        if (!pass_.forward && behind % phases_ != 0) continue;
        const int64_t offset = pass_.forward ? shape_.position(ahead) : shape_.first() + behind / phases_;
        columns_.get()[count++] = {offset, tap};
      }
    }
    first_column_.get()[phases_] = count;
  }

  // The taps of all rows and phases, row after row: they are the same for every plane.
  void find_taps() {
    int64_t count = 0;
    for (int64_t row = 0; row < schedule_.rows(); ++row)
      for (int64_t phase = 0; phase < phases_; ++phase) {
        const auto of_row = schedule_.taps_of(row);
        for (int64_t i = of_row.first; i < of_row.last; ++i)
          for (int64_t j = first_column_.get()[phase]; j < first_column_.get()[phase + 1]; ++j) {
            const Schedule::Tap tap = schedule_.tap(pass_.forward ? i : of_row.first + of_row.last - 1 - i);
            const ColumnTap column = columns_.get()[j];
            taps_.get()[count++] = {
                tap.slot * shape_.slot_stride(block_.ins) + column.offset, tap.tap * conv_.kernel[2] + column.tap};
          }
      }
  }

  Taps taps_of(int64_t row, int64_t phase) const {
    const auto of_row = schedule_.taps_of(row);
    const int64_t rows = of_row.last - of_row.first, first = first_column_.get()[phase];
    return {
        taps_.get() + of_row.first * conv_.kernel[2] + rows * first, rows * (first_column_.get()[phase + 1] - first)};
  }

  void convolve(const Part& work, Schedule::Range chunks, Workspace& space) const {
    const Plane<T> result = planes_of(
        conv_, pass_.result, pass_.result_size(), pass_.out_channels(), work.sample, work.group * block_.out + work.out);
    read_bias(work, space.bias.get());
    for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk) {
      for (int64_t part = 0; part < block_.in_parts(); ++part) {
        const int64_t in = part * block_.ins;
        const int64_t ins = block_.groups > 1 ? block_.in : smaller(block_.ins, block_.in - in);
        bring(space.rows, work.sample, work.group * block_.in + in, work.groups * ins, chunk);
        for (int64_t g = 0; g < work.groups; ++g)
          for_each_tile(0, work.outs, [&](int64_t out, auto tile) {
            pack<tile>(work.sample, work.group + g, work.out + out, in, ins, space.weights.get());
            const W* rows = space.rows.channel(g * ins);
            const int64_t channel = g * work.outs + out;
            if (writes_directly())
              convolve_chunk<tile>(rows, ins, space.weights.get(), chunk, [&](int64_t row, int64_t) {
                const int64_t plane = result.rows * result.length;
                const W* bias = space.bias.get() + channel;
                return Final<T>{result.at(channel, row), plane, result.length, bias, pass_.past_caches};
              });
            else
              convolve_chunk<tile>(rows, ins, space.weights.get(), chunk, [&](int64_t row, int64_t phase) {
                const int64_t in_chunk = row - schedule_.rows_of(chunk).first;
                W* of_row = space.sums.get() + channel * space.sum_stride + in_chunk * sum_pitch_;
                return Partial<W>{of_row + phase * phase_pitch_, space.sum_stride, part == 0};
              });
          });
      }
      if (!writes_directly()) write(work, chunk, result, space);
    }
  }

  // Whether a tile is all that there is of its outputs, and these lie as it does.
  bool writes_directly() const { return pass_.forward && !conv_.channels_last && block_.in_parts() == 1; }

  // sums_of(row, phase) is where the sums of a row belong.
  template <int channels, class SumsOf>
  void convolve_chunk(const W* input, int64_t ins, const W* weights, int64_t chunk, const SumsOf& sums_of) const {
    const auto rows = schedule_.rows_of(chunk);
    for (int64_t row = rows.first; row < rows.last;) {
      const int64_t next = row + 1 < rows.last ? next_.get()[row] : 0;
      const Source<W> source = {input, shape_.pitch(), ins, next};
      for (int64_t phase = 0; phase < phases_; ++phase) {
        const decltype(sums_of(row, phase)) sums[] = {sums_of(row, phase), sums_of(next ? row + 1 : row, phase)};
        const Taps taps = taps_of(row, phase);
        if (next) convolve_rows<2, channels>(source, 0, shape_.vectors(), taps, weights, kernel_size(conv_), sums);
        else convolve_rows<1, channels>(source, 0, shape_.vectors(), taps, weights, kernel_size(conv_), sums);
      }
      row += next ? 2 : 1;
    }
  }

  // How far behind what a row meets lies what the next one does, where that is the same for all their taps; 0 elsewhere.
  void find_next() {
    for (int64_t row = 0; row < schedule_.rows(); ++row) {
      int64_t next = 0;
      bool same = row + 1 < schedule_.rows();
      for (int64_t phase = 0; same && phase < phases_; ++phase) {
        const Taps own = taps_of(row, phase), other = taps_of(row + 1, phase);
        same = own.count == other.count;
        for (int64_t t = 0; same && t < own.count; ++t) {
          const int64_t distance = other.taps[t].offset - own.taps[t].offset;
          if (phase == 0 && t == 0) next = distance;
          same = distance == next && own.taps[t].tap == other.taps[t].tap;
        }
      }
      next_.get()[row] = same ? next : 0;
    }
  }

  void read_bias(const Part& work, W* bias) const {
    const int64_t first = work.sample * pass_.out_channels() + work.group * block_.out + work.out;
    for (int64_t c = 0; c < work.groups * work.outs; ++c) bias[c] = pass_.bias_of(first + c);
  }

  void bring(RowCache<W>& cache, int64_t sample, int64_t channel, int64_t channels, int64_t chunk) const {
    const int64_t all = pass_.in_channels();
    const Plane<const T> planes = planes_of(conv_, pass_.source, pass_.source_size(), all, sample, channel);
    const auto loads = schedule_.loads_of(chunk);
    for (int64_t i = loads.first; i < loads.last; ++i)
      cache.bring(planes, channels, schedule_.load(i), pass_.norm + (sample * all + channel));
  }

  // The filters of a tile of output channels: (ins, kernel, channels).
  template <int channels>
  void pack(int64_t sample, int64_t group, int64_t out, int64_t in, int64_t ins, W* packed) const {
    const int64_t kernel = kernel_size(conv_), filter = conv_.in_channels * kernel;
    const int64_t out_stride = pass_.forward ? filter : kernel, in_stride = pass_.forward ? kernel : filter;
    const T* from = pass_.filters_of(sample) + group * conv_.out_channels * filter + out * out_stride + in * in_stride;
    // What lies side by side for each channel: all, or with input and output exchanged the kernel of one.
    const int64_t run = pass_.forward ? ins * kernel : kernel;
    for (int64_t i = 0; i < ins; i += run / kernel)
      for_each_vector<W>(0, run, [&](int64_t k, auto count) {
        W* to = packed + (i * kernel + k) * channels;
        for (int64_t c = 0; c < channels; c += lanes<W>) {
          const int width = smaller(lanes<W>, channels - c);
          Vector<W> square[lanes<W>] = {};
          for (int j = 0; j < width; ++j) square[j] = load(from + (c + j) * out_stride + i * in_stride + k, count);
          transpose<W>(square);
          for (int lane = 0; lane < number_of<W>(count); ++lane) store(to + lane * channels + c, square[lane], width);
        }
      });
  }

  void write(const Part& work, int64_t chunk, const Plane<T>& result, const Workspace& space) const {
    const int64_t channels = work.groups * work.outs;
    const auto rows = schedule_.rows_of(chunk);
    for (int64_t row = rows.first; row < rows.last; ++row) {
      W* of_row = space.sums.get() + (row - rows.first) * sum_pitch_;
      if (!pass_.forward) {
        for (int64_t c = 0; c < channels; ++c) fold(of_row + c * space.sum_stride);
        if (phases_ == 1) of_row += conv_.padding[2];
      }
      const W* bias = pass_.bias.data ? space.bias.get() : nullptr;
      write_rows(result, channels, row, of_row, space.sum_stride, bias, pass_.past_caches);
    }
  }

  // A row of the gradient by the padded input, to that by the input: what lies beyond a border is added where it was read.
  void fold(W* row) const {
    const int64_t length = conv_.input[2], before = conv_.padding[2];
    const int64_t padded = (conv_.output[2] - 1) * conv_.stride[2] + (conv_.kernel[2] - 1) * conv_.dilation[2] + 1;
    const auto at = [&](int64_t q) { return row + q % phases_ * phase_pitch_ + q / phases_; };
    const auto add = [&](int64_t q) {
      const int64_t i = inside(q - before, length, conv_.border);
      if (i >= 0) *at(before + i) += *at(q);
    };
    if (conv_.border != Border::zeros) {
      for (int64_t q = 0; q < smaller(before, padded); ++q) add(q);
      for (int64_t q = before + length; q < padded; ++q) add(q);
    }
    if (phases_ == 1) return;
    Buffer<W> line(length);
    for (int64_t i = 0; i < length; ++i) line.get()[i] = before + i < padded ? *at(before + i) : W(0);
    for (int64_t i = 0; i < length; ++i) row[i] = line.get()[i];
  }

  const Pass<T> pass_;
  const Convolution& conv_;
  const Blocks block_;
  const RowShape<W> shape_;
  const int64_t phases_, phase_pitch_, sum_pitch_;
  const Reach depth_, height_;
  const Schedule schedule_;
  Buffer<ColumnTap> columns_;
  Buffer<int64_t> first_column_;
  Buffer<ColumnTap> taps_;
  Buffer<int64_t> next_;
};

}  // namespace fastnorm::FASTNORM_ISA
