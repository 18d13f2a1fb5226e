// A convolution with a filter for all samples or for each, of the input or of what its affine map, a residual and an
// activation make of it; the output's activation and statistics.
//
// One read and one write of a map; 2 * taps * in_channels flops for each output. Depthwise, that is 18 flops for 8 bytes:
// memory is the limit. Dense, arithmetic is.
//
//   1. A task is the planes of a group (in channels_last a vector of channels and more), or some of their rows.
//   2. It brings the rows that a chunk of the result needs to cache: widened, changed, padded (rows.h, window.h).
//   3. A tile of output channels by vectors of pixels stays in registers while all taps of all input channels pass
//      (tile.h, convolver.h). Where the input's elements lie apart, the result has phases, and each has its own taps.
//      Where many channels meet at single taps, its lines are the rows of a matrix (pointwise.h).
//   4. The result's rows end with the bias, the activation and their share of the statistics (finish.h).

#include "convolvers.h"
#include "minimal.h"
#include "pointwise.h"

namespace fastnorm::FASTNORM_ISA {

void instance_stats(const InstanceStats&, const Threads&);

namespace {

// The statistics of `count` planes of the input from `first` on.
template <class T>
void own_statistics(const NormConv2d& call, int64_t first, int64_t count) {
  const int64_t size = input_planes(call.shape).size;
  for (int64_t plane = first; plane < first + count; ++plane) {
    const Sums<double> moments = moments_of(static_cast<const T*>(call.input) + plane * size, size);
    static_cast<Wide<T>*>(call.entry.own_mean)[plane] = static_cast<Wide<T>>(moments.first);
    static_cast<Wide<T>*>(call.entry.own_rstd)[plane] = static_cast<Wide<T>>(rstd_of(moments, call.entry.rule, size));
  }
}

// By fewer multiplications, or as a product of matrices, where that fits.
template <class T, class Body>
void convolve_forward(const Pass<T>& pass, const Body& body) {
  if (Pointwise<T>::fits(pass)) return body(Pointwise<T>(pass));
  if constexpr (sizeof(Wide<T>) == sizeof(float)) {
    const auto by = [&](auto down, auto along) {
      using Filtered = Minimal<T, decltype(down), decltype(along)>;
      const bool fits = Filtered::fits(pass);
      if (fits) body(Filtered(pass));
      return fits;
    };
    const auto by_both = [&](auto filtering) { return by(filtering, filtering); };
    constexpr PlainFiltering<4> four;
    constexpr PlainFiltering<2> two;
    if (by(four, four) || by(four, two) || by(two, two)) return;
    if (by(UpsampledWideFiltering<4>{}, UpsampledWideFiltering<2>{}) || by_both(UpsampledWideFiltering<2>{})) return;
    if (by_both(UpsampledFiltering{}) || by_both(TransposedFiltering{})) return;
    if (by_both(StridedFiltering<3>{}) || by_both(StridedFiltering<4>{})) return;
  }
  convolve<Direction::forward>(pass, body);
}

// Of the input or of what its own statistics normalise.
template <class T>
void convolve_own(const NormConv2d& call, const Threads& threads) {
  using W = Wide<T>;
  const Entry& entry = call.entry;
  const Normalization<W> norm{static_cast<const W*>(entry.own_mean), static_cast<const W*>(entry.own_rstd)};
  const Pass<T> pass(call.shape, Direction::forward, call.input, call.weight, call.bias, call.output, norm, threads);
  convolve_forward(pass, [&](const auto& convolver) {
    // A task that has its planes to itself takes their statistics first, and finds them in cache when it convolves.
    const bool together = entry.own_mean && convolver.owns_planes();
    if (entry.own_mean && !together)
      instance_stats({input_planes(call.shape), entry.rule, call.input, entry.own_mean, entry.own_rstd}, threads);
    convolver.run([&](int64_t plane, int64_t count) {
      if (together) own_statistics<T>(call, plane, count);
    });
  });
}

// The affine map of each plane.
template <class W>
class AffineMaps {
 public:
  AffineMaps(const Entry& entry, const Planes& planes)
      : wanted_(entry.mean.data || entry.scale.data || entry.shift.data),
        count_(wanted_ ? planes.samples * planes.channels : 0),
        numbers_(3 * count_) {
    for (int64_t plane = 0; plane < count_; ++plane) {
      numbers_.get()[plane] = static_cast<W>(read(entry.mean, planes, plane, 0));
      numbers_.get()[count_ + plane] = static_cast<W>(read(entry.scale, planes, plane, 1));
      numbers_.get()[2 * count_ + plane] = static_cast<W>(read(entry.shift, planes, plane, 0));
    }
  }

  Normalization<W> get() const {
    if (!wanted_) return {};
    return {numbers_.get(), numbers_.get() + count_, numbers_.get() + 2 * count_};
  }

 private:
  const bool wanted_;
  const int64_t count_;
  Buffer<W> numbers_;
};

}  // namespace

void norm_conv2d(const NormConv2d& call, const Threads& threads) {
  if (!call.output) return;
  with_element(call.shape.element, [&](auto element) {
    using T = decltype(element);
    using W = Wide<T>;
    const AffineMaps<W> affine(call.entry, input_planes(call.shape));
    PlaneStatistics statistics;
    const Pass<T> pass(call, affine.get(), call.exit.mean ? &statistics : nullptr, threads);
    if (pass.plain() && !pass.norm.center) return convolve_own<T>(call, threads);
    convolve_forward(pass, [](const auto& convolver) { convolver.run([](int64_t, int64_t) {}); });
    if (call.exit.mean)
      statistics.write(call.exit.rule, static_cast<W*>(call.exit.mean), static_cast<W*>(call.exit.rstd));
  });
}

}  // namespace fastnorm::FASTNORM_ISA
