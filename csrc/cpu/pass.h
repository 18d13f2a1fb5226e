// One direction of a convolution: its maps, and what becomes of an element on its way in and out.

#pragma once

#include "activation.h"
#include "plane_statistics.h"
#include "window.h"

namespace fastnorm::FASTNORM_ISA {

// The channels of one sample, and how their rows lie. Channels are numbered from the first one of a block.
template <class T>
struct Plane {
  T* data;
  int64_t channels, rows, length;  // of the sample: all its channels, its depth times height, its width
  bool channels_last;

  T* at(int64_t channel, int64_t row) const {
    return channels_last ? data + row * length * channels + channel : data + (channel * rows + row) * length;
  }
};

// The planes of a sample from a channel on.
template <class E>
inline Plane<E> planes_of(
    const Convolution& conv, E* map, const int64_t* size, int64_t channels, int64_t sample, int64_t channel) {
  const int64_t rows = size[0] * size[1];
  const int64_t first = conv.channels_last ? channel : channel * rows * size[2];
  return {map + sample * channels * rows * size[2] + first, channels, rows, size[2], conv.channels_last};
}

// (x - center) * scale + shift, of a channel; or nothing, and no shift.
template <class W>
struct Normalization {
  const W *center = nullptr, *scale = nullptr, *shift = nullptr;

  Normalization operator+(int64_t channel) const {
    if (!center) return {};
    return {center + channel, scale + channel, shift ? shift + channel : nullptr};
  }
};

// What happens to an element on its way to cache: it is normalised, a residual is added, it is activated; and what it has
// become may be written, too.
template <class T>
struct Entering {
  Normalization<Wide<T>> norm;
  Activation activation = {};
  Plane<const T> residual = {};
  Plane<T> entered = {};

  bool changes() const { return norm.center || residual.data || activation.code || entered.data; }
};

// The same of a run of elements. Meanwhile what is `ahead` in the other maps comes nearer, too.
template <class T>
struct EnteringRun {
  using W = Wide<T>;
  const T* residual;
  T* entered;
  int code;
  W slope;
  int64_t ahead;

  template <class Count>
  IN_PLACE Vector<W> operator()(
      Vector<W> x, Vector<W> center, Vector<W> scale, Vector<W> shift, int64_t i, Count count) const {
    Vector<W> v = (x - center) * scale + shift;
    if (residual) {
      prefetch(residual + ahead + i);
      v += load(residual + i, count);
    }
    v = activate_beside(v, code, slope);
    if (entered) {
      prefetch_to_write(entered + ahead + i);
      store(entered + i, v, count);
    }
    return v;
  }
};

// One direction of a convolution, from its source to its result. `norm` has a number per plane of the source.
template <class T>
struct Pass {
  using W = Wide<T>;

  const Convolution& conv;
  const Direction direction;
  const T* const source;
  const Filters filters;
  const Parameter bias;
  T* const result;
  const Normalization<W> norm;
  const Threads& threads;
  const bool forward, past_caches;
  // Of a whole layer: what else happens to the source, and to the result.
  const Activation activation = {}, result_activation = {};
  const T* const residual = nullptr;
  T* const entered = nullptr;
  PlaneStatistics* const statistics = nullptr;

  Pass(
      const Convolution& conv, Direction direction, const void* source, const Filters& filters, const Parameter& bias,
      void* result, const Normalization<W>& norm, const Threads& threads)
      : conv(conv),
        direction(direction),
        source(static_cast<const T*>(source)),
        filters(filters),
        bias(bias),
        result(static_cast<T*>(result)),
        norm(norm),
        threads(threads),
        forward(direction == Direction::forward),
        past_caches(is_past_caches()) {}

  Pass(const NormConv2d& call, const Normalization<W>& norm, PlaneStatistics* statistics, const Threads& threads)
      : conv(call.shape),
        direction(Direction::forward),
        source(static_cast<const T*>(call.input)),
        filters(call.weight),
        bias(call.bias),
        result(static_cast<T*>(call.output)),
        norm(norm),
        threads(threads),
        forward(true),
        past_caches(is_past_caches()),
        activation(call.entry.activation),
        result_activation(call.exit.activation),
        residual(static_cast<const T*>(call.entry.residual)),
        entered(static_cast<T*>(call.entry.entered)),
        statistics(statistics) {}

  // Whether it is a convolution of the source, or of what its statistics normalise, and no more.
  bool plain() const {
    const int64_t* apart = conv.input_dilation;
    return !norm.shift && !activation.code && !result_activation.code && !residual && !entered && !statistics &&
        !filters.wide && apart[0] * apart[1] * apart[2] == 1;
  }

  bool is_past_caches() const {
    const int64_t* size = result_size();
    return conv.samples * out_channels() * size[0] * size[1] * size[2] * int64_t(sizeof(T)) >= streamed_bytes;
  }

  // Of a sample: its channels, and how large its maps are.
  int64_t in_channels() const { return conv.groups * (forward ? conv.in_channels : conv.out_channels); }
  int64_t out_channels() const { return conv.groups * (forward ? conv.out_channels : conv.in_channels); }
  const int64_t* source_size() const { return forward ? conv.input : conv.output; }
  const int64_t* result_size() const { return forward ? conv.output : conv.input; }

  const T* filters_of(int64_t sample) const { return filters_of<T>(sample); }
  template <class F>
  const F* filters_of(int64_t sample) const {
    return static_cast<const F*>(filters.data) + sample * filters.sample_stride;
  }
  W bias_of(int64_t plane) const {
    Planes planes = {};
    planes.channels = out_channels();
    return static_cast<W>(read(bias, planes, plane, 0));
  }
};

}  // namespace fastnorm::FASTNORM_ISA
