// One direction of a convolution for any filter.

#pragma once

#include <cstring>

#include "finish.h"
#include "tile.h"

namespace fastnorm::FASTNORM_ISA {

// Parts of a plane's rows, at least, where tasks are few.
constexpr int64_t least_chunks = 16, few_units = 8;

template <class T, Direction direction>
class Convolver {
 public:
  using W = Wide<T>;
  static constexpr bool forward = direction == Direction::forward;

  explicit Convolver(const Pass<T>& pass)
      : pass_(pass),
        conv_(pass.conv),
        block_(conv_, pass.in_channels() / conv_.groups, pass.out_channels() / conv_.groups, in_limit, outs_of_a_task(conv_)),
        shape_(conv_, direction),
        phases_(forward ? conv_.input_dilation[2] : conv_.stride[2]),
        phase_pitch_(shape_.vectors() * lanes<W>),
        sum_pitch_(phases_ * phase_pitch_),
        depth_(conv_, 0, direction),
        height_(conv_, 1, direction),
        schedule_(depth_, height_, conv_, direction, rows_of_a_chunk(), segments()),
        columns_(conv_.kernel[2]),
        first_column_(phases_ + 1),
        taps_(schedule_.taps() * conv_.kernel[2]),
        next_(schedule_.rows()),
        shared_weights_(shares_weights() ? conv_.groups * block_.out * block_.in * kernel_size(conv_) : 0) {
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
    if (shares_weights()) pack_shared();
    if (pass_.statistics) pass_.statistics->begin(conv_.samples * pass_.out_channels(), schedule_.chunks());
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
    Buffer<W> sums, weights, bias, line;
    int64_t packed = -1;  // of which filters all weights are there

    explicit Workspace(const Convolver& of)
        : sum_stride((of.finishes_tiles() ? 2 : of.schedule_.largest_chunk()) * of.sum_pitch_),
          rows(of.shape_, of.block_.ins, of.schedule_.slots()),
          sums((of.finishes_tiles() ? 8 : of.block_.outs) * sum_stride),
          weights(
              of.shares_weights() ? 0 : of.weights_kept() * smaller(of.block_.ins, of.block_.in) * kernel_size(of.conv_)),
          bias(of.block_.outs),
          line(of.sum_pitch_ + 2 * lanes<W>) {}
  };

  // A stride brings as many more elements for an output: as many more outputs share them.
  static int64_t outs_of_a_task(const Convolution& conv) {
    return out_limit * (forward ? conv.stride[1] * conv.stride[2] : 1);
  }

  int64_t rows_of_a_chunk() const {
    const int64_t in_rows = forward ? conv_.stride[1] : 1;
    const int64_t sums = block_.in_parts() == 1 && !conv_.channels_last && forward ? 0 : block_.outs * sum_pitch_;
    const int64_t row = (block_.ins * shape_.pitch() * in_rows / conv_.input_dilation[1] + sums) * int64_t(sizeof(W));
    const int64_t rows = larger(1, (block_.many() || block_.groups > 1 ? many_rows_bytes : few_rows_bytes) / row);
    const bool few = conv_.samples * block_.blocks * block_.out_parts < few_units;
    return few ? smaller(rows, larger(1, pass_.result_size()[0] * pass_.result_size()[1] / least_chunks)) : rows;
  }

  // Blocks of channels take turns in the cache: then no chunk finds there what the last one left.
  int64_t segments() const {
    if (block_.in_parts() > 1) return INT32_MAX;
    return segments_for(conv_.samples * block_.blocks * block_.out_parts, pass_.threads.count);
  }

