// weight[k, q] = softmax over k of scale * sum over c of key[c, k] * query[c, q]
// mean[d, q]   = sum over k of weight[k, q] * value[d, k], and std of the same weights.
//
// For each pair of a query and a key 2 * (C + 2 * D) flops; bytes are those of the maps, and of keys and values once more for
// each block of queries.
//
//   1. Keys and centred values are packed once, in blocks of keys, in the order in which tiles of registers read them.
//   2. A task is a block of queries, a few panels, each of three vectors of them. Queries are lanes: the largest score, the
//      sum of weights and what both do to earlier keys are numbers of a lane, and no vector is ever summed up.
//   3. For one block of keys after the other, and each panel: scores, a product; weights, in place; sums, two products, of
//      values and of their squares. Scores stay in L1, the block's keys and values in L2, past which queries and sums go.

#include <limits>

#include "attention.h"

namespace fastnorm::FASTNORM_ISA {

namespace {

// Queries of a task, about: the more, the less often keys and values are brought to L2, and the fewer tasks.
constexpr int64_t queries_of_a_task = 384;

// Queries of a block by keys of a block, whatever the maps' type.
template <class W>
class Attention {
 public:
  static constexpr int64_t panel = Products<W>::panel, panels_of_a_task = queries_of_a_task / panel;

  Attention(const AttentionStats& call)
      : channels_(call.queries.channels),
        value_channels_(call.values.channels),
        keys_(call.keys.size),
        rows_(call.std ? 2 * value_channels_ : value_channels_) {}

  bool has_squares() const { return rows_ > value_channels_; }
  int64_t blocks() const { return ceil_div(keys_, keys_of_a_block); }
  int64_t keys_in(int64_t block) const { return smaller(keys_of_a_block, keys_ - block * keys_of_a_block); }
  int64_t packed_size() const { return (channels_ + value_channels_) * keys_; }  // of a sample
  template <class E>
  E* keys_of(E* packed, int64_t block) const {
    return packed + block * keys_of_a_block * (channels_ + value_channels_);
  }
  template <class E>
  E* values_of(E* packed, int64_t block) const {
    return keys_of(packed, block) + channels_ * keys_in(block);
  }

  struct Workspace {
    Buffer<W> queries, scores, squares, sums, largest, total;

    explicit Workspace(const Attention& of)
        : queries(panels_of_a_task * of.channels_ * panel),
          scores(keys_of_a_block * panel),
          squares(of.value_channels_ * keys_of_a_block),
          sums(panels_of_a_task * of.rows_ * panel),
          largest(panels_of_a_task * panel),
          total(panels_of_a_task * panel) {}
  };

  W* queries_of(const Workspace& space, int64_t p) const { return space.queries.get() + p * channels_ * panel; }
  W* sums_of(const Workspace& space, int64_t p) const { return space.sums.get() + p * rows_ * panel; }

  // All keys' weighted sums for queries that are in the workspace: not divided by the total of the weights.
  void attend(const W* packed, int64_t panels, const Workspace& space) const {
    for (int64_t block = 0; block < blocks(); ++block) {
      const int64_t count = keys_in(block);
      const W *keys = keys_of(packed, block), *values = values_of(packed, block);
      W* squares = space.squares.get();
      if (has_squares())
        for_each_vector<W>(0, value_channels_ * count, [&](int64_t i, auto part) {
          const Vector<W> x = load(values + i, part);
          store(squares + i, x * x, part);
        });
      for (int64_t p = 0; p < panels; ++p) {
        W *scores = space.scores.get(), *sums = sums_of(space, p);
        products_.multiply(keys, count, queries_of(space, p), channels_, true, scores);
        const Numbers numbers = {space.largest.get() + p * panel, space.total.get() + p * panel};
        weigh(scores, count, numbers, sums, block == 0);
        products_.multiply(values, value_channels_, scores, count, block == 0, sums);
        if (has_squares())
          products_.multiply(squares, value_channels_, scores, count, block == 0, sums + value_channels_ * panel);
      }
    }
  }

