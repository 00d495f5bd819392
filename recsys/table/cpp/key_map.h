// Exact 64-bit keys to row numbers, and everything that is known of a row but its weights: who holds
// it, when it was last seen and how often, its optimizer state, and whether it may stay.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "admission.h"
#include "changes.h"
#include "index.h"
#include "key_rules.h"
#include "key_versions.h"
#include "pages.h"
#include "retention.h"

namespace recsys::table {

using Keys = std::span<const std::uint64_t>;

// One writer beside any number of readers, which go through `find` and `read_whole` alone.
class KeyMap {
 public:
  static constexpr std::uint32_t kEvictionWindow = 256;
  static constexpr std::uint32_t kFreeRow = 0xFFFFFFFFu;

  KeyMap(KeyRules rules, std::size_t state_floats)
      : rules_(std::move(rules)),
        stride_((sizeof(RowMeta) + state_floats * sizeof(float) + 7) / 8 * 8),
        kernels_(probe_kernels()),
        index_(versions_),
        filter_(std::in_place, rules_.admission) {
    if (rules_.is_bounded) index_.reserve(rules_.max_rows);
    books_.ensure(1);  // Readers find its address in place.
  }

  // --- reading ---

  // Finds the rows of all keys, block by block: `fetch` may send for memory that `use` will read a block
  // later. Both get the first key's place in `keys` and the block. Beside a writer the rows are hints.
  template <typename Fetch, typename Use>
  void find(Keys keys, Fetch&& fetch, Use&& use) const {
    std::array<Probe, kRing> ring;
    const IndexView index = index_.view();
    const std::size_t blocks = (keys.size() + kKeysPerBlock - 1) / kKeysPerBlock;
    const auto begin_of = [](std::size_t block) { return block * kKeysPerBlock; };
    // Each turn takes one block through each step; the steps of a block are turns apart, so that what one
    // step sent for has arrived when the next one reads it.
    for (std::size_t turn = 0; turn < blocks + kUse; ++turn) {
      Probe& placed = ring[turn % kRing];
      if (turn < blocks) {
        placed.n = std::min(kKeysPerBlock, keys.size() - begin_of(turn));
        kernels_.place(index, keys.data() + begin_of(turn), placed);
      }
      if (turn < kFirst)
        for (const std::uint64_t bucket : placed.first) __builtin_prefetch(index.buckets + bucket);
      if (const std::size_t block = turn - kFirst; turn >= kFirst && block < blocks)
        kernels_.first(index, keys.data() + begin_of(block), ring[block % kRing], placed);
      if (const std::size_t block = turn - kSecond; turn >= kSecond && block < blocks) {
        Probe& found = ring[block % kRing];
        kernels_.second(index, keys.data() + begin_of(block), found);
        if (!index_.overflow().is_empty()) find_overflow(keys.data() + begin_of(block), found);
        fetch(begin_of(block), found);
      }
      if (turn >= kUse) use(begin_of(turn - kUse), ring[(turn - kUse) % kRing]);
    }
  }

  // Calls `read(row)` until nothing changed the key or its row meanwhile.
  template <typename Read>
  void read_whole(std::uint64_t key, Read&& read) const {
    const std::uint64_t hash = mix64(key);
    versions_.read_whole(hash, [&] { read(index_.find(key, hash)); });
  }

  // Calls `read()` until nothing changed rows of the key meanwhile.
  template <typename Read>
  void while_still(std::uint64_t key, Read&& read) const {
    versions_.read_whole(mix64(key), read);
  }

  // For writers, who see no one else's changes.
  std::uint32_t find_one(std::uint64_t key) const { return index_.find(key, mix64(key)); }

