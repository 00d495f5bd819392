// What the columns of a row are, how they start and how one gradient changes them.
//
// A row is [weights of all slices | optimizer state of all slices], float32. Every rule below is
// written operation by operation as in recsys/table/optimizers.py and initializers.py; the two give
// the same bits as long as the compiler neither fuses nor reorders (-ffp-contract=off, no fast-math).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "hashing.h"

namespace recsys::table {

enum class Optimizer : std::uint8_t { kSgd, kAdagrad, kRowWiseAdagrad };

struct Slice {
  std::size_t dim;
  Optimizer optimizer;
  float learning_rate;
  float initial_accumulator;   // unused by kSgd
  float low;                   // initial weights are low + width * u, u in [0, 1)
  float width;                 // 0 for a constant
  std::uint64_t seed;          // of this slice's initial weights
  std::size_t weight_at = 0;   // set by Layout: first column among the weights
  std::size_t state_at = 0;    // set by Layout: first column among the states

  std::size_t state_dim() const noexcept {
    switch (optimizer) {
      case Optimizer::kSgd: return 0;
      case Optimizer::kAdagrad: return dim;
      case Optimizer::kRowWiseAdagrad: return 1;
    }
    return 0;
  }
};

// w -= lr * g
inline void sgd(float* w, const float* g, std::size_t dim, float lr) noexcept {
  for (std::size_t i = 0; i < dim; ++i) w[i] -= lr * g[i];
}

// n += g^2; w -= lr * g / sqrt(n). Where n is still 0 there is nothing to step along.
inline void adagrad(float* __restrict w, float* __restrict n, const float* __restrict g,
                    std::size_t dim, float lr) noexcept {
  for (std::size_t i = 0; i < dim; ++i) {
    n[i] += g[i] * g[i];
    const float step = lr * g[i] / std::sqrt(n[i]);
    w[i] -= n[i] > 0.0f ? step : 0.0f;
  }
}

// n += mean(g^2), one n for the row; w -= lr * g / sqrt(n).
inline void row_wise_adagrad(float* w, float* n, const float* g, std::size_t dim, float lr) noexcept {
  float squares = 0.0f;
  for (std::size_t i = 0; i < dim; ++i) squares += g[i] * g[i];
  *n += squares / static_cast<float>(dim);
  if (!(*n > 0.0f)) return;
  const float root = std::sqrt(*n);
  for (std::size_t i = 0; i < dim; ++i) w[i] -= lr * g[i] / root;
}

// Immutable once built.
class Layout {
 public:
  explicit Layout(std::vector<Slice> slices) : slices_(std::move(slices)) {
    for (Slice& slice : slices_) {
      slice.weight_at = dim_;
      slice.state_at = state_dim_;
      dim_ += slice.dim;
      state_dim_ += slice.state_dim();
    }
  }

  std::size_t dim() const noexcept { return dim_; }
  std::size_t state_dim() const noexcept { return state_dim_; }

  // Draws are hashes of (slice seed, key, column): the order of arrival cannot change them.
  void initial_weights(std::uint64_t key, float* weights) const noexcept {
    for (const Slice& slice : slices_) {
      float* w = weights + slice.weight_at;
      if (slice.width == 0.0f) {
        std::fill_n(w, slice.dim, slice.low);
        continue;
      }
      const std::uint64_t stream = mix64(slice.seed ^ key);
      for (std::size_t i = 0; i < slice.dim; ++i) {
        const float u = static_cast<float>(mix64(stream + i) >> 40) * 0x1p-24f;
        w[i] = slice.low + slice.width * u;
      }
    }
  }

  void initial_state(float* state) const noexcept {
    for (const Slice& slice : slices_)
      std::fill_n(state + slice.state_at, slice.state_dim(), slice.initial_accumulator);
  }

  void update(float* weights, float* state, const float* gradient) const noexcept {
    for (const Slice& slice : slices_) {
      float* w = weights + slice.weight_at;
      float* n = state + slice.state_at;
      const float* g = gradient + slice.weight_at;
      switch (slice.optimizer) {
        case Optimizer::kSgd: sgd(w, g, slice.dim, slice.learning_rate); break;
        case Optimizer::kAdagrad: adagrad(w, n, g, slice.dim, slice.learning_rate); break;
        case Optimizer::kRowWiseAdagrad:
          row_wise_adagrad(w, n, g, slice.dim, slice.learning_rate);
          break;
      }
    }
  }

 private:
  std::vector<Slice> slices_;
  std::size_t dim_ = 0;
  std::size_t state_dim_ = 0;
};

}  // namespace recsys::table
