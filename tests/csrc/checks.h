// What the checks of all kernels share.

#pragma once

#include "../../csrc/cpu/kernels.h"

#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace fastnorm {

// Of the table in use, for maps of one type.
void check_norms(Element);
void check_convolutions(Element);
void check_upsamplings(Element);
void check_attention(Element);
void check_gram(Element);
void check_patches(Element);
void check_matching(Element);

// A pool of three that takes its parts in reverse.
inline const Threads three{3, [](int64_t tasks, void (*body)(void*, int64_t, int64_t), void* context) {
  std::vector<std::thread> pool;
  for (int64_t part = 2; part >= 0; --part)
    pool.emplace_back([=] { body(context, part * tasks / 3, (part + 1) * tasks / 3); });
  for (std::thread& thread : pool) thread.join();
}};

inline int failures = 0;

// Counts a wrong value, and prints the first of them.
__attribute__((format(printf, 1, 2))) inline void complain(const char* format, ...) {
  if (++failures >= 20) return;
  va_list values;
  va_start(values, format);
  std::printf("%s: ", kernels().isa);
  std::vprintf(format, values);
  va_end(values);
}

inline double tolerance_of(Element element) {
  switch (element) {
    case Element::f64: return 1e-8;
    case Element::f32: return 2e-5;
    case Element::f16: return 4e-3;
    default: return 3e-2;
  }
}

inline size_t width(Element element) { return element == Element::f64 ? 8 : element == Element::f32 ? 4 : 2; }
inline Element wide_of(Element element) { return element == Element::f64 ? Element::f64 : Element::f32; }

// Exactly as long as it must be, so that a sanitizer sees the first byte beyond.
struct Array {
  Element element;
  int64_t size;
  void* data;

  Array(Element element, int64_t size) : element(element), size(size), data(std::malloc(size * width(element) + !size)) {
    std::memset(data, 0xff, size * width(element));  // NaN in every type
  }
  Array(const Array&) = delete;
  ~Array() { std::free(data); }

  double get(int64_t i) const {
    if (element == Element::f64) return static_cast<double*>(data)[i];
    if (element == Element::f32) return static_cast<float*>(data)[i];
    const uint16_t bits = static_cast<uint16_t*>(data)[i];
    if (element == Element::bf16) {
      const uint32_t wide = uint32_t(bits) << 16;
      float value;
      std::memcpy(&value, &wide, 4);
      return value;
    }
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
        : exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
  }

  std::vector<double> values() const {
    std::vector<double> values(size);
    for (int64_t i = 0; i < size; ++i) values[i] = get(i);
    return values;
  }

  // Up to 32 units, exact in every type.
  void fill(unsigned seed, float unit = 1.0f / 8) {
    for (int64_t i = 0; i < size; ++i) {
      seed = seed * 1664525 + 1013904223;
      const float value = (int(seed >> 16) % 65 - 32) * unit;
      if (element == Element::f64) static_cast<double*>(data)[i] = value;
      else if (element == Element::f32) static_cast<float*>(data)[i] = value;
      else {
        uint32_t wide;
        std::memcpy(&wide, &value, 4);
        uint16_t& bits = static_cast<uint16_t*>(data)[i];
        bits = wide >> 16;
        if (element == Element::f16) {
          const int exponent = int(wide >> 23 & 255) - 112;
          bits = (wide >> 16 & 0x8000) | (wide << 1 ? exponent << 10 | (wide >> 13 & 1023) : 0);
        }
      }
    }
  }
};

constexpr int activations = 7;
constexpr double slope = 0.25;

inline double act(int code, double x) {
  switch (code) {
    case 1: return x > 0 ? x : 0;
    case 2: return x > 0 ? x : slope * x;
    case 3: return x / (1 + std::exp(-x));
    case 4: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case 5: return 1 / (1 + std::exp(-x));
    case 6: return std::tanh(x);
    default: return x;
  }
}

// The position inside that one beyond a border is read at; negative for one that is zero.
inline int64_t inside(int64_t at, int64_t size, Border border) {
  if (at >= 0 && at < size) return at;
  if (border == Border::zeros) return -1;
  if (border == Border::replicate) return at < 0 ? 0 : size - 1;
  if (border == Border::circular) return (at + size) % size;
  return at < 0 ? -at : 2 * (size - 1) - at;
}

inline int64_t count_of(const Planes& planes) { return planes.samples * planes.channels; }
inline int64_t elements_of(const Planes& planes) { return count_of(planes) * planes.size; }

// Which plane an element is of.
inline int64_t plane_of(const Planes& planes, int64_t element) {
  if (!planes.channels_last) return element / planes.size;
  return element / (planes.channels * planes.size) * planes.channels + element % planes.channels;
}

using Position = std::array<int64_t, 3>;

inline Position position(int64_t pixel, const int64_t* size) {
  return {pixel / size[2] / size[1], pixel / size[2] % size[1], pixel % size[2]};
}

// Where an element of a map of (channels, size) lies.
inline int64_t place(
    bool channels_last, int64_t channels, const int64_t* size, int64_t n, int64_t c, const Position& at) {
  const int64_t pixel = (at[0] * size[1] + at[1]) * size[2] + at[2], pixels = size[0] * size[1] * size[2];
  return channels_last ? (n * pixels + pixel) * channels + c : (n * channels + c) * pixels + pixel;
}

}  // namespace fastnorm
