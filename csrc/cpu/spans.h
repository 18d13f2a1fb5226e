// Loops over a run of elements that lie side by side: what every kernel is made of.
//
// The affine map of an element is the same along a plane (NCHW), or repeats with the channels (channels_last). `OnePlane`
// and `ManyChannels` say which; the loops read their coefficients through them.

#pragma once

#include "activation.h"
#include "kernels.h"
#include "vector.h"

namespace fastnorm::FASTNORM_ISA {

// output = act(((x - center) * scale + shift) * (1 + gamma) + residual)
// grad_input = grad_affine * scale + (x - center) * input_scale + input_shift
//
// The coefficients of every plane, (samples, channels) each.
template <class W>
struct Coefficients {
  W *center, *scale, *shift, *input_scale, *input_shift;

  Coefficients operator+(int64_t plane) const {
    return {center + plane, scale + plane, shift + plane, input_scale + plane, input_shift + plane};
  }
};

template <class W>
struct OnePlane {
  Vector<W> center_, scale_, shift_, input_scale_, input_shift_;

  explicit OnePlane(const Coefficients<W>& c)
      : center_(broadcast(*c.center)),
        scale_(broadcast(*c.scale)),
        shift_(broadcast(*c.shift)),
        input_scale_(broadcast(*c.input_scale)),
        input_shift_(broadcast(*c.input_shift)) {}

  Vector<W> center(int64_t) const { return center_; }
  Vector<W> scale(int64_t) const { return scale_; }
  Vector<W> shift(int64_t) const { return shift_; }
  Vector<W> input_scale(int64_t) const { return input_scale_; }
  Vector<W> input_shift(int64_t) const { return input_shift_; }
};

// Element i of the run belongs to the plane of coefficient i.
template <class W>
struct ManyChannels {
  Coefficients<W> c;

  Vector<W> center(int64_t i) const { return load(c.center + i); }
  Vector<W> scale(int64_t i) const { return load(c.scale + i); }
  Vector<W> shift(int64_t i) const { return load(c.shift + i); }
  Vector<W> input_scale(int64_t i) const { return load(c.input_scale + i); }
  Vector<W> input_shift(int64_t i) const { return load(c.input_shift + i); }
};

// An output from this size on is not kept in caches: it would push out what is still needed, and be pushed out itself.
constexpr int64_t streamed_bytes = int64_t(16) << 20;

template <class T>
inline bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % (lanes<Wide<T>> * sizeof(T)) == 0;
}

// The forward pass of one vector, with what the backward needs of the way.
template <class W>
struct Point {
  Vector<W> centred, affine, one_plus_gamma, before;
};

// What a loop is compiled for: an affine map and nothing else, one and a rectifier, or anything.
enum class Way { affine, rectified, general };

// What an element meets on its way forward.
template <class T_, Way way_>
struct Forward {
  using T = T_;
  using W = Wide<T>;
  static constexpr Way way = way_;

  const T *input, *gamma, *residual;
  int code;
  W slope;
  Rectifier<W> rectifier;

  Forward(const void* input, const Maps& maps, const Activation& activation)
      : input(static_cast<const T*>(input)),
        gamma(static_cast<const T*>(maps.gamma)),
        residual(static_cast<const T*>(maps.residual)),
        code(activation.code),
        slope(static_cast<W>(activation.slope)),
        rectifier(activation) {}

  // A position i and its maps; `offset` moves all of them.
  template <class Coefs, class Count>
  Point<W> at(int64_t offset, int64_t i, Count count, const Coefs& coefs) const {
    Point<W> point;
    point.centred = load(input + offset + i, count) - coefs.center(i);
    point.affine = point.before = point.centred * coefs.scale(i) + coefs.shift(i);
    if constexpr (way == Way::general) {
      if (gamma) {
        point.one_plus_gamma = load(gamma + offset + i, count) + 1;
        point.before = point.affine * point.one_plus_gamma;
      }
      if (residual) point.before += load(residual + offset + i, count);
    }
    return point;
  }

  Vector<W> activated(const Point<W>& point) const {
    if constexpr (way == Way::affine) return point.before;
    if constexpr (way == Way::rectified) return rectifier.value(point.before);
    return activate(point.before, code, slope);
  }

