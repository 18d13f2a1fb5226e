// Vectors of the width of the instruction set, through the compiler's vector extension: `a * b + c` is what it says, on
// AVX-512, AVX2, SSE and NEON alike. Only conversions of 16-bit types need to know the machine.
//
// Everything lives in a namespace named after the instruction set: an inline function that two object files share must
// not be the one that was compiled for the newer machine.

#pragma once

#include <cmath>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels.h"

// Behind a lambda or a function whose vectors must stay in registers, however large what it is inlined into becomes.
#define IN_PLACE __attribute__((always_inline))

namespace fastnorm::FASTNORM_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T, int count>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * count)));
};

template <class T>
constexpr int lanes = vector_bytes / sizeof(T);

template <class T>
using Vector = typename VectorOf<T, lanes<T>>::type;

template <class T>
using Mask = decltype(Vector<T>{} < Vector<T>{});

// Element types that are stored but not computed with.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// The type in which an element is computed.
template <class T>
struct WideOf {
  using type = float;
};
template <>
struct WideOf<double> {
  using type = double;
};
template <class T>
using Wide = typename WideOf<T>::type;

// body(T()) for the element type T.
template <class Body>
inline void with_element(Element element, const Body& body) {
  switch (element) {
    case Element::f32: return body(float{});
    case Element::f64: return body(double{});
    case Element::bf16: return body(BFloat16{});
    case Element::f16: return body(Half{});
  }
}

template <class T>
inline Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

template <class T>
inline T sum(Vector<T> v) {
  T total = 0;
  for (int i = 0; i < lanes<T>; ++i) total += v[i];
  return total;
}

// Whether all lanes are equal.
template <class T>
inline bool all_same(Vector<T> a, Vector<T> b) {
  const Mask<T> differ = a != b;
  int64_t any = 0;
  for (int i = 0; i < lanes<T>; ++i) any |= differ[i];
  return !any;
}

// -- Loads and stores -------------------------------------------------------------------------------------------------

using Floats = Vector<float>;
using Words = Vector<uint32_t>;
using Halves = VectorOf<uint16_t, lanes<float>>::type;

template <class V>
inline V read(const void* address) {
  V value;
  __builtin_memcpy(&value, address, sizeof value);
  return value;
}

template <class V>
inline void write(void* address, V value) {
  __builtin_memcpy(address, &value, sizeof value);
}

template <class To, class From>
inline To as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  return read<To>(&value);
}

inline Vector<float> load(const float* p) { return read<Vector<float>>(p); }
inline Vector<double> load(const double* p) { return read<Vector<double>>(p); }
inline void store(float* p, Vector<float> v) { write(p, v); }
inline void store(double* p, Vector<double> v) { write(p, v); }

// GCC splits a conversion between vectors of 16 and 32 bits in two: say what is meant.
inline Words widen(Halves v) {
#if defined(__AVX512F__)
  return (Words)_mm512_cvtepu16_epi32((__m256i)v);
#elif defined(__AVX2__)
  return (Words)_mm256_cvtepu16_epi32((__m128i)v);
#else
  return __builtin_convertvector(v, Words);
#endif
}

inline Halves narrow(Words v) {
#if defined(__AVX512F__)
  return (Halves)_mm512_cvtepi32_epi16((__m512i)v);
#elif defined(__AVX2__)
  const __m256i packed = _mm256_packus_epi32((__m256i)v, (__m256i)v);
  return (Halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0xd8));
#else
  return __builtin_convertvector(v, Halves);
#endif
}

inline Floats load(const BFloat16* p) { return as<Floats>(widen(read<Halves>(p)) << 16); }

// Rounds to nearest even; a NaN stays one.
inline Halves rounded(Floats v, BFloat16) {
  const Words bits = as<Words>(v);
  const Words nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return narrow(v == v ? nearest : (bits >> 16) | 0x40);
}

