// Keys, their rows, and how both are read beside a writer.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "fair_shared_mutex.h"
#include "key_map.h"
#include "layout.h"
#include "pages.h"
#include "row_kernels.h"

namespace recsys::table {

// Where whole rows are written to or read from; all arrays in the order of the keys.
template <typename Float, typename Word>
struct RowArrays {
  Float* weights;
  Float* state;
  Word* last_seen_s;
  Word* count;
};
using RowsOut = RowArrays<float, std::uint32_t>;
using RowsIn = RowArrays<const float, const std::uint32_t>;

// One writer, which brackets its changes by Writing, beside any number of readers. A reader takes what it
// finds and, if a version tells that this was changing, takes it again; it waits for nobody but a writer
// that holds `alone`.
class RowStore {
 public:
  RowStore(std::vector<Slice> slices, KeyRules rules, bool missing_reads_initial)
      : layout_(std::move(slices)),
        missing_reads_initial_(missing_reads_initial),
        kernels_(row_kernels()),
        map_(std::move(rules), layout_.state_dim()) {
    weights_.ensure(1);  // Readers find its address in place.
  }

  const Layout& layout() const noexcept { return layout_; }
  const RowKernels& kernels() const noexcept { return kernels_; }
  KeyMap& map() noexcept { return map_; }
  const KeyMap& map() const noexcept { return map_; }

  std::byte* stored(std::uint32_t row) const noexcept {
    return weights_.data() + std::size_t{row} * layout_.bytes();
  }

  // --- reading ---