  // A gradient of the output, on its way back to before the activation, and on to the affine map's output.
  Vector<W> through_activation(Vector<W> grad, const Point<W>& point) const {
    if constexpr (way == Way::affine) return grad;
    if constexpr (way == Way::rectified) return grad * rectifier.derivative(point.before);
    return code == none ? grad : grad * derivative(point.before, code, slope);
  }
  Vector<W> through_gamma(Vector<W> grad, const Point<W>& point) const {
    return way == Way::general && gamma ? grad * point.one_plus_gamma : grad;
  }
};

// Where an output is written: through the caches, or past them where it is too large to stay.
template <class T>
struct Output {
  T* data;
  bool past_caches;

  Output(void* data, const Planes& planes)
      : data(static_cast<T*>(data)),
        past_caches(planes.samples * planes.channels * planes.size * int64_t(sizeof(T)) >= streamed_bytes) {}
};

// A run of n elements. Meanwhile the elements `ahead`, which the thread will reduce next, come in: reading them then
// overlaps with writing these.
struct Run {
  int64_t offset, n, ahead;
};

template <class Forward, class Coefs, class T = typename Forward::T>
inline void apply(const Forward& forward_, const Output<T>& output, const Run& run, const Coefs& coefs) {
  const auto [offset, n, ahead] = run;
  const Forward forward = forward_;  // a copy that no store can reach: its members stay in registers
  T* out = output.data + offset;
  const T* next = forward.input + offset + ahead;
  int64_t i = 0;
  if (output.past_caches && is_aligned(out))
    for (; i + lanes<Wide<T>> <= n; i += lanes<Wide<T>>) {
      prefetch(next + i);
      stream(out + i, forward.activated(forward.at(offset, i, Whole{}, coefs)));
    }
  for_each_vector<Wide<T>>(i, n, [&, offset = offset](int64_t j, auto count) {
    prefetch(next + j);
    store(out + j, forward.activated(forward.at(offset, j, count, coefs)), count);
  });
}

template <class T>
struct Gradients {
  Output<T> input;
  T *gamma, *residual;

  Gradients(void* input, void* gamma, void* residual, const Planes& planes)
      : input(input, planes), gamma(static_cast<T*>(gamma)), residual(static_cast<T*>(residual)) {}

  bool wanted() const { return input.data || gamma || residual; }
};

template <class Forward, class Coefs, class T = typename Forward::T>
inline void apply_backward(
    const Forward& forward_, const T* grad, const Gradients<T>& gradients_, const Run& run, const Coefs& coefs) {
  using W = Wide<T>;
  const auto [offset, n, ahead] = run;
  const Forward forward = forward_;
  const Gradients<T> gradients = gradients_;
  const T *next_input = forward.input + offset + ahead, *next_grad = grad + offset + ahead;
  T* out = gradients.input.data + offset;
  const auto gradient_of_input = [&, offset = offset](int64_t i, auto count) {
    prefetch(next_input + i);
    prefetch(next_grad + i);
    const Point<W> point = forward.at(offset, i, count, coefs);
    Vector<W> g = forward.through_activation(load(grad + offset + i, count), point);
    if constexpr (Forward::way == Way::general) {
      if (gradients.residual) store(gradients.residual + offset + i, g, count);
      if (gradients.gamma) store(gradients.gamma + offset + i, g * point.affine, count);
    }
    g = forward.through_gamma(g, point);
    return g * coefs.scale(i) + (point.centred * coefs.input_scale(i) + coefs.input_shift(i));
  };
  int64_t i = 0;
  if (gradients.input.data && gradients.input.past_caches && is_aligned(out))
    for (; i + lanes<W> <= n; i += lanes<W>) stream(out + i, gradient_of_input(i, Whole{}));
  for_each_vector<W>(i, n, [&](int64_t j, auto count) {
    const Vector<W> g = gradient_of_input(j, count);
    if (gradients.input.data) store(out + j, g, count);
  });
}

// body(Forward) with the element type, and the way, known at compile time.
template <class Body>
inline void with_forward(
    Element element, const void* input, const Maps& maps, const Activation& activation, const Body& body) {
  const bool alone = !maps.gamma && !maps.residual;
  with_element(element, [&](auto example) {
    using T = decltype(example);
    if (alone && activation.code == none)
      body(Forward<T, Way::affine>(input, maps, activation));
    else if (alone && (activation.code == relu || activation.code == leaky_relu))
      body(Forward<T, Way::rectified>(input, maps, activation));
    else
      body(Forward<T, Way::general>(input, maps, activation));
  });
}

}  // namespace fastnorm::FASTNORM_ISA
