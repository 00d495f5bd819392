// Bucketised cuckoo index that grows without a pause: exact 64-bit keys to row numbers.
//
// A key lives in one of two buckets of five slots; a bucket is one cache line. Keys are compared in
// full. Past a load of 0.95 the index doubles by splitting a few buckets with each insertion (linear
// hashing), so no insertion costs more than a bounded amount of work. Keys that find no place even
// so, because their hashes clash, live in a small overflow map.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "bucket.h"
#include "key_versions.h"
#include "overflow.h"
#include "pages.h"
#include "probe.h"

namespace recsys::table {

// One writer beside any number of readers that bracket their reads by `versions`.
class CuckooIndex {
 public:
  static constexpr std::size_t kMinBuckets = 64;

  explicit CuckooIndex(KeyVersions& versions) : versions_(versions) { start_over(kMinBuckets); }

  std::size_t size() const noexcept { return size_; }
  std::size_t capacity() const noexcept { return count() * kSlotsPerBucket; }
  std::size_t bytes() const noexcept {
    return count() * sizeof(Bucket) + overflow_.bytes();
  }
  double load() const noexcept { return static_cast<double>(size_) / static_cast<double>(capacity()); }

  // Room for this many keys at the load at which it would grow. The index must be empty.
  void reserve(std::size_t keys) {
    const auto slots = static_cast<std::size_t>(static_cast<double>(keys) / kMaxLoad) + 1;
    start_over(std::max(kMinBuckets, (slots + kSlotsPerBucket - 1) / kSlotsPerBucket));
  }

  // As it is now. A reader whose key is missing must look again if `count` has changed meanwhile.
  IndexView view() const noexcept {
    const std::uint64_t extent = extent_.load(std::memory_order_acquire);
    const std::uint64_t count = extent >> kLevelBits, level = extent & kLevelMask;
    return {buckets(), base_, base_ << level, (std::uint64_t{2} << level) - 1, count};
  }
  std::uint64_t count() const noexcept { return extent_.load(std::memory_order_acquire) >> kLevelBits; }

  // The row of a key; kNoRow where there is none. `hash` is mix64(key).
  std::uint32_t find(std::uint64_t key, std::uint64_t hash) const noexcept {
    for (;;) {
      const IndexView now = view();
      for (const std::uint32_t half : {first_half(hash), second_half(hash)}) {
        const Bucket& bucket = now.buckets[now.place(half)];
        if (const std::uint32_t found = probe_portable::match(bucket, key))
          return bucket.rows[static_cast<std::size_t>(std::countr_zero(found))];
      }
      if (count() == now.count) return overflow_.find(key);
    }
  }

  [[gnu::always_inline]] void prefetch(std::uint64_t key) const noexcept {
    const IndexView now = view();
    const std::uint64_t hash = mix64(key);
    __builtin_prefetch(now.buckets + now.place(first_half(hash)), 0, kToL2);
    __builtin_prefetch(now.buckets + now.place(second_half(hash)), 0, kToL2);
  }

  // What the probe kernels cannot see; nearly always empty.
  const Overflow& overflow() const noexcept { return overflow_; }

  // Adds a key that is not there yet.
  void insert(std::uint64_t key, std::uint32_t row) {
    const std::uint64_t hash = mix64(key);
    is_growing_ = is_growing_ || static_cast<double>(size_ + 1) > kMaxLoad * static_cast<double>(capacity());
    for (int i = 0; i < kSplitsPerInsert && is_growing_; ++i) split_next();
    std::optional<Place> place = make_room(hash);
    // Near the limit more room helps. Far below it the hashes clash, and no room would.
    for (int i = 0; !place && i < kSplitsBeforeOverflow && load() > kClashLoad; ++i) {
      split_next();
      place = make_room(hash);
    }
    if (place) {
      const KeyVersions::Change change(versions_, hash);
      put(*place, key, row);
    } else {
      overflow_.set(key, row);
    }
    ++size_;
  }

