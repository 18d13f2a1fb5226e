// Each plane of the input, changed monotonically until its numbers are distributed as those of the target's plane. Its
// gradient is that of a copy where nothing was matched, and by sorting the target's.
//
// One read of both maps and one write; between these, all is in cache:
//
//   1. A task is a plane of a target, or in channels_last a line of channels, and all planes that it is for.
//   2. By sorting: numbers become integers of the same order, and these are sorted by their digits from the last on, three
//      passes for float32, two for 16 bits. Then both planes are walked through at once: in units of 1 / (n m), n numbers
//      and m targets have whole widths, and no end of an interval is rounded.
//   3. By bins: least and largest number, the counts of bins, and for each number its bin, its level and the target's bin
//      of that level, which is searched for among those that the number's bin has levels of. In double, in the order of
//      the definition: another last place could be another bin.

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "positions.h"

namespace fastnorm::FASTNORM_ISA {

namespace {

// -- Rows of both maps

// As many channels as a line has, where they lie side by side and there are tasks enough; else as fill a vector.
template <class T>
int64_t channels_of_a_task(const Planes& inputs, const Planes& targets, const Threads& threads) {
  if (!inputs.channels_last && !targets.channels_last) return 1;
  constexpr int64_t line = 64 / sizeof(T);
  const bool enough = targets.samples * ceil_div(targets.channels, line) >= threads.count;
  return smaller(targets.channels, enough ? line : lanes<Wide<T>>);
}

// Some channels of one sample.
template <class T>
class Rows {
 public:
  using W = Wide<T>;

  Rows(const Planes& planes, int64_t channels) : planes_(planes), numbers_(channels * planes.size) {}

  void read(const void* map, int64_t sample, int64_t channel, int64_t end) const {
    Positions<const T>(planes_, map, sample).read(channel, end, 0, planes_.size, 1, numbers_.get(), planes_.size);
  }
  void write(void* map, int64_t sample, int64_t channel, int64_t end) const {
    Positions<T>(planes_, map, sample).write(channel, end, 0, planes_.size, numbers_.get(), planes_.size);
  }
  W* operator[](int64_t i) const { return numbers_.get() + i * planes_.size; }

 private:
  const Planes& planes_;
  const Buffer<W> numbers_;
};

// A row in which NaN stands for what does not count. Without a mask, the row itself.
template <class W>
class Masked {
 public:
  Masked(const PositionMask& mask, int64_t size) : mask_(mask), size_(size), numbers_(mask.data ? size : 0) {}

  const W* operator()(const W* row, int64_t sample) const {
    if (!mask_.data) return row;
    const bool* counts = mask_.data + sample * mask_.sample_stride;
    for (int64_t i = 0; i < size_; ++i) numbers_.get()[i] = counts[i] ? row[i] : std::numeric_limits<W>::quiet_NaN();
    return numbers_.get();
  }

 private:
  const PositionMask mask_;
  const int64_t size_;
  const Buffer<W> numbers_;
};

// -- Sorting

// Integers in the order of the numbers, 0 and -0 the same, of no more bits than the type has.
template <class T>
struct Order {
  using W = Wide<T>;
  using Key = std::conditional_t<sizeof(W) == 8, uint64_t, uint32_t>;

  static constexpr int width = 8 * sizeof(Key);
  static constexpr Key sign = Key(1) << (width - 1);
  // Digits that are 0 in a number of 16 bits.
  static constexpr int dropped = std::is_same_v<T, BFloat16> ? 16 : std::is_same_v<T, Half> ? 13 : 0;
  static constexpr int bits = width - dropped;

