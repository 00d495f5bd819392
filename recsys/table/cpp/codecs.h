// Packed forms of a row's weights, for serving, the wire and snapshots. recsys/table/codecs.py says
// what each codec does to a number and by how much it may be wrong; both write the same bytes.
// Here nothing is refused: a NaN stays one in the floating formats, is 0 in the integer formats and
// has the lower sign in one bit.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "cpu.h"
#include "hashing.h"

namespace recsys::table {

static_assert(std::endian::native == std::endian::little, "packed rows are little-endian");

enum class Codec : std::uint8_t { kFp32, kFp16, kBf16, kInt8Row, kInt4Row, kOneBit };

struct CodecRule {
  Codec kind;
  float amplitude;  // of one bit: every weight reads as plus or minus this
  bool stochastic;  // of fp16 and bf16: round by a draw from the row's stream, not to the nearest
};

inline std::size_t codec_bytes(const CodecRule& rule, std::size_t dim) noexcept {
  switch (rule.kind) {
    case Codec::kFp32: return 4 * dim;
    case Codec::kFp16:
    case Codec::kBf16: return 2 * dim;
    case Codec::kInt8Row: return 4 + dim;
    case Codec::kInt4Row: return 4 + (dim + 1) / 2;
    case Codec::kOneBit: return (dim + 7) / 8;
  }
  return 0;
}

// Bytes may lie anywhere; they must not overlap the floats.
struct CodecKernels {
  void (*encode)(const CodecRule&, std::size_t dim, const float* x, std::uint64_t stream,
                 std::byte* out) noexcept;
  void (*decode)(const CodecRule&, std::size_t dim, const std::byte* in, float* x) noexcept;
  void (*decode_add)(const CodecRule&, std::size_t dim, const std::byte* in, float* sum) noexcept;
};

namespace codec_portable {
#include "codec_kernels.inl"
}

#if defined(__x86_64__) && defined(__GNUC__)
#define RECSYS_CODEC_F16C
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,lzcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,lzcnt")
#endif
namespace codec_avx2 {
#include "codec_kernels.inl"
}
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt"))), \
    apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt")
#endif
namespace codec_avx512 {
#include "codec_kernels.inl"
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef RECSYS_CODEC_F16C
#endif

// The fastest kernels that `with` allows; all give the same bits.
inline CodecKernels codec_kernels(Codec codec, Isa with = isa()) noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
  if (with == Isa::kAvx512) return codec_avx512::kernels_of(codec);
  if (with == Isa::kAvx2) return codec_avx2::kernels_of(codec);
#endif
  return codec_portable::kernels_of(codec);
}

}  // namespace recsys::table
