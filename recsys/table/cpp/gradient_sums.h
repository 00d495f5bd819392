// The distinct keys of a batch, each with the sum of its gradients.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hashing.h"

namespace recsys::table {

// Not synchronised; built once and refilled, so that a small batch allocates nothing.
class GradientSums {
 public:
  // Takes the keys whose hash falls to `part` of `parts`; keys keep the order in which they first
  // occur, and their gradients are added in order of occurrence.
  void collect(std::span<const std::uint64_t> keys, const float* gradients, std::size_t dim,
               std::uint64_t part, std::uint64_t parts) {
    keys_.clear();
    sums_.clear();
    heads_.assign(std::bit_ceil(2 * keys.size() + 2), kEmpty);
    const std::size_t mask = heads_.size() - 1;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const std::uint64_t hash = mix64(keys[i]);
      if (parts > 1 && (hash >> 32) % parts != part) continue;
      const float* gradient = gradients + i * dim;
      std::size_t at = hash & mask;
      while (heads_[at] != kEmpty && keys_[heads_[at]] != keys[i]) at = (at + 1) & mask;
      if (heads_[at] == kEmpty) {
        heads_[at] = static_cast<std::uint32_t>(keys_.size());
        keys_.push_back(keys[i]);
        sums_.insert(sums_.end(), gradient, gradient + dim);
      } else {
        float* sum = sums_.data() + heads_[at] * dim;
        for (std::size_t d = 0; d < dim; ++d) sum[d] += gradient[d];
      }
    }
  }

  std::span<const std::uint64_t> keys() const noexcept { return keys_; }
  const float* sums() const noexcept { return sums_.data(); }

  // A key whose sum is NaN or infinite. A sum is never finite when one of its terms is not.
  std::optional<std::uint64_t> key_not_finite(std::size_t dim) const noexcept {
    if (all_finite(sums_)) return std::nullopt;
    for (std::size_t k = 0; k < keys_.size(); ++k)
      if (!all_finite({sums_.data() + k * dim, dim})) return keys_[k];
    return std::nullopt;
  }

 private:
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFFu;

  // Counts exponents of all ones: no branch in the loop, so that the compiler can vectorise it.
  static bool all_finite(std::span<const float> values) noexcept {
    std::uint32_t not_finite = 0;
    for (const float value : values)
      not_finite |= (std::bit_cast<std::uint32_t>(value) & 0x7F800000u) == 0x7F800000u;
    return not_finite == 0;
  }

  std::vector<std::uint64_t> keys_;
  std::vector<float> sums_;
  std::vector<std::uint32_t> heads_;  // open addressing: hash to position in keys_
};

}  // namespace recsys::table
