// With x the centred values, g = grad_std / (2 std), u = grad_mean - 2 mean g, and weights as attention_stats.cpp has them:
//
//   slope[k, q]      = sum over d of x[d, k] u[d, q] + x[d, k]^2 g[d, q]
//   grad_score[k, q] = weight[k, q] * (slope[k, q] - sum over k of weight[k, q] slope[k, q])
//   grad_query[c, q] = scale * sum over k of grad_score[k, q] key[c, k], and grad_key of queries likewise
//   grad_value[d, k] = sum over q of weight[k, q] (u[d, q] + 2 x[d, k] g[d, q])
//
// For each pair of a query and a key 2 * (3 C + 4 D) flops; bytes are those of the maps, and of weights and slopes, written
// and read twice where they do not fit in caches.
//
//   1. Keys and centred values are packed once, in the two orders in which products read them.
//   2. Some queries at a time, as many as have few enough weights. A task is a block of them by all keys, queries as lanes:
//      scores and slopes, weights and gradients of scores, gradients of queries. What queries and u bring to keys is packed.
//   3. Then a task is a block of keys by those queries, keys as lanes, of weights and gradients of scores that are transposed
//      on their way: gradients of keys and values, which add up from one step to the next. No two tasks write to one place.

#include <limits>

#include "attention.h"

namespace fastnorm::FASTNORM_ISA {

namespace {

constexpr int64_t queries_of_a_block = 96;
// Queries that are summed in one piece: of a million, added block by block, gradients would lose two digits.
constexpr int64_t queries_of_a_sum = 32 * queries_of_a_block;
// Weights that are held at a time.
constexpr int64_t most_weights = int64_t(1) << 21;

template <class T>
class Backward {
  using W = Wide<T>;
  using P = Products<W>;
  static constexpr int64_t panel = P::panel;

 public:
  Backward(const AttentionStatsBackward& call, const Threads& threads)
      : call_(call),
        threads_(threads),
        samples_(call.queries.samples),
        queries_(call.queries.size),
        keys_(call.keys.size),
        channels_(call.queries.channels),
        value_channels_(call.values.channels),
        rows_(call.grad_std ? 2 * value_channels_ : value_channels_),
        at_a_time_(queries_at_a_time(queries_, keys_)),
        samples_at_a_time_(larger(1, smaller(samples_, packed_bytes / larger(1, size() * int64_t(sizeof(W)))))),
        centre_(samples_ * value_channels_),
        packed_keys_(samples_at_a_time_ * packed_keys()),
        packed_queries_(samples_at_a_time_ * packed_queries()),
        weights_(samples_at_a_time_ * weights()),
        slopes_(samples_at_a_time_ * weights()),
        sums_(samples_at_a_time_ * sums()) {}

  void run() const {
    parallel(threads_, samples_, value_channels_, [&](int64_t sample) { find_centres<T>(values(sample), centre(sample)); });
    for (int64_t from = 0; from < samples_; from += samples_at_a_time_) {
      const int64_t count = smaller(samples_at_a_time_, samples_ - from);
      const auto each_block = [&](int64_t blocks, int64_t cost, const auto& body) {
        parallel(threads_, count * blocks, cost, [&](int64_t task) { body(Slot{from, task / blocks}, task % blocks); });
      };
      const int64_t key_blocks = ceil_div(keys_, keys_of_a_block);
      each_block(key_blocks, packed_keys() / key_blocks, [&](Slot slot, int64_t block) { pack(slot, block); });
      for (int64_t first = 0; first < queries_; first += at_a_time_) {
        const int64_t end = smaller(queries_, first + at_a_time_);
        const int64_t query_blocks = ceil_div(end - first, queries_of_a_block);
        const int64_t cost = queries_of_a_block * keys_of_a_block * (channels_ + rows_);
        each_block(query_blocks, key_blocks * cost, [&](Slot slot, int64_t block) { meet_keys(slot, first, end, block); });
        each_block(key_blocks, query_blocks * cost, [&](Slot slot, int64_t block) { meet_queries(slot, first, end, block); });
      }
      if (queries_ == 0)
        each_block(key_blocks, keys_of_a_block, [&](Slot slot, int64_t block) { write_nothing(slot, block); });
    }
  }

 private:
  // Where a sample's numbers are: in the buffers, of as many samples as are worked on at a time.
  struct Slot {
    int64_t from, index;

    int64_t sample() const { return from + index; }
  };