  // Removes the key; returns the row that it had, kNoRow where it is not there.
  std::uint32_t erase(std::uint64_t key) {
    const std::uint64_t hash = mix64(key);
    const IndexView now = view();
    for (const std::uint32_t half : {first_half(hash), second_half(hash)}) {
      Bucket& bucket = buckets()[now.place(half)];
      if (const std::uint32_t found = probe_portable::match(bucket, key)) {
        const KeyVersions::Change change(versions_, hash);
        bucket.used &= ~found;
        --size_;
        return bucket.rows[static_cast<std::size_t>(std::countr_zero(found))];
      }
    }
    const std::uint32_t row = overflow_.find(key);
    if (row != kNoRow) {
      const KeyVersions::Change change(versions_, hash);
      overflow_.erase(key);
      --size_;
    }
    return row;
  }

  // Gives a key that is there another row.
  void move_row(std::uint64_t key, std::uint32_t row) {
    const std::uint64_t hash = mix64(key);
    const IndexView now = view();
    const KeyVersions::Change change(versions_, hash);
    for (const std::uint32_t half : {first_half(hash), second_half(hash)}) {
      Bucket& bucket = buckets()[now.place(half)];
      if (const std::uint32_t found = probe_portable::match(bucket, key)) {
        bucket.rows[static_cast<std::size_t>(std::countr_zero(found))] = row;
        return;
      }
    }
    overflow_.set(key, row);
  }

  // Undoes splits while that leaves the load below two thirds; gives the freed memory back. Readers must be out:
  // what they would read might be given back under them.
  void shrink() {
    is_growing_ = false;
    while (count() > base_ &&
           static_cast<double>(size_) < kShrunkLoad * static_cast<double>(capacity() - kSlotsPerBucket))
      merge_last();
    pages_.release(count() * sizeof(Bucket), pages_.bytes());
  }

  void clear() { start_over(kMinBuckets); }

 private:
  static constexpr int kLevelBits = 6;
  static constexpr std::uint64_t kLevelMask = (1 << kLevelBits) - 1;
  static constexpr double kMaxLoad = 0.95;
  static constexpr double kShrunkLoad = 0.66;
  static constexpr double kClashLoad = 0.5;
  static constexpr int kSplitsPerInsert = 2;
  static constexpr int kSplitsBeforeOverflow = 64;
  static constexpr int kMaxMoves = 5;
  static constexpr std::size_t kMaxBucketsSeen = 1200;

  struct Place {
    std::uint64_t bucket;
    std::uint32_t slot;
  };
  // One bucket seen by the search, and the slot of its parent whose resident could move here.
  struct Step {
    std::uint64_t bucket;
    int parent;
    std::uint32_t parent_slot;
    int moves;
  };

  Bucket* buckets() const noexcept { return reinterpret_cast<Bucket*>(pages_.data()); }
  std::uint64_t level() const noexcept { return extent_.load(std::memory_order_relaxed) & kLevelMask; }
  void set_extent(std::uint64_t count, std::uint64_t level) noexcept {
    extent_.store(count << kLevelBits | level, std::memory_order_release);
  }

  void start_over(std::size_t base) {
    base_ = base;
    set_extent(base, 0);
    size_ = 0;
    is_growing_ = false;
    overflow_.clear();
    pages_ = Pages();
    pages_.ensure(base * sizeof(Bucket));
  }

  void put(Place place, std::uint64_t key, std::uint32_t row) noexcept {
    Bucket& bucket = buckets()[place.bucket];
    bucket.keys[place.slot] = key;
    bucket.rows[place.slot] = row;
    __atomic_store_n(&bucket.used, bucket.used | 1u << place.slot, __ATOMIC_RELEASE);
  }

  std::optional<std::uint32_t> free_slot(std::uint64_t bucket) const noexcept {
    const std::uint32_t used = buckets()[bucket].used;
    if (used == kAllUsed) return std::nullopt;
    return static_cast<std::uint32_t>(std::countr_one(used));
  }

