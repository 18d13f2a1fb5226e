// Elements as a thread moves them (16 bytes at a time, as they lie in memory) and as it computes with them (wide).

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace fastnorm::cuda {

template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// An element's plane, among the P that the elements of a vector belong to: one in NCHW, one each in channels_last.
template <int P>
__host__ __device__ constexpr int plane_of(int element) {
  return P == 1 ? 0 : element;
}

template <int bytes>
struct RawOf;
template <>
struct RawOf<16> {
  using type = uint4;
};
template <>
struct RawOf<8> {
  using type = uint2;
};
template <>
struct RawOf<4> {
  using type = unsigned int;
};
template <>
struct RawOf<2> {
  using type = unsigned short;
};

// W elements, packed. Kept in registers like this, a plane costs what it costs in memory.
template <typename T, int W>
using Raw = typename RawOf<W * sizeof(T)>::type;

template <typename T, int W>
__device__ __forceinline__ Raw<T, W> load(const T* from) {
  return __ldg(reinterpret_cast<const Raw<T, W>*>(from));
}

template <typename T, int W>
__device__ __forceinline__ void store(T* to, const Raw<T, W>& raw) {
  *reinterpret_cast<Raw<T, W>*>(to) = raw;
}

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T narrow(Wide<T> x) {
  if constexpr (std::is_same_v<T, __half>) return __float2half_rn(x);
  else if constexpr (std::is_same_v<T, __nv_bfloat16>) return __float2bfloat16_rn(x);
  else return x;
}

template <typename T, int W>
__device__ __forceinline__ void unpack(const Raw<T, W>& raw, Wide<T> (&wide)[W]) {
  T elements[W];
  memcpy(elements, &raw, sizeof raw);
#pragma unroll
  for (int e = 0; e < W; ++e) wide[e] = widen(elements[e]);
}

// Two at a time where the type has two in a register: one conversion instead of two and a permutation.
template <typename T, int W>
__device__ __forceinline__ Raw<T, W> pack(const Wide<T> (&wide)[W]) {
  Raw<T, W> raw;
  if constexpr (sizeof(T) == 2 && W > 1) {
    std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162> pairs[W / 2];
#pragma unroll
    for (int e = 0; e < W; e += 2)
      if constexpr (std::is_same_v<T, __half>) pairs[e / 2] = __floats2half2_rn(wide[e], wide[e + 1]);
      else pairs[e / 2] = __floats2bfloat162_rn(wide[e], wide[e + 1]);
    memcpy(&raw, pairs, sizeof raw);
  } else {
    T elements[W];
#pragma unroll
    for (int e = 0; e < W; ++e) elements[e] = narrow<T>(wide[e]);
    memcpy(&raw, elements, sizeof raw);
  }
  return raw;
}

}  // namespace fastnorm::cuda