  static int64_t queries_at_a_time(int64_t queries, int64_t keys) {
    const int64_t most = larger(panel, most_weights / larger(1, keys));
    const int64_t step = most < queries_of_a_block ? panel : queries_of_a_block;
    return smaller(ceil_div(queries, panel) * panel, most / step * step);
  }

  // Numbers of a sample in each of the buffers.
  int64_t packed_keys() const { return (2 * channels_ + rows_) * keys_; }
  int64_t packed_queries() const { return (channels_ + rows_) * at_a_time_; }
  int64_t weights() const { return at_a_time_ * keys_; }
  int64_t sums() const { return (channels_ + rows_) * ceil_div(keys_, panel) * panel; }
  int64_t size() const { return packed_keys() + packed_queries() + 2 * weights() + sums(); }

  Positions<const T> queries(int64_t sample) const { return {call_.queries, call_.query, sample}; }
  Positions<const T> keys(int64_t sample) const { return {call_.keys, call_.key, sample}; }
  Positions<const T> values(int64_t sample) const { return {call_.values, call_.value, sample}; }
  Positions<const W> result(const void* map, int64_t sample) const { return {call_.results, map, sample}; }
  W* centre(int64_t sample) const { return centre_.get() + sample * value_channels_; }

  int64_t keys_in(int64_t block) const { return smaller(keys_of_a_block, keys_ - block * keys_of_a_block); }

  // A block of keys: as weights of scores, values and their squares as those of slopes, and as weights of queries' gradients.
  struct Keys {
    W *of_scores, *of_slopes, *of_queries;
  };
  Keys keys_of(Slot slot, int64_t block) const {
    W* scores = packed_keys_.get() + slot.index * packed_keys() + block * keys_of_a_block * (2 * channels_ + rows_);
    W* slopes = scores + channels_ * keys_in(block);
    return {scores, slopes, slopes + rows_ * keys_in(block)};
  }

  // A block of queries, as weights of keys' gradients; u and g, as those of values'.
  struct Queries {
    W *of_keys, *of_values;
  };
  Queries queries_of(Slot slot, int64_t block, int64_t count) const {
    W* first = packed_queries_.get() + slot.index * packed_queries() + block * queries_of_a_block * (channels_ + rows_);
    return {first, first + channels_ * count};
  }

  // Of a panel of queries, (keys, panel).
  W* weights_of(const Buffer<W>& buffer, Slot slot, int64_t first) const {
    return buffer.get() + slot.index * weights() + first * keys_;
  }

  // Of a panel of keys, (channels and rows, panel).
  W* sums_of(Slot slot, int64_t first) const {
    return sums_.get() + slot.index * sums() + first * (channels_ + rows_);
  }

  void pack(Slot slot, int64_t block) const {
    const int64_t first = block * keys_of_a_block, count = keys_in(block), stride = keys_of_a_block;
    const Keys packed = keys_of(slot, block);
    const Buffer<W> buffer(larger(channels_, rows_) * stride);
    W* rows = buffer.get();
    keys(slot.sample()).read(0, channels_, first, count, 1, rows, stride);
    P::pack_columns(rows, stride, count, channels_, packed.of_scores);
    P::pack_rows(rows, stride, channels_, count, 0, count, packed.of_queries);
    read_centred(values(slot.sample()), first, count, centre(slot.sample()), rows, stride);
    for (int64_t row = value_channels_; row < rows_; ++row)
      for_each_vector<W>(0, count, [&](int64_t i, auto part) {
        const Vector<W> x = load(rows + (row - value_channels_) * stride + i, part);
        store(rows + row * stride + i, x * x, part);
      });
    P::pack_columns(rows, stride, count, rows_, packed.of_slopes);
  }