  RowMeta& meta(std::uint32_t row) noexcept { return *reinterpret_cast<RowMeta*>(book(row)); }
  const RowMeta& meta(std::uint32_t row) const noexcept {
    return *reinterpret_cast<const RowMeta*>(book(row));
  }
  float* state(std::uint32_t row) noexcept {
    return reinterpret_cast<float*>(book(row) + sizeof(RowMeta));
  }
  const float* state(std::uint32_t row) const noexcept {
    return reinterpret_cast<const float*>(book(row) + sizeof(RowMeta));
  }
  bool is_live(std::uint32_t row) const noexcept { return meta(row).noted_in != kFreeRow; }
  // Inlined by force: gcc takes a call that only fetches for one without effect, and drops it.
  [[gnu::always_inline]] void prefetch(std::uint32_t row) const noexcept {
    const std::byte* at = book(row);
    for (std::size_t byte = 0; byte < stride_; byte += 64) __builtin_prefetch(at + byte, 0, kToL2);
  }
  [[gnu::always_inline]] void prefetch_buckets(std::uint64_t key) const noexcept { index_.prefetch(key); }
  KeyVersions::Change change(std::uint64_t key) noexcept { return {versions_, mix64(key)}; }

  std::size_t size() const noexcept { return size_.load(std::memory_order_acquire); }
  std::uint32_t issued() const noexcept { return issued_.load(std::memory_order_acquire); }
  std::size_t stride() const noexcept { return stride_; }
  std::size_t index_bytes() const noexcept { return index_.bytes(); }
  AdmissionFilter& filter() noexcept { return *filter_; }
  const AdmissionFilter& filter() const noexcept { return *filter_; }
  ChangeLog& changes() noexcept { return changes_; }
  const ChangeLog& changes() const noexcept { return changes_; }
  KeyCounters& counters() noexcept { return counters_; }
  const KeyCounters& counters() const noexcept { return counters_; }
  std::optional<std::uint32_t>& clock() noexcept { return clock_; }
  std::uint32_t clock_s() const noexcept { return clock_.value_or(0); }

  // --- writing; one thread at a time ---

  // Moves the clock and returns the time at which an event of this time counts.
  std::uint32_t tick(std::uint32_t event_time_s) noexcept {
    const std::uint32_t accepted = rules_.expiry.accepted_time(event_time_s, clock_);
    clock_ = std::max(clock_s(), accepted);
    return accepted;
  }

  bool admits(std::uint64_t key, std::uint32_t occurrences) noexcept {
    const bool is_in = filter_->admit(key, occurrences);
    counters_.filtered += !is_in;
    return is_in;
  }

  // A row for a key that has none; kNoRow when the map is full of rows that `is_pinned` keeps. `fill`
  // makes the row what it is to be before anyone can find it.
  template <typename IsPinned, typename Fill>
  std::uint32_t add(std::uint64_t key, IsPinned&& is_pinned, Fill&& fill) {
    if (size() >= rules_.max_rows && !evict(is_pinned)) {
      ++counters_.filtered;
      return kNoRow;
    }
    const bool is_recycled = !free_.empty();
    const std::uint32_t row = is_recycled ? free_.back() : issued();
    if (!is_recycled) books_.ensure((std::size_t{row} + 1) * stride_);
    // Until it is whole and can be found it counts as free, which is what a scan would see.
    meta(row) = {key, 0, 0, kFreeRow, 0};
    fill(row);
    index_.insert(key, row);
    {
      const KeyVersions::Change now_live = change(key);
      meta(row).noted_in = 0;
    }
    if (is_recycled) free_.pop_back();
    else issued_.store(row + 1, std::memory_order_release);
    size_.store(size() + 1, std::memory_order_release);
    ++counters_.admitted;
    return row;
  }

  void note(std::uint32_t row) {
    RowMeta& its = meta(row);
    changes_.note(its.key, its.noted_in);
  }

  void drop(std::uint32_t row) {
    note(row);
    RowMeta& its = meta(row);
    free_.push_back(row);
    {
      const KeyVersions::Change now_free = change(its.key);
      its.noted_in = kFreeRow;
    }
    index_.erase(its.key);
    size_.store(size() - 1, std::memory_order_release);
  }

  // Looks at the next rows in turn and drops the expired.
  std::size_t sweep(std::size_t max_rows) {
    std::size_t gone = 0;
    if (!rules_.expiry.expires_rows()) return gone;
    for (std::size_t i = std::min<std::size_t>(max_rows, issued()); i > 0; --i) {
      const std::uint32_t row = sweep_cursor_;
      sweep_cursor_ = row + 1 == issued() ? 0 : row + 1;
      if (!is_live(row) || !rules_.expiry.expired(meta(row).key, meta(row).last_seen_s, clock_s())) continue;
      drop(row);
      ++gone;
    }
    counters_.expired += gone;
    return gone;
  }