  // From sums to the mean and the deviation, in place.
  void finish(int64_t p, const W* centre, double min_var, const Workspace& space) const {
    W* sums = sums_of(space, p);
    const W* total = space.total.get() + p * panel;
    // The same number as where the backward looks for it.
    const Vector<W> least = broadcast(static_cast<W>(min_var)), root = broadcast(static_cast<W>(std::sqrt(min_var)));
    for (int64_t i = 0; i < panel; i += lanes<W>) {
      const Vector<W> share = 1 / load(total + i);
      for (int64_t d = 0; d < value_channels_; ++d) {
        W *first = sums + d * panel + i, *second = first + value_channels_ * panel;
        const Vector<W> mean = load(first) * share;
        store(first, mean + broadcast(centre[d]));
        if (!has_squares()) continue;
        const Vector<W> var = load(second) * share - mean * mean;
        store(second, var <= least ? root : square_root(var));
      }
    }
  }

 private:
  static constexpr int panel_vectors = Products<W>::vectors;

  // Of each lane of a panel: the largest score so far, and the sum of weights by it.
  struct Numbers {
    W *largest, *total;
  };

  // From scores to weights, and what is there already to the new largest score.
  void weigh(W* scores, int64_t count, const Numbers& numbers, W* sums, bool first) const {
    const Vector<W> none = broadcast(-std::numeric_limits<W>::infinity());
    Vector<W> before[panel_vectors], largest[panel_vectors], shift[panel_vectors], total[panel_vectors] = {};
    const auto each = [](const auto& body) IN_PLACE {
      unrolled<panel_vectors>([&](int v) IN_PLACE { body(v, v * lanes<W>); });
    };
    each([&](int v, int64_t i) IN_PLACE { largest[v] = before[v] = first ? none : load(numbers.largest + i); });
    for (const W* row = scores; row != scores + count * panel; row += panel)
      each([&](int v, int64_t i) IN_PLACE { largest[v] = load(row + i) > largest[v] ? load(row + i) : largest[v]; });
    // Where no key has any weight yet, any number will do.
    each([&](int v, int64_t) IN_PLACE { shift[v] = largest[v] > none ? largest[v] : Vector<W>{}; });
    for (W* row = scores; row != scores + count * panel; row += panel)
      each([&](int v, int64_t i) IN_PLACE {
        const Vector<W> weight = exp_in_place(load(row + i) - shift[v]);
        total[v] += weight;
        store(row + i, weight);
      });
    each([&](int v, int64_t i) IN_PLACE {
      store(numbers.largest + i, largest[v]);
      if (first) return store(numbers.total + i, total[v]);
      const Vector<W> fading = exp(before[v] - shift[v]);
      store(numbers.total + i, load(numbers.total + i) * fading + total[v]);
      if (all_same<W>(before[v], largest[v])) return;
      for (int64_t row = 0; row < rows_; ++row) store(sums + row * panel + i, load(sums + row * panel + i) * fading);
    });
  }

  static Vector<W> square_root(Vector<W> v) {
    for (int i = 0; i < lanes<W>; ++i) v[i] = std::sqrt(v[i]);
    return v;
  }