  // Which taps a phase of the result has, and where its first element reads them: from left to right.
  void find_columns() {
    int64_t count = 0;
    for (int64_t phase = 0; phase < phases_; ++phase) {
      first_column_.get()[phase] = count;
      for (int64_t i = 0; i < conv_.kernel[2]; ++i) {
        const int64_t tap = forward ? i : conv_.kernel[2] - 1 - i;
        const int64_t ahead = tap * conv_.dilation[2];
        const int64_t from_source = forward ? phase + ahead - conv_.padding[2] : phase - ahead;
        if (from_source % phases_ != 0) continue;
        const bool strided = forward && phases_ == 1;
        columns_.get()[count++] = {strided ? shape_.position(ahead) : shape_.first() + from_source / phases_, tap};
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
            const Schedule::Tap tap = schedule_.tap(forward ? i : of_row.first + of_row.last - 1 - i);
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
    if (keeps_weights()) pack_kept(work, space);
    for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk) {
      for (int64_t part = 0; part < block_.in_parts(); ++part) {
        const int64_t in = part * block_.ins;
        const int64_t ins = block_.groups > 1 ? block_.in : smaller(block_.ins, block_.in - in);
        bring_rows(
            space.rows, pass_, schedule_, work.sample, work.group * block_.in + in, work.groups * ins, work.out == 0, chunk);
        for (int64_t g = 0; g < work.groups; ++g)
          for_each_tile(0, work.outs, [&](int64_t out, auto tile) {
            const W* weights = weights_of<tile>(work, work.group + g, out, in, ins, space);
            const W* rows = space.rows.channel(g * ins);
            const int64_t channel = g * work.outs + out;
            if constexpr (forward) {
              if constexpr (std::is_same_v<T, W>)
                if (writes_directly()) return convolve_and_write<tile>(rows, ins, weights, chunk, result, channel, space);
              if (finishes_tiles())
                return convolve_and_finish<tile>(rows, ins, weights, work, chunk, result, channel, space);
            }
            add_part<tile>(rows, ins, weights, chunk, channel, part == 0, space);
          });
      }
      if (!writes_directly() && !finishes_tiles()) write(work, chunk, result, space);
    }
  }

  // Whether a tile is all that there is of its outputs, and these lie as it does: in memory or, if more is to be done, in L1.
  bool writes_tiles() const { return forward && !conv_.channels_last && block_.in_parts() == 1; }
  // What is narrowed needs another look in any case, and tiles are then the same code for all narrow types.
  bool finishes() const {
    return pass_.statistics || pass_.result_activation.code || phases_ > 1 || !std::is_same_v<T, W>;
  }
  bool writes_directly() const { return writes_tiles() && !finishes(); }
  bool finishes_tiles() const { return writes_tiles() && finishes(); }

  template <int channels>
  void convolve_and_write(
      const W* rows, int64_t ins, const W* weights, int64_t chunk, const Plane<T>& result, int64_t channel,
      const Workspace& space) const {
    const int64_t plane = result.rows * result.length;
    const W* bias = space.bias.get() + channel;
    convolve_chunk<channels>(
        rows, ins, weights, chunk,
        [&](int64_t row, int64_t, int64_t) {
          return Final<T>{result.at(channel, row), plane, result.length, bias, pass_.past_caches};
        },
        [](int64_t, int64_t) {});
  }

  template <int channels>
  void convolve_and_finish(
      const W* rows, int64_t ins, const W* weights, const Part& work, int64_t chunk, const Plane<T>& result,
      int64_t channel, const Workspace& space) const {
    PartMoments<W> moments[channels];
    W* const sums = space.sums.get();
    convolve_chunk<channels>(
        rows, ins, weights, chunk,
        [&](int64_t, int64_t second, int64_t phase) {
          return Fresh<W>{sums + second * sum_pitch_ + phase * phase_pitch_, space.sum_stride};
        },
        [&](int64_t row, int64_t second) {
          for (int c = 0; c < channels; ++c)
            finish(
                result.at(channel + c, row), sums + c * space.sum_stride + second * sum_pitch_, result.length,
                space.bias.get()[channel + c], moments[c], space);
        });
    for (int c = 0; c < channels; ++c) put_moments(work, channel + c, chunk, moments[c]);
  }

  template <int channels>
  void add_part(
      const W* rows, int64_t ins, const W* weights, int64_t chunk, int64_t channel, bool first,
      const Workspace& space) const {
    const int64_t first_row = schedule_.rows_of(chunk).first;
    convolve_chunk<channels>(
        rows, ins, weights, chunk,
        [&](int64_t row, int64_t, int64_t phase) {
          W* of_row = space.sums.get() + channel * space.sum_stride + (row - first_row) * sum_pitch_;
          return Partial<W>{of_row + phase * phase_pitch_, space.sum_stride, first};
        },
        [](int64_t, int64_t) {});
  }

  // From the sums of a row, phase after phase, to the row; `out` may be where they are.
  template <class E>
  void finish(E* out, const W* row, int64_t length, W bias, PartMoments<W>& moments, const Workspace& space) const {
    if (phases_ > 1) interleave(row, phases_, phase_pitch_, length, space.line.get());
    finish_row(
        out, phases_ > 1 ? space.line.get() : row, length, bias, pass_.result_activation,
        pass_.statistics ? &moments : nullptr, pass_.past_caches);
  }

  void put_moments(const Part& work, int64_t channel, int64_t chunk, PartMoments<W>& moments) const {
    if (!pass_.statistics) return;
    const int64_t first = work.sample * pass_.out_channels() + work.group * block_.out + work.out;
    pass_.statistics->put(first + channel, chunk, moments);
  }

  // sums_of(row, second, phase) is where the sums of a row belong, of the second of two or not; done(row, second), when all
  // its phases are there.
  template <int channels, class SumsOf, class Done>
  void convolve_chunk(
      const W* input, int64_t ins, const W* weights, int64_t chunk, const SumsOf& sums_of, const Done& done) const {
    const auto rows = schedule_.rows_of(chunk);
    for (int64_t row = rows.first; row < rows.last;) {
      const int64_t next = row + 1 < rows.last ? next_.get()[row] : 0;
      const Source<W> source = {input, shape_.pitch(), ins, next};
      for (int64_t phase = 0; phase < phases_; ++phase) {
        const int64_t other = next ? 1 : 0;
        const decltype(sums_of(row, 0, phase)) sums[] = {sums_of(row, 0, phase), sums_of(row + other, other, phase)};
        const Taps taps = taps_of(row, phase);
        if (next) convolve_rows<2, channels>(source, 0, shape_.vectors(), taps, weights, kernel_size(conv_), sums);
        else convolve_rows<1, channels>(source, 0, shape_.vectors(), taps, weights, kernel_size(conv_), sums);
      }
      done(row, 0);
      if (next) done(row + 1, 1);
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

  // Filters are packed once, where all tasks share them; else by each task, all of its outputs' or tile by tile.
  bool shares_weights() const { return block_.groups == 1 && (!pass_.filters.sample_stride || conv_.samples == 1); }
  bool keeps_weights() const { return !shares_weights() && block_.groups == 1 && block_.in_parts() == 1; }
  int64_t weights_kept() const { return keeps_weights() ? block_.outs : 8; }

  template <int channels>
  const W* weights_of(
      const Part& work, int64_t group, int64_t out, int64_t in, int64_t ins, const Workspace& space) const {
    const int64_t filter = block_.in * kernel_size(conv_);
    if (shares_weights())
      return shared_weights_.get() + (group * block_.out + work.out + out) * filter + in * kernel_size(conv_) * channels;
    if (keeps_weights()) return space.weights.get() + out * filter;
    pack<channels>(work.sample, group, work.out + out, in, ins, space.weights.get());
    return space.weights.get();
  }

  void pack_shared() const {
    const int64_t tiles = ceil_div(block_.out, 8), filter = block_.in * kernel_size(conv_);
    parallel(pass_.threads, conv_.groups * tiles, filter, [&](int64_t task) {
      const int64_t group = task / tiles, first = task % tiles * 8;
      for_each_tile(first, smaller(first + 8, block_.out), [&](int64_t out, auto tile) {
        pack<tile>(0, group, out, 0, block_.in, shared_weights_.get() + (group * block_.out + out) * filter);
      });
    });
  }

  void pack_kept(const Part& work, Workspace& space) const {
    const int64_t filters = (work.sample * conv_.groups + work.group) * block_.out + work.out;
    if (space.packed == filters) return;
    space.packed = filters;
    for_each_tile(0, work.outs, [&](int64_t out, auto tile) {
      pack<tile>(
          work.sample, work.group, work.out + out, 0, block_.in,
          space.weights.get() + out * block_.in * kernel_size(conv_));
    });
  }

  // The filters of a tile of output channels: (ins, kernel, channels).
  template <int channels>
  void pack(int64_t sample, int64_t group, int64_t out, int64_t in, int64_t ins, W* packed) const {
    if (pass_.filters.wide) pack<channels>(pass_.template filters_of<W>(sample), group, out, in, ins, packed);
    else pack<channels>(pass_.filters_of(sample), group, out, in, ins, packed);
  }

  template <int channels, class F>
  void pack(const F* filters, int64_t group, int64_t out, int64_t in, int64_t ins, W* packed) const {
    const int64_t kernel = kernel_size(conv_), filter = conv_.in_channels * kernel;
    const int64_t out_stride = forward ? filter : kernel, in_stride = forward ? kernel : filter;
    const F* from = filters + group * conv_.out_channels * filter + out * out_stride + in * in_stride;
    pack_filters<channels>(from, out_stride, in_stride, ins, kernel, packed);
  }

  void write(const Part& work, int64_t chunk, const Plane<T>& result, const Workspace& space) const {
    const int64_t channels = work.groups * work.outs;
    const auto rows = schedule_.rows_of(chunk);
    const auto sums_of = [&](int64_t row) { return space.sums.get() + (row - rows.first) * sum_pitch_; };
    if (forward && finishes()) {
      for (int64_t c = 0; phases_ > 1 && c < channels; ++c)
        for (int64_t row = rows.first; row < rows.last; ++row) {
          W *of_row = sums_of(row) + c * space.sum_stride, *line = space.line.get();
          interleave(of_row, phases_, phase_pitch_, result.length, line);
          std::memcpy(of_row, line, result.length * sizeof(W));
        }
      const int64_t plane = work.sample * pass_.out_channels() + work.group * block_.out + work.out;
      finish_rows(
          pass_, plane, channels, rows, space.sums.get(), space.sum_stride, sum_pitch_, space.bias.get(), chunk);
      return;
    }
    for (int64_t row = rows.first; row < rows.last; ++row) {
      W* of_row = sums_of(row);
      if (!forward) {
        for (int64_t c = 0; c < channels; ++c) fold(of_row + c * space.sum_stride, space.line.get());
        if (phases_ == 1) of_row += conv_.padding[2];
      }
      const W* bias = pass_.bias.data ? space.bias.get() : nullptr;
      write_rows(result, channels, row, of_row, space.sum_stride, bias, pass_.past_caches);
    }
  }

  // A row of the gradient by the padded input, to that by the input: what lies beyond a border is added where it was read.
  void fold(W* row, W* line) const {
    const int64_t length = conv_.input[2], before = conv_.padding[2];
    const int64_t seen = (conv_.output[2] - 1) * conv_.stride[2] + (conv_.kernel[2] - 1) * conv_.dilation[2] + 1;
    const int64_t padded = larger(seen, before + length);
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
    interleave(row, phases_, phase_pitch_, padded, line);
    for (int64_t i = 0; i < length; ++i) row[i] = line[before + i];
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
  Buffer<W> shared_weights_;
};

}  // namespace fastnorm::FASTNORM_ISA