  static Key key(W x) {
    const Key k = as<Key>(x + W(0));  // -0 + 0 is 0
    return (k & sign ? ~k : k | sign) >> dropped;
  }
  static W number(Key key) {
    const Key k = key << dropped;
    return as<W>(Key(k & sign ? k ^ sign : ~k >> dropped << dropped));
  }
};

template <class Key>
struct Ranked {
  Key key;
  uint32_t at;
};

inline uint32_t key_of(uint32_t key) { return key; }
inline uint64_t key_of(uint64_t key) { return key; }
template <class Key>
inline Key key_of(const Ranked<Key>& entry) {
  return entry.key;
}

// In either of two places, of which the one with the result is returned.
template <int digit_bits, int bits, class Entry>
Entry* sort_by_digits(Entry* entries, Entry* spare, int64_t count) {
  constexpr int passes = (bits + digit_bits - 1) / digit_bits, digits = 1 << digit_bits;
  uint32_t starts[passes][digits] = {};
  const auto digit = [](const Entry& entry, int pass) {
    return static_cast<uint32_t>(key_of(entry) >> (pass * digit_bits)) & (digits - 1);
  };
  for (int64_t i = 0; i < count; ++i)
    unrolled<passes>([&](int pass) IN_PLACE { ++starts[pass][digit(entries[i], pass)]; });
  for (int pass = 0; pass < passes; ++pass) {
    uint32_t* const start = starts[pass];
    if (start[digit(entries[0], pass)] == count) continue;
    uint32_t before = 0;
    for (int i = 0; i < digits; ++i) before += std::exchange(start[i], before);
    for (int64_t i = 0; i < count; ++i) spare[start[digit(entries[i], pass)]++] = entries[i];
    std::swap(entries, spare);
  }
  return entries;
}

// The numbers of a row that are none of NaN, in order.
template <class T, class Entry>
class Sorted {
 public:
  using W = Wide<T>;

  explicit Sorted(int64_t size) : size_(size), entries_(size), spare_(size) {}

  void sort(const W* row) {
    Entry* const entries = entries_.get();
    int64_t count = 0;
    for (int64_t i = 0; i < size_; ++i) {
      if constexpr (std::is_integral_v<Entry>) entries[count] = Order<T>::key(row[i]);
      else entries[count] = {Order<T>::key(row[i]), static_cast<uint32_t>(i)};
      count += row[i] == row[i];
    }
    count_ = count;
    // Counts of few numbers should be few as well.
    constexpr int bits = Order<T>::bits, large = bits <= 20 ? (bits + 1) / 2 : 11;
    if (count == 0) sorted_ = entries;
    else if (count < 2048) sorted_ = sort_by_digits<8, bits>(entries, spare_.get(), count);
    else sorted_ = sort_by_digits<large, bits>(entries, spare_.get(), count);
  }

  int64_t count() const { return count_; }
  const Entry& operator[](int64_t i) const { return sorted_[i]; }

  // body(first, end) for each group of equal numbers.
  template <class Body>
  void each_group(const Body& body) const {
    for (int64_t first = 0, end; first < count_; first = end) {
      end = first + 1;
      while (end < count_ && key_of(sorted_[end]) == key_of(sorted_[first])) ++end;
      body(first, end);
    }
  }

