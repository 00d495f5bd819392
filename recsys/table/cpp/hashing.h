// One 64-bit mixer for everything that must look random and repeat exactly: index buckets, batch
// partitions and initial values.
#pragma once

#include <cstdint>

namespace recsys::table {

// splitmix64: a bijection, so distinct keys keep distinct hashes.
constexpr std::uint64_t mix64(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace recsys::table