  // Moves rows down into free numbers, so that live ones are 0 to size - 1; `move(from, to)` takes the
  // weights along. Readers must be out.
  template <typename Move>
  void compact(Move&& move) {
    std::uint32_t to = 0;
    const auto n = static_cast<std::uint32_t>(size());
    for (std::uint32_t from = n; from < issued(); ++from) {
      if (!is_live(from)) continue;
      while (is_live(to)) ++to;
      std::copy_n(book(from), stride_, book(to));
      move(from, to);
      index_.move_row(meta(to).key, to);
    }
    issued_.store(n, std::memory_order_release);
    free_ = std::vector<std::uint32_t>();
    sweep_cursor_ = eviction_cursor_ = 0;
    books_.release(std::size_t{n} * stride_, books_.bytes());
    index_.shrink();
  }

  // Readers must be out.
  void clear() {
    index_.clear();
    if (rules_.is_bounded) index_.reserve(rules_.max_rows);
    filter_.emplace(rules_.admission);
    changes_.clear();
    counters_ = {};
    clock_.reset();
    books_ = Pages();
    books_.ensure(1);
    free_ = std::vector<std::uint32_t>();
    issued_.store(0, std::memory_order_release);
    sweep_cursor_ = eviction_cursor_ = 0;
    size_.store(0, std::memory_order_release);
  }

 private:
  // Turns after its placing at which a block takes each step.
  static constexpr std::size_t kFirst = 2, kSecond = 3, kUse = 5, kRing = 8;

  std::byte* book(std::uint32_t row) const noexcept {
    return books_.data() + std::size_t{row} * stride_;
  }

  void find_overflow(const std::uint64_t* keys, Probe& probe) const {
    for (std::size_t i = 0; i < probe.n; ++i)
      if (probe.row[i] == kNoRow) probe.row[i] = index_.overflow().find(keys[i]);
  }

  // Drops the lowest eighth, at least one, of the next window of rows that has any to drop.
  template <typename IsPinned>
  bool evict(IsPinned&& is_pinned) {
    for (std::uint32_t seen = 0; seen < issued(); seen += kEvictionWindow) {
      const std::uint32_t begin = eviction_cursor_, end = std::min(begin + kEvictionWindow, issued());
      eviction_cursor_ = end == issued() ? 0 : end;
      std::size_t n = 0;
      for (std::uint32_t row = begin; row < end; ++row) {
        if (!is_live(row) || is_pinned(row)) continue;
        const RowMeta& its = meta(row);
        window_[n] = row;
        seen_[n] = its.last_seen_s;
        scores_[n] = score(rules_.policy, rules_.policy_exponent, its.count, its.last_seen_s, clock_s());
        ++n;
      }
      if (n == 0) continue;
      const auto victims = choose_victims({scores_.data(), n}, {seen_.data(), n},
                                          std::max<std::size_t>(1, n / 8), order_);
      for (const std::uint32_t victim : victims) drop(window_[victim]);
      counters_.evicted += victims.size();
      return true;
    }
    return false;
  }

  const KeyRules rules_;
  const std::size_t stride_;
  const ProbeKernels kernels_;
  KeyVersions versions_;
  CuckooIndex index_;
  std::optional<AdmissionFilter> filter_;
  ChangeLog changes_;
  KeyCounters counters_;
  std::optional<std::uint32_t> clock_;
  Pages books_;
  std::vector<std::uint32_t> free_;
  std::atomic<std::uint32_t> issued_{0};
  std::uint32_t sweep_cursor_ = 0;
  std::uint32_t eviction_cursor_ = 0;
  std::atomic<std::size_t> size_{0};
  std::array<std::uint32_t, kEvictionWindow> window_, seen_, order_;
  std::array<double, kEvictionWindow> scores_;
};

}  // namespace recsys::table
