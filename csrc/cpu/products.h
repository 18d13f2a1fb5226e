// Products of matrices: columns are lanes, a panel of them at a time, and rows go by tiles.

#pragma once

#include "tile.h"

namespace fastnorm::FASTNORM_ISA {

template <class W, int vectors_ = tile_vectors<tile_channels>>
class Products {
 public:
  static constexpr int vectors = vectors_;
  // Columns of a panel.
  static constexpr int64_t panel = vectors * lanes<W>;
  // Products that are summed in one piece: as many lines of a panel fit in L1.
  static constexpr int64_t longest = 96;

  // Weights of a tile may lie so many tiles apart.
  explicit Products(int64_t tiles_apart = 1) : taps_(longest) {
    for (int64_t i = 0; i < longest; ++i) taps_.get()[i] = {i * panel, i * tiles_apart};
  }

  // sums (rows, panel) = or += the product of weights (tiles of rows, depth, rows of a tile) with lines (depth, panel). Rows
  // of sums may be further apart than they are long.
  void multiply(
      const W* weights, int64_t rows, const W* lines, int64_t depth, bool from_zero, W* sums, int64_t stride = panel) const {
    int64_t first = 0;
    do {
      const int64_t count = smaller(longest, depth - first);
      for_each_tile(0, rows, [&](int64_t row, auto tile) {
        multiply_tile<tile>(
            weights + row * depth + first * tile, lines + first * panel, count, from_zero && first == 0,
            sums + row * stride, stride);
      });
      first += count;
    } while (first < depth);
  }

  // The same for one tile of rows, and no more than the longest sum.
  template <int tile>
  void multiply_tile(
      const W* weights, const W* lines, int64_t depth, bool from_zero, W* sums, int64_t stride = panel) const {
    const Partial<W> parts[] = {{sums, stride, from_zero}};
    convolve_tile<tile, vectors, 1>(Source<W>{lines, 0, 1, 0}, 0, Taps{taps_.get(), depth}, weights, 0, parts);
  }

  // Weights of what lies as (rows, depth), or as (depth, rows), lines `stride` apart. Packed by rows, what is there may be
  // the part from `first` on of a depth that is `whole`.
  static void pack_rows(
      const W* from, int64_t stride, int64_t rows, int64_t depth, int64_t first, int64_t whole, W* weights) {
    for_each_tile(0, rows, [&](int64_t row, auto tile) {
      pack_filters<tile>(from + row * stride, stride, 1, depth, 1, weights + row * whole + first * tile);
    });
  }
  static void pack_columns(const W* from, int64_t stride, int64_t rows, int64_t depth, W* weights) {
    for_each_tile(0, rows, [&](int64_t row, auto tile) {
      W* to = weights + row * depth;
      for (int64_t i = 0; i < depth; ++i, to += tile) __builtin_memcpy(to, from + i * stride + row, tile * sizeof(W));
    });
  }

 private:
  Buffer<ColumnTap> taps_;
};

}  // namespace fastnorm::FASTNORM_ISA