  // Reads keys block by block on the quick path: `fetch(block)` may send for memory, `fast(at, block)` reads.
  // Where a writer was at work meanwhile, `whole(at, row)` reads each key again until nothing moved.
  template <typename Fetch, typename Fast, typename Whole>
  void read(Keys keys, Fetch&& fetch, Fast&& fast, Whole&& whole) const {
    const std::shared_lock reading(structure_);
    const std::uint64_t before = writes_.load(std::memory_order_acquire);
    {
      const RacyReads racy;
      map_.find(
          keys, [&](std::size_t, const Probe& found) { fetch(found); },
          [&](std::size_t at, const Probe& found) {
            if (before % 2 == 0) fast(at, found);
          });
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    if (before % 2 == 0 && writes_.load(std::memory_order_relaxed) == before) return;
    for (std::size_t at = 0; at < keys.size(); ++at)
      map_.read_whole(keys[at], [&](std::uint32_t row) { whole(at, row); });
  }

  [[gnu::always_inline]] void prefetch_weights(std::uint32_t row) const noexcept {
    const std::size_t bytes = layout_.bytes();
    const std::byte* at = stored(row == kNoRow ? 0 : row);
    for (std::size_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(at + byte, 0, kToL2);
    if (bytes % 64 != 0) __builtin_prefetch(at + bytes - 1, 0, kToL2);
  }
  [[gnu::always_inline]] void prefetch_weights(const Probe& found) const noexcept {
    for (std::size_t i = 0; i < found.n; ++i) prefetch_weights(found.row[i]);
  }

  void read_block(Keys keys, const Probe& found, float* out) const noexcept {
    const std::size_t dim = layout_.dim();
    if (layout_.is_plain()) kernels_.copy_rows(weights_.data(), dim, found.row.data(), found.n, out);
    for (std::size_t i = 0; i < found.n; ++i)
      if (found.row[i] == kNoRow || !layout_.is_plain()) read_one(keys[i], found.row[i], out + i * dim);
  }

  void read_one(std::uint64_t key, std::uint32_t row, float* out) const noexcept {
    if (row != kNoRow) layout_.decode(stored(row), out);
    else if (missing_reads_initial_) layout_.initial_as_stored(key, out);
    else std::fill_n(out, layout_.dim(), 0.0f);
  }

  // Adds the rows of a block to the sums of their bags.
  void add_block(Keys keys, const Probe& found, const std::uint32_t* bag_of, float* sums) const {
    const std::size_t dim = layout_.dim();
    const auto end = found.row.begin() + static_cast<std::ptrdiff_t>(found.n);
    // Rows that are not in the store have their turn too: a sum is in order of occurrence.
    const bool adds_nothing_else = !missing_reads_initial_ || std::find(found.row.begin(), end, kNoRow) == end;
    if (layout_.is_plain() && adds_nothing_else) {
      kernels_.add_rows(weights_.data(), dim, found.row.data(), bag_of, found.n, sums);
      return;
    }
    for (std::size_t i = 0; i < found.n; ++i) add_one(keys[i], found.row[i], sums + bag_of[i] * dim);
  }

  void add_one(std::uint64_t key, std::uint32_t row, float* sum) const {
    if (row != kNoRow) {
      layout_.decode_add(stored(row), sum);
    } else if (missing_reads_initial_) {
      std::vector<float> weights(layout_.dim());
      layout_.initial_as_stored(key, weights.data());
      for (std::size_t d = 0; d < weights.size(); ++d) sum[d] += weights[d];
    }
  }

  void copy_out(std::uint32_t row, std::size_t at, RowsOut out) const noexcept {
    layout_.decode(stored(row), out.weights + at * layout_.dim());
    std::copy_n(map_.state(row), layout_.state_dim(), out.state + at * layout_.state_dim());
    out.last_seen_s[at] = map_.meta(row).last_seen_s;
    out.count[at] = map_.meta(row).count;
  }

  // Copies the live rows among `max_rows` row numbers from `cursor` on. Returns how many there were and the
  // number to go on from, 0 when there are no more.
  std::pair<std::size_t, std::uint32_t> scan(std::uint32_t cursor, std::size_t max_rows, std::uint64_t* keys,
                                             RowsOut out) const {
    const std::shared_lock reading(structure_);
    const std::uint32_t issued = map_.issued();
    const auto end = static_cast<std::uint32_t>(std::min<std::size_t>(issued, cursor + max_rows));
    std::size_t n = 0;
    for (std::uint32_t row = cursor; row < end;) {
      const std::uint64_t key = key_of(row);
      bool is_live = false, is_same = false;
      map_.while_still(key, [&] {
        is_live = map_.is_live(row);
        is_same = map_.meta(row).key == key;
        if (is_live && is_same) copy_out(row, n, out);
      });
      if (is_live && !is_same) continue;  // it has just gone to another key
      if (is_live) keys[n++] = key;
      ++row;
    }
    return {n, end >= issued ? 0 : end};
  }

  // --- writing; one thread at a time ---

  // While one lives, readers do not trust the quick path.
  class Writing {
   public:
    explicit Writing(RowStore& store) noexcept : writes_(store.writes_) {
      writes_.fetch_add(1, std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_release);
    }
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;
    ~Writing() { writes_.fetch_add(1, std::memory_order_release); }

   private:
    std::atomic<std::uint64_t>& writes_;
  };

  // A row for a key that has none, of the weights given or, where they are null, at its initial values:
  // whoever finds the key reads nothing else. kNoRow when there is no room.
  template <typename IsPinned>
  std::uint32_t add(std::uint64_t key, const float* given, const float* rates, float* scratch,
                    IsPinned&& is_pinned) {
    return map_.add(key, is_pinned, [&](std::uint32_t row) {
      weights_.ensure((std::size_t{row} + 1) * layout_.bytes());
      if (given == nullptr) layout_.initial_weights(key, scratch);
      layout_.encode(key, 0, given == nullptr ? scratch : given, stored(row));
      layout_.decode(stored(row), scratch);
      layout_.initial_state(scratch, rates, map_.state(row));
    });
  }

  std::unique_lock<FairSharedMutex> alone() { return std::unique_lock(structure_); }

  // Moves rows together and gives the rest back. The caller is alone.
  void compact() {
    map_.compact([&](std::uint32_t from, std::uint32_t to) {
      std::copy_n(stored(from), layout_.bytes(), stored(to));
    });
    weights_.release(map_.size() * layout_.bytes(), weights_.bytes());
  }

  // Drops everything. The caller is alone.
  void clear() {
    map_.clear();
    weights_ = Pages();
    weights_.ensure(1);
  }

 private:
  std::uint64_t key_of(std::uint32_t row) const noexcept {
    const RacyReads racy;
    return map_.meta(row).key;
  }

  const Layout layout_;
  const bool missing_reads_initial_;
  const RowKernels kernels_;
  mutable FairSharedMutex structure_;
  std::atomic<std::uint64_t> writes_{0};
  KeyMap map_;
  Pages weights_;
};

}  // namespace recsys::table
