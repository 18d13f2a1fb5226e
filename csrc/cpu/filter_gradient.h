// The gradient of filters and bias: dot products of the rows of the output's gradient and of what the taps see.

#pragma once

#include "blocks.h"

namespace fastnorm::FASTNORM_ISA {

// Vectors of a row that are summed in one piece, and channels of input and output that a task works on at a time.
constexpr int64_t vectors_of_a_piece = 64;
constexpr int64_t gradient_in_limit = 16, gradient_out_limit = 32;

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

}  // namespace fastnorm::FASTNORM_ISA
