// Changing rows: a batch of gradients, of weights, of whole rows.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "batch.h"
#include "lookups.h"
#include "row_store.h"
#include "workers.h"

namespace recsys::table {

enum class Nonfinite : std::uint8_t { kRefuse, kDrop, kClip };

// One thread at a time. `rates` holds the learning rate of each slice.
class Writer {
 public:
  Writer(RowStore& store, Workers& workers, Nonfinite nonfinite)
      : store_(store),
        workers_(workers),
        nonfinite_(nonfinite),
        scratch_(workers.parts(), std::vector<float>(2 * layout().dim())) {}

  // One step of every distinct key along the sum of its gradients; `source` says which gradient an
  // occurrence brings. Returns a key whose sum is not finite if that is refused: then nothing has changed.
  std::optional<std::uint64_t> learn(Keys keys, const float* gradients, std::size_t n_gradients,
                                     const std::uint32_t* source, std::uint32_t event_time_s,
                                     const float* rates) {
    batch_.collect(map(), keys, source);
    if (const auto key = pass_over_nonfinite(gradients, n_gradients, keys.size())) return key;
    const std::uint32_t seen_s = map().tick(event_time_s);
    const RowStore::Writing mark(store_);
    add_missing(true, nullptr, rates);
    const std::size_t parts = batch_.size() < kManyKeys ? 1 : workers_.parts();
    workers_.run(parts, [&](std::size_t part) { step_rows(part, parts, gradients, seen_s, rates); });
    note_batch();
    return std::nullopt;
  }

  std::optional<std::uint64_t> learn_bags(Keys keys, Bags bags, const float* gradients,
                                          std::uint32_t event_time_s, const float* rates) {
    const std::vector<std::uint32_t> bag_of = bags.of_each_key();
    std::vector<float> scaled;
    if (bags.scale != nullptr) {
      scaled.resize(bags.size() * layout().dim());
      store_.kernels().scale_rows(gradients, bags.scale, bags.size(), layout().dim(), scaled.data());
      gradients = scaled.data();
    }
    return learn(keys, gradients, bags.size(), bag_of.data(), event_time_s, rates);
  }

  // Gives keys rows as learning would, without a gradient, and tells the row numbers; -1 where refused.
  void admit(Keys keys, std::uint32_t event_time_s, const float* rates, std::int64_t* rows) {
    batch_.collect(map(), keys, nullptr, Batch::Order::kCountsOnly);
    is_bad_.assign(batch_.size(), 0);
    const std::uint32_t seen_s = map().tick(event_time_s);
    const RowStore::Writing mark(store_);
    add_missing(true, nullptr, rates);
    for (std::size_t slot = 0; slot < batch_.size(); ++slot)
      if (batch_.row(slot) != kNoRow) {
        const KeyVersions::Change change = map().change(batch_.key(slot));
        see(batch_.row(slot), batch_.occurrences(slot), seen_s);
      }
    note_batch();
    for (std::size_t i = 0; i < keys.size(); ++i)
      rows[i] = static_cast<std::int32_t>(batch_.row(batch_.slot_of(i)));
  }

  void assign(Keys keys, const float* weights, const float* rates) {
    collect(keys);
    const RowStore::Writing mark(store_);
    add_missing(false, weights, rates);
    for (std::size_t slot = 0; slot < batch_.size(); ++slot) {
      if (batch_.row(slot) == kNoRow) continue;
      const KeyVersions::Change change = map().change(batch_.key(slot));
      layout().encode(batch_.key(slot), 0, weights + batch_.sources(slot).back() * layout().dim(),
                      store_.stored(batch_.row(slot)));
      layout().follow_weights(store_.stored(batch_.row(slot)), rates, map().state(batch_.row(slot)),
                              scratch_[0].data());
    }
    note_batch();
  }

  void import_rows(Keys keys, RowsIn in, const float* rates) {
    collect(keys);
    const RowStore::Writing mark(store_);
    add_missing(false, in.weights, rates);
    for (std::size_t slot = 0; slot < batch_.size(); ++slot) {
      const std::uint32_t row = batch_.row(slot);
      if (row == kNoRow) continue;
      const std::size_t from = batch_.sources(slot).back();
      const KeyVersions::Change change = map().change(batch_.key(slot));
      layout().encode(batch_.key(slot), 0, in.weights + from * layout().dim(), store_.stored(row));
      std::copy_n(in.state + from * layout().state_dim(), layout().state_dim(), map().state(row));
      map().meta(row).last_seen_s = in.last_seen_s[from];
      map().meta(row).count = in.count[from];
    }
  }

 private:
  static constexpr std::size_t kStepsAhead = 16;

  const Layout& layout() const noexcept { return store_.layout(); }
  KeyMap& map() noexcept { return store_.map(); }
  const KeyMap& map() const noexcept { return store_.map(); }

