// A convolution with a filter per sample, of the input or of what its statistics normalise; and its backward.
//
// Forward: one read and one write of a map; 2 * taps * in_channels flops for each output. Depthwise, that is 18 flops for 8
// bytes: memory is the limit. Dense, arithmetic is.
//
//   1. A task is the planes of a group (in channels_last a vector of channels and more), or some of their rows.
//   2. It brings the rows that a chunk of the result needs to cache: widened, normalised, padded (rows.h, window.h).
//   3. A tile of output channels by vectors of pixels stays in registers while all taps of all input channels pass.
//   4. The result's rows are written at the end, with the bias.
//
// The gradient of the input is the same with input and output exchanged: the convolution's transpose, whose result is
// folded back at the borders. The gradient of the filters sums products of rows, in the same tiles.

#include <type_traits>

#include "depthwise_last.h"
#include "nine.h"
#include "statistics.h"

namespace fastnorm::FASTNORM_ISA {

void instance_stats(const InstanceStats&, const Threads&);
void instance_norm_backward(const InstanceNormBackward&, const Threads&);

namespace {

// What a task keeps in cache: of a few channels in L1, of many in L2 beside their filters.
constexpr int64_t few_rows_bytes = 24 << 10, many_rows_bytes = 384 << 10;
// Pairs of channels that are many.
constexpr int64_t many_pairs = 256;
// Products that are summed in one piece, and channels of input and output that a task works on at a time.
constexpr int64_t piece = 144, in_limit = 64, out_limit = 64;
// For the gradient of filters; and vectors of a row that are summed in one piece.
constexpr int64_t vectors_of_a_piece = 64;
constexpr int64_t gradient_in_limit = 16, gradient_out_limit = 32;
// Channels of a block in channels_last, whose lines are then read whole.
constexpr int64_t channels_of_lines = 32;
// Tasks for each thread, where planes are few.
constexpr int64_t tasks_per_thread = 4;

constexpr int registers = vector_bytes == 64 ? 32 : 16;

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

// body(first, Group<channels>) over first..last, in tiles of 8 channels, 4, 2 and 1.
template <int channels = 8, class Body>
inline void for_each_tile(int64_t first, int64_t last, const Body& body) {
  for (; first + channels <= last; first += channels) body(first, Group<channels>{});
  if constexpr (channels > 1) for_each_tile<channels / 2>(first, last, body);
}

inline int64_t kernel_size(const Convolution& conv) { return conv.kernel[0] * conv.kernel[1] * conv.kernel[2]; }

// -- Blocks of channels -----------------------------------------------------------------------------------------------

// Which channels a task works on: several small groups, or a part of one. `in` and `out` are of the direction.
struct Blocks {
  int64_t in, out;                // channels of a group
  int64_t groups, ins, outs;      // of a block, at most
  int64_t blocks, out_parts;      // of a sample

  Blocks(const Convolution& conv, int64_t in, int64_t out, int64_t in_limit, int64_t out_limit) : in(in), out(out) {
    const int64_t channels = larger(1, smaller(in, out));
    groups = conv.channels_last ? larger(1, smaller(conv.groups, channels_of_lines / channels)) : 1;
    ins = larger(1, groups > 1 ? groups * in : smaller(in, in_limit));
    outs = larger(1, groups > 1 ? groups * out : smaller(out, out_limit));
    blocks = ceil_div(conv.groups, groups);
    out_parts = groups > 1 ? 1 : ceil_div(out, outs);
  }

