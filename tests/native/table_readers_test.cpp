// Readers of the whole table beside its writer.
#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "check.h"
#include "made_keys.h"
#include "table.h"
#include "tables.h"

using namespace recsys::table;

namespace {

// Every column starts at 0 and gets the same gradients, so a whole row has equal columns.
constexpr std::size_t kDim = 16;
constexpr std::size_t kStaying = 600;  // keys 0 to 599 are there throughout

Table equal_columns(KeyRules rules = KeyRules(), std::size_t threads = 2) {
  return Table({plain_sgd(kDim)}, std::move(rules), false, Nonfinite::kRefuse, threads);
}

bool rows_are_whole(const std::vector<float>& weights) {
  for (std::size_t i = 0; i < weights.size(); i += kDim)
    if (std::any_of(&weights[i], &weights[i] + kDim, [&](float w) { return w != weights[i]; })) return false;
  return true;
}

void learn(Table& table, const std::vector<std::uint64_t>& keys, std::uint32_t event_time_s) {
  table.learn(keys, std::vector<float>(keys.size() * kDim, 1.0f).data(), event_time_s, kRateOfOne);
}

void assign_ones(Table& table, const std::vector<std::uint64_t>& keys) {
  table.assign(keys, std::vector<float>(keys.size() * kDim, 1.0f).data(), kRateOfOne);
}

// Runs each of `reads` again and again in a thread of its own until `write` is done.
void beside(const std::function<void()>& write, const std::vector<std::function<void()>>& reads) {
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (const auto& read : reads)
    readers.emplace_back([&done, &read] {
      do read();
      while (!done);
    });
  write();
  done = true;
  for (auto& reader : readers) reader.join();
}

// The batch of 20'000 is split among threads; the small ones are not.
void lookups_see_whole_rows_while_the_table_learns_grows_erases_and_moves() {
  Table table = equal_columns();
  const auto hot = keys_from(0, kStaying), many = keys_from(0, 20'000);
  learn(table, hot, 0);
  const auto read = [&](const std::vector<std::uint64_t>& keys) {
    std::vector<float> weights(keys.size() * kDim);
    table.lookup(keys, weights.data());
    CHECK(rows_are_whole(weights));
    for (std::size_t i = 0; i < kStaying; ++i) CHECK(weights[i * kDim] <= -1.0f);
  };
  beside(
      [&] {
        for (std::uint32_t step = 1; step <= 40; ++step) {
          learn(table, hot, step);
          learn(table, hot, step);
          learn(table, keys_from(1000 * step, 900), step);
          if (step % 13 == 0) learn(table, many, step);
          if (step % 5 == 0) CHECK(table.erase(keys_from(1000 * step, 900)) == 900);
          if (step % 10 == 0) table.compact();
        }
      },
      {[&] { read(hot); }, [&] { read(many); }});
  std::vector<float> weights(kDim);
  table.lookup(keys_from(5, 1), weights.data());
  CHECK(weights[0] == -84.0f);
}

// The writer writes what is already there: whatever a reader repeats, a sum of n rows is n.
void a_bag_that_is_read_again_counts_no_key_twice() {
  Table table = equal_columns();
  const auto keys = keys_from(0, kStaying);
  const std::vector<std::int64_t> offsets{0, 1, 300, 600};
  assign_ones(table, keys);
  beside(
      [&] {
        for (int step = 0; step < 400; ++step) assign_ones(table, keys);
      },
      {[&] {
        std::vector<float> sums(3 * kDim);
        table.lookup_bags(keys, {offsets, nullptr}, sums.data());
        CHECK(rows_are_whole(sums) && sums[0] == 1.0f && sums[kDim] == 299.0f && sums[2 * kDim] == 300.0f);
      }});
}

void a_key_that_stays_is_never_missed_while_the_index_grows() {
  Table table = equal_columns();
  const auto keys = keys_from(0, kStaying);
  assign_ones(table, keys);
  Layout layout({plain_sgd(kDim)});
  beside(
      [&] {
        for (std::uint64_t step = 1; step <= 150; ++step) assign_ones(table, keys_from(1000 * step, 300));
      },
      {[&] {
         RowBuffers rows(keys.size(), layout);
         CHECK(!table.export_rows(keys, rows.out()));
         CHECK(rows_are_whole(rows.weights) && rows.weights[0] == 1.0f);
       },
       [&] {
         std::vector<std::int64_t> numbers(keys.size());
         table.row_numbers(keys, numbers.data());
         for (std::size_t i = 0; i < keys.size(); ++i) CHECK(numbers[i] == static_cast<std::int64_t>(i));
         bool is_there[kStaying];
         table.contains(keys, is_there);
         CHECK(std::count(is_there, is_there + kStaying, true) == kStaying);
       }});
}

// Evicted and expired rows go to other keys while somebody may be reading them.
void rows_stay_whole_while_keys_are_evicted_expire_and_return() {
  KeyRules rules = rules_with(2000, 50);
  rules.expiry = Expiry(50, 1000);
  Table table = equal_columns(rules, 1);
  const auto all = keys_from(0, 6000);
  Layout layout({plain_sgd(kDim)});
  beside(
      [&] {
        for (std::uint32_t step = 1; step <= 150; ++step) {
          learn(table, keys_from(step * 400 % 5600, 400), step);
          if (step % 10 == 0) table.sweep(500);
          if (step % 50 == 0) table.clear();
        }
      },
      {[&] {
         std::vector<float> weights(all.size() * kDim);
         table.lookup(all, weights.data());
         CHECK(rows_are_whole(weights));
       },
       [&] {
         RowBuffers rows(256, layout);
         std::uint32_t cursor = 0;
         do {
           const auto [n, next] = table.scan(cursor, 256, rows.keys.data(), rows.out());
           CHECK(rows_are_whole(rows.weights));
           for (std::size_t i = 0; i < n; ++i)
             CHECK(rows.weights[i * kDim] == -static_cast<float>(rows.count[i]));
           cursor = next;
         } while (cursor != 0);
         const Memory memory = table.memory();
         CHECK(table.size() <= 2000 && memory.live <= memory.reserved);
       }});
}

void the_first_rows_of_an_empty_table_are_found_beside_its_readers() {
  for (int round = 0; round < 30; ++round) {
    Table table = equal_columns();
    const auto keys = keys_from(0, 64);
    beside([&] { assign_ones(table, keys); },
           {[&] {
             std::vector<float> weights(keys.size() * kDim);
             table.lookup(keys, weights.data());
             CHECK(rows_are_whole(weights));
           }});
  }
}

// A replica's rows come by assign: between absent and assigned there is nothing to be read.
void a_new_row_is_never_seen_with_other_weights_than_those_assigned() {
  Slice drawn = plain_sgd(kDim);
  drawn.low = 5.0f;
  drawn.width = 1.0f;
  Table table({drawn}, KeyRules(), false, Nonfinite::kRefuse, 2);
  const auto all = keys_from(0, 20'000);
  beside(
      [&] {
        for (std::uint64_t step = 0; step < 20; ++step) assign_ones(table, keys_from(1000 * step, 1000));
      },
      {[&] {
        std::vector<float> weights(all.size() * kDim);
        table.lookup(all, weights.data());
        CHECK(std::all_of(weights.begin(), weights.end(), [](float w) { return w == 0.0f || w == 1.0f; }));
      }});
}

}  // namespace

int main() {
  a_new_row_is_never_seen_with_other_weights_than_those_assigned();
  lookups_see_whole_rows_while_the_table_learns_grows_erases_and_moves();
  a_bag_that_is_read_again_counts_no_key_twice();
  a_key_that_stays_is_never_missed_while_the_index_grows();
  rows_stay_whole_while_keys_are_evicted_expire_and_return();
  the_first_rows_of_an_empty_table_are_found_beside_its_readers();
}