  // A free slot in one of the key's buckets: breadth first, the shortest chain of moves that frees one.
  std::optional<Place> make_room(std::uint64_t hash) {
    const IndexView now = view();
    const std::uint64_t first = now.place(first_half(hash)), second = now.place(second_half(hash));
    if (const auto slot = free_slot(first)) return Place{first, *slot};
    if (const auto slot = free_slot(second)) return Place{second, *slot};
    search_.clear();
    search_.push_back({first, -1, 0, 0});
    search_.push_back({second, -1, 0, 0});
    for (std::size_t at = 0; at < search_.size(); ++at) {
      const Step seen = search_[at];
      if (const auto slot = free_slot(seen.bucket)) return shift_along(seen, *slot);
      if (seen.moves == kMaxMoves || search_.size() > kMaxBucketsSeen) continue;
      for (std::uint32_t s = 0; s < kSlotsPerBucket; ++s) {
        const std::uint64_t resident = mix64(buckets()[seen.bucket].keys[s]);
        const std::uint64_t a = now.place(first_half(resident)), b = now.place(second_half(resident));
        const std::uint64_t other = a == seen.bucket ? b : a;
        __builtin_prefetch(buckets() + other);
        search_.push_back({other, static_cast<int>(at), s, seen.moves + 1});
      }
    }
    return std::nullopt;
  }

  // Moves the last resident of the chain first, so that no key is ever absent. The shortest chain meets no
  // bucket twice, so each resident is still where the search saw it.
  std::optional<Place> shift_along(Step seen, std::uint32_t slot) {
    while (seen.parent >= 0) {
      const Step& parent = search_[static_cast<std::size_t>(seen.parent)];
      Bucket& from = buckets()[parent.bucket];
      const std::uint64_t key = from.keys[seen.parent_slot];
      {
        const KeyVersions::Change change(versions_, mix64(key));
        put({seen.bucket, slot}, key, from.rows[seen.parent_slot]);
        from.used &= ~(1u << seen.parent_slot);
      }
      slot = seen.parent_slot;
      seen = parent;
    }
    return Place{seen.bucket, slot};
  }

  // Splits the next bucket in turn: its keys stay or go to the new last bucket, nothing is searched.
  void split_next() {
    IndexView after = view();
    const std::uint64_t split = after.count - after.lower, added = after.count++;
    pages_.ensure(after.count * sizeof(Bucket));
    Bucket &from = buckets()[split], &to = buckets()[added];
    to.used = 0;
    std::uint32_t leaving = 0;
    for (std::uint32_t s = 0; s < kSlotsPerBucket; ++s) {
      if ((from.used >> s & 1) == 0) continue;
      const std::uint64_t hash = mix64(from.keys[s]);
      if (after.place(first_half(hash)) == split || after.place(second_half(hash)) == split) continue;
      put({added, static_cast<std::uint32_t>(std::countr_one(to.used))}, from.keys[s], from.rows[s]);
      leaving |= 1u << s;
    }
    // From here on readers look in the new bucket too; those that began before find `count` changed.
    const bool is_level_done = after.count == 2 * after.lower;
    set_extent(after.count, level() + is_level_done);
    is_growing_ = is_growing_ && !is_level_done;
    for (std::uint32_t s = 0; s < kSlotsPerBucket; ++s) {
      if ((leaving >> s & 1) == 0) continue;
      const KeyVersions::Change change(versions_, mix64(from.keys[s]));
      from.used &= ~(1u << s);
    }
  }

  // Undoes the last split, moving residents elsewhere where the bucket that was split has no room.
  void merge_last() {
    const std::uint64_t last = count() - 1;
    const Bucket leaving = buckets()[last];
    set_extent(last, level() - (last < base_ << level()));
    for (std::uint32_t s = 0; s < kSlotsPerBucket; ++s) {
      if ((leaving.used >> s & 1) == 0) continue;
      const auto place = make_room(mix64(leaving.keys[s]));
      if (!place) {
        overflow_.set(leaving.keys[s], leaving.rows[s]);
        continue;
      }
      put(*place, leaving.keys[s], leaving.rows[s]);
    }
  }

  KeyVersions& versions_;
  Pages pages_;
  std::uint64_t base_ = 0;
  std::atomic<std::uint64_t> extent_{0};  // count of buckets and level in one word, to be read as one
  std::size_t size_ = 0;
  bool is_growing_ = false;  // from the load at which it begins until there are twice as many buckets
  std::vector<Step> search_;
  Overflow overflow_;
};

}  // namespace recsys::table