  bool many() const { return ins * outs / groups >= many_pairs; }
  int64_t in_parts() const { return groups > 1 ? 1 : larger(1, ceil_div(in, ins)); }
};

// The planes of a sample from a channel on.
template <class E>
inline Plane<E> planes_of(
    const Convolution& conv, E* map, const int64_t* size, int64_t channels, int64_t sample, int64_t channel) {
  const int64_t rows = size[0] * size[1];
  const int64_t first = conv.channels_last ? channel : channel * rows * size[2];
  return {map + sample * channels * rows * size[2] + first, channels, rows, size[2], conv.channels_last};
}

// -- One direction of the convolution ---------------------------------------------------------------------------------

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

// -- The gradient of filters and bias ---------------------------------------------------------------------------------

// What a row of the gradient meets: for each tap of the kernel, where in a channel's rows.
struct Meetings {
  const int64_t* offsets;  // (rows, taps)
  int64_t rows, taps;
};

// By halves: a chain of additions, lane by lane, would take as long as a row.
template <class W, int half = lanes<W> / 2>
IN_PLACE inline W sum_of_lanes(Vector<W> v) {
  if constexpr (half == 0) return v[0];
  else return sum_of_lanes<W, half / 2>(v + shifted<half, W>(v, v));
}

// sums (outs, taps), each a dot product of `rows` of the gradient and what the taps see. `last` masks the rest of a row.
template <int outs, int taps, class W>
inline void multiply_rows(
    const W* input, const Meetings& meetings, int64_t tap, const W* grad, int64_t grad_stride, int64_t grad_pitch,
    int64_t width, Mask<W> last, double* sums, int64_t sum_stride) {
  Vector<W> tile[outs][taps] = {};
  for (int64_t row = 0; row < meetings.rows; ++row) {
    const int64_t* offsets = meetings.offsets + row * meetings.taps + tap;
    for (int64_t v = 0; v < width; ++v) {
      Vector<W> pixels[taps];
      unrolled<taps>([&](int t) IN_PLACE { pixels[t] = load(input + offsets[t] + v * lanes<W>); });
      if (v == width - 1)
        unrolled<taps>([&](int t) IN_PLACE { pixels[t] = as<Vector<W>>(as<Mask<W>>(pixels[t]) & last); });
      unrolled<outs>([&](int o) IN_PLACE {
        const Vector<W> g = in_register(load(grad + o * grad_stride + row * grad_pitch + v * lanes<W>));
        unrolled<taps>([&](int t) IN_PLACE { tile[o][t] += g * pixels[t]; });
      });
    }
  }
  unrolled<outs>([&](int o) IN_PLACE {
    unrolled<taps>([&](int t) IN_PLACE { sums[o * sum_stride + t] += static_cast<double>(sum_of_lanes<W>(tile[o][t])); });
  });
}

// Taps of a tile of `outs` channels.
template <int outs>
constexpr int tile_taps = registers == 32 ? (outs == 1 ? 9 : outs == 2 ? 6 : outs == 4 ? 5 : 3)
                                          : (outs == 1 ? 6 : outs == 2 ? 4 : outs == 4 ? 2 : 1);

// All taps of the kernel.
template <int outs, int taps = tile_taps<outs>, class W>
inline void multiply(
    const W* input, const Meetings& meetings, int64_t tap, const W* grad, int64_t grad_stride, int64_t grad_pitch,
    int64_t width, Mask<W> last, double* sums, int64_t sum_stride) {
  for (; tap + taps <= meetings.taps; tap += taps)
    multiply_rows<outs, taps>(
        input, meetings, tap, grad, grad_stride, grad_pitch, width, last, sums + tap, sum_stride);
  if constexpr (taps > 1)
    if (tap < meetings.taps)
      multiply<outs, taps - 1>(input, meetings, tap, grad, grad_stride, grad_pitch, width, last, sums, sum_stride);
}

// A convolution that reads a map as it is: the gradient of the output, row by row.
inline Convolution identity(const Convolution& conv) {
  Convolution plain = conv;
  plain.border = Border::zeros;
  for (int dim = 0; dim < 3; ++dim) {
    plain.input[dim] = conv.output[dim];
    plain.kernel[dim] = plain.stride[dim] = plain.dilation[dim] = 1;
    plain.padding[dim] = 0;
  }
  return plain;
}

template <class T>
class FilterGradient {
 public:
  using W = Wide<T>;

