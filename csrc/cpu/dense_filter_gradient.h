// The gradient of filters and bias where a group has many channels: outer products of what a tap sees and of the output's
// gradient, pixel by pixel.
//
// 2 flops for each pixel, tap and pair of channels: arithmetic is the limit. A tile of input channels by vectors of output
// channels stays in registers while the pixels of a chunk pass; then it is added to sums in double. In cache the channels
// of a pixel lie side by side: channels_last comes as it is, NCHW is transposed on its way.

#pragma once

#include "blocks.h"

namespace fastnorm::FASTNORM_ISA {

// Pixels of several channels, row by row, in slots, with what lies beyond the ends of a row. A slot to which nothing is
// brought holds zeros.
template <class W>
class PixelCache {
 public:
  // `padded` pixels a row, of which `length` are the source's, `before` behind the first.
  PixelCache(int64_t before, int64_t length, int64_t padded, Border border, int64_t channels, int64_t slots)
      : before_(before),
        length_(length),
        padded_(larger(padded, before + length)),
        border_(border),
        pitch_(ceil_div(channels, lanes<W>) * lanes<W>),
        pixels_(slots * slot_stride()) {
    for (int64_t i = 0; i < slots * slot_stride(); i += lanes<W>) store(pixels_.get() + i, Vector<W>{});
  }

  int64_t pitch() const { return pitch_; }  // from a pixel to the next
  int64_t slot_stride() const { return padded_ * pitch_; }
  const W* get() const { return pixels_.get(); }

  template <class T>
  __attribute__((flatten)) void bring(
      const Plane<const T>& plane, int64_t channels, const Schedule::Load& row, const Normalization<W>& norm) {
    W* const to = pixels_.get() + row.slot * slot_stride();
    if (plane.channels_last) copy_pixels(plane, channels, row.source, to + before_ * pitch_, norm);
    else transpose_rows(plane, channels, row.source, to + before_ * pitch_, norm);
    for (int64_t q = 0; q < smaller(before_, padded_); ++q) finish(to, q);
    for (int64_t q = before_ + length_; q < padded_; ++q) finish(to, q);
  }

 private:
  template <class T>
  void copy_pixels(
      const Plane<const T>& plane, int64_t channels, int64_t row, W* to, const Normalization<W>& norm) const {
    for (int64_t x = 0; x < length_; ++x) {
      const T* from = plane.at(0, row) + x * plane.channels;
      for_each_vector<W>(0, channels, [&](int64_t c, auto part) {
        const Vector<W> v = load(from + c, part);
        store(to + x * pitch_ + c, norm.center ? (v - load(norm.center + c, part)) * load(norm.scale + c, part) : v);
      });
    }
  }

  template <class T>
  void transpose_rows(
      const Plane<const T>& plane, int64_t channels, int64_t row, W* to, const Normalization<W>& norm) const {
    for_each_square<W>(length_, channels, [&](int64_t c, int width, int64_t x, int count) {
      Vector<W> square[lanes<W>] = {};
      for (int i = 0; i < width; ++i) {
        const T* from = plane.at(c + i, row) + x;
        const Vector<W> v = count == lanes<W> ? load(from) : load(from, count);
        square[i] = norm.center ? (v - broadcast(norm.center[c + i])) * broadcast(norm.scale[c + i]) : v;
      }
      transpose<W>(square);
      for (int i = 0; i < count; ++i) store(to + (x + i) * pitch_ + c, square[i]);
    });
  }

  void finish(W* row, int64_t padded) const {
    const int64_t from = inside(padded - before_, length_, border_);
    if (from < 0) return;
    for (int64_t c = 0; c < pitch_; c += lanes<W>)
      store(row + padded * pitch_ + c, load(row + (before_ + from) * pitch_ + c));
  }

  int64_t before_, length_, padded_;
  Border border_;
  int64_t pitch_;
  Buffer<W> pixels_;
};

// Rows of pixels that a tap sees, each at an offset of its own, beside the rows of the gradient.
template <class W>
struct Products {
  const W* input;
  const int64_t* offsets;  // one for each row, `offset_stride` apart
  int64_t offset_stride, input_step;
  const W* grad;
  int64_t grad_stride, grad_step;
  int64_t rows, pixels;
};

// Adds the products of `ins` channels and `vectors` of others to sums (ins, outs), rows of which are `stride` apart.
template <int ins, int vectors, class W>
inline void add_products(const Products<W>& of, double* sums, int64_t stride) {
  Vector<W> tile[ins][vectors] = {};
  for (int64_t row = 0; row < of.rows; ++row) {
    const W* x = of.input + of.offsets[row * of.offset_stride];
    const W* g = of.grad + row * of.grad_stride;
    for (int64_t pixel = 0; pixel < of.pixels; ++pixel, x += of.input_step, g += of.grad_step) {
      Vector<W> grad[vectors];
      unrolled<vectors>([&](int v) IN_PLACE { grad[v] = in_register(load(g + v * lanes<W>)); });
      unrolled<ins>([&](int i) IN_PLACE {
        const Vector<W> input = broadcast(x[i]);
        unrolled<vectors>([&](int v) IN_PLACE { tile[i][v] += input * grad[v]; });
      });
    }
  }
  for (int i = 0; i < ins; ++i)
    for (int v = 0; v < vectors; ++v)
      for (int lane = 0; lane < lanes<W>; ++lane)
        sums[i * stride + v * lanes<W> + lane] += static_cast<double>(tile[i][v][lane]);
}

template <class T>
class DenseFilterGradient {
 public:
  using W = Wide<T>;

