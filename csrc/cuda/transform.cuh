// From input to output, and from the output's gradient back: the elementwise part of every operator here.
//
//     output = act(((input - mean) * scale + shift) * (1 + gamma) + residual)
//     scale  = alpha * rstd * weight + (1 - alpha),  shift = alpha * bias + (1 - alpha) * mean
//
// `scale_shift` is the case without rstd and with alpha 1.

#pragma once

#include <type_traits>

#include "activation.cuh"
#include "held.cuh"
#include "passes.h"
#include "statistics.cuh"

namespace fastnorm::cuda {

// The affine map of each plane of a walk.
template <typename N, int P>
struct Affine {
  N mean[P], scale[P], shift[P];

  // weight and bias: what can be read before the statistics are known.
  template <int W>
  __device__ __forceinline__ void load(const Transform& transform, const Walk<W, P>& walk) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      scale[p] = parameter(transform.weight, walk.sample, walk.channel + p, N(1));
      shift[p] = parameter(transform.bias, walk.sample, walk.channel + p, N(0));
    }
  }

  __device__ __forceinline__ void set(int p, N mean_of_p, N rstd, N alpha) {
    mean[p] = mean_of_p;
    scale[p] = alpha * rstd * scale[p] + (1 - alpha);
    shift[p] = alpha * shift[p] + (1 - alpha) * mean_of_p;
  }

  template <int W>
  __device__ __forceinline__ void load_all(const Transform& transform, const Walk<W, P>& walk) {
    load(transform, walk);
#pragma unroll
    for (int p = 0; p < P; ++p)
      set(p, parameter(transform.mean, walk.sample, walk.channel + p, N(0)),
          parameter(transform.rstd, walk.sample, walk.channel + p, N(1)), transform.alpha);
  }
};

// body(activation, with_maps): the loops are compiled for each activation, and again for cheap ones that meet neither
// gamma nor residual. Beside the others, zeros cost little.
template <typename N, class Body>
__device__ __forceinline__ void specialise(const Transform& transform, const Body& body) {
  with_activation<N>(transform.activation, [&](const auto& activation) {
    if constexpr (std::decay_t<decltype(activation)>::cheap)
      if (!transform.maps.gamma && !transform.maps.residual) return body(activation, std::false_type());
    body(activation, std::true_type());
  });
}

// V vectors of a map in registers, from the v-th of a walk on; zeros where the map is absent.
template <typename T, int W, int V>
struct Tile {
  Raw<T, W> vectors[V];

  template <int P>
  __device__ __forceinline__ void load(const void* map, const Walk<W, P>& walk, int v) {
#pragma unroll
    for (int u = 0; u < V; ++u)
      vectors[u] = map ? cuda::load<T, W>(static_cast<const T*>(map) + walk.at(v + u)) : Raw<T, W>{};
  }
};

// gamma and residual of V vectors. Where they are absent they are constants that compile to nothing.
template <bool present, typename T, int W, int V>
struct Extras {
  Tile<T, W, V> gammas, residuals;

  template <int P>
  __device__ __forceinline__ Extras(const Maps& maps, const Walk<W, P>& walk, int v) {
    if constexpr (present) {
      gammas.load(maps.gamma, walk, v);
      residuals.load(maps.residual, walk, v);
    }
  }

  __device__ __forceinline__ void unpack(int u, Wide<T> (&gamma)[W], Wide<T> (&residual)[W]) const {
    if constexpr (present) {
      cuda::unpack<T, W>(gammas.vectors[u], gamma);
      cuda::unpack<T, W>(residuals.vectors[u], residual);
    } else {
#pragma unroll
      for (int e = 0; e < W; ++e) gamma[e] = 0, residual[e] = Wide<T>(-0.0);
    }
  }
};

// -- Forward

template <typename T, int P, int W, class Activation>
__device__ __forceinline__ void write_output(
    void* output, int64_t at, Wide<T> (&x)[W], const Wide<T> (&gamma)[W], const Wide<T> (&residual)[W],
    const Affine<Wide<T>, P>& affine, const Activation& activation) {
#pragma unroll
  for (int e = 0; e < W; ++e) {
    const int p = plane_of<P>(e);
    x[e] = activation(((x[e] - affine.mean[p]) * affine.scale[p] + affine.shift[p]) * (1 + gamma[e]) + residual[e]);
  }
  store<T, W>(static_cast<T*>(output) + at, pack<T, W>(x));
}

