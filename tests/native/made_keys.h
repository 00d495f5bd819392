// Keys made to order from the hash that the index will see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "hashing.h"

namespace recsys::table {

// The key whose hash is `hash`: mix64 undone step by step.
inline std::uint64_t key_with_hash(std::uint64_t hash) {
  const auto unshift = [](std::uint64_t x, int by) {
    std::uint64_t result = x;
    for (int done = by; done < 64; done += by) result = x ^ (result >> by);
    return result;
  };
  const auto inverse_of = [](std::uint64_t odd) {
    std::uint64_t inverse = odd;
    for (int i = 0; i < 6; ++i) inverse *= 2 - odd * inverse;
    return inverse;
  };
  std::uint64_t x = unshift(hash, 31) * inverse_of(0x94d049bb133111ebULL);
  x = unshift(x, 27) * inverse_of(0xbf58476d1ce4e5b9ULL);
  return unshift(x, 30) - 0x9e3779b97f4a7c15ULL;
}

inline constexpr std::uint64_t kClashingKeys = 1024;

// Keys of one family share both buckets while the index has at most 64 * 2^15 of them: those are chosen
// by the top 6 and the low bits of each half of the hash, and only bits between differ.
inline std::uint64_t clashing_key(std::uint64_t i, std::uint64_t family = 0) {
  return key_with_hash((7 + family) << 32 | i << (32 + 16) | (5 + family));
}

inline std::vector<std::uint64_t> keys_from(std::uint64_t first, std::size_t n) {
  std::vector<std::uint64_t> keys(n);
  std::iota(keys.begin(), keys.end(), first);
  return keys;
}

}  // namespace recsys::table
