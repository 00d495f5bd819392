#include "row_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "check.h"
#include "made_keys.h"
#include "tables.h"

using namespace recsys::table;

namespace {

constexpr std::size_t kDim = 12;
constexpr auto kPinsNothing = [](std::uint32_t) { return false; };

std::vector<Slice> with_state() {
  Slice slice = plain_sgd(kDim);
  slice.rule.kind = Optimizer::kAdagrad;
  return {slice};
}

std::uint32_t add(RowStore& store, std::uint64_t key) {
  std::vector<float> scratch(store.layout().dim());
  const RowStore::Writing mark(store);
  return store.add(key, nullptr, kRateOfOne, scratch.data(), kPinsNothing);
}

void drop(RowStore& store, std::uint64_t key) {
  const RowStore::Writing mark(store);
  store.map().drop(store.map().find_one(key));
}

// Makes every number of a key's row the same.
void fill(RowStore& store, std::uint64_t key, std::uint32_t value) {
  const RowStore::Writing mark(store);
  const std::uint32_t row = store.map().find_one(key);
  const KeyVersions::Change change = store.map().change(key);
  const std::vector<float> weights(kDim, static_cast<float>(value));
  store.layout().encode(key, 0, weights.data(), store.stored(row));
  std::copy(weights.begin(), weights.end(), store.map().state(row));
  store.map().meta(row).last_seen_s = store.map().meta(row).count = value;
}

bool is_whole(const RowBuffers& rows, std::size_t i) {
  const auto value = static_cast<float>(rows.count[i]);
  const auto all_equal = [&](const std::vector<float>& numbers) {
    return std::all_of(&numbers[i * kDim], &numbers[i * kDim] + kDim, [&](float x) { return x == value; });
  };
  return all_equal(rows.weights) && all_equal(rows.state) && rows.last_seen_s[i] == rows.count[i];
}

// One row after another, as an export reads them.
void read_all(const RowStore& store, Keys keys, RowBuffers& rows, std::vector<bool>& is_there) {
  const auto take = [&](std::size_t at, std::uint32_t row) {
    is_there[at] = row != kNoRow;
    if (row != kNoRow) store.copy_out(row, at, rows.out());
  };
  store.read(
      keys, [&](const Probe& found) { store.prefetch_weights(found); },
      [&](std::size_t at, const Probe& found) {
        for (std::size_t i = 0; i < found.n; ++i) take(at + i, found.row[i]);
      },
      take);
}

void a_row_reads_as_it_was_written_and_a_missing_one_as_zeros_or_as_it_would_start() {
  for (const bool reads_initial : {false, true})
    for (const Codec codec : {Codec::kFp32, Codec::kInt8Row}) {
      Slice slice = plain_sgd(5, codec);
      slice.low = -1.0f;
      slice.width = 2.0f;
      RowStore store({slice}, KeyRules(), reads_initial);
      std::array<float, 5> before{}, after{};
      store.read_one(8, store.map().find_one(8), before.data());
      store.read_one(8, add(store, 8), after.data());
      CHECK(reads_initial ? before == after : before == (std::array<float, 5>{}));
      CHECK(std::any_of(after.begin(), after.end(), [](float x) { return x != 0.0f; }));
      std::array<float, 5> sum{};
      store.add_one(8, store.map().find_one(8), sum.data());
      CHECK(sum == after);
    }
}

void an_empty_store_can_be_read_and_compacted() {
  RowStore store({plain_sgd(kDim), plain_sgd(40)}, KeyRules(), false);
  RowBuffers rows(70, store.layout());
  std::vector<bool> is_there(70, true);
  read_all(store, keys_from(0, 70), rows, is_there);
  CHECK(std::count(is_there.begin(), is_there.end(), true) == 0);
  CHECK(store.scan(0, 70, rows.keys.data(), rows.out()) == (std::pair<std::size_t, std::uint32_t>{0, 0}));
  store.compact();
  store.clear();
  CHECK(store.map().size() == 0);
}

void a_scan_meets_every_row_once_whatever_its_step() {
  RowStore store(with_state(), KeyRules(), false);
  std::set<std::uint64_t> expected;
  for (std::uint64_t key = 0; key < 2000; ++key) {
    add(store, key);
    fill(store, key, static_cast<std::uint32_t>(key));
  }
  for (std::uint64_t key = 0; key < 2000; ++key)
    if (key % 3 == 0) drop(store, key);
    else expected.insert(key);
  for (const std::size_t step : {1, 7, 500, 2000, 5000}) {
    RowBuffers rows(step, store.layout());
    std::set<std::uint64_t> seen;
    std::uint32_t cursor = 0;
    do {
      const auto [n, next] = store.scan(cursor, step, rows.keys.data(), rows.out());
      for (std::size_t i = 0; i < n; ++i)
        CHECK(seen.insert(rows.keys[i]).second && is_whole(rows, i) && rows.count[i] == rows.keys[i]);
      cursor = next;
    } while (cursor != 0);
    CHECK(seen == expected);
  }
}

void compacting_takes_the_rows_along() {
  RowStore store(with_state(), KeyRules(), false);
  for (std::uint64_t key = 0; key < 3000; ++key) {
    add(store, key);
    fill(store, key, static_cast<std::uint32_t>(key));
  }
  for (std::uint64_t key = 0; key < 3000; ++key)
    if (key % 10 != 9) drop(store, key);
  {
    const auto alone = store.alone();
    store.compact();
  }
  const auto keys = keys_from(0, 3000);
  RowBuffers rows(keys.size(), store.layout());
  std::vector<bool> is_there(keys.size());
  read_all(store, keys, rows, is_there);
  for (std::size_t i = 0; i < keys.size(); ++i)
    CHECK(is_there[i] == (i % 10 == 9) && (!is_there[i] || (is_whole(rows, i) && rows.count[i] == i)));
}

// Keys 0 to 299 are there throughout; others come and go, under the same rows and beside them.
void readers_and_scans_see_whole_rows_and_miss_none_that_stays() {
  RowStore store(with_state(), KeyRules(), false);
  for (std::uint64_t key = 0; key < 300; ++key) add(store, key);
  std::atomic<bool> done = false;
  std::thread reader([&] {
    const auto keys = keys_from(0, 600);
    RowBuffers rows(keys.size(), store.layout());
    std::vector<bool> is_there(keys.size());
    while (!done) {
      read_all(store, keys, rows, is_there);
      for (std::size_t i = 0; i < keys.size(); ++i)
        CHECK(is_there[i] ? is_whole(rows, i) : i >= 300);
    }
  });
  std::thread scanner([&] {
    RowBuffers rows(512, store.layout());
    while (!done) {
      std::set<std::uint64_t> seen;
      std::uint32_t cursor = 0;
      do {
        const auto [n, next] = store.scan(cursor, 512, rows.keys.data(), rows.out());
        // A key that goes and comes back under a higher number may be met twice.
        for (std::size_t i = 0; i < n; ++i)
          CHECK(is_whole(rows, i) && (seen.insert(rows.keys[i]).second || rows.keys[i] >= 300));
        cursor = next;
      } while (cursor != 0);
      CHECK(std::count_if(seen.begin(), seen.end(), [](std::uint64_t key) { return key < 300; }) == 300);
    }
  });
  std::mt19937_64 random(4);
  for (std::uint32_t step = 1; step < 30'000; ++step) {
    const std::uint64_t key = random() % 900;
    if (store.map().find_one(key) == kNoRow) add(store, key);
    else if (key < 300 || random() % 2 == 0) fill(store, key, step);
    else drop(store, key);
  }
  done = true;
  reader.join();
  scanner.join();
}

}  // namespace

int main() {
  a_row_reads_as_it_was_written_and_a_missing_one_as_zeros_or_as_it_would_start();
  an_empty_store_can_be_read_and_compacted();
  a_scan_meets_every_row_once_whatever_its_step();
  compacting_takes_the_rows_along();
  readers_and_scans_see_whole_rows_and_miss_none_that_stays();
}
