// Which rows may stay. The rules are told in recsys/table/retention.py, which gives the same bits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

namespace recsys::table {

enum class Score : std::uint8_t { kLfu, kLru, kDistanceLfu };

// How much a row deserves to stay. A row seen after the clock counts as seen at it.
inline double score(Score policy, std::uint32_t exponent, std::uint32_t count, std::uint32_t last_seen_s,
                    std::uint32_t clock_s) noexcept {
  switch (policy) {
    case Score::kLfu: return count;
    case Score::kLru: return last_seen_s;
    case Score::kDistanceLfu: break;
  }
  const double age = static_cast<double>(clock_s - std::min(last_seen_s, clock_s)) + 1.0;
  double divisor = age;
  for (std::uint32_t i = 1; i < exponent; ++i) divisor *= age;
  return count / divisor;
}

// Immutable once built.
class Expiry {
 public:
  static constexpr std::size_t kFeatures = 4096;  // 12 bits of a key
  static constexpr int kValueBits = 52;

  // `max_idle_s` holds for all keys unless `by_feature` has a limit for each feature; 0 is for ever.
  explicit Expiry(std::uint32_t max_idle_s = 0, std::uint32_t max_skew_s = 3600,
                  std::vector<std::uint32_t> by_feature = {})
      : max_idle_s_(max_idle_s), max_skew_s_(max_skew_s), by_feature_(std::move(by_feature)) {
    if (!by_feature_.empty() && by_feature_.size() != kFeatures)
      throw std::invalid_argument("expiry: by_feature must hold 4096 limits or none");
  }

  // Whether any row can ever expire; a sweep of a table where none can is wasted.
  bool expires_rows() const noexcept {
    if (by_feature_.empty()) return max_idle_s_ != 0;
    return std::any_of(by_feature_.begin(), by_feature_.end(),
                       [](std::uint32_t limit) { return limit != 0; });
  }

  std::uint32_t limit_s(std::uint64_t key) const noexcept {
    return by_feature_.empty() ? max_idle_s_ : by_feature_[key >> kValueBits];
  }

  bool expired(std::uint64_t key, std::uint32_t last_seen_s, std::uint32_t clock_s) const noexcept {
    const std::uint32_t limit = limit_s(key);
    return limit != 0 && clock_s >= last_seen_s && clock_s - last_seen_s >= limit;
  }

  // The time an event counts at; the clock is then the larger of the two. No clock takes any time.
  std::uint32_t accepted_time(std::uint32_t event_time_s,
                              std::optional<std::uint32_t> clock_s) const noexcept {
    if (!clock_s || event_time_s <= *clock_s) return event_time_s;
    return *clock_s + std::min(event_time_s - *clock_s, max_skew_s_);
  }

 private:
  std::uint32_t max_idle_s_;
  std::uint32_t max_skew_s_;
  std::vector<std::uint32_t> by_feature_;
};

// The n candidates that go, as ascending positions: the first n (or all) by (score, last_seen,
// position). The result lies in `buffer`, which holds at least as many as there are candidates.
inline std::span<const std::uint32_t> choose_victims(std::span<const double> scores,
                                                     std::span<const std::uint32_t> last_seen_s,
                                                     std::size_t n,
                                                     std::span<std::uint32_t> buffer) noexcept {
  const std::span<std::uint32_t> order = buffer.first(scores.size());
  const std::span<std::uint32_t> chosen = order.first(std::min(n, order.size()));
  std::iota(order.begin(), order.end(), 0u);
  if (chosen.size() == order.size()) return chosen;
  std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(chosen.size()), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) {
                     if (scores[a] != scores[b]) return scores[a] < scores[b];
                     if (last_seen_s[a] != last_seen_s[b]) return last_seen_s[a] < last_seen_s[b];
                     return a < b;
                   });
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace recsys::table
