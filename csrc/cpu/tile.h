// Output channels by vectors of pixels, in registers while all taps of all input channels pass.

#pragma once

#include "blocks.h"

namespace fastnorm::FASTNORM_ISA {

// Products that are summed in one piece: a longer sum would be less exact, 5.6e-6 instead of 0.8e-6 for 512 channels of 3x3.
constexpr int64_t piece = 144;
struct ColumnTap {
  int64_t offset, tap;
};

// The taps of a row, of all its source rows and columns: where in a channel's rows, and which of the kernel. And how many
// products are summed in one piece.
struct Taps {
  const ColumnTap* taps;
  int64_t count, piece = fastnorm::FASTNORM_ISA::piece;
};

// Vectors of pixels in a tile of `channels`: a quarter of the registers is left to the input and a weight.
template <int channels>
constexpr int tile_vectors = registers * 3 / 4 / channels < 4 ? registers * 3 / 4 / channels : 4;

// The filters of a tile of output channels: (ins, kernel, channels).
template <int channels, class F, class W>
inline void pack_filters(
    const F* from, int64_t out_stride, int64_t in_stride, int64_t ins, int64_t kernel, W* packed) {
  // What lies side by side for each channel: all, or with input and output exchanged the kernel of one.
  const int64_t run = in_stride == kernel ? ins * kernel : kernel;
  for (int64_t i = 0; i < ins; i += run / kernel)
    for_each_vector<W>(0, run, [&](int64_t k, auto count) {
      W* to = packed + (i * kernel + k) * channels;
      for (int64_t c = 0; c < channels; c += lanes<W>) {
        const int width = smaller(lanes<W>, channels - c);
        Vector<W> square[lanes<W>] = {};
        for (int j = 0; j < width; ++j) square[j] = load(from + (c + j) * out_stride + i * in_stride + k, count);
        transpose<W>(square);
        for (int lane = 0; lane < number_of<W>(count); ++lane) store(to + lane * channels + c, square[lane], width);
      }
    });
}

// Where a tile begins, and where it goes: rows of sums, `stride` apart, each a sum of parts.
template <class W>
struct Partial {
  W* sums;
  int64_t stride;
  bool from_zero;

  IN_PLACE Partial at(int64_t vector) const { return {sums + vector * lanes<W>, stride, from_zero}; }
  IN_PLACE Vector<W> begin(int, int) const { return Vector<W>{}; }
  IN_PLACE void end(int channel, int vector, Vector<W> sum) const {
    W* p = sums + channel * stride + vector * lanes<W>;
    store(p, from_zero ? sum : load(p) + sum);
  }
};

// The same where there is one part.
template <class W>
struct Fresh {
  W* sums;
  int64_t stride;

  IN_PLACE Fresh at(int64_t vector) const { return {sums + vector * lanes<W>, stride}; }
  IN_PLACE Vector<W> begin(int, int) const { return Vector<W>{}; }
  IN_PLACE void end(int channel, int vector, Vector<W> sum) const { store(sums + channel * stride + vector * lanes<W>, sum); }
};

// Or rows of the result in NCHW, planes `stride` apart, of which `length` elements are left; begun with a bias each.
template <class T>
struct Final {
  using W = Wide<T>;
  T* out;
  int64_t stride, length;
  const W* bias;
  bool past_caches;

