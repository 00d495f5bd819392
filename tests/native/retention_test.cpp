#include "retention.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "check.h"
#include "hashing.h"

using namespace recsys::table;

namespace {

constexpr std::uint32_t kForever = 0xffffffff;

// tests/recsys/table/test_retention.py folds the scores and victims of its rules to the same number.
void scores_and_victims_are_those_of_the_python_rules() {
  constexpr std::size_t kRows = 300;
  std::vector<std::uint32_t> count(kRows), last_seen(kRows), buffer(kRows);
  for (std::size_t i = 0; i < kRows; ++i) {
    count[i] = static_cast<std::uint32_t>(1 + mix64(i) % 1000);
    last_seen[i] = static_cast<std::uint32_t>(mix64(i + kRows) % 1000);
  }
  struct Policy {
    Score score;
    std::uint32_t exponent;
  };
  std::uint64_t digest = 0;
  for (const auto& [policy, exponent] : {Policy{Score::kLfu, 1}, Policy{Score::kLru, 1},
                                         Policy{Score::kDistanceLfu, 1}, Policy{Score::kDistanceLfu, 3}}) {
    std::vector<double> scores(kRows);
    for (std::size_t i = 0; i < kRows; ++i) {
      scores[i] = score(policy, exponent, count[i], last_seen[i], 900);
      digest = mix64(digest ^ std::bit_cast<std::uint64_t>(scores[i]));
    }
    for (const std::uint32_t victim : choose_victims(scores, last_seen, 40, buffer))
      digest = mix64(digest ^ victim);
  }
  CHECK(digest == 0xb19f2f1c8e1d73c8ULL);
}

void victims_are_the_lowest_by_score_then_age_then_position() {
  for (std::uint64_t round = 0; round < 500; ++round) {
    const std::size_t rows = mix64(round) % 50;
    std::vector<double> scores(rows);
    std::vector<std::uint32_t> last_seen(rows), buffer(rows + 3), in_order(rows);
    for (std::size_t i = 0; i < rows; ++i) {
      const std::uint64_t drawn = mix64(round * 1000 + i);
      scores[i] = static_cast<double>(drawn % 3);
      last_seen[i] = static_cast<std::uint32_t>(drawn / 3 % 3);
      in_order[i] = static_cast<std::uint32_t>(i);
    }
    std::sort(in_order.begin(), in_order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return std::tuple(scores[a], last_seen[a], a) < std::tuple(scores[b], last_seen[b], b);
    });
    const std::size_t n = mix64(round + 7777) % 55;
    in_order.resize(std::min(n, rows));
    std::sort(in_order.begin(), in_order.end());
    const auto victims = choose_victims(scores, last_seen, n, buffer);
    CHECK(std::equal(victims.begin(), victims.end(), in_order.begin(), in_order.end()));
  }
}

void distance_lfu_lets_old_touches_count_for_less() {
  CHECK(score(Score::kDistanceLfu, 2, 8, 99, 100) == 2.0);
  CHECK(score(Score::kDistanceLfu, 2, 8, 101, 100) == 8.0);  // seen after the clock: as if at it
  CHECK(score(Score::kDistanceLfu, 16, 1, 0, kForever) > 0.0);
}

void a_row_expires_once_it_has_idled_for_the_whole_limit() {
  const Expiry expiry(10);
  CHECK(!expiry.expired(1, 100, 109) && expiry.expired(1, 100, 110));
  CHECK(!expiry.expired(1, 100, 50));  // the clock cannot be behind a row, and must not wrap if it is
  CHECK(Expiry(kForever).expired(1, 0, kForever) && !Expiry(kForever).expired(1, 1, kForever));
  CHECK(!Expiry().expired(1, 0, kForever) && !Expiry().expires_rows() && expiry.expires_rows());
}

void each_feature_has_its_own_limit() {
  std::vector<std::uint32_t> limits(Expiry::kFeatures, 0);
  limits[4095] = 5;
  const Expiry expiry(10, 0, limits);
  CHECK(expiry.limit_s(~std::uint64_t{0}) == 5 && expiry.limit_s(3) == 0 && expiry.expires_rows());
  CHECK(expiry.expired(~std::uint64_t{0}, 0, 5) && !expiry.expired(3, 0, kForever));
  limits[4095] = 0;
  CHECK(!Expiry(10, 0, limits).expires_rows());
}

void an_event_counts_at_most_the_skew_ahead_of_the_clock() {
  const Expiry expiry(0, 60);
  CHECK(expiry.accepted_time(kForever, std::nullopt) == kForever);
  CHECK(expiry.accepted_time(160, 100u) == 160 && expiry.accepted_time(161, 100u) == 160);
  CHECK(expiry.accepted_time(3, 100u) == 3);
  CHECK(expiry.accepted_time(kForever, kForever - 30) == kForever);
}

void limits_of_another_size_are_refused() {
  bool is_refused = false;
  try {
    Expiry expiry(0, 0, std::vector<std::uint32_t>(4095));
  } catch (const std::invalid_argument&) {
    is_refused = true;
  }
  CHECK(is_refused);
}

}  // namespace

int main() {
  scores_and_victims_are_those_of_the_python_rules();
  victims_are_the_lowest_by_score_then_age_then_position();
  distance_lfu_lets_old_touches_count_for_less();
  a_row_expires_once_it_has_idled_for_the_whole_limit();
  each_feature_has_its_own_limit();
  an_event_counts_at_most_the_skew_ahead_of_the_clock();
  limits_of_another_size_are_refused();
}
