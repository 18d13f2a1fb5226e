// Dense convolutions of one tap, without a border: a product of filters and of a map whose pixels are one line.
//
//   1. A task is a chunk of the line, of all its channels: brought once, however many channels the result has.
//   2. Of as many input channels as are summed in one piece, a strip of pixels stays in L1, while one tile of output channels
//      after the other passes: each reads its filters from L2, a line of them for 48 vectors of products.
//   3. The pieces' sums wait in L2; the result's rows end as everywhere (finish.h).

#pragma once

#include "finish.h"
#include "tile.h"

namespace fastnorm::FASTNORM_ISA {

template <class T>
class Pointwise {
 public:
  using W = Wide<T>;
  // Fewer channels of input leave a tile too little to do, and of output too few that share what is brought.
  static constexpr int64_t least_in = 64, least_out = 32;
  // Vectors of pixels in a chunk, at most, so that it and its sums are in L2; and in a strip.
  static constexpr int64_t chunk_vectors = 12, strip_vectors = 3;
  // Channels ahead that are asked for: runs of a chunk are too short for the processor to see what is next.
  static constexpr int64_t channels_ahead = 4;

  static bool fits(const Pass<T>& pass) {
    const Convolution& conv = pass.conv;
    const bool shared = !pass.filters.sample_stride || conv.samples == 1;
    if (!pass.forward || conv.channels_last || conv.groups != 1 || !shared) return false;
    for (int dim = 0; dim < 3; ++dim) {
      const bool plain = conv.stride[dim] == 1 && conv.input_dilation[dim] == 1 && conv.padding[dim] == 0;
      if (!plain || conv.kernel[dim] != 1 || conv.output[dim] != conv.input[dim]) return false;
    }
    return conv.in_channels >= least_in && conv.out_channels >= least_out;
  }

  explicit Pointwise(const Pass<T>& pass)
      : pass_(pass),
        conv_(pass.conv),
        size_(conv_.input[0] * conv_.input[1] * conv_.input[2]),
        vectors_(ceil_div(size_, lanes<W>)),
        chunks_(ceil_div(vectors_, chunk_vectors)),
        pieces_(ceil_div(conv_.in_channels, piece)),
        parts_(smaller(segments_for(conv_.samples * chunks_, pass.threads.count), ceil_div(conv_.out_channels, 8))),
        taps_(conv_.in_channels),
        weights_(conv_.out_channels * conv_.in_channels) {
    for (int64_t i = 0; i < conv_.in_channels; ++i) taps_.get()[i] = {i * line, i};
  }

  bool owns_planes() const { return false; }

  template <class Before>
  void run(const Before&) const {
    pack();
    if (pass_.statistics) pass_.statistics->begin(conv_.samples * conv_.out_channels, chunks_);
    const int64_t tasks = conv_.samples * chunks_ * parts_, work = chunk_vectors * lanes<W> * conv_.out_channels / parts_;
    parallel_parts(pass_.threads, tasks, work, [&](int64_t first, int64_t last) {
      Workspace space(*this);
      for (int64_t task = first; task < last; ++task) convolve(part_of(task), space);
      fence();
    });
  }

 private:
  // Between channels of a chunk: an odd number of lines of the cache, or they would share a few sets of it.
  static constexpr int64_t line = (chunk_vectors + 1) * lanes<W>;

  // Pixels of a sample, and which output channels of them.
  struct Part {
    int64_t sample, chunk, first, pixels, out, out_end;
  };

  struct Workspace {
    Buffer<W> pixels, sums;

    explicit Workspace(const Pointwise& of) : pixels(of.conv_.in_channels * line), sums(of.conv_.out_channels * line) {}
  };

  Part part_of(int64_t task) const {
    const int64_t unit = task / parts_, part = task % parts_, chunk = unit % chunks_;
    const int64_t tiles = ceil_div(conv_.out_channels, 8);
    const int64_t first = chunk * vectors_ / chunks_ * lanes<W>;
    const int64_t end = smaller(size_, (chunk + 1) * vectors_ / chunks_ * lanes<W>);
    const int64_t out = part * tiles / parts_ * 8, out_end = smaller(conv_.out_channels, (part + 1) * tiles / parts_ * 8);
    return {unit / chunks_, chunk, first, end - first, out, out_end};
  }

  int64_t first_of_piece(int64_t index) const { return index * conv_.in_channels / pieces_; }