  FilterGradient(const DynamicConv2dBackward& call, const Normalization<W>& norm, const Threads& threads)
      : call_(call),
        conv_(call.shape),
        threads_(threads),
        norm_(norm),
        block_(conv_, conv_.in_channels, conv_.out_channels, gradient_in_limit, gradient_out_limit),
        plain_(identity(conv_)),
        shape_(conv_, Direction::forward),
        grad_shape_(plain_, Direction::forward),
        depth_(conv_, 0, Direction::forward),
        height_(conv_, 1, Direction::forward),
        schedule_(depth_, height_, conv_, Direction::forward, rows_of_a_chunk(), 1),
        offsets_(schedule_.rows() * kernel_size(conv_)) {
    find_meetings();
    const int64_t rest = conv_.output[2] % lanes<W>;
    for (int lane = 0; lane < lanes<W>; ++lane) last_[lane] = rest == 0 || lane < rest ? -1 : 0;
  }

  void run() const {
    const int64_t in_parts = call_.grad_weight ? block_.in_parts() : 1;
    const int64_t tasks = conv_.samples * block_.blocks * block_.out_parts * in_parts;
    const int64_t work = schedule_.rows() * grad_shape_.pitch() * (block_.ins + block_.outs);
    parallel_parts(threads_, tasks, work, [&](int64_t first, int64_t last) {
      Workspace space(*this);
      for (int64_t task = first; task < last; ++task) differentiate(part_of(task, in_parts), space);
    });
  }

 private:
  // Groups of a sample, and which channels of each.
  struct Part {
    int64_t sample, group, groups, in, ins, out, outs;
  };

  Part part_of(int64_t task, int64_t in_parts) const {
    const int64_t in = task % in_parts * block_.ins, out = task / in_parts % block_.out_parts * block_.outs;
    const int64_t unit = task / in_parts / block_.out_parts, group = unit % block_.blocks * block_.groups;
    const bool whole = block_.groups > 1;
    return {
        unit / block_.blocks, group, smaller(block_.groups, conv_.groups - group),
        in, whole ? block_.in : smaller(block_.ins, block_.in - in),
        out, whole ? block_.out : smaller(block_.outs, block_.out - out)};
  }

  // What a thread needs.
  struct Workspace {
    RowCache<W> input, grad;
    Buffer<double> sums, bias;

    explicit Workspace(const FilterGradient& of)
        : input(of.shape_, of.block_.ins, of.schedule_.slots()),
          grad(of.grad_shape_, of.block_.outs, of.schedule_.largest_chunk()),
          sums(of.block_.outs * smaller(of.block_.ins, of.block_.in) * kernel_size(of.conv_)),
          bias(of.block_.outs) {}
  };

  int64_t rows_of_a_chunk() const {
    const int64_t elements = block_.ins * shape_.pitch() * conv_.stride[1] + block_.outs * grad_shape_.pitch();
    const int64_t row = elements * int64_t(sizeof(W));
    return larger(1, (block_.many() || block_.groups > 1 ? many_rows_bytes : few_rows_bytes) / row);
  }

  void differentiate(const Part& part, Workspace& space) const {
    const int64_t kernel = kernel_size(conv_), filter = part.ins * kernel, channels = part.groups * part.outs;
    for (int64_t i = 0; i < channels * filter; ++i) space.sums.get()[i] = 0;
    for (int64_t i = 0; i < channels; ++i) space.bias.get()[i] = 0;
    for (int64_t chunk = 0; chunk < schedule_.chunks(); ++chunk) {
      const auto rows = schedule_.rows_of(chunk);
      bring_grad(part, rows, space.grad);
      if (part.in == 0) add_bias(space.grad, rows.last - rows.first, channels, space.bias.get());
      if (!call_.grad_weight) continue;
      bring_input(part, chunk, space.input);
      const Meetings meetings = {offsets_.get() + rows.first * kernel, rows.last - rows.first, kernel};
      for (int64_t g = 0; g < part.groups; ++g)
        for_each_tile(0, part.outs, [&](int64_t out, auto tile) {
          for (int64_t in = 0; in < part.ins; ++in)
            for_each_piece([&](int64_t first, int64_t width, Mask<W> last) {
              multiply<tile>(
                  space.input.channel(g * part.ins + in) + first, meetings, 0,
                  space.grad.channel(g * part.outs + out) + first, grad_shape_.pitch(), space.grad.slot_stride(), width,
                  last, space.sums.get() + (g * part.outs + out) * filter + in * kernel, filter);
            });
        });
    }
    write(part, space.sums.get(), space.bias.get());
  }

