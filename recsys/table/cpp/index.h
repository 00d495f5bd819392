// Bucketised cuckoo index: exact 64-bit keys to row numbers.
//
// A key lives in one of two buckets of four slots; a bucket is one cache line. The second bucket
// follows from the first and eight hash bits, and from the second the first, so a resident can be
// moved without knowing which of the two it was put in. Keys are always compared in full.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include "hashing.h"

namespace recsys::table {

inline constexpr std::uint32_t kNoRow = 0xFFFFFFFFu;

struct Slot {
  std::uint64_t key = 0;
  std::uint32_t row = kNoRow;  // kNoRow marks an empty slot, so that every 64-bit key is legal
  std::uint32_t last_seen_s = 0;
};

inline constexpr std::size_t kSlotsPerBucket = 4;

struct alignas(64) Bucket {
  std::array<Slot, kSlotsPerBucket> slots;
};
static_assert(sizeof(Bucket) == 64);

// Not synchronised. A Slot pointer is good until the next insert, erase or clear.
class CuckooIndex {
 public:
  // From 512 buckets on, a key's two buckets always differ: the tag step is below 2^9 and odd.
  static constexpr std::size_t kMinBuckets = 512;

  CuckooIndex() : buckets_(kMinBuckets), mask_(kMinBuckets - 1) {}

  std::size_t size() const noexcept { return size_; }
  std::size_t capacity() const noexcept { return buckets_.size() * kSlotsPerBucket; }
  std::size_t bytes() const noexcept { return buckets_.size() * sizeof(Bucket); }

  void prefetch(std::uint64_t key) const noexcept {
    __builtin_prefetch(&buckets_[mix64(key) & mask_]);
  }

  const Slot* find(std::uint64_t key) const noexcept {
    const std::uint64_t hash = mix64(key);
    const std::size_t first = hash & mask_;
    if (const Slot* slot = find_in(first, key)) return slot;
    return find_in((first ^ step(hash)) & mask_, key);
  }

  Slot* find(std::uint64_t key) noexcept {
    return const_cast<Slot*>(static_cast<const CuckooIndex*>(this)->find(key));
  }

  // Adds a key that is not there yet and returns its slot, doubling the index when it is full.
  // Throws std::length_error, with nothing changed but the room, when the keys' hashes clash so
  // badly that more room does not help.
  Slot& insert(std::uint64_t key, std::uint32_t row, std::uint32_t last_seen_s) {
    for (;;) {
      if (Slot* slot = make_free_slot(key)) {
        *slot = {key, row, last_seen_s};
        ++size_;
        return *slot;
      }
      // Random keys fail near load 0.96; this low, the hash is at fault and not the room.
      if (size_ * 20 < capacity()) throw std::length_error("too many keys share both buckets");
      grow();
    }
  }

  // Removes the key; returns the row that it had.
  std::optional<std::uint32_t> erase(std::uint64_t key) noexcept {
    Slot* slot = find(key);
    if (slot == nullptr) return std::nullopt;
    const std::uint32_t row = slot->row;
    *slot = Slot{};
    --size_;
    return row;
  }

  template <typename Visit>
  void for_each(Visit&& visit) const {
    for (const Bucket& bucket : buckets_)
      for (const Slot& slot : bucket.slots)
        if (slot.row != kNoRow) visit(slot);
  }

 private:
  static constexpr int kMaxMoves = 4;

  // One bucket seen by the search, and the slot of its parent whose resident could move here.
  struct Step {
    std::size_t bucket;
    int parent;
    int parent_slot;
    int moves;
  };

  static constexpr std::uint64_t step(std::uint64_t hash) noexcept {
    hash ^= hash >> 32;
    hash ^= hash >> 16;
    hash ^= hash >> 8;
    return ((hash & 0xFF) + 1) * 0xc6a4a7935bd1e995ULL;
  }

  const Slot* find_in(std::size_t bucket, std::uint64_t key) const noexcept {
    for (const Slot& slot : buckets_[bucket].slots)
      if (slot.key == key && slot.row != kNoRow) return &slot;
    return nullptr;
  }

  Slot* free_slot_in(std::size_t bucket) noexcept {
    for (Slot& slot : buckets_[bucket].slots)
      if (slot.row == kNoRow) return &slot;
    return nullptr;
  }

  std::size_t other_bucket(std::size_t bucket, std::uint64_t key) const noexcept {
    return (bucket ^ step(mix64(key))) & mask_;
  }

  // Breadth first from both buckets of the key: the shortest chain of moves that frees a slot.
  Slot* make_free_slot(std::uint64_t key) {
    const std::size_t first = mix64(key) & mask_;
    search_.clear();
    search_.push_back({first, -1, -1, 0});
    search_.push_back({other_bucket(first, key), -1, -1, 0});
    for (std::size_t at = 0; at < search_.size(); ++at) {
      const Step seen = search_[at];
      if (Slot* free_slot = free_slot_in(seen.bucket)) return shift_along(seen, free_slot);
      if (seen.moves == kMaxMoves) continue;
      for (std::size_t s = 0; s < kSlotsPerBucket; ++s) {
        const std::uint64_t resident = buckets_[seen.bucket].slots[s].key;
        search_.push_back({other_bucket(seen.bucket, resident), static_cast<int>(at),
                           static_cast<int>(s), seen.moves + 1});
      }
    }
    return nullptr;
  }

  // Moves the last resident of the chain first, so that each lands in a slot that is already free.
  Slot* shift_along(Step seen, Slot* free_slot) noexcept {
    while (seen.parent >= 0) {
      const Step& parent = search_[static_cast<std::size_t>(seen.parent)];
      Slot* resident = &buckets_[parent.bucket].slots[static_cast<std::size_t>(seen.parent_slot)];
      *free_slot = *resident;
      free_slot = resident;
      seen = parent;
    }
    return free_slot;
  }

  // Both bucket numbers of a key gain one top bit, so the residents of bucket b go to b or to
  // b + old size, each to the slot position that it had: nothing can clash and nothing is searched.
  void grow() {
    std::vector<Bucket> grown(buckets_.size() * 2);
    const std::size_t grown_mask = grown.size() - 1;
    for (std::size_t b = 0; b < buckets_.size(); ++b) {
      for (std::size_t s = 0; s < kSlotsPerBucket; ++s) {
        const Slot& slot = buckets_[b].slots[s];
        if (slot.row == kNoRow) continue;
        const std::uint64_t hash = mix64(slot.key);
        const bool in_first = (hash & mask_) == b;
        grown[(in_first ? hash : hash ^ step(hash)) & grown_mask].slots[s] = slot;
      }
    }
    buckets_ = std::move(grown);
    mask_ = grown_mask;
  }

  std::vector<Bucket> buckets_;
  std::size_t mask_;
  std::size_t size_ = 0;
  std::vector<Step> search_;
};

}  // namespace recsys::table