// The output of a walk whose input is held.
template <typename T, int W, int P>
__device__ __forceinline__ void write_outputs(
    const Held<T, W>& input, T edge, const Walk<W, P>& walk, const Transform& transform,
    const Affine<Wide<T>, P>& affine, void* output) {
  using N = Wide<T>;
  specialise<N>(transform, [&](const auto& activation, auto with_maps) {
    walk.template tiles<2>(walk.count, [&](auto size, int v) {
      const Extras<with_maps.value, T, W, size.value> extras(transform.maps, walk, v);
#pragma unroll
      for (int u = 0; u < size.value; ++u) {
        N x[W], gamma[W], residual[W];
        input.unpack(v + u, x);
        extras.unpack(u, gamma, residual);
        write_output<T>(output, walk.at(v + u), x, gamma, residual, affine, activation);
      }
    });
    if constexpr (P == 1)
      if (walk.edge >= 0) {
        N x[1] = {widen(edge)};
        const N gamma[1] = {widen(edge_of<T>(transform.maps.gamma, walk))};
        const N residual[1] = {widen(edge_of<T>(transform.maps.residual, walk))};
        write_output<T>(output, walk.edge, x, gamma, residual, affine, activation);
      }
  });
}

// -- Backward

// The gradients of a vector's elements with respect to the affine map's output, gamma and residual.
template <typename N_, int W_>
struct Gradient {
  using N = N_;
  static constexpr int W = W_;
  N centred[W], affine[W], gamma[W], residual[W];

  template <int P, class Activation>
  __device__ __forceinline__ Gradient(
      const N (&grad)[W], const N (&x)[W], const N (&gammas)[W], const N (&residuals)[W], const Affine<N, P>& map,
      const Activation& activation) {
#pragma unroll
    for (int e = 0; e < W; ++e) {
      const int p = plane_of<P>(e);
      centred[e] = x[e] - map.mean[p];
      const N normed = centred[e] * map.scale[p] + map.shift[p];
      residual[e] = grad[e] * activation.derivative(normed * (1 + gammas[e]) + residuals[e]);
      gamma[e] = residual[e] * normed;
      affine[e] = residual[e] * (1 + gammas[e]);
    }
  }
};

// body(gradient, at) for each of `count` vectors held, which are those of the walk from the `from`-th on.
template <typename T, int W, int P, class Body>
__device__ __forceinline__ void each_gradient(
    const Held<T, W>& grads, const Held<T, W>& inputs, const Walk<W, P>& walk, int from, int count,
    const Transform& transform, const Affine<Wide<T>, P>& affine, const Body& body) {
  using N = Wide<T>;
  specialise<N>(transform, [&](const auto& activation, auto with_maps) {
#pragma unroll 1
    for (int v = 0; v < count; ++v) {
      const Extras<with_maps.value, T, W, 1> extras(transform.maps, walk, from + v);
      N grad[W], x[W], gamma[W], residual[W];
      grads.unpack(v, grad);
      inputs.unpack(v, x);
      extras.unpack(0, gamma, residual);
      body(Gradient<N, W>(grad, x, gamma, residual, affine, activation), walk.at(from + v));
    }
  });
}

// The same for the walk's edge.
template <typename T, int W, int P, class Body>
__device__ __forceinline__ void edge_gradient(
    T grad, T input, const Walk<W, P>& walk, const Transform& transform, const Affine<Wide<T>, P>& affine,
    const Body& body) {
  using N = Wide<T>;
  if constexpr (P == 1)
    if (walk.edge >= 0)
      with_activation<N>(transform.activation, [&](const auto& activation) {
        const N grads[1] = {widen(grad)}, x[1] = {widen(input)};
        const N gamma[1] = {widen(edge_of<T>(transform.maps.gamma, walk))};
        const N residual[1] = {widen(edge_of<T>(transform.maps.residual, walk))};
        body(Gradient<N, 1>(grads, x, gamma, residual, affine, activation), walk.edge);
      });
}

// The input's gradient is that of the affine map, and what the statistics add: (input - mean) * scale + shift.
template <typename T, int P, class Gradient>
__device__ __forceinline__ void write_gradient(
    const GradientMaps& to, int64_t at, const Gradient& gradient, const Affine<Wide<T>, P>& affine,
    const Sums<Wide<T>, P>& from_statistics) {
  constexpr int W = Gradient::W;
  if (to.input) {
    Wide<T> grad[W];
#pragma unroll
    for (int e = 0; e < W; ++e) {
      const int p = plane_of<P>(e);
      grad[e] = gradient.affine[e] * affine.scale[p] +
          (gradient.centred[e] * from_statistics.scale[p] + from_statistics.shift[p]);
    }
    store<T, W>(static_cast<T*>(to.input) + at, pack<T, W>(grad));
  }
  if (to.gamma) store<T, W>(static_cast<T*>(to.gamma) + at, pack<T, W>(gradient.gamma));
  if (to.residual) store<T, W>(static_cast<T*>(to.residual) + at, pack<T, W>(gradient.residual));
}

}  // namespace fastnorm::cuda