  void bring_grad(const Part& part, Schedule::Range rows, RowCache<W>& cache) const {
    const int64_t all = conv_.groups * conv_.out_channels, channel = part.group * conv_.out_channels + part.out;
    const Plane<const T> planes =
        planes_of(conv_, static_cast<const T*>(call_.grad), conv_.output, all, part.sample, channel);
    for (int64_t row = rows.first; row < rows.last; ++row)
      cache.bring(
          planes, part.groups * part.outs, {static_cast<int32_t>(row), static_cast<int32_t>(row - rows.first)},
          Normalization<W>{});
  }

  void bring_input(const Part& part, int64_t chunk, RowCache<W>& cache) const {
    const int64_t all = conv_.groups * conv_.in_channels, channel = part.group * conv_.in_channels + part.in;
    const Plane<const T> planes =
        planes_of(conv_, static_cast<const T*>(call_.input), conv_.input, all, part.sample, channel);
    const auto loads = schedule_.loads_of(chunk);
    for (int64_t i = loads.first; i < loads.last; ++i)
      cache.bring(planes, part.groups * part.ins, schedule_.load(i), norm_ + (part.sample * all + channel));
  }

  // What all rows meet: it is the same for every plane.
  void find_meetings() {
    const int64_t width = conv_.kernel[2], slot_stride = shape_.slot_stride(block_.ins);
    for (int64_t row = 0; row < schedule_.rows(); ++row) {
      const auto met = schedule_.taps_of(row);
      for (int64_t i = met.first; i < met.last; ++i) {
        const Schedule::Tap tap = schedule_.tap(i);
        for (int64_t x = 0; x < width; ++x)
          offsets_.get()[row * kernel_size(conv_) + tap.tap * width + x] =
              tap.slot * slot_stride + shape_.position(x * conv_.dilation[2]);
      }
    }
  }

  void add_bias(const RowCache<W>& grad, int64_t rows, int64_t channels, double* bias) const {
    if (!call_.grad_bias) return;
    for (int64_t c = 0; c < channels; ++c)
      for_each_piece([&](int64_t first, int64_t width, Mask<W>) {
        Vector<W> sums = {};
        for (int64_t row = 0; row < rows; ++row)
          for (int64_t v = 0; v < width; ++v)
            sums += load(grad.channel(c) + first + row * grad.slot_stride() + v * lanes<W>);
        bias[c] += static_cast<double>(sum_of_lanes<W>(sums));
      });
  }

  // body(first, vectors, last) for pieces of a row that are summed at once: in one piece a long sum would lose its digits.
  template <class Body>
  void for_each_piece(const Body& body) const {
    for (int64_t v = 0; v < grad_shape_.vectors(); v += vectors_of_a_piece) {
      const int64_t width = smaller(vectors_of_a_piece, grad_shape_.vectors() - v);
      body(v * lanes<W>, width, v + width == grad_shape_.vectors() ? last_ : ~Mask<W>{});
    }
  }

  void write(const Part& part, const double* sums, const double* bias) const {
    const int64_t kernel = kernel_size(conv_), all = conv_.groups * conv_.out_channels;
    for (int64_t c = 0; c < part.groups * part.outs; ++c) {
      const int64_t plane = part.sample * all + part.group * conv_.out_channels + part.out + c;
      if (call_.grad_bias && part.in == 0) static_cast<W*>(call_.grad_bias)[plane] = static_cast<W>(bias[c]);
      if (!call_.grad_weight) continue;
      T* to = static_cast<T*>(call_.grad_weight) + (plane * conv_.in_channels + part.in) * kernel;
      const double* from = sums + c * part.ins * kernel;
      for (int64_t i = 0; i < part.ins * kernel; ++i) store(to + i, broadcast(static_cast<W>(from[i])), 1);
    }
  }