  void meet_keys(Slot slot, int64_t part, int64_t part_end, int64_t block) const {
    const int64_t first = part + block * queries_of_a_block, end = smaller(part_end, first + queries_of_a_block);
    const int64_t panels = ceil_div(end - first, panel), blocks = ceil_div(keys_, keys_of_a_block);
    const Queries packed = queries_of(slot, block, end - first);
    const Buffer<W> queries_buffer(panels * channels_ * panel), gradients_buffer(panels * rows_ * panel);
    const auto queries_at = [&](int64_t p) { return queries_buffer.get() + p * channels_ * panel; };
    const auto gradients_at = [&](int64_t p) { return gradients_buffer.get() + p * rows_ * panel; };
    const auto at = [&](const Buffer<W>& buffer, int64_t p) {
      return weights_of(buffer, slot, block * queries_of_a_block + p * panel);
    };

    for (int64_t p = 0; p < panels; ++p) {
      const int64_t from = first + p * panel, count = smaller(panel, end - from);
      read_panel(queries(slot.sample()), from, count, call_.scale, queries_at(p));
      read_gradients(slot.sample(), from, count, gradients_at(p));
      P::pack_rows(queries_at(p), panel, channels_, count, p * panel, end - first, packed.of_keys);
      P::pack_rows(gradients_at(p), panel, rows_, count, p * panel, end - first, packed.of_values);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      const Keys keys = keys_of(slot, b);
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t row = b * keys_of_a_block * panel;
        products_.multiply(keys.of_scores, keys_in(b), queries_at(p), channels_, true, at(weights_, p) + row);
        products_.multiply(keys.of_slopes, keys_in(b), gradients_at(p), rows_, true, at(slopes_, p) + row);
      }
    }
    for (int64_t p = 0; p < panels; ++p) weigh(at(weights_, p), at(slopes_, p));
    // What a query brought is not needed any more: in its place comes its gradient.
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t p = 0; p < panels; ++p)
        products_.multiply(
            keys_of(slot, b).of_queries, channels_, at(slopes_, p) + b * keys_of_a_block * panel, keys_in(b), b == 0,
            queries_at(p));
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t from = first + p * panel;
      const Vector<W> scale = broadcast(static_cast<W>(call_.scale));
      for (int64_t i = 0; i < channels_ * panel; i += lanes<W>) store(queries_at(p) + i, load(queries_at(p) + i) * scale);
      Positions<T>(call_.queries, call_.grad_query, slot.sample()).write(from, smaller(panel, end - from), queries_at(p), panel);
    }
  }

  template <class E>
  void read_panel(const Positions<const E>& map, int64_t first, int64_t count, double scale, W* rows) const {
    if (count < panel) __builtin_memset(rows, 0, map.channels * panel * sizeof(W));
    map.read(0, map.channels, first, count, static_cast<W>(scale), rows, panel);
  }

  // u, and g where there is a deviation: none of one that was too small.
  void read_gradients(int64_t sample, int64_t first, int64_t count, W* rows) const {
    read_panel(result(call_.grad_mean, sample), first, count, 1, rows);
    if (!call_.grad_std) return;
    const int64_t size = value_channels_ * panel;
    const Buffer<W> means(size), deviations(size);
    read_panel(result(call_.grad_std, sample), first, count, 1, rows + size);
    read_panel(result(call_.mean, sample), first, count, 1, means.get());
    read_panel(result(call_.std, sample), first, count, 1, deviations.get());
    // The same number as the forward wrote.
    const Vector<W> least = broadcast(static_cast<W>(std::sqrt(call_.min_var)));
    for (int64_t d = 0; d < value_channels_; ++d) {
      const Vector<W> less = broadcast(centre(sample)[d]);
      for (int64_t i = d * panel; i < (d + 1) * panel; i += lanes<W>) {
        const Vector<W> std = load(deviations.get() + i), mean = load(means.get() + i) - less;
        const Vector<W> of_square = std <= least ? Vector<W>{} : load(rows + size + i) / (2 * std);
        store(rows + size + i, of_square);
        store(rows + i, load(rows + i) - 2 * mean * of_square);
      }
    }
  }

  // From scores to weights, and from slopes to gradients of scores.
  void weigh(W* weights, W* slopes) const {
    const Vector<W> none = broadcast(-std::numeric_limits<W>::infinity());
    Vector<W> largest[P::vectors], total[P::vectors] = {}, mean[P::vectors] = {};
    const auto each = [](const auto& body) IN_PLACE {
      unrolled<P::vectors>([&](int v) IN_PLACE { body(v, v * lanes<W>); });
    };
    const auto each_key = [&](const auto& body) IN_PLACE {
      for (int64_t row = 0; row < keys_ * panel; row += panel) each([&](int v, int64_t i) IN_PLACE { body(v, row + i); });
    };
    each([&](int v, int64_t) IN_PLACE { largest[v] = none; });
    each_key([&](int v, int64_t i) IN_PLACE { largest[v] = load(weights + i) > largest[v] ? load(weights + i) : largest[v]; });
    // Where no key has any weight, any number will do.
    each([&](int v, int64_t) IN_PLACE { largest[v] = largest[v] > none ? largest[v] : Vector<W>{}; });
    each_key([&](int v, int64_t i) IN_PLACE {
      const Vector<W> weight = exp_in_place(load(weights + i) - largest[v]);
      total[v] += weight;
      mean[v] += weight * load(slopes + i);
      store(weights + i, weight);
    });
    each([&](int v, int64_t) IN_PLACE {
      total[v] = 1 / total[v];
      mean[v] *= total[v];
    });
    each_key([&](int v, int64_t i) IN_PLACE {
      const Vector<W> weight = load(weights + i) * total[v];
      store(weights + i, weight);
      store(slopes + i, weight * (load(slopes + i) - mean[v]));
    });
  }

  void meet_queries(Slot slot, int64_t part, int64_t part_end, int64_t block) const {
    const int64_t first = block * keys_of_a_block, end = first + keys_in(block), size = (channels_ + rows_) * panel;
    const Buffer<W> weights(queries_of_a_block * panel), slopes(queries_of_a_block * panel);
    const Buffer<W> some(ceil_div(end - first, panel) * size);
    for (int64_t from = part; from < part_end; from += queries_of_a_sum) {
      const int64_t until = smaller(part_end, from + queries_of_a_sum);
      for (int64_t query = from; query < until; query += queries_of_a_block) {
        const int64_t count = smaller(queries_of_a_block, until - query);
        const Queries packed = queries_of(slot, (query - part) / queries_of_a_block, count);
        W* sums = some.get();
        for (int64_t key = first; key < end; key += panel, sums += size) {
          transpose_part(weights_of(weights_, slot, query - part), key, count, weights.get());
          transpose_part(weights_of(slopes_, slot, query - part), key, count, slopes.get());
          products_.multiply(packed.of_keys, channels_, slopes.get(), count, query == from, sums);
          products_.multiply(packed.of_values, rows_, weights.get(), count, query == from, sums + channels_ * panel);
        }
      }
      W* sums = sums_of(slot, first);
      for_each_vector<W>(0, ceil_div(end - first, panel) * size, [&](int64_t i, auto) {
        store(sums + i, from == 0 ? load(some.get() + i) : load(sums + i) + load(some.get() + i));
      });
    }
    if (part_end < queries_) return;
    for (int64_t key = first; key < end; key += panel)
      write_keys(slot.sample(), key, smaller(panel, end - key), sums_of(slot, key));
  }

  // (keys, panel) of some panels of queries: of a panel of keys, (queries, panel).
  void transpose_part(const W* from, int64_t key, int64_t count, W* to) const {
    const int64_t length = smaller(panel, keys_ - key);
    for (int64_t query = 0; query < count; query += panel, from += keys_ * panel)
      for_each_square<W>(panel, length, [&](int64_t k, int width, int64_t q, int) {
        Vector<W> square[lanes<W>] = {};
        for (int i = 0; i < width; ++i) square[i] = load(from + (key + k + i) * panel + q);
        transpose<W>(square);
        for (int i = 0; i < lanes<W>; ++i) store(to + (query + q + i) * panel + k, square[i]);
      });
  }

  void write_keys(int64_t sample, int64_t first, int64_t count, W* sums) const {
    Positions<T>(call_.keys, call_.grad_key, sample).write(first, count, sums, panel);
    W* of_values = sums + channels_ * panel;
    if (rows_ > value_channels_) {
      const int64_t size = value_channels_ * panel;
      const Buffer<W> rows(size);
      read_centred(values(sample), first, count, centre(sample), rows.get(), panel);
      for (int64_t d = 0; d < value_channels_; ++d)
        for_each_vector<W>(d * panel, d * panel + count, [&](int64_t i, auto part) {
          const Vector<W> x = load(rows.get() + i, part);
          store(of_values + i, load(of_values + i, part) + 2 * x * load(of_values + size + i, part), part);
        });
    }
    Positions<T>(call_.values, call_.grad_value, sample).write(first, count, of_values, panel);
  }

  // Without queries.
  void write_nothing(Slot slot, int64_t block) const {
    const int64_t first = block * keys_of_a_block;
    W* sums = sums_of(slot, first);
    __builtin_memset(sums, 0, (channels_ + rows_) * panel * sizeof(W));
    for (int64_t key = first; key < first + keys_in(block); key += panel)
      write_keys(slot.sample(), key, smaller(panel, keys_ - key), sums);
  }

  const AttentionStatsBackward& call_;
  const Threads& threads_;
  const int64_t samples_, queries_, keys_, channels_, value_channels_, rows_, at_a_time_, samples_at_a_time_;
  const Buffer<W> centre_, packed_keys_, packed_queries_, weights_, slopes_, sums_;
  const P products_;
};

}  // namespace

void attention_stats_backward(const AttentionStatsBackward& call, const Threads& threads) {
  with_element(call.queries.element, [&](auto element) { Backward<decltype(element)>(call, threads).run(); });
}

}  // namespace fastnorm::FASTNORM_ISA