  // Marks slots whose sum is not finite as the policy has it; a key to refuse the batch for, if any.
  std::optional<std::uint64_t> pass_over_nonfinite(const float* gradients, std::size_t n_gradients,
                                                   std::size_t n_keys) {
    is_bad_.assign(batch_.size(), 0);
    const auto largest =
        std::bit_cast<float>(store_.kernels().largest_bits(gradients, n_gradients * layout().dim()));
    // No sum of that many numbers of that size can overflow: roundings are what the second factor is for.
    const auto n = static_cast<float>(n_keys);
    if (std::isfinite(largest * n * n)) return std::nullopt;
    for (std::size_t slot = 0; slot < batch_.size(); ++slot) {
      const float* sum = sum_of(slot, gradients, scratch_[0].data());
      is_bad_[slot] = !std::all_of(sum, sum + layout().dim(), [](float x) { return std::isfinite(x); });
    }
    if (nonfinite_ == Nonfinite::kRefuse) {
      for (std::size_t i = 0; i < n_keys; ++i)
        if (is_bad_[batch_.slot_of(i)]) return batch_.key(batch_.slot_of(i));
      return std::nullopt;
    }
    map().counters().dropped_gradients +=
        static_cast<std::uint64_t>(std::count(is_bad_.begin(), is_bad_.end(), 1));
    return std::nullopt;
  }

  void collect(Keys keys) {
    batch_.collect(map(), keys, nullptr);
    is_bad_.assign(batch_.size(), 0);
  }

  float* sum_of(std::size_t slot, const float* gradients, float* sum) const noexcept {
    const auto sources = batch_.sources(slot);
    store_.kernels().gather_sum(gradients, layout().dim(), sources.data(), sources.size(), sum);
    return sum;
  }

  bool is_dropped(std::size_t slot) const noexcept {
    return nonfinite_ == Nonfinite::kDrop && is_bad_[slot];
  }

  // Rows for the batch's keys that have none, as far as they are let in and there is room; they begin with
  // the weights of their last occurrence, or at their initial values where no weights are given.
  void add_missing(bool asks_filter, const float* weights, const float* rates) {
    const auto is_pinned = [&](std::uint32_t row) { return batch_.holds(map(), row); };
    bool has_room = true;  // once none can go, none can: a batch only pins more and more
    for (std::size_t slot = batch_.first_missing(); slot < batch_.size(); ++slot) {
      if (slot + kStepsAhead < batch_.size()) map().prefetch_buckets(batch_.key(slot + kStepsAhead));
      const std::uint64_t key = batch_.key(slot);
      if (asks_filter && (is_dropped(slot) || !map().admits(key, batch_.occurrences(slot)))) continue;
      if (!has_room) {
        ++map().counters().filtered;
        continue;
      }
      const float* given = weights == nullptr ? nullptr : weights + batch_.sources(slot).back() * layout().dim();
      const std::uint32_t row = store_.add(key, given, rates, scratch_[0].data(), is_pinned);
      has_room = row != kNoRow;
      if (has_room) batch_.set_row(map(), slot, row);
    }
  }

  // The steps of one part of the batch's rows. Parts share no version stripe, so that each has one writer.
  void step_rows(std::size_t part, std::size_t parts, const float* gradients, std::uint32_t seen_s,
                 const float* rates) {
    float* const sum = scratch_[part].data();
    float* const weights = sum + layout().dim();
    for (std::size_t slot = 0; slot < batch_.size(); ++slot) {
      if (slot + kStepsAhead < batch_.size()) prefetch_row(batch_.row(slot + kStepsAhead));
      const std::uint64_t key = batch_.key(slot);
      const std::uint32_t row = batch_.row(slot);
      if (row == kNoRow || is_dropped(slot)) continue;
      if (parts > 1 && KeyVersions::stripe(mix64(key)) % parts != part) continue;
      sum_of(slot, gradients, sum);
      if (is_bad_[slot])
        for (std::size_t d = 0; d < layout().dim(); ++d) sum[d] = nearest_number(sum[d]);
      const KeyVersions::Change change = map().change(key);
      layout().step(key, map().meta(row).count, rates, sum, store_.stored(row), map().state(row), weights);
      see(row, batch_.occurrences(slot), seen_s);
    }
  }

  [[gnu::always_inline]] void prefetch_row(std::uint32_t row) const noexcept {
    if (row == kNoRow) return;
    store_.prefetch_weights(row);
    map().prefetch(row);
  }

  void see(std::uint32_t row, std::uint32_t occurrences, std::uint32_t seen_s) noexcept {
    RowMeta& its = map().meta(row);
    its.last_seen_s = std::max(its.last_seen_s, seen_s);
    its.count = its.count > ~occurrences ? ~std::uint32_t{0} : its.count + occurrences;
  }

  void note_batch() {
    if (!map().changes().is_followed()) return;
    for (std::size_t slot = 0; slot < batch_.size(); ++slot)
      if (batch_.row(slot) != kNoRow && !is_dropped(slot)) map().note(batch_.row(slot));
  }

  static float nearest_number(float x) noexcept {
    constexpr float kLargest = std::numeric_limits<float>::max();
    return std::isnan(x) ? 0.0f : std::clamp(x, -kLargest, kLargest);
  }

  RowStore& store_;
  Workers& workers_;
  const Nonfinite nonfinite_;
  Batch batch_;
  std::vector<std::uint8_t> is_bad_;
  std::vector<std::vector<float>> scratch_;  // of each thread: a sum of gradients, and a row's weights
};

}  // namespace recsys::table