#if defined(__AVX512F__)
inline Floats load(const Half* p) { return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline Halves rounded(Floats v, Half) {
  return (Halves)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__AVX2__)
inline Floats load(const Half* p) { return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline Halves rounded(Floats v, Half) {
  return (Halves)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
inline Floats load(const Half* p) {
  const Words half = widen(read<Halves>(p));
  const Words sign = (half & 0x8000) << 16, magnitude = half & 0x7fff;
  // Exponents differ by 112: a multiplication moves them, subnormals included.
  const Words finite = as<Words>(as<Floats>(magnitude << 13) * 0x1p112f);
  const Words special = (magnitude << 13) | 0x7f800000;
  return as<Floats>(sign | (magnitude >= 0x7c00 ? special : finite));
}
inline Halves rounded(Floats v, Half) {
  const Words bits = as<Words>(v), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  // Adding a power of two whose last bit is the result's last bit rounds to nearest even, subnormals included.
  const Words exponent = magnitude & 0x7f800000;
  const Words floor = broadcast(0u) + 0x38800000;
  const Words base = (exponent < floor ? floor : exponent) + (13u << 23);
  const Floats nearest = (as<Floats>(magnitude) + as<Floats>(base)) - as<Floats>(base);
  const Words normal = (as<Words>(nearest) - 0x38000000) >> 13;
  const Words subnormal = as<Words>(nearest * 0x1p24f + 0x1p23f) & 0x3ff;
  const Words finite = as<Words>(nearest) < floor ? subnormal : normal;
  const Words infinite = broadcast(0u) + 0x7c00;
  const Words special = magnitude > 0x7f800000 ? broadcast(0u) + 0x7e00 : infinite;
  const Words half = as<Words>(nearest) >= 0x47800000 ? special : finite;
  return narrow(half | sign);
}
#endif

inline void store(BFloat16* p, Floats v) { write(p, rounded(v, BFloat16{})); }
inline void store(Half* p, Floats v) { write(p, rounded(v, Half{})); }

// A vector that is used several times, kept in a register: compilers would rather read it from memory at each use.
template <class V>
inline __attribute__((always_inline)) V in_register(V v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

// Stores that go to memory without fetching the line that they overwrite, nor keeping it: for outputs that no cache would
// hold. `p` must be aligned to the vector stored; a fence must follow before another thread reads.
template <class T, class V>
inline void stream(T* p, V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(T) >= 4) return _mm512_stream_si512((__m512i*)p, (__m512i)v);
  else return _mm256_stream_si256((__m256i*)p, (__m256i)rounded(v, T{}));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) >= 4) return _mm256_stream_si256((__m256i*)p, (__m256i)v);
  else return _mm_stream_si128((__m128i*)p, (__m128i)rounded(v, T{}));
#else
  store(p, v);
#endif
}

inline void fence() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// A run of elements ends in a part of a vector: `Whole` or a count says which is meant, at compile time for the first.
struct Whole {};

template <class W>
constexpr int number_of(Whole) {
  return lanes<W>;
}
template <class W>
constexpr int number_of(int count) {
  return count;
}

template <class T>
inline auto load(const T* p, Whole) {
  return load(p);
}

template <class T, class V>
inline void store(T* p, V v, Whole) {
  store(p, v);
}

// Asks for the line at p, which may lie anywhere, to be brought to L2.
inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
inline void prefetch_to_write(const void* p) { __builtin_prefetch(p, 1, 2); }

// The first `count` elements of a vector, 0 behind them.
#if defined(__AVX512F__)
// A copy of a few bytes is a call; a mask is not.
inline auto load(const float* p, int count) { return (Floats)_mm512_maskz_loadu_ps((1u << count) - 1, p); }
inline auto load(const double* p, int count) { return (Vector<double>)_mm512_maskz_loadu_pd((1u << count) - 1, p); }
inline void store(float* p, Floats v, int count) { _mm512_mask_storeu_ps(p, (1u << count) - 1, (__m512)v); }
inline void store(double* p, Vector<double> v, int count) { _mm512_mask_storeu_pd(p, (1u << count) - 1, (__m512d)v); }
inline Halves load_halves(const void* p, int count) { return (Halves)_mm256_maskz_loadu_epi16((1u << count) - 1, p); }
inline auto load(const BFloat16* p, int count) { return as<Floats>(widen(load_halves(p, count)) << 16); }
inline auto load(const Half* p, int count) { return (Floats)_mm512_cvtph_ps((__m256i)load_halves(p, count)); }
template <class T>
inline void store(T* p, Floats v, int count) {
  _mm256_mask_storeu_epi16(p, (1u << count) - 1, (__m256i)rounded(v, T{}));
}
#else
template <class T>
inline auto load(const T* p, int count) {
  T part[lanes<Wide<T>>] = {};
  __builtin_memcpy(part, p, count * sizeof(T));
  return load(static_cast<const T*>(part));
}

template <class T, class V>
inline void store(T* p, V v, int count) {
  T part[lanes<Wide<T>>];
  store(static_cast<T*>(part), v);
  __builtin_memcpy(p, part, count * sizeof(T));
}
#endif

// Calls body(i, Whole) for each vector in first..n, body(i, count) for what is left.
template <class W, class Body>
inline __attribute__((always_inline)) void for_each_vector(int64_t first, int64_t n, Body&& body) {
  int64_t i = first;
  for (; i + lanes<W> <= n; i += lanes<W>) body(i, Whole{});
  if (i < n) body(i, static_cast<int>(n - i));
}

// body(0), body(1), ... body(count - 1), written out: what they accumulate stays in registers.
template <int count, class Body>
inline __attribute__((always_inline)) void unrolled(Body&& body) {
  if constexpr (count > 0) {
    unrolled<count - 1>(body);
    body(count - 1);
  }
}

// -- Functions --------------------------------------------------------------------------------------------------------

// exp(x) = 2^k exp(r), |r| <= ln(2) / 2; a polynomial of degree 6 for exp(r), fitted to 4e-9. Where 2^k is no longer a
// normal number, it is infinite or 0: functions below take a product of that with a large x.
IN_PLACE inline Floats exp_in_place(Floats x) {
  const Floats to_integer = broadcast(0x1.8p23f);
  const Floats shifted = x * 1.44269504f + to_integer;
  const Floats k = shifted - to_integer;
  const Floats r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  Floats q = broadcast(0.00137514079f);
  q = q * r + 0.00836891634f;
  q = q * r + 0.0416695331f;
  q = q * r + 0.166665185f;
  q = q * r + 0.499999886f;
  const Floats power = as<Floats>((as<Words>(shifted) + 127) << 23);
  const Floats inside = (q * r * r + r + 1.0f) * power;
  return x > 88.37f ? broadcast(__builtin_inff()) : x < -87.3f ? broadcast(0.0f) : inside;
}

IN_PLACE inline Vector<double> exp_in_place(Vector<double> x) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

// For a loop that has more to keep in registers.
__attribute__((noinline)) inline Floats exp(Floats x) { return exp_in_place(x); }
__attribute__((noinline)) inline Vector<double> exp(Vector<double> x) { return exp_in_place(x); }

// Near 0, where 1 - 2 / (exp(2x) + 1) would cancel, x + x^3 P(x^2), with P of degree 4 fitted to 5e-9.
__attribute__((noinline)) inline Floats hyperbolic_tangent(Floats x) {
  const Floats z = x * x;
  Floats p = broadcast(-0.00564831699f);
  p = p * z + 0.0205898274f;
  p = p * z + -0.0537251271f;
  p = p * z + 0.133312744f;
  p = p * z + -0.333332761f;
  const Floats far = 1.0f - 2.0f / (exp(x * 2.0f) + 1.0f);
  return z < 0.4f ? x + x * (z * p) : far;
}

__attribute__((noinline)) inline Vector<double> hyperbolic_tangent(Vector<double> x) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = std::tanh(x[i]);
  return x;
}

