#include "key_map.h"

#include <algorithm>
#include <random>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "check.h"
#include "made_keys.h"

using namespace recsys::table;

namespace {

constexpr auto kPinsNothing = [](std::uint32_t) { return false; };
constexpr auto kFillsNothing = [](std::uint32_t) {};
constexpr auto kMovesNothing = [](std::uint32_t, std::uint32_t) {};

std::uint32_t add(KeyMap& map, std::uint64_t key) { return map.add(key, kPinsNothing, kFillsNothing); }

KeyRules bounded(std::uint64_t max_rows, Score policy = Score::kLru) {
  KeyRules rules;
  rules.max_rows = max_rows;
  rules.is_bounded = true;
  rules.policy = policy;
  return rules;
}

KeyRules expiring(std::uint32_t max_idle_s) {
  KeyRules rules;
  rules.expiry = Expiry(max_idle_s);
  return rules;
}

std::vector<std::uint32_t> rows_of(const KeyMap& map, const std::vector<std::uint64_t>& keys) {
  std::vector<std::uint32_t> rows(keys.size());
  map.find(keys, [](std::size_t, const Probe&) {},
           [&](std::size_t begin, const Probe& found) {
             std::copy_n(found.row.begin(), found.n, rows.begin() + static_cast<std::ptrdiff_t>(begin));
           });
  return rows;
}

void looking_up_many_keys_equals_looking_up_each() {
  std::mt19937_64 random(1);
  KeyMap map(KeyRules(), 3);
  std::unordered_map<std::uint64_t, std::uint32_t> expected;
  for (std::uint64_t i = 0; i < 5000; ++i) expected[i * i] = add(map, i * i);
  for (std::uint64_t i = 0; i < 40; ++i) expected[clashing_key(i)] = add(map, clashing_key(i));
  expected[~std::uint64_t{0}] = add(map, ~std::uint64_t{0});
  for (const std::size_t n : {0, 1, 31, 32, 33, 100, 255, 256, 1000, 5000}) {
    std::vector<std::uint64_t> keys(n);
    for (std::uint64_t& key : keys) {
      const std::uint64_t i = random() % 6000;
      key = random() % 9 == 0 ? clashing_key(i % 50) : random() % 9 == 0 ? ~std::uint64_t{0} : i * i;
    }
    const auto rows = rows_of(map, keys);
    for (std::size_t i = 0; i < n; ++i) {
      const auto found = expected.find(keys[i]);
      CHECK(rows[i] == (found == expected.end() ? kNoRow : found->second));
      CHECK(rows[i] == map.find_one(keys[i]));
    }
  }
}

void a_new_key_takes_the_number_that_was_freed_last() {
  KeyMap map(KeyRules(), 0);
  for (std::uint32_t key = 0; key < 10; ++key) CHECK(add(map, key) == key);
  for (const std::uint32_t row : {3, 7, 5}) map.drop(row);
  CHECK(map.size() == 7 && map.issued() == 10);
  for (const std::uint32_t row : {5, 7, 3, 10}) CHECK(add(map, 100 + row) == row);
  CHECK(map.size() == 11 && map.find_one(107) == 7 && map.find_one(7) == kNoRow);
}

void a_new_row_is_blank_and_is_filled_before_anyone_finds_it() {
  KeyMap map(KeyRules(), 2);
  const std::uint32_t first = add(map, 1);
  map.meta(first) = {1, 50, 60, 70, 80};
  map.drop(first);
  const std::uint32_t row = map.add(2, kPinsNothing, [&](std::uint32_t filled) {
    CHECK(filled == first && map.find_one(2) == kNoRow && !map.is_live(filled));
    map.state(filled)[1] = 4.0f;
  });
  const RowMeta& its = map.meta(row);
  CHECK(its.key == 2 && its.last_seen_s == 0 && its.count == 0 && map.is_live(row));
  CHECK(map.find_one(2) == row && map.state(row)[1] == 4.0f);
}

void no_key_is_lost_below_the_declared_capacity() {
  for (const std::uint64_t max_rows : {1, 7, 1000, 40'000}) {
    KeyMap map(bounded(max_rows), 0);
    for (std::uint64_t key = 0; key < max_rows; ++key) CHECK(add(map, key * key) == key);
    CHECK(map.size() == max_rows && map.counters().evicted == 0 && map.counters().filtered == 0);
    for (std::uint64_t key = 0; key < max_rows; ++key) CHECK(map.find_one(key * key) == key);
    const std::size_t index_bytes = map.index_bytes();
    for (std::uint64_t key = max_rows; key < 3 * max_rows; ++key) {
      CHECK(add(map, key * key) != kNoRow);
      CHECK(map.size() <= max_rows && map.size() + KeyMap::kEvictionWindow / 8 >= max_rows);
    }
    CHECK(map.index_bytes() == index_bytes && map.issued() == max_rows);
    CHECK(map.counters().admitted - map.counters().evicted == map.size());
  }
}

void pinned_rows_outlive_every_eviction() {
  std::mt19937_64 random(2);
  KeyMap map(bounded(1000), 0);
  std::unordered_set<std::uint32_t> pinned;
  for (std::uint64_t key = 0; key < 1000; ++key)
    if (const std::uint32_t row = add(map, key); random() % 2 == 0) pinned.insert(row);
  const auto is_pinned = [&](std::uint32_t row) { return pinned.contains(row); };
  for (std::uint64_t key = 1000; key < 5000; ++key) CHECK(map.add(key, is_pinned, kFillsNothing) != kNoRow);
  for (const std::uint32_t row : pinned) CHECK(map.find_one(row) == row);
}

void a_map_full_of_pinned_rows_refuses_and_counts() {
  KeyMap map(bounded(600), 0);
  for (std::uint64_t key = 0; key < 600; ++key) add(map, key);
  CHECK(map.add(600, [](std::uint32_t) { return true; }, kFillsNothing) == kNoRow);
  CHECK(map.counters().filtered == 1 && map.counters().evicted == 0 && map.find_one(600) == kNoRow);
  // One row in the last window may go.
  CHECK(map.add(601, [](std::uint32_t row) { return row != 599; }, kFillsNothing) == 599);
  CHECK(map.find_one(599) == kNoRow && map.find_one(601) == 599 && map.size() == 600);
}

void the_lowest_eighth_of_a_window_goes_first() {
  for (const Score policy : {Score::kLru, Score::kLfu}) {
    KeyMap map(bounded(256, policy), 0);
    for (std::uint32_t key = 0; key < 256; ++key) {
      RowMeta& its = map.meta(add(map, key));
      (policy == Score::kLru ? its.last_seen_s : its.count) = key * 101 % 256;
    }
    add(map, 999);
    for (std::uint32_t key = 0; key < 256; ++key)
      CHECK((map.find_one(key) == kNoRow) == (key * 101 % 256 < 32));
    CHECK(map.counters().evicted == 32);
  }
}

void a_sweep_drops_what_has_been_idle_too_long_a_few_rows_at_a_time() {
  KeyMap map(expiring(100), 0);
  for (std::uint32_t key = 0; key < 1000; ++key) map.meta(add(map, key)).last_seen_s = key;
  CHECK(map.sweep(10) == 0);
  map.tick(600);
  CHECK(map.sweep(240) + map.sweep(250) == 500 - 10);
  CHECK(map.sweep(5000) == 11);
  for (std::uint32_t key = 0; key < 1000; ++key) CHECK((map.find_one(key) == kNoRow) == (key <= 500));
  CHECK(map.counters().expired == 501 && map.sweep(5000) == 0 && map.size() == 499);
}

void compacting_moves_rows_down_and_changes_nothing_else() {
  std::mt19937_64 random(3);
  KeyMap map(KeyRules(), 2);
  for (std::uint64_t key = 0; key < 5000; ++key) {
    const std::uint32_t row = add(map, key);
    map.meta(row).count = static_cast<std::uint32_t>(key);
    map.state(row)[1] = static_cast<float>(key);
  }
  std::unordered_set<std::uint64_t> kept;
  for (std::uint64_t key = 0; key < 5000; ++key)
    if (random() % 10 == 0) kept.insert(key);
    else map.drop(map.find_one(key));
  const std::size_t before = map.index_bytes();
  std::size_t moves = 0;
  map.compact([&](std::uint32_t from, std::uint32_t to) { moves += from > to; });
  CHECK(map.issued() == kept.size() && map.size() == kept.size() && moves <= kept.size());
  CHECK(map.index_bytes() < before / 3);
  for (std::uint64_t key = 0; key < 5000; ++key) {
    const std::uint32_t row = map.find_one(key);
    CHECK((row != kNoRow) == kept.contains(key));
    if (row == kNoRow) continue;
    CHECK(row < kept.size() && map.is_live(row) && map.meta(row).key == key);
    CHECK(map.meta(row).count == key && map.state(row)[1] == static_cast<float>(key));
  }
  CHECK(add(map, 9999) == kept.size());
  map.compact(kMovesNothing);
  CHECK(map.size() == kept.size() + 1);
}

void a_cleared_map_is_like_a_new_one() {
  KeyMap map(bounded(100), 1);
  map.tick(50);
  for (std::uint64_t key = 0; key < 150; ++key) add(map, key);
  map.clear();
  CHECK(map.size() == 0 && map.issued() == 0 && !map.clock() && map.counters().admitted == 0);
  for (std::uint64_t key = 0; key < 150; ++key) CHECK(map.find_one(key) == kNoRow);
  for (std::uint32_t key = 0; key < 100; ++key) CHECK(add(map, key) == key);
}

}  // namespace

int main() {
  looking_up_many_keys_equals_looking_up_each();
  a_new_key_takes_the_number_that_was_freed_last();
  a_new_row_is_blank_and_is_filled_before_anyone_finds_it();
  no_key_is_lost_below_the_declared_capacity();
  pinned_rows_outlive_every_eviction();
  a_map_full_of_pinned_rows_refuses_and_counts();
  the_lowest_eighth_of_a_window_goes_first();
  a_sweep_drops_what_has_been_idle_too_long_a_few_rows_at_a_time();
  compacting_moves_rows_down_and_changes_nothing_else();
  a_cleared_map_is_like_a_new_one();
}
