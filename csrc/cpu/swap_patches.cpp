// output = the average, at each pixel, of the patches that cover it, each taken from where an index says; and its backward,
// which puts shares of the gradient back to where the patches were.
//
// Both add k * k pixels of one map to another, for each patch. A task is a vector of channels: lanes, in maps of which each
// pixel is a vector, so that nothing but addresses depends on the index; nobody else writes there, and the order of the sums
// is that of the patches.

#include "lanes.h"
#include "patches.h"

namespace fastnorm::FASTNORM_ISA {

namespace {

// A vector of channels, `count` of them, of one sample: as it lies in memory, and as pixels that are vectors.
template <class T>
struct Block {
  using W = Wide<T>;

  int64_t channels, size;
  bool channels_last;
  int count;

  Block(const Planes& planes, int64_t channel)
      : channels(planes.channels),
        size(planes.size),
        channels_last(planes.channels_last),
        count(static_cast<int>(smaller(lanes<W>, planes.channels - channel))) {}

  // Where it begins.
  int64_t at(int64_t sample, int64_t channel) const {
    return sample * channels * size + (channels_last ? channel : channel * size);
  }

  void read(const T* from, W* pixels) const {
    if (channels_last) {
      for (int64_t i = 0; i < size; ++i) store(pixels + i * lanes<W>, load_part(from + i * channels, count));
      return;
    }
    for (int64_t i = 0; i < size; i += lanes<W>) {
      const int length = static_cast<int>(smaller(lanes<W>, size - i));
      Vector<W> square[lanes<W>] = {};
      for (int c = 0; c < count; ++c) square[c] = load_part(from + c * size + i, length);
      transpose<W>(square);
      for (int j = 0; j < length; ++j) store(pixels + (i + j) * lanes<W>, square[j]);
    }
  }

  void write(T* to, const W* pixels) const {
    if (channels_last) {
      for (int64_t i = 0; i < size; ++i) store_part(to + i * channels, load(pixels + i * lanes<W>), count);
      return;
    }
    for (int64_t i = 0; i < size; i += lanes<W>) {
      const int length = static_cast<int>(smaller(lanes<W>, size - i));
      Vector<W> square[lanes<W>] = {};
      for (int j = 0; j < length; ++j) square[j] = load(pixels + (i + j) * lanes<W>);
      transpose<W>(square);
      for (int c = 0; c < count; ++c) store_part(to + c * size + i, square[c], length);
    }
  }

 private:
  // Most parts are whole.
  static Vector<W> load_part(const T* p, int part) { return part == lanes<W> ? load(p) : load(p, part); }
  static void store_part(T* p, Vector<W> v, int part) { part == lanes<W> ? store(p, v) : store(p, v, part); }
};

// Of each pixel, among how many patches it is divided.
template <class W>
void find_shares(const Patches& patches, W* shares) {
  const auto times = [&](int64_t pixel, int64_t count) {
    const int64_t last = smaller(pixel / patches.stride, count - 1);
    const int64_t before = pixel < patches.size ? -1 : (pixel - patches.size) / patches.stride;
    return larger(0, last - before);
  };
  for (int64_t y = 0; y < patches.height; ++y)
    for (int64_t x = 0; x < patches.width; ++x)
      shares[y * patches.width + x] = static_cast<W>(larger(1, times(y, patches.rows) * times(x, patches.columns)));
}

template <class W>
void divide(W* pixels, const W* shares, int64_t size) {
  for (int64_t i = 0; i < size; ++i) store(pixels + i * lanes<W>, load(pixels + i * lanes<W>) / broadcast(shares[i]));
}

template <class W>
void add_patch(const W* from, int64_t from_width, W* to, int64_t to_width, int64_t patch_size) {
  for (int64_t y = 0; y < patch_size; ++y)
    for (int64_t x = 0; x < patch_size; ++x) {
      W* p = to + (y * to_width + x) * lanes<W>;
      store(p, load(p) + load(from + (y * from_width + x) * lanes<W>));
    }
}

template <class T>
void swap_patches_of(const SwapPatches& call, const Threads& threads) {
  using W = Wide<T>;
  const Patches style(call.styles, call.style_width, call.patch_size, call.stride);
  const Patches swapped(call.swapped, call.swapped_width, call.patch_size, call.stride);
  const Planes &from = call.forward ? call.styles : call.swapped, &to = call.forward ? call.swapped : call.styles;
  const int64_t samples = from.samples, blocks = ceil_div(from.channels, lanes<W>), patches = swapped.count();
  const Buffer<W> shares(call.swapped.size);
  find_shares(swapped, shares.get());
  const Buffer<int64_t> at(samples * patches), taken_from(samples * patches);
  for (int64_t i = 0; i < samples * patches; ++i) {
    at.get()[i] = swapped.position(i % patches);
    taken_from.get()[i] = style.position(call.index[i]);
  }
  const int64_t work = (from.size + to.size + patches * call.patch_size * call.patch_size) * lanes<W>;
  parallel_parts(threads, samples * blocks, work, [&](int64_t first, int64_t last) {
    const Buffer<W> source(from.size * lanes<W>), sums(to.size * lanes<W>);
    for (int64_t task = first; task < last; ++task) {
      const int64_t sample = task / blocks, channel = task % blocks * lanes<W>;
      const Block<T> in(from, channel), out(to, channel);
      in.read(static_cast<const T*>(call.input) + in.at(sample, channel), source.get());
      if (!call.forward) divide(source.get(), shares.get(), from.size);
      __builtin_memset(sums.get(), 0, to.size * lanes<W> * sizeof(W));
      for (int64_t i = sample * patches; i < (sample + 1) * patches; ++i) {
        const int64_t here = at.get()[i] * lanes<W>, there = taken_from.get()[i] * lanes<W>;
        if (call.forward) add_patch(source.get() + there, style.width, sums.get() + here, swapped.width, call.patch_size);
        else add_patch(source.get() + here, swapped.width, sums.get() + there, style.width, call.patch_size);
      }
      if (call.forward) divide(sums.get(), shares.get(), to.size);
      out.write(static_cast<T*>(call.output) + out.at(sample, channel), sums.get());
    }
  });
}

}  // namespace

void swap_patches(const SwapPatches& call, const Threads& threads) {
  with_element(call.styles.element, [&](auto element) { swap_patches_of<decltype(element)>(call, threads); });
}

}  // namespace fastnorm::FASTNORM_ISA
