#include "admission.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"

using namespace recsys::table;

namespace {

AdmissionRule occurrence(std::uint32_t threshold, std::uint32_t width, std::uint32_t depth = 4,
                         std::uint64_t window = 0) {
  return {AdmissionRule::kOccurrence, threshold, width, depth, window, 0.0, false, 11};
}

AdmissionRule by_chance(std::uint32_t threshold, bool linear) {
  const double probability = linear ? 0.0 : 1.0 - std::pow(0.05, 1.0 / threshold);
  return {AdmissionRule::kProbabilistic, threshold, 0, 0, 0, probability, linear, 11};
}

struct Sighting {
  std::uint64_t key;
  std::uint32_t occurrences;
};

Sighting sighting(std::uint64_t i) {
  return {mix64(i) % 500, static_cast<std::uint32_t>(1 + mix64(i + 4000) % 3)};
}

std::uint64_t folded_decisions(AdmissionFilter& filter) {
  std::uint64_t digest = 0;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    const auto [key, occurrences] = sighting(i);
    digest = mix64(digest ^ static_cast<std::uint64_t>(filter.admit(key, occurrences)));
  }
  return digest;
}

// tests/recsys/table/test_admission.py folds the decisions of its filter to the same numbers.
void decisions_are_those_of_the_python_filter() {
  AdmissionFilter sketch(occurrence(3, 64, 3, 16));
  CHECK(folded_decisions(sketch) == 0x2b3100b7372c9927ULL);
  AdmissionFilter equal(by_chance(5, false));
  CHECK(folded_decisions(equal) == 0xe52d964d47a4145bULL);
  AdmissionFilter linear(by_chance(5, true));
  CHECK(folded_decisions(linear) == 0xa24027d8ad70d710ULL);
}

void a_key_never_waits_longer_than_its_threshold() {
  for (const std::uint32_t threshold : {1u, 2u, 7u, 300u, 65'535u}) {
    AdmissionFilter sketch(occurrence(threshold, 32));
    AdmissionFilter roomy(occurrence(threshold, 1 << 16));
    std::map<std::uint64_t, std::uint64_t> seen;
    for (std::uint64_t i = 0; i < 4000; ++i) {
      auto [key, occurrences] = sighting(i);
      occurrences *= threshold / 8 + 1;
      seen[key] += occurrences;
      CHECK(sketch.admit(key, occurrences) || seen[key] < threshold);
      CHECK(roomy.admit(key, occurrences) == (seen[key] >= threshold));
    }
    CHECK(roomy.admitted() + roomy.refused() == 4000);
  }
}

void a_filter_that_admits_all_keeps_nothing() {
  AdmissionFilter all(AdmissionRule{});
  CHECK(all.admit(0, 1) && all.admit(~std::uint64_t{0}, 1));
  CHECK(all.admitted() == 2 && all.refused() == 0 && all.fill() == 0.0 && all.bytes() == sizeof all);
}

void fill_is_the_share_of_cells_in_use() {
  AdmissionFilter sketch(occurrence(2, 1 << 10, 2));
  sketch.admit(5, 1);
  CHECK(sketch.fill() == 2.0 / 2048.0);
  CHECK(sketch.bytes() == sizeof sketch + 2048 * 2);
}

void a_restored_filter_goes_on_as_if_nothing_had_happened() {
  for (const AdmissionRule& rule : {occurrence(3, 64, 3, 16), by_chance(5, false)}) {
    AdmissionFilter saved(rule), restored(rule);
    folded_decisions(saved);
    std::vector<std::uint16_t> cells(saved.depth() * saved.width());
    CHECK(saved.save_cells(cells));
    const AdmissionFilter::Counters counters = saved.counters();
    CHECK(restored.restore(cells, counters));
    CHECK(folded_decisions(restored) == folded_decisions(saved));
    CHECK(restored.counters() == saved.counters());
  }
}

void a_state_of_another_size_changes_nothing() {
  AdmissionFilter sketch(occurrence(3, 64, 2));
  sketch.admit(1, 2);
  std::vector<std::uint16_t> cells(128);
  std::vector<std::uint64_t> counters(AdmissionFilter::kCounters);
  CHECK(!sketch.restore(std::span(cells).first(64), counters));
  CHECK(!sketch.restore(cells, std::span(counters).first(3)));
  CHECK(!sketch.save_cells(std::span(cells).first(64)));
  CHECK(sketch.refused() == 1 && sketch.admit(1, 1));
}

void a_rule_that_cannot_be_is_refused() {
  AdmissionRule unlikely = by_chance(5, false);
  unlikely.probability = 1.5;
  for (const AdmissionRule& rule : {occurrence(0, 64), occurrence(65'536, 64), occurrence(3, 48),
                                    occurrence(3, 64, 9), occurrence(3, 64, 4, 17), unlikely}) {
    bool is_refused = false;
    try {
      AdmissionFilter filter(rule);
    } catch (const std::invalid_argument&) {
      is_refused = true;
    }
    CHECK(is_refused);
  }
}

template <class Work>
void on_threads(std::size_t n, Work work) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < n; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

void threads_that_count_different_keys_lose_nothing() {
  constexpr std::uint32_t kThreshold = 50;
  AdmissionFilter sketch(occurrence(kThreshold, 1 << 8));
  on_threads(4, [&](std::size_t thread) {
    for (std::uint32_t sightings = 1; sightings <= kThreshold; ++sightings)
      for (std::uint64_t key = thread; key < 400; key += 4) {
        const bool is_in = sketch.admit(key, 1);
        CHECK(is_in || sightings < kThreshold);
      }
  });
  CHECK(sketch.admitted() + sketch.refused() == 400 * kThreshold);
}

void threads_that_count_one_key_keep_at_least_what_each_has_counted() {
  constexpr std::uint32_t kThreshold = 2000;
  AdmissionFilter sketch(occurrence(kThreshold, 1 << 8));
  on_threads(4, [&](std::size_t) {
    for (std::uint32_t sightings = 1; sightings <= kThreshold; ++sightings) {
      const bool is_in = sketch.admit(7, 1);
      CHECK(is_in || sightings < kThreshold);
    }
  });
}

void halving_may_run_beside_additions_and_readers() {
  AdmissionFilter sketch(occurrence(40, 1 << 8, 4, 32));
  on_threads(4, [&](std::size_t thread) {
    for (std::uint64_t i = 0; i < 20'000; ++i) sketch.admit(mix64(i * 4 + thread), 1);
    std::vector<std::uint16_t> cells(1 << 10);
    CHECK(sketch.save_cells(cells));
  });
  CHECK(sketch.admitted() + sketch.refused() == 80'000);
  // Had no window ended, each cell would have grown by one for each of its row's share of the keys.
  std::vector<std::uint16_t> cells(1 << 10);
  CHECK(sketch.save_cells(cells));
  for (const std::uint16_t height : cells) CHECK(height < 40);
}

}  // namespace

int main() {
  decisions_are_those_of_the_python_filter();
  a_key_never_waits_longer_than_its_threshold();
  a_filter_that_admits_all_keeps_nothing();
  fill_is_the_share_of_cells_in_use();
  a_restored_filter_goes_on_as_if_nothing_had_happened();
  a_state_of_another_size_changes_nothing();
  a_rule_that_cannot_be_is_refused();
  threads_that_count_different_keys_lose_nothing();
  threads_that_count_one_key_keep_at_least_what_each_has_counted();
  halving_may_run_beside_additions_and_readers();
}