  const int64_t channels_, value_channels_, keys_, rows_;
  const Products<W> products_;
};

template <class T>
void pack_block(
    const Attention<Wide<T>>& attention, const AttentionStats& call, int64_t sample, int64_t block, const Wide<T>* centre,
    Wide<T>* packed) {
  using W = Wide<T>;
  const int64_t first = block * keys_of_a_block, count = attention.keys_in(block);
  const Buffer<W> rows(larger(call.keys.channels, call.values.channels) * keys_of_a_block);
  const Positions<const T> keys(call.keys, call.key, sample);
  keys.read(0, keys.channels, first, count, 1, rows.get(), keys_of_a_block);
  Products<W>::pack_columns(rows.get(), keys_of_a_block, count, keys.channels, attention.keys_of(packed, block));
  const Positions<const T> values(call.values, call.value, sample);
  read_centred(values, first, count, centre, rows.get(), keys_of_a_block);
  Products<W>::pack_rows(rows.get(), keys_of_a_block, values.channels, count, 0, count, attention.values_of(packed, block));
}

template <class T>
void attend_block(
    const Attention<Wide<T>>& attention, const AttentionStats& call, int64_t sample, int64_t first, int64_t end,
    const Wide<T>* packed, const Wide<T>* centre, const typename Attention<Wide<T>>::Workspace& space) {
  using W = Wide<T>;
  constexpr int64_t panel = Attention<W>::panel;
  const Positions<const T> queries(call.queries, call.query, sample);
  const int64_t panels = ceil_div(end - first, panel);
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t count = smaller(panel, end - first - p * panel);
    W* rows = attention.queries_of(space, p);
    if (count < panel) __builtin_memset(rows, 0, queries.channels * panel * sizeof(W));
    queries.read(0, queries.channels, first + p * panel, count, static_cast<W>(call.scale), rows, panel);
  }
  attention.attend(packed, panels, space);

  Planes results = call.values;
  results.size = call.queries.size;
  results.channels_last = call.queries.channels_last;
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t at = first + p * panel, count = smaller(panel, end - at);
    attention.finish(p, centre, call.min_var, space);
    const W* rows = attention.sums_of(space, p);
    Positions<W>(results, call.mean, sample).write(at, count, rows, panel);
    if (call.std) Positions<W>(results, call.std, sample).write(at, count, rows + results.channels * panel, panel);
  }
}

template <class T>
void attention_stats_of(const AttentionStats& call, const Threads& threads) {
  using W = Wide<T>;
  const Attention<W> attention(call);
  const int64_t samples = call.queries.samples, value_channels = call.values.channels, size = attention.packed_size();
  const Buffer<W> centre(samples * value_channels);
  parallel(threads, samples, value_channels, [&](int64_t sample) {
    find_centres<T>({call.values, call.value, sample}, centre.get() + sample * value_channels);
  });
  const int64_t at_a_time = larger(1, smaller(samples, packed_bytes / larger(1, size * int64_t(sizeof(W)))));
  const Buffer<W> packed(at_a_time * size);
  constexpr int64_t panel = Attention<W>::panel;
  if (call.queries.size == 0) return;
  const int64_t panels = ceil_div(call.queries.size, panel), least_parts = ceil_div(panels, Attention<W>::panels_of_a_task);
  // As many for every thread.
  const int64_t parts = smaller(panels, ceil_div(least_parts, threads.count) * threads.count);
  for (int64_t from = 0; from < samples; from += at_a_time) {
    const int64_t some = smaller(at_a_time, samples - from);
    const int64_t tasks = some * parts;
    const auto packed_of = [&](int64_t sample) { return packed.get() + (sample - from) * size; };
    const auto centre_of = [&](int64_t sample) { return centre.get() + sample * value_channels; };
    parallel(threads, some * attention.blocks(), size / attention.blocks(), [&](int64_t task) {
      const int64_t sample = from + task / attention.blocks();
      pack_block<T>(attention, call, sample, task % attention.blocks(), centre_of(sample), packed_of(sample));
    });
    parallel_parts(threads, tasks, panels / parts * size, [&](int64_t first, int64_t last) {
      const typename Attention<W>::Workspace space(attention);
      for (int64_t task = first; task < last; ++task) {
        const int64_t sample = from + task / parts, part = task % parts;
        const auto position = [&](int64_t p) { return smaller(call.queries.size, p * panels / parts * panel); };
        attend_block<T>(
            attention, call, sample, position(part), position(part + 1), packed_of(sample), centre_of(sample), space);
      }
    });
  }
}

}  // namespace

void attention_stats(const AttentionStats& call, const Threads& threads) {
  with_element(call.queries.element, [&](auto element) { attention_stats_of<decltype(element)>(call, threads); });
}

}  // namespace fastnorm::FASTNORM_ISA