  // A vector of output channels, and a tile of input channels large enough to keep the arithmetic busy.
  static bool fits(const DynamicConv2dBackward& call) {
    return call.grad_weight && call.shape.out_channels >= lanes<W> && call.shape.in_channels >= least_ins;
  }

  DenseFilterGradient(const DynamicConv2dBackward& call, const Normalization<W>& norm, const Threads& threads)
      : call_(call),
        conv_(call.shape),
        threads_(threads),
        norm_(norm),
        outs_(smaller(conv_.out_channels, out_limit)),
        out_parts_(ceil_div(conv_.out_channels, outs_)),
        ins_(ceil_div(ceil_div(conv_.in_channels, in_parts_wanted()), least_ins) * least_ins),
        in_parts_(ceil_div(conv_.in_channels, ins_)),
        schedule_(
            Reach(conv_, 0, Direction::forward), Reach(conv_, 1, Direction::forward), conv_, Direction::forward,
            pixels_of_a_chunk / larger(1, conv_.output[2]), 1) {}

  void run() const {
    const int64_t tasks = conv_.samples * conv_.groups * out_parts_ * in_parts_;
    const int64_t work = schedule_.rows() * conv_.output[2] * ins_ * outs_;
    parallel_parts(threads_, tasks, work, [&](int64_t first, int64_t last) {
      Workspace space(*this);
      for (int64_t task = first; task < last; ++task) differentiate(part_of(task), space);
    });
  }

 private:
  static constexpr int most_ins = registers == 32 ? 12 : 6, tile_vectors = 2, least_ins = 4;
  // Channels that a task works on, and how many pixels its sums are made of before they are added in double.
  static constexpr int64_t in_limit = 48, out_limit = 64, pixels_of_a_chunk = 512;

  // Which channels, of the group's and among all of the sample's.
  struct Part {
    int64_t sample, in, ins, first_in, out, outs, first_out;
  };

  Part part_of(int64_t task) const {
    const int64_t in = task % in_parts_ * ins_, out = task / in_parts_ % out_parts_ * outs_;
    const int64_t unit = task / in_parts_ / out_parts_, group = unit % conv_.groups;
    return {
        unit / conv_.groups, in, smaller(ins_, conv_.in_channels - in), group * conv_.in_channels + in,
        out, smaller(outs_, conv_.out_channels - out), group * conv_.out_channels + out};
  }

  // As few as give all threads the same; a sum is the same however the channels are divided.
  int64_t in_parts_wanted() const {
    const int64_t others = conv_.samples * conv_.groups * out_parts_, threads = threads_.count;
    const int64_t most = ceil_div(conv_.in_channels, 2 * least_ins);
    int64_t parts = ceil_div(conv_.in_channels, in_limit);
    while (parts < most && others * parts < tasks_per_thread * threads && others * parts % threads != 0) ++parts;
    return parts;
  }

  // What a thread needs. Sums are (in, tap, out).
  struct Workspace {
    PixelCache<W> input, grad;
    Buffer<int64_t> offsets;
    Buffer<double> sums, bias;

    explicit Workspace(const DenseFilterGradient& of)
        : input(
              of.conv_.padding[2], of.conv_.input[2],
              (of.conv_.output[2] - 1) * of.conv_.stride[2] + (of.conv_.kernel[2] - 1) * of.conv_.dilation[2] + 1,
              of.conv_.border, of.ins_, of.schedule_.slots()),
          grad(0, of.conv_.output[2], of.conv_.output[2], Border::zeros, of.outs_, of.schedule_.largest_chunk()),
          offsets(of.schedule_.rows() * kernel_size(of.conv_)),
          sums(of.ins_ * kernel_size(of.conv_) * grad.pitch()),
          bias(grad.pitch()) {
      of.find_offsets(input, offsets.get());
    }
  };

  // Where a tap finds its first pixel, for each row and tap.
  void find_offsets(const PixelCache<W>& input, int64_t* offsets) const {
    const int64_t width = conv_.kernel[2];
    for (int64_t row = 0; row < schedule_.rows(); ++row) {
      const auto met = schedule_.taps_of(row);
      for (int64_t i = met.first; i < met.last; ++i) {
        const Schedule::Tap tap = schedule_.tap(i);
        for (int64_t x = 0; x < width; ++x)
          offsets[row * kernel_size(conv_) + tap.tap * width + x] =
              tap.slot * input.slot_stride() + x * conv_.dilation[2] * input.pitch();
      }
    }
  }