  const DynamicConv2dBackward& call_;
  const Convolution& conv_;
  const Threads& threads_;
  const Normalization<W> norm_;
  const Blocks block_;
  const Convolution plain_;
  const RowShape<W> shape_, grad_shape_;
  const Reach depth_, height_;
  const Schedule schedule_;
  Buffer<int64_t> offsets_;
  Mask<W> last_;
};

// -- Normalisation ----------------------------------------------------------------------------------------------------

inline Planes planes_of(const Convolution& conv) {
  const int64_t size = conv.input[0] * conv.input[1] * conv.input[2];
  return {conv.element, conv.samples, conv.groups * conv.in_channels, size, conv.channels_last};
}

// The statistics of `count` planes from `first` on.
template <class T>
void statistics_of(const DynamicConv2d& call, int64_t first, int64_t count) {
  const int64_t size = planes_of(call.shape).size;
  for (int64_t plane = first; plane < first + count; ++plane) {
    const Sums<double> moments = moments_of(static_cast<const T*>(call.input) + plane * size, size);
    static_cast<Wide<T>*>(call.mean)[plane] = static_cast<Wide<T>>(moments.first);
    static_cast<Wide<T>*>(call.rstd)[plane] = static_cast<Wide<T>>(rstd_of(moments, call.rule, size));
  }
}

// From the gradient by what was normalised, in grad_input, to that by the input.
template <class W>
void through_normalization(const DynamicConv2dBackward& call, const Threads& threads) {
  const Planes planes = planes_of(call.shape);
  Buffer<W> unwanted(planes.samples * planes.channels);
  InstanceNormBackward norm = {};
  norm.planes = planes;
  norm.rule = call.rule;
  norm.alpha = 1;
  norm.grad = norm.grad_input = call.grad_input;
  norm.input = call.input;
  norm.mean = call.mean;
  norm.rstd = call.rstd;
  norm.grad_weight = norm.grad_bias = unwanted.get();
  instance_norm_backward(norm, threads);
}

}  // namespace

// Runs the convolver that is made for this shape.
template <class T, class Body>
void with_convolver(const Pass<T>& pass, const Body& body) {
  if (Nine<T>::fits(pass.conv)) body(Nine<T>(pass));
  else if (DepthwiseLast<T>::fits(pass.conv)) body(DepthwiseLast<T>(pass));
  else body(Convolver<T>(pass));
}

void dynamic_conv2d(const DynamicConv2d& call, const Threads& threads) {
  if (!call.output) return;
  with_element(call.shape.element, [&](auto element) {
    using T = decltype(element);
    using W = Wide<T>;
    const Normalization<W> norm{static_cast<const W*>(call.mean), static_cast<const W*>(call.rstd)};
    const auto run = [&](const auto& convolver) {
      // A task that has its planes to itself takes their statistics first, and finds them in cache when it convolves.
      const bool together = call.mean && convolver.owns_planes();
      if (call.mean && !together)
        instance_stats({planes_of(call.shape), call.rule, call.input, call.mean, call.rstd}, threads);
      convolver.run([&](int64_t plane, int64_t count) {
        if (together) statistics_of<T>(call, plane, count);
      });
    };
    with_convolver(
        Pass<T>(call.shape, Direction::forward, call.input, call.weight, call.bias, call.output, norm, threads), run);
  });
}

void dynamic_conv2d_backward(const DynamicConv2dBackward& call, const Threads& threads) {
  with_element(call.shape.element, [&](auto element) {
    using T = decltype(element);
    using W = Wide<T>;
    if (call.grad_weight || call.grad_bias) {
      const Normalization<W> norm{static_cast<const W*>(call.mean), static_cast<const W*>(call.rstd)};
      FilterGradient<T>(call, norm, threads).run();
    }
    if (!call.grad_input) return;
    with_convolver(
        Pass<T>(call.shape, Direction::backward, call.grad, call.weight, {}, call.grad_input, {}, threads),
        [](const auto& convolver) { convolver.run([](int64_t, int64_t) {}); });
    if (call.mean) through_normalization<W>(call, threads);
  });
}

}  // namespace fastnorm::FASTNORM_ISA
