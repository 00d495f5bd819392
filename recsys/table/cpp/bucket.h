// What the index is made of, and how a key finds its two buckets.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "hashing.h"

namespace recsys::table {

inline constexpr std::uint32_t kNoRow = 0xFFFFFFFFu;
inline constexpr std::size_t kSlotsPerBucket = 5;

// One cache line. Which slots hold a key is said apart, so that every 64-bit key is legal.
struct alignas(64) Bucket {
  std::array<std::uint64_t, kSlotsPerBucket> keys;
  std::array<std::uint32_t, kSlotsPerBucket> rows;
  std::uint32_t used;  // bit s: slot s holds a key
};
static_assert(sizeof(Bucket) == 64);
inline constexpr std::uint32_t kAllUsed = (1u << kSlotsPerBucket) - 1;

// The two halves of a key's hash choose its two buckets, each on its own.
constexpr std::uint32_t first_half(std::uint64_t hash) noexcept {
  return static_cast<std::uint32_t>(hash);
}
constexpr std::uint32_t second_half(std::uint64_t hash) noexcept {
  return static_cast<std::uint32_t>(hash >> 32);
}

// Linear hashing (Litwin, VLDB 1980) over any number of base buckets: bucket b of the lower part is split
// into b and b + lower, one after another, until there are twice as many.
struct IndexView {
  const Bucket* buckets;
  std::uint64_t base;   // buckets at level 0
  std::uint64_t lower;  // base << level: buckets before the running level began to split
  std::uint64_t mask;   // (2 << level) - 1
  std::uint64_t count;  // buckets in use: lower <= count < 2 * lower

  std::uint64_t place(std::uint32_t half) const noexcept {
    const std::uint64_t at = (half & mask) * base + ((half * base) >> 32);
    return at - (lower & (std::uint64_t{0} - (at >= count)));  // without a branch, which would be a coin toss
  }
};

}  // namespace recsys::table
