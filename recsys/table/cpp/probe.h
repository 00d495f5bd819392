// Look-ups in blocks: while one block of keys is compared, the cache lines of the next are on their way.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "bucket.h"
#include "cpu.h"

namespace recsys::table {

inline constexpr std::size_t kKeysPerBlock = 32;
inline constexpr std::uint32_t kNoSlot = 1u << kSlotsPerBucket;  // as a slot: the word after the rows

// One block on its way through the three steps.
struct Probe {
  std::size_t n = 0;
  std::size_t n_pending = 0;
  std::array<std::uint64_t, kKeysPerBlock> first{};  // the keys' buckets
  std::array<std::uint64_t, kKeysPerBlock> second;
  std::array<std::uint32_t, kKeysPerBlock> row;  // the result; kNoRow where the key is not there
  std::array<std::uint8_t, kKeysPerBlock> pending;
};

namespace probe_portable {
#include "index_kernels.inl"
}
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,lzcnt")
namespace probe_avx2 {
#include "index_kernels.inl"
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt")
#define RECSYS_AVX512
namespace probe_avx512 {
#include "index_kernels.inl"
}
#undef RECSYS_AVX512
#pragma GCC pop_options
#endif

struct ProbeKernels {
  void (*place)(const IndexView&, const std::uint64_t* keys, Probe&) noexcept;
  void (*first)(const IndexView&, const std::uint64_t* keys, Probe&, const Probe& next) noexcept;
  void (*second)(const IndexView&, const std::uint64_t* keys, Probe&) noexcept;
};

inline ProbeKernels probe_kernels(Isa wanted = isa()) noexcept {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  if (wanted == Isa::kAvx512) return {probe_avx512::place_keys, probe_avx512::probe_first, probe_avx512::probe_second};
  if (wanted == Isa::kAvx2) return {probe_avx2::place_keys, probe_avx2::probe_first, probe_avx2::probe_second};
#endif
  (void)wanted;
  return {probe_portable::place_keys, probe_portable::probe_first, probe_portable::probe_second};
}

}  // namespace recsys::table
