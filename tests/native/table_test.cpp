#include "table.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>

#include "check.h"

using namespace recsys::table;

namespace {

constexpr std::size_t kDim = 12;

// Every column starts at 0 and gets the same gradients, so a whole row has equal columns.
std::vector<Slice> equal_columns() {
  return {{kDim, Optimizer::kSgd, 1.0f, 0.0f, 0.0f, 0.0f, 0}};
}

std::vector<std::uint64_t> keys_from(std::uint64_t first, std::size_t n) {
  std::vector<std::uint64_t> keys(n);
  std::iota(keys.begin(), keys.end(), first);
  return keys;
}

bool rows_are_whole(const std::vector<float>& weights) {
  for (std::size_t i = 0; i < weights.size(); i += kDim)
    if (std::any_of(&weights[i], &weights[i] + kDim, [&](float w) { return w != weights[i]; }))
      return false;
  return true;
}

// The batch of 20'000 is split among threads; the small ones are not.
void readers_see_whole_rows_while_the_table_learns_grows_and_erases() {
  Table table(equal_columns(), false, 2);
  const auto hot = keys_from(0, 600), many = keys_from(0, 20'000);
  table.assign(hot, std::vector<float>(hot.size() * kDim, 0.0f).data());
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (const auto* keys : {&hot, &hot, &many})
    readers.emplace_back([&, keys] {
      std::vector<float> weights(keys->size() * kDim);
      do {
        table.lookup(*keys, weights.data());
        CHECK(rows_are_whole(weights));
        CHECK(table.size() >= hot.size() && table.memory().live >= hot.size() * kDim * 4);
      } while (!done);
    });
  for (std::uint64_t step = 1; step <= 60; ++step) {
    table.learn(hot, std::vector<float>(hot.size() * kDim, 1.0f).data(), 1);
    const auto fresh = keys_from(1000 * step, 900);
    table.learn(fresh, std::vector<float>(fresh.size() * kDim, 1.0f).data(), 1);
    if (step % 20 == 0) table.learn(many, std::vector<float>(many.size() * kDim, 1.0f).data(), 1);
    if (step % 10 == 0) CHECK(table.erase(keys_from(1000 * step, 900)) == 900);
    table.drain_touched();
  }
  done = true;
  for (auto& reader : readers) reader.join();
  std::vector<float> weights(kDim);
  table.lookup(keys_from(5, 1), weights.data());
  CHECK(weights[0] == -63.0f);
}

void writers_that_come_together_wait_for_each_other() {
  Table table(equal_columns(), false, 1);
  const auto keys = keys_from(0, 300);
  std::vector<std::thread> writers;
  for (int w = 0; w < 3; ++w)
    writers.emplace_back([&] {
      for (int i = 0; i < 50; ++i)
        table.learn(keys, std::vector<float>(keys.size() * kDim, 1.0f).data(), 1);
    });
  for (auto& writer : writers) writer.join();
  std::vector<float> weights(kDim);
  table.lookup(keys_from(299, 1), weights.data());
  CHECK(weights[0] == -150.0f);
}

void erasing_and_learning_one_key_again_and_again_lists_it_once() {
  Table table(equal_columns(), false, 1);
  const auto key = keys_from(5, 1);
  for (int i = 0; i < 5'000; ++i) {
    table.learn(key, std::vector<float>(kDim, 1.0f).data(), 1);
    table.erase(key);
  }
  CHECK(table.drain_touched() == key);
  CHECK(table.drain_touched().empty());
}

}  // namespace

int main() {
  readers_see_whole_rows_while_the_table_learns_grows_and_erases();
  writers_that_come_together_wait_for_each_other();
  erasing_and_learning_one_key_again_and_again_lists_it_once();
}