  IN_PLACE Final at(int64_t vector) const {
    return {out + vector * lanes<W>, stride, length - vector * lanes<W>, bias, past_caches};
  }
  IN_PLACE Vector<W> begin(int channel, int) const { return broadcast(bias[channel]); }
  IN_PLACE void end(int channel, int vector, Vector<W> sum) const {
    T* p = out + channel * stride + vector * lanes<W>;
    const int64_t left = length - vector * lanes<W>;
    if (left >= lanes<W>) {
      if (past_caches && is_aligned(p)) stream(p, sum);
      else store(p, sum);
    } else if (left > 0) {
      store(p, sum, static_cast<int>(left));
    }
  }
};

// Whether a tile has two rows of pixels: few channels by few vectors would leave registers unused.
template <int channels, int vectors>
constexpr int tile_rows = channels * vectors * 2 <= registers * 3 / 4 ? 2 : 1;

// The source of a tile: rows of `in_channels`, `channel_stride` apart, and for a second row of pixels those `next` to them.
template <class W>
struct Source {
  const W* rows;
  int64_t channel_stride, in_channels, next;
};

// Adds source * weights (in_channels, kernel, channels), for `vectors` of pixels in each of two rows, or in one.
template <int channels, int vectors, int rows, class W, class Sums>
IN_PLACE inline void convolve_tile(
    const Source<W>& source, int64_t first, const Taps& taps, const W* weights, int64_t kernel, const Sums* sums) {
  constexpr int columns = rows * vectors;
  Vector<W> tile[channels][columns], pieces[channels][columns];
  unrolled<channels>([&](int c) IN_PLACE {
    unrolled<columns>([&](int i) IN_PLACE { tile[c][i] = sums[i / vectors].at(first).begin(c, i % vectors); });
  });
  const int64_t most = larger(1, taps.piece / larger(1, taps.count)), in_piece = smaller(most, source.in_channels);
  int64_t piece_end = smaller(in_piece, source.in_channels);
  for (int64_t i = 0; i < source.in_channels; ++i) {
    if (i == piece_end) {
      const bool begins = piece_end == in_piece;
      unrolled<channels>([&](int c) IN_PLACE {
        unrolled<columns>([&](int j) IN_PLACE {
          pieces[c][j] = begins ? tile[c][j] : pieces[c][j] + tile[c][j];
          tile[c][j] = Vector<W>{};
        });
      });
      piece_end += in_piece;
    }
    for (int64_t t = 0; t < taps.count; ++t) {
      const W* x = source.rows + i * source.channel_stride + taps.taps[t].offset + first * lanes<W>;
      const W* weight = weights + (i * kernel + taps.taps[t].tap) * channels;
      if constexpr (rows == 1 && vectors <= channels) {
        Vector<W> pixels[vectors];
        unrolled<vectors>([&](int v) IN_PLACE { pixels[v] = load(x + v * lanes<W>); });
        unrolled<channels>([&](int c) IN_PLACE {
          const Vector<W> w = broadcast(weight[c]);
          unrolled<vectors>([&](int v) IN_PLACE { tile[c][v] += pixels[v] * w; });
        });
      } else {
        // Few channels: their weights stay, and pixels pass. 3 channels by 4 vectors and as many pixels would be one
        // register more than AVX2 has.
        Vector<W> w[channels];
        unrolled<channels>([&](int c) IN_PLACE { w[c] = broadcast(weight[c]); });
        unrolled<columns>([&](int i) IN_PLACE {
          const Vector<W> pixels = in_register(load(x + i / vectors * source.next + i % vectors * lanes<W>));
          unrolled<channels>([&](int c) IN_PLACE { tile[c][i] += pixels * w[c]; });
        });
      }
    }
  }
  if (source.in_channels > in_piece)
    unrolled<channels>(
        [&](int c) IN_PLACE { unrolled<columns>([&](int i) IN_PLACE { tile[c][i] += pieces[c][i]; }); });
  unrolled<channels>([&](int c) IN_PLACE {
    unrolled<columns>([&](int i) IN_PLACE { sums[i / vectors].at(first).end(c, i % vectors, tile[c][i]); });
  });
}

// The same for one row or two of `width` vectors. A tile of one vector would be more loads than products: where one would be
// left, the two last tiles share evenly.
template <int rows, int channels, int vectors = tile_vectors<channels>, class W, class Sums>
inline void convolve_rows(
    const Source<W>& source, int64_t first, int64_t width, const Taps& taps, const W* weights, int64_t kernel,
    const Sums* sums) {
  const auto whole = [&] { return first + vectors <= width && (vectors < 3 || first + vectors + 1 != width); };
  for (; whole(); first += vectors)
    if constexpr (rows <= tile_rows<channels, vectors>) {
      convolve_tile<channels, vectors, rows>(source, first, taps, weights, kernel, sums);
    } else {
      convolve_tile<channels, vectors, 1>(source, first, taps, weights, kernel, sums);
      const Source<W> next = {source.rows + source.next, source.channel_stride, source.in_channels, 0};
      convolve_tile<channels, vectors, 1>(next, first, taps, weights, kernel, sums + 1);
    }
  if constexpr (vectors > 1)
    if (first < width) convolve_rows<rows, channels, vectors - 1>(source, first, width, taps, weights, kernel, sums);
}

}  // namespace fastnorm::FASTNORM_ISA
