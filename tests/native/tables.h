// Settings from which the tests build tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "key_map.h"
#include "layout.h"

namespace recsys::table {

inline constexpr float kRateOfOne[] = {1.0f, 1.0f, 1.0f, 1.0f};

// Starts at zeros and steps along the gradient itself: whole numbers stay exact, whatever the order.
inline Slice plain_sgd(std::size_t dim, Codec codec = Codec::kFp32) {
  return {dim, {Optimizer::kSgd, {}}, {codec, 1.0f, false}, Clip::kNone, 0.0f, 0.0f, 0.0f, 0};
}

inline KeyRules rules_with(std::uint64_t max_rows, std::uint32_t max_idle_s = 0) {
  KeyRules rules;
  if (max_rows != 0) rules.max_rows = max_rows;
  rules.is_bounded = max_rows != 0;
  rules.expiry = Expiry(max_idle_s);
  return rules;
}

// Room for whole rows, to be copied into or from.
struct RowBuffers {
  RowBuffers(std::size_t n, const Layout& layout)
      : keys(n), weights(n * layout.dim()), state(n * layout.state_dim()), last_seen_s(n), count(n) {}
  RowsOut out() { return {weights.data(), state.data(), last_seen_s.data(), count.data()}; }
  RowsIn in() const { return {weights.data(), state.data(), last_seen_s.data(), count.data()}; }

  std::vector<std::uint64_t> keys;
  std::vector<float> weights, state;
  std::vector<std::uint32_t> last_seen_s, count;
};

}  // namespace recsys::table