// The normal distribution: its density at x, and the probability below x.
template <class V>
struct Normal {
  V density, below;
};

// erfc(z) = exp(-z^2) R(1 / (1 + 0.4 z)) for z = |x| / sqrt(2): R of degree 10, fitted to 4e-9.
__attribute__((noinline)) inline Normal<Floats> normal(Floats x) {
  const Floats bell = exp(x * x * -0.5f);
  const Floats magnitude = x < 0 ? -x : x;
  const Floats t = 1.0f / (magnitude * 0.282842712f + 1.0f);
  Floats r = broadcast(-0.0380211126f);
  r = r * t + 0.2462504f;
  r = r * t + -0.619701754f;
  r = r * t + 0.721785958f;
  r = r * t + -0.44431693f;
  r = r * t + 0.369426054f;
  r = r * t + 0.0899231171f;
  r = r * t + 0.225659134f;
  r = r * t + 0.223116735f;
  r = r * t + 0.225885975f;
  r = r * t + -7.57621271e-06f;
  const Floats tail = r * bell * 0.5f;
  return {bell * 0.39894228f, x < 0 ? tail : 1.0f - tail};
}

__attribute__((noinline)) inline Normal<Vector<double>> normal(Vector<double> x) {
  Normal<Vector<double>> result;
  for (int i = 0; i < lanes<double>; ++i) {
    result.density[i] = std::exp(-0.5 * x[i] * x[i]) * 0.3989422804014327;
    result.below[i] = 0.5 * std::erfc(x[i] * -0.7071067811865476);
  }
  return result;
}

}  // namespace fastnorm::FASTNORM_ISA