  void convolve(const Part& part, const Workspace& space) const {
    bring(part, space.pixels.get());
    for (int64_t index = 0; index < pieces_; ++index) {
      const int64_t in = first_of_piece(index), ins = first_of_piece(index + 1) - in;
      const W* pixels = space.pixels.get() + in * line;
      for_each_strip(ceil_div(part.pixels, lanes<W>), [&](int64_t first, int64_t end) {
        for_each_tile(part.out, part.out_end, [&](int64_t out, auto tile) {
          const W* weights = weights_.get() + place_of_weights(out, in, ins);
          multiply<tile>(pixels, weights, ins, first, end, index == 0, space.sums.get() + out * line);
        });
      });
    }
    for (int64_t out = part.out; out < part.out_end; ++out) finish(part, out, space.sums.get() + out * line);
  }

  // Strips of a tile's vectors, and no single one where two can share.
  template <class Body>
  static void for_each_strip(int64_t vectors, const Body& body) {
    for (int64_t first = 0; first < vectors;) {
      const int64_t left = vectors - first, end = first + (left == strip_vectors + 1 ? 2 : smaller(strip_vectors, left));
      body(first, end);
      first = end;
    }
  }

  void bring(const Part& part, W* pixels) const {
    const Normalization<W> norm = pass_.norm + part.sample * conv_.in_channels;
    for (int64_t c = 0; c < conv_.in_channels; ++c) {
      const int64_t at = (part.sample * conv_.in_channels + c) * size_ + part.first, ahead = channels_ahead * size_;
      const T* source = pass_.source + at;
      const EnteringRun<T> run = {
          pass_.residual ? pass_.residual + at : nullptr, pass_.entered && part.out == 0 ? pass_.entered + at : nullptr,
          pass_.activation.code, static_cast<W>(pass_.activation.slope), ahead};
      const Vector<W> center = broadcast(norm.center ? norm.center[c] : W(0));
      const Vector<W> scale = broadcast(norm.center ? norm.scale[c] : W(1));
      const Vector<W> shift = broadcast(norm.shift ? norm.shift[c] : W(0));
      for_each_vector<W>(0, part.pixels, [&](int64_t i, auto count) {
        prefetch(source + ahead + i);
        store(pixels + c * line + i, run(load(source + i, count), center, scale, shift, i, count));
      });
    }
  }

  template <int channels>
  void multiply(
      const W* pixels, const W* weights, int64_t ins, int64_t first, int64_t end, bool begins, W* sums) const {
    const Source<W> source = {pixels, 0, 1, 0};
    const Taps taps = {taps_.get(), ins};
    const Fresh<W> fresh[] = {{sums, line}};
    const Partial<W> added[] = {{sums, line, false}};
    if (begins) convolve_rows<1, channels>(source, first, end, taps, weights, 0, fresh);
    else convolve_rows<1, channels>(source, first, end, taps, weights, 0, added);
  }

  void finish(const Part& part, int64_t out, const W* sums) const {
    const int64_t plane = part.sample * conv_.out_channels + out;
    PartMoments<W> moments;
    finish_row(
        pass_.result + plane * size_ + part.first, sums, part.pixels, pass_.bias_of(plane), pass_.result_activation,
        pass_.statistics ? &moments : nullptr, pass_.past_caches);
    if (pass_.statistics) pass_.statistics->put(plane, part.chunk, moments);
  }

  // (pieces of input channels, tiles of output channels, input channels of the piece, channels of the tile)
  int64_t place_of_weights(int64_t out, int64_t in, int64_t ins) const { return in * conv_.out_channels + out * ins; }

  void pack() const {
    parallel(pass_.threads, ceil_div(conv_.out_channels, 8), 8 * conv_.in_channels, [&](int64_t task) {
      for_each_tile(8 * task, smaller(8 * task + 8, conv_.out_channels), [&](int64_t out, auto tile) {
        for (int64_t index = 0; index < pieces_; ++index) {
          const int64_t in = first_of_piece(index), ins = first_of_piece(index + 1) - in;
          if (pass_.filters.wide) pack<tile>(pass_.template filters_of<W>(0), out, in, ins);
          else pack<tile>(pass_.filters_of(0), out, in, ins);
        }
      });
    });
  }

  template <int channels, class F>
  void pack(const F* filters, int64_t out, int64_t in, int64_t ins) const {
    W* const to = weights_.get() + place_of_weights(out, in, ins);
    pack_filters<channels>(filters + out * conv_.in_channels + in, conv_.in_channels, 1, ins, 1, to);
  }

  const Pass<T> pass_;
  const Convolution& conv_;
  const int64_t size_, vectors_;  // of a plane
  const int64_t chunks_, pieces_, parts_;
  Buffer<ColumnTap> taps_;
  Buffer<W> weights_;
};

}  // namespace fastnorm::FASTNORM_ISA