  void differentiate(const Part& part, Workspace& space) const {
    const int64_t pitch = space.grad.pitch();
    for (int64_t i = 0; i < part.ins * kernel_size(conv_) * pitch; ++i) space.sums.get()[i] = 0;
    for (int64_t i = 0; i < pitch; ++i) space.bias.get()[i] = 0;
    for (int64_t chunk = 0; chunk < schedule_.chunks(); ++chunk) {
      bring(part, chunk, space);
      const auto rows = schedule_.rows_of(chunk);
      for (int64_t x = 0; x < conv_.output[2]; x += pixels_of_a_chunk) {
        const int64_t pixels = smaller(pixels_of_a_chunk, conv_.output[2] - x);
        if (part.in == 0) add_bias(space, rows.last - rows.first, x, pixels);
        int64_t v = 0;
        for (; v + tile_vectors * lanes<W> <= pitch; v += tile_vectors * lanes<W>)
          add_tiles<most_ins, tile_vectors>(part, space, rows, x, pixels, v, 0);
        if (v < pitch) add_tiles<most_ins, 1>(part, space, rows, x, pixels, v, 0);
      }
    }
    write(part, space);
  }

  void bring(const Part& part, int64_t chunk, Workspace& space) const {
    const int64_t outs = conv_.groups * conv_.out_channels, ins = conv_.groups * conv_.in_channels;
    const auto grad = planes_of(conv_, static_cast<const T*>(call_.grad), conv_.output, outs, part.sample, part.first_out);
    const auto rows = schedule_.rows_of(chunk);
    for (int64_t row = rows.first; row < rows.last; ++row)
      space.grad.bring(
          grad, part.outs, {static_cast<int32_t>(row), static_cast<int32_t>(row - rows.first)}, Normalization<W>{});
    const auto input = planes_of(conv_, static_cast<const T*>(call_.input), conv_.input, ins, part.sample, part.first_in);
    const auto loads = schedule_.loads_of(chunk);
    for (int64_t i = loads.first; i < loads.last; ++i)
      space.input.bring(input, part.ins, schedule_.load(i), norm_ + (part.sample * ins + part.first_in));
  }

  // All taps, for the input channels from `in` on, in tiles of `ins`, then of fewer.
  template <int ins, int vectors>
  void add_tiles(
      const Part& part, Workspace& space, Schedule::Range rows, int64_t x, int64_t pixels, int64_t out, int64_t in) const {
    const int64_t kernel = kernel_size(conv_), stride = kernel * space.grad.pitch();
    for (; in + ins <= part.ins; in += ins)
      for (int64_t tap = 0; tap < kernel; ++tap) {
        const Products<W> products = {
            space.input.get() + x * conv_.stride[2] * space.input.pitch() + in,
            space.offsets.get() + rows.first * kernel + tap, kernel, conv_.stride[2] * space.input.pitch(),
            space.grad.get() + x * space.grad.pitch() + out, space.grad.slot_stride(), space.grad.pitch(),
            rows.last - rows.first, pixels};
        add_products<ins, vectors>(products, space.sums.get() + (in * kernel + tap) * space.grad.pitch() + out, stride);
      }
    if constexpr (ins > 1)
      if (in < part.ins) add_tiles<(ins > 8 ? 8 : ins > 4 ? 4 : ins / 2), vectors>(part, space, rows, x, pixels, out, in);
  }

  void add_bias(Workspace& space, int64_t rows, int64_t x, int64_t pixels) const {
    for (int64_t c = 0; c < space.grad.pitch(); c += lanes<W>) {
      Vector<W> sums = {};
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t pixel = x; pixel < x + pixels; ++pixel)
          sums += load(space.grad.get() + row * space.grad.slot_stride() + pixel * space.grad.pitch() + c);
      for (int lane = 0; lane < lanes<W>; ++lane) space.bias.get()[c + lane] += static_cast<double>(sums[lane]);
    }
  }

  void write(const Part& part, const Workspace& space) const {
    const int64_t kernel = kernel_size(conv_), plane = part.sample * conv_.groups * conv_.out_channels + part.first_out;
    for (int64_t c = 0; c < part.outs; ++c) {
      if (call_.grad_bias && part.in == 0) static_cast<W*>(call_.grad_bias)[plane + c] = static_cast<W>(space.bias.get()[c]);
      T* to = static_cast<T*>(call_.grad_weight) + ((plane + c) * conv_.in_channels + part.in) * kernel;
      for (int64_t i = 0; i < part.ins * kernel; ++i)
        store(to + i, broadcast(static_cast<W>(space.sums.get()[i * space.grad.pitch() + c])), 1);
    }
  }

  const DynamicConv2dBackward& call_;
  const Convolution& conv_;
  const Threads& threads_;
  const Normalization<W> norm_;
  const int64_t outs_, out_parts_, ins_, in_parts_;
  const Schedule schedule_;
};

}  // namespace fastnorm::FASTNORM_ISA
