// How one gradient changes one slice of a row. recsys/table/optimizers.py says what each rule does and
// means by its numbers; both give the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "cpu.h"

namespace recsys::table {

// In the order of optimizers.KINDS.
enum class Optimizer : std::uint8_t {
  kSgd,
  kMomentum,
  kAdagrad,
  kRowWiseAdagrad,
  kAdam,
  kRowWiseAdam,
  kAmsgrad,
  kFtrl,
  kGroupFtrl,
  kGroupAdagrad,
  kRmsprop,
  kAdadelta,
  kMovingAverage,
};

// The numbers are those of optimizers.core_numbers; the learning rate may change and comes with each step.
struct Rule {
  Optimizer kind;
  std::array<float, 8> numbers;
};

// One gradient's step. The three arrays do not overlap; any alignment will do.
using Update = void (*)(const Rule&, float rate, std::size_t dim, float* w, float* state,
                        const float* g) noexcept;

// In the order of clipping.CLIPS, after none.
enum class Clip : std::uint8_t { kNone, kByValue, kByNorm };

inline std::size_t state_dim(const Rule& rule, std::size_t dim) noexcept {
  switch (rule.kind) {
    case Optimizer::kSgd:
    case Optimizer::kMovingAverage: return 0;
    case Optimizer::kRowWiseAdagrad:
    case Optimizer::kGroupAdagrad: return 1;
    case Optimizer::kMomentum:
    case Optimizer::kAdagrad:
    case Optimizer::kRmsprop: return dim;
    case Optimizer::kRowWiseAdam: return dim + 3;
    case Optimizer::kFtrl:
    case Optimizer::kGroupFtrl:
    case Optimizer::kAdadelta: return 2 * dim;
    case Optimizer::kAdam: return 2 * dim + 2;
    case Optimizer::kAmsgrad: return 3 * dim + 2;
  }
  return 0;
}

namespace optimizer_portable {
#include "optimizer_kernels.inl"
}

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,lzcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,lzcnt")
#endif
namespace optimizer_avx2 {
#include "optimizer_kernels.inl"
}
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt"))), \
    apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
// Vectors of 32 bytes with the masks and registers of AVX-512: divisions and roots set the pace, which
// wider ones do not quicken, and they leave more columns of a row to be done one by one.
#pragma GCC target( \
    "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt,prefer-vector-width=256")
#endif
namespace optimizer_avx512 {
#include "optimizer_kernels.inl"
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

// State of a row's slice that starts at `w` when the learning rate is `rate`. That of FTRL depends on
// both: it is the one whose solution is `w`.
inline void initial_state(const Rule& rule, std::size_t dim, float rate, const float* w,
                          float* state) noexcept {
  const auto& numbers = rule.numbers;
  const std::size_t n_state = state_dim(rule, dim);
  std::fill_n(state, n_state, 0.0f);
  switch (rule.kind) {
    case Optimizer::kAdagrad:
    case Optimizer::kRowWiseAdagrad:
    case Optimizer::kGroupAdagrad: std::fill_n(state, n_state, numbers[0]); break;
    case Optimizer::kAdam:
    case Optimizer::kRowWiseAdam:
    case Optimizer::kAmsgrad: std::fill_n(state + n_state - 2, 2, 1.0f); break;
    case Optimizer::kFtrl:
    case Optimizer::kGroupFtrl: {
      std::fill_n(state, dim, numbers[0]);
      const float divisor = std::sqrt(numbers[0]) + numbers[1] + numbers[3] * rate;
      const float threshold = rate * numbers[2];
      const bool is_group = rule.kind == Optimizer::kGroupFtrl;
      const auto w_at = [=](std::size_t i) { return w[i]; };
      const float norm = is_group ? std::sqrt(optimizer_portable::sum_of_squares(dim, w_at)) : 0.0f;
      // Squares of less than this lose their bits; a slice that small starts as one of zeros.
      constexpr float kLeastNorm = 0x1p-60f;
      const float push = norm > kLeastNorm ? threshold / norm : 0.0f;
      for (std::size_t i = 0; i < dim; ++i) {
        const float sign = static_cast<float>(w[i] > 0.0f) - static_cast<float>(w[i] < 0.0f);
        state[dim + i] = is_group ? -(w[i] * (divisor + push)) : -(w[i] * divisor) - sign * threshold;
      }
      break;
    }
    default: break;
  }
}

inline Update update_for(Optimizer kind, Isa with = isa()) noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
  if (with == Isa::kAvx512) return optimizer_avx512::update_of(kind);
  if (with == Isa::kAvx2) return optimizer_avx2::update_of(kind);
#endif
  (void)with;
  return optimizer_portable::update_of(kind);
}

inline void clip(Clip rule, float limit, std::size_t dim, float* g) noexcept {
  if (rule == Clip::kByValue) optimizer_portable::clip_by_value(limit, dim, g);
  if (rule == Clip::kByNorm) optimizer_portable::clip_by_norm(limit, dim, g);
}

}  // namespace recsys::table
