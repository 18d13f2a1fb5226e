// A depthwise convolution of maps in channels_last: vectors of channels, pixel by pixel, straight from memory.
//
// Where three taps side by side are all inside, four pixels of the result share the six that they meet in each row.

#pragma once

#include "rows.h"

namespace fastnorm::FASTNORM_ISA {

template <class T>
class DepthwiseLast {
 public:
  using W = Wide<T>;
  static constexpr int pixels = 4, side = 3;

  static bool fits(const Convolution& conv) {
    return conv.channels_last && conv.in_channels == 1 && conv.out_channels == 1;
  }

  explicit DepthwiseLast(const Pass<T>& pass)
      : pass_(pass),
        conv_(pass.conv),
        depth_(conv_, 0, pass.direction),
        height_(conv_, 1, pass.direction),
        width_(conv_, 2, pass.direction),
        regular_(width_.results()) {
    find_regular();
  }

  // Planes lie between each other: none is a task's own.
  bool owns_planes() const { return false; }

  template <class Before>
  void run(const Before&) const {
    const int64_t parts = larger(
        1, smaller(rows(), ceil_div(tasks_per_thread * pass_.threads.count, larger(1, conv_.samples))));
    const int64_t work = rows() * width_.results() * conv_.groups / parts;
    parallel(pass_.threads, conv_.samples * parts, work, [&](int64_t task) {
      const int64_t sample = task / parts, part = task % parts;
      convolve(sample, part * rows() / parts, (part + 1) * rows() / parts);
      fence();
    });
  }

 private:
  static constexpr int64_t tasks_per_thread = 4;

  // A row of the source that a row of the result meets, and by which taps: the first of that row of the kernel.
  struct Met {
    const T* row;
    const W* weights;
  };

  // What a task works with; weights are (kernel, channels), the scale of the norm among them.
  struct Sample {
    const T* source;
    T* result;
    const W *weights, *bias, *center;
  };

  int64_t rows() const { return depth_.results() * height_.results(); }

  // From which pixels on the next ones each meet the source a pixel further on.
  void find_regular() {
    int64_t following = 0;
    for (int64_t x = width_.results() - 1; x >= 0; --x) {
      const Reach::Meeting* own = width_.begin(x);
      bool whole = conv_.kernel[2] == side && width_.end(x) - own == side && own[0].source >= 0;
      for (int i = 0; whole && i < side; ++i)
        whole = own[i].source == own[0].source + i && own[i].tap == (pass_.forward ? i : side - 1 - i);
      const bool goes_on = whole && following > 0 && width_.begin(x + 1)[0].source == own[0].source + 1;
      following = goes_on ? following + 1 : whole ? 1 : 0;
      regular_.get()[x] = following >= pixels;
    }
  }

  void convolve(int64_t index, int64_t first, int64_t last) const {
    const int64_t channels = conv_.groups, kernel = conv_.kernel[0] * conv_.kernel[1] * conv_.kernel[2];
    Buffer<W> weights(kernel * channels), bias(channels);
    const T* filters = pass_.filters_of(index);
    for (int64_t c = 0; c < channels; ++c) {
      const W scale = pass_.norm.scale ? pass_.norm.scale[index * channels + c] : W(1);
      for (int64_t k = 0; k < kernel; ++k) weights.get()[k * channels + c] = widened(filters + c * kernel + k) * scale;
      bias.get()[c] = pass_.bias_of(index * channels + c);
    }
    const int64_t* size = pass_.source_size();
    const int64_t source_size = size[0] * size[1] * size[2] * channels;
    const Sample sample = {
        pass_.source + index * source_size, pass_.result + index * rows() * width_.results() * channels,
        weights.get(), bias.get(),
        pass_.norm.center ? pass_.norm.center + index * channels : nullptr};
    Buffer<Met> met(depth_.most() * height_.most());
    for (int64_t row = first; row < last; ++row) convolve_row(sample, row, met.get());
  }

  void convolve_row(const Sample& sample, int64_t row, Met* met) const {
    const int64_t channels = conv_.groups, z = row / height_.results(), y = row % height_.results();
    const int64_t* size = pass_.source_size();
    int64_t count = 0;
    for (const auto* deep = depth_.begin(z); deep != depth_.end(z); ++deep)
      for (const auto* high = height_.begin(y); high != height_.end(y); ++high)
        if (deep->source >= 0 && high->source >= 0)
          met[count++] = {
              sample.source + (deep->source * size[1] + high->source) * size[2] * channels,
              sample.weights + (deep->tap * conv_.kernel[1] + high->tap) * conv_.kernel[2] * channels};
    T* out = sample.result + row * width_.results() * channels;
    for (int64_t x = 0; x < width_.results();) {
      const bool regular = regular_.get()[x];
      for_each_vector<W>(0, channels, [&](int64_t c, auto part) IN_PLACE {
        if (regular) convolve_pixels(sample, met, count, x, c, part, out + x * channels + c);
        else convolve_pixel(sample, met, count, x, c, part, out + x * channels + c);
      });
      x += regular ? pixels : 1;
    }
  }

  template <class Part>
  IN_PLACE inline void convolve_pixels(
      const Sample& sample, const Met* met, int64_t count, int64_t x, int64_t c, Part part, T* out) const {
    const int64_t channels = conv_.groups, from = width_.begin(x)->source;
    const Vector<W> bias = load(sample.bias + c, part), center = center_of(sample, c, part);
    Vector<W> sums[pixels];
    unrolled<pixels>([&](int i) IN_PLACE { sums[i] = bias; });
    for (int64_t m = 0; m < count; ++m) {
      const T* p = met[m].row + from * channels + c;
      Vector<W> near[pixels + side - 1];
      unrolled<pixels + side - 1>([&](int i) IN_PLACE { near[i] = in_register(load(p + i * channels, part) - center); });
      unrolled<side>([&](int t) IN_PLACE {
        const Vector<W> weight = in_register(
            load(met[m].weights + (pass_.forward ? t : side - 1 - t) * channels + c, part));
        unrolled<pixels>([&](int i) IN_PLACE { sums[i] += near[i + t] * weight; });
      });
    }
    unrolled<pixels>([&](int i) IN_PLACE { write(out + i * channels, sums[i], part); });
  }

  template <class Part>
  IN_PLACE inline void convolve_pixel(
      const Sample& sample, const Met* met, int64_t count, int64_t x, int64_t c, Part part, T* out) const {
    const int64_t channels = conv_.groups;
    const Vector<W> center = center_of(sample, c, part);
    Vector<W> sum = load(sample.bias + c, part);
    for (int64_t m = 0; m < count; ++m)
      for (const auto* wide = width_.begin(x); wide != width_.end(x); ++wide)
        if (wide->source >= 0)
          sum += (load(met[m].row + wide->source * channels + c, part) - center) *
              load(met[m].weights + wide->tap * channels + c, part);
    write(out, sum, part);
  }

  template <class Part>
  IN_PLACE inline Vector<W> center_of(const Sample& sample, int64_t c, Part part) const {
    return sample.center ? load(sample.center + c, part) : Vector<W>{};
  }

  IN_PLACE inline void write(T* out, Vector<W> sum, Whole) const {
    if (pass_.past_caches && is_aligned(out)) stream(out, sum);
    else store(out, sum);
  }
  IN_PLACE inline void write(T* out, Vector<W> sum, int count) const { store(out, sum, count); }

  const Pass<T> pass_;
  const Convolution& conv_;
  const Reach depth_, height_, width_;
  Buffer<bool> regular_;
};

}  // namespace fastnorm::FASTNORM_ISA
