// The inner loops over rows of plain floats, in the best form that this processor has.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bucket.h"
#include "cpu.h"

namespace recsys::table {

namespace rows_portable {
#include "row_kernels.inl"
}
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,lzcnt")
namespace rows_avx2 {
#include "row_kernels.inl"
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt")
namespace rows_avx512 {
#include "row_kernels.inl"
}
#pragma GCC pop_options
#endif

struct RowKernels {
  void (*copy_rows)(const std::byte* weights, std::size_t dim, const std::uint32_t* rows, std::size_t n,
                    float* out) noexcept;
  void (*add_rows)(const std::byte* weights, std::size_t dim, const std::uint32_t* rows,
                   const std::uint32_t* bag, std::size_t n, float* out) noexcept;
  void (*gather_sum)(const float* from, std::size_t dim, const std::uint32_t* order, std::size_t n,
                     float* sum) noexcept;
  std::uint32_t (*largest_bits)(const float* x, std::size_t n) noexcept;
  void (*scale_rows)(const float* from, const float* scale, std::size_t n, std::size_t dim,
                     float* out) noexcept;
};

inline RowKernels row_kernels(Isa with = isa()) noexcept {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  if (with == Isa::kAvx512)
    return {rows_avx512::copy_rows, rows_avx512::add_rows, rows_avx512::gather_sum,
            rows_avx512::largest_bits, rows_avx512::scale_rows};
  if (with == Isa::kAvx2)
    return {rows_avx2::copy_rows, rows_avx2::add_rows, rows_avx2::gather_sum, rows_avx2::largest_bits,
            rows_avx2::scale_rows};
#endif
  (void)with;
  return {rows_portable::copy_rows, rows_portable::add_rows, rows_portable::gather_sum,
          rows_portable::largest_bits, rows_portable::scale_rows};
}

}  // namespace recsys::table