 private:
  const int64_t size_;
  const Buffer<Entry> entries_, spare_;
  const Entry* sorted_;
  int64_t count_;
};

template <class T>
using SortedKeys = Sorted<T, typename Order<T>::Key>;
template <class T>
using SortedPlaces = Sorted<T, Ranked<typename Order<T>::Key>>;

// Several sums, so that one addition need not wait for another.
template <class W>
double sum_of(const W* numbers, int64_t count) {
  double sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (int j = 0; j < 4; ++j) sums[j] += numbers[i + j];
  for (; i < count; ++i) sums[0] += numbers[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// A walk through targets in order, each of as many units: body(first, end, units of each) for what lies in the next ones, a
// part of a target, whole targets, and a part.
class Walk {
 public:
  explicit Walk(int64_t width) : width_(width), left_(width) {}

  template <class Body>
  IN_PLACE void next(int64_t units, const Body& body) {
    if (units >= left_) {
      body(at_, at_ + 1, left_);
      units -= left_;
      ++at_;
      left_ = width_;
      if (units >= width_) {
        const int64_t whole = units / width_;
        body(at_, at_ + whole, width_);
        units -= whole * width_;
        at_ += whole;
      }
    }
    if (units) body(at_, at_ + 1, units);
    left_ -= units;
  }

 private:
  const int64_t width_;
  int64_t at_ = 0, left_;
};

template <class T>
class BySorting {
 public:
  using W = Wide<T>;

  BySorting(const MatchHistogram& call, int64_t channels)
      : targets_(call.targets.size), numbers_(call.inputs.size), counts_(channels) {}

  // Leaves the target in order, in its row.
  void prepare(const W* numbers, int64_t channel, W* row) {
    targets_.sort(numbers);
    for (int64_t i = 0; i < targets_.count(); ++i) row[i] = Order<T>::number(targets_[i]);
    counts_.get()[channel] = targets_.count();
  }

  void match(const W* numbers, int64_t channel, const W* target, W* output) {
    const int64_t targets = counts_.get()[channel];
    if (!targets) return;
    numbers_.sort(numbers);
    Walk walk(numbers_.count());
    numbers_.each_group([&](int64_t first, int64_t end) IN_PLACE {
      const int64_t units = (end - first) * targets;
      double sum = 0;
      walk.next(units, [&](int64_t from, int64_t to, int64_t each) IN_PLACE {
        sum += sum_of(target + from, to - from) * (static_cast<double>(each) / units);
      });
      const W average = static_cast<W>(sum);
      for (int64_t i = first; i < end; ++i) output[numbers_[i].at] = average;
    });
  }

 private:
  SortedKeys<T> targets_;
  SortedPlaces<T> numbers_;
  const Buffer<int64_t> counts_;
};

// -- Bins

using Doubles = Vector<double>;

inline Doubles load_doubles(const double* p) { return load(p); }
inline Doubles load_doubles(const float* p) {
  return __builtin_convertvector(read<VectorOf<float, lanes<double>>::type>(p), Doubles);
}

// Of the numbers that are finite; 0 where none is.
template <class W>
struct Extent {
  double low, high, width;

  Extent(const W* numbers, int64_t size) {
    constexpr W infinity = std::numeric_limits<W>::infinity();
    Vector<W> lows = broadcast(infinity), highs = -lows;
    int64_t i = 0;
    for (; i + lanes<W> <= size; i += lanes<W>) {
      const Vector<W> x = load(numbers + i), zero = x - x;  // or NaN
      lows = (zero == zero) & (x < lows) ? x : lows;
      highs = (zero == zero) & (x > highs) ? x : highs;
    }
    W least = infinity, largest = -infinity;
    const auto meet = [&](W x) {
      if (std::isfinite(x)) least = x < least ? x : least, largest = x > largest ? x : largest;
    };
    for (int lane = 0; lane < lanes<W>; ++lane) meet(lows[lane]), meet(highs[lane]);
    for (; i < size; ++i) meet(numbers[i]);
    if (least > largest) least = largest = 0;
    low = least;
    high = largest;
    width = high - low;
  }
};

// body(i, position in bins) for each number of a row that is none of NaN.
template <class W, class Body>
IN_PLACE inline void each_position(const W* numbers, int64_t size, const Extent<W>& extent, int64_t bins, const Body& body) {
  const Doubles low = broadcast(extent.low), high = broadcast(extent.high);
  const Doubles width = broadcast(extent.width > 0 ? extent.width : 1.0), scale = broadcast(static_cast<double>(bins));
  constexpr int64_t block = 256;
  alignas(64) double positions[block];
  for (int64_t first = 0; first < size; first += block) {
    const int64_t count = smaller(block, size - first);
    for (int64_t i = 0; i < count; i += lanes<double>) {
      W last[lanes<double>] = {};
      const W* from = numbers + first + i;
      if (count - i < lanes<double>) from = static_cast<W*>(std::memcpy(last, from, (count - i) * sizeof(W)));
      const Doubles x = load_doubles(from);
      store(positions + i, ((x < low ? low : x > high ? high : x) - low) / width * scale);
    }
    for (int64_t i = 0; i < count; ++i)
      if (positions[i] == positions[i]) body(first + i, positions[i]);
  }
}

inline int64_t bin_of(double position, int64_t bins) { return smaller(static_cast<int64_t>(position), bins - 1); }

// What a level is multiplied by before its bin is searched for: one that is a whole number belongs to the bin that ends there,
// though its last places are lost.
constexpr double almost = 1 - 0x1p-49;

template <class T>
class ByBins {
 public:
  using W = Wide<T>;

  ByBins(const MatchHistogram& call, int64_t channels)
      : inputs_(call.inputs.size),
        targets_(call.targets.size),
        bins_(call.bins),
        counts_(bins_),
        upto_(channels * 2 * bins_),
        bins_of_targets_(channels * bins_),
        levels_(bins_ + 1),
        first_(bins_ + 1),
        goals_(channels) {}

  void prepare(const W* numbers, int64_t channel, W*) {
    const Extent<W> extent(numbers, targets_);
    Goal& goal = goals_.get()[channel] = {};
    goal.count = count(numbers, targets_, extent, &goal.mean);
    if (goal.count) goal.mean = extent.low + goal.mean / goal.count * (extent.width / bins_);
    double* const upto = upto_of(channel);
    double total = 0;
    for (int64_t bin = 0; bin < bins_; ++bin) {
      const double in_bin = counts_.get()[bin];
      const double slope = in_bin ? extent.width / bins_ / in_bin : 0;
      bins_of_targets_.get()[channel * bins_ + bin] = {total, extent.low + bin * (extent.width / bins_), slope};
      upto[bin] = total += in_bin;
    }
    // No level is beyond the last bin, whatever its last place.
    std::fill_n(upto + bins_ - 1, bins_ + 1, std::numeric_limits<double>::infinity());
  }

  void match(const W* numbers, int64_t channel, const W*, W* output) {
    const Goal& goal = goals_.get()[channel];
    if (!goal.count) return;
    const Extent<W> extent(numbers, inputs_);
    if (extent.width == 0) {
      for (int64_t i = 0; i < inputs_; ++i)
        if (numbers[i] == numbers[i]) output[i] = static_cast<W>(goal.mean);
      return;
    }
    const double total = count(numbers, inputs_, extent, nullptr), targets = goal.count;
    const double* const upto = upto_of(channel);
    double* const levels = levels_.get();
    int32_t* const first = first_.get();
    double below = 0;
    int64_t farthest = 0;
    for (int64_t bin = 0, at = 0; bin <= bins_; ++bin) {
      levels[bin] = below * targets / total;
      while (upto[at] < levels[bin] * almost) ++at;
      first[bin] = at;
      if (bin > 0) farthest = larger(farthest, at - first[bin - 1]);
      if (bin < bins_) below += counts_.get()[bin];
    }
    int64_t longest = 1;
    while (2 * longest <= farthest) longest *= 2;
    const Bin* const bins = bins_of_targets_.get() + channel * bins_;
    each_position(numbers, inputs_, extent, bins_, [&](int64_t i, double position) IN_PLACE {
      const int64_t bin = bin_of(position, bins_);
      const double level = levels[bin] + (levels[bin + 1] - levels[bin]) * (position - bin);
      // A search without branches, which nothing would foresee.
      int64_t at = first[bin];
      const double least = level * almost;
      for (int64_t step = longest; step; step >>= 1) at += step & -static_cast<int64_t>(upto[at + step - 1] < least);
      output[i] = static_cast<W>(bins[at].low + (level - bins[at].below) * bins[at].slope);
    });
  }

 private:
  struct Goal {
    int64_t count;
    double mean;
  };
  // Of a target: how many numbers lie below it, where it begins, and how wide each of its numbers is.
  struct Bin {
    double below, low, slope;
  };

  // With as many infinities behind, for a search that looks too far.
  double* upto_of(int64_t channel) const { return upto_.get() + channel * 2 * bins_; }

  // How many numbers there are, and in each bin; and the sum of their positions, if it is asked for.
  int64_t count(const W* numbers, int64_t size, const Extent<W>& extent, double* sum) {
    uint32_t* const counts = counts_.get();
    std::memset(counts, 0, bins_ * sizeof(uint32_t));
    int64_t count = 0;
    each_position(numbers, size, extent, bins_, [&](int64_t, double position) IN_PLACE {
      ++counts[bin_of(position, bins_)];
      ++count;
      if (sum) *sum += position;
    });
    return count;
  }

  const int64_t inputs_, targets_, bins_;
  const Buffer<uint32_t> counts_;
  const Buffer<double> upto_;
  const Buffer<Bin> bins_of_targets_;
  const Buffer<double> levels_;
  const Buffer<int32_t> first_;
  const Buffer<Goal> goals_;
};

// -- Maps

// Worker(call, channels), of each thread its own, does (sample of the target, channel, end) for each task.
template <class T, class Worker, class Call>
void each_target(const Call& call, const Threads& threads) {
  const Planes& targets = call.targets;
  const int64_t channels = channels_of_a_task<T>(call.inputs, targets, threads);
  if (channels == 0) return;
  const int64_t blocks = ceil_div(targets.channels, channels);
  const int64_t matched = call.inputs.samples / larger(1, targets.samples) * call.inputs.size;
  constexpr int64_t passes = 16;
  const int64_t work = channels * (matched + targets.size) * passes;
  parallel_parts(threads, targets.samples * blocks, work, [&](int64_t first, int64_t last) {
    Worker worker(call, channels);
    for (int64_t task = first; task < last; ++task) {
      const int64_t channel = task % blocks * channels;
      worker(task / blocks, channel, smaller(channel + channels, targets.channels));
    }
  });
}

template <class T, class Way>
class Matching {
 public:
  Matching(const MatchHistogram& call, int64_t channels)
      : call_(call),
        targets_(call.targets, channels),
        inputs_(call.inputs, channels),
        target_mask_(call.target_mask, call.targets.size),
        input_mask_(call.input_mask, call.inputs.size),
        way_(call, channels) {}

  void operator()(int64_t sample, int64_t channel, int64_t end) {
    targets_.read(call_.target, sample, channel, end);
    for (int64_t c = 0; c < end - channel; ++c) way_.prepare(target_mask_(targets_[c], sample), c, targets_[c]);
    for (int64_t n = sample; n < call_.inputs.samples; n += call_.targets.samples) {
      inputs_.read(call_.input, n, channel, end);
      for (int64_t c = 0; c < end - channel; ++c) way_.match(input_mask_(inputs_[c], n), c, targets_[c], inputs_[c]);
      inputs_.write(call_.output, n, channel, end);
    }
  }

 private:
  const MatchHistogram& call_;
  const Rows<T> targets_, inputs_;
  const Masked<Wide<T>> target_mask_, input_mask_;
  Way way_;
};

template <class T>
class MatchGradients {
 public:
  using W = Wide<T>;

  MatchGradients(const MatchHistogramBackward& call, int64_t channels)
      : call_(call),
        sorting_(call.grad_target && call.bins == 0),
        targets_(call.targets, channels),
        inputs_(call.inputs, channels),
        grads_(call.inputs, channels),
        target_mask_(call.target_mask, call.targets.size),
        input_mask_(call.input_mask, call.inputs.size),
        target_places_(call.targets.size),
        places_(call.inputs.size),
        counts_(channels),
        order_(channels * call.targets.size),
        sums_(channels * call.targets.size) {}

  void operator()(int64_t sample, int64_t channel, int64_t end) {
    targets_.read(call_.target, sample, channel, end);
    for (int64_t c = 0; c < end - channel; ++c) prepare(target_mask_(targets_[c], sample), c);
    for (int64_t n = sample; n < call_.inputs.samples; n += call_.targets.samples) {
      inputs_.read(call_.input, n, channel, end);
      grads_.read(call_.grad, n, channel, end);
      for (int64_t c = 0; c < end - channel; ++c)
        if (counts_.get()[c]) pull_back(input_mask_(inputs_[c], n), c, grads_[c]);
      if (call_.grad_input) grads_.write(call_.grad_input, n, channel, end);
    }
    if (!call_.grad_target) return;
    for (int64_t c = 0; c < end - channel; ++c) finish(c, targets_[c]);
    targets_.write(call_.grad_target, sample, channel, end);
  }

 private:
  void prepare(const W* numbers, int64_t channel) {
    const int64_t size = call_.targets.size;
    if (!sorting_) {
      counts_.get()[channel] = std::count_if(numbers, numbers + size, [](W x) { return x == x; });
      return;
    }
    target_places_.sort(numbers);
    counts_.get()[channel] = target_places_.count();
    for (int64_t i = 0; i < target_places_.count(); ++i) order_.get()[channel * size + i] = target_places_[i].at;
    std::memset(sums_.get() + channel * size, 0, size * sizeof(double));
  }

  // Of what is matched the input has no gradient, and each target that has a part in it gets its share.
  void pull_back(const W* numbers, int64_t channel, W* grad) {
    const int64_t targets = counts_.get()[channel];
    double* const sums = sums_.get() + channel * call_.targets.size;
    if (sorting_) {
      places_.sort(numbers);
      Walk walk(places_.count());
      places_.each_group([&](int64_t first, int64_t end) IN_PLACE {
        const int64_t units = (end - first) * targets;
        double sum = 0;
        for (int64_t i = first; i < end; ++i) sum += grad[places_[i].at];
        walk.next(units, [&](int64_t from, int64_t to, int64_t each) IN_PLACE {
          const double share = static_cast<double>(each) / units;
          for (int64_t j = from; j < to; ++j) sums[j] += sum * share;
        });
      });
    }
    for (int64_t i = 0; i < call_.inputs.size; ++i)
      if (numbers[i] == numbers[i]) grad[i] = 0;
  }

  void finish(int64_t channel, W* row) const {
    const int64_t size = call_.targets.size;
    std::fill_n(row, size, W(0));
    if (!sorting_) return;
    for (int64_t i = 0; i < counts_.get()[channel]; ++i)
      row[order_.get()[channel * size + i]] = static_cast<W>(sums_.get()[channel * size + i]);
  }

  const MatchHistogramBackward& call_;
  const bool sorting_;
  const Rows<T> targets_, inputs_, grads_;
  const Masked<W> target_mask_, input_mask_;
  SortedPlaces<T> target_places_, places_;
  const Buffer<int64_t> counts_;
  const Buffer<uint32_t> order_;
  const Buffer<double> sums_;
};

}  // namespace

void match_histogram(const MatchHistogram& call, const Threads& threads) {
  with_element(call.inputs.element, [&](auto example) {
    using T = decltype(example);
    if (call.bins) each_target<T, Matching<T, ByBins<T>>>(call, threads);
    else each_target<T, Matching<T, BySorting<T>>>(call, threads);
  });
}

void match_histogram_backward(const MatchHistogramBackward& call, const Threads& threads) {
  with_element(call.inputs.element, [&](auto example) {
    using T = decltype(example);
    each_target<T, MatchGradients<T>>(call, threads);
  });
}

}  // namespace fastnorm::FASTNORM_ISA
