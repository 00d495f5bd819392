#include "table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "made_keys.h"
#include "tables.h"

using namespace recsys::table;

namespace {

constexpr std::size_t kDim = 3;

Table sgd_table(KeyRules rules = KeyRules(), Nonfinite nonfinite = Nonfinite::kRefuse) {
  return Table({plain_sgd(1), plain_sgd(kDim - 1)}, std::move(rules), false, nonfinite, 1);
}

std::vector<float> lookup(const Table& table, const std::vector<std::uint64_t>& keys,
                          std::size_t dim = kDim) {
  std::vector<float> weights(keys.size() * dim, -99.0f);
  table.lookup(keys, weights.data());
  return weights;
}

std::vector<float> numbers_from(float first, std::size_t n) {
  std::vector<float> numbers(n);
  std::iota(numbers.begin(), numbers.end(), first);
  return numbers;
}

void learning_steps_once_along_the_sum_of_a_keys_gradients() {
  Table table = sgd_table();
  const std::vector<std::uint64_t> keys{5, 0, 5, ~std::uint64_t{0}, 5};
  CHECK(!table.learn(keys, numbers_from(1, 15).data(), 7, kRateOfOne));
  CHECK(lookup(table, {0, 5, 6, ~std::uint64_t{0}}) ==
        (std::vector<float>{-4, -5, -6, -21, -24, -27, 0, 0, 0, -10, -11, -12}));
  Layout layout({plain_sgd(kDim)});
  RowBuffers rows(2, layout);
  CHECK(!table.export_rows(std::vector<std::uint64_t>{5, 0}, rows.out()));
  CHECK(rows.count == (std::vector<std::uint32_t>{3, 1}));
  CHECK(rows.last_seen_s == (std::vector<std::uint32_t>{7, 7}));
  CHECK(table.export_rows(std::vector<std::uint64_t>{5, 6, 8}, rows.out()) == 6);
  CHECK(table.size() == 3 && table.keys() == (std::vector<std::uint64_t>{0, 5, ~std::uint64_t{0}}));
}

void a_bag_hands_its_gradient_to_each_of_its_keys() {
  Table table = sgd_table();
  const std::vector<std::uint64_t> keys{1, 2, 2, 3};
  const std::array<std::int64_t, 5> offsets{0, 2, 2, 3, 4};
  const std::array<float, 4> scale{2, 9, 1, 0.5};
  const Bags bags{offsets, scale.data()};
  const std::vector<float> gradients{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14};
  CHECK(!table.learn_bags(keys, bags, gradients.data(), 1, kRateOfOne));
  CHECK(lookup(table, {1, 2, 3}) == (std::vector<float>{-2, -4, -6, -9, -12, -15, -5, -6, -7}));
  std::array<float, 4 * kDim> sums;
  table.lookup_bags(keys, {offsets, nullptr}, sums.data());
  CHECK(sums == (std::array<float, 12>{-11, -16, -21, 0, 0, 0, -9, -12, -15, -5, -6, -7}));
  table.lookup_bags(keys, bags, sums.data());
  CHECK(sums == (std::array<float, 12>{-22, -32, -42, 0, 0, 0, -9, -12, -15, -2.5, -3, -3.5}));
}

// Sums of floats depend on the order; that of the keys in the bag is the one that all agree on.
void the_rows_of_a_bag_are_added_in_the_order_of_its_keys() {
  std::mt19937_64 random(1);
  for (const bool reads_initial : {false, true})
    for (const Codec codec : {Codec::kFp32, Codec::kFp16}) {
      Slice slice = plain_sgd(kDim, codec);
      slice.low = -1.0f;
      slice.width = 2.0f;
      Table table({slice}, KeyRules(), reads_initial, Nonfinite::kRefuse, 1);
      std::vector<std::int64_t> rows(200);
      table.admit(keys_from(0, 200), 1, kRateOfOne, rows.data());
      std::vector<std::uint64_t> keys(900);
      for (std::uint64_t& key : keys) key = random() % 400;
      const std::array<std::int64_t, 4> offsets{0, 300, 301, 900};
      const std::vector<float> weights = lookup(table, keys);
      std::array<float, 3 * kDim> expected{}, sums;
      for (std::size_t i = 0; i < keys.size(); ++i)
        for (std::size_t d = 0; d < kDim; ++d)
          expected[(i < 300 ? 0 : i < 301 ? 1 : 2) * kDim + d] += weights[i * kDim + d];
      table.lookup_bags(keys, {offsets, nullptr}, sums.data());
      CHECK(sums == expected);
    }
}

void admitting_makes_rows_and_tells_their_numbers() {
  Table table = sgd_table();
  const std::vector<std::uint64_t> keys{9, 4, 9};
  std::array<std::int64_t, 3> rows, again;
  table.admit(keys, 3, kRateOfOne, rows.data());
  CHECK((rows == std::array<std::int64_t, 3>{0, 1, 0}));
  table.admit(keys, 4, kRateOfOne, again.data());
  CHECK(again == rows && table.size() == 2 && lookup(table, keys) == std::vector<float>(9, 0.0f));
  table.row_numbers(std::vector<std::uint64_t>{4, 5, 9}, rows.data());
  CHECK((rows == std::array<std::int64_t, 3>{1, -1, 0}));
  RowBuffers whole(2, Layout({plain_sgd(kDim)}));
  table.export_rows(std::vector<std::uint64_t>{9, 4}, whole.out());
  CHECK(whole.count == (std::vector<std::uint32_t>{4, 2}));
  CHECK(whole.last_seen_s == (std::vector<std::uint32_t>{4, 4}));
}

void keys_below_the_threshold_get_no_row_but_those_there_are_never_asked() {
  KeyRules rules;
  rules.admission = {AdmissionRule::kOccurrence, 3, 1 << 12, 4, 0, 0.0, false, 1};
  Table table = sgd_table(rules);
  const std::vector<std::uint64_t> keys{1, 2, 1, 3, 1}, others{2, 2, 1};
  std::array<std::int64_t, 5> rows;
  table.admit(keys, 1, kRateOfOne, rows.data());
  CHECK((rows == std::array<std::int64_t, 5>{0, -1, 0, -1, 0}));
  table.assign(std::vector<std::uint64_t>{8}, numbers_from(1, 3).data(), kRateOfOne);
  CHECK(!table.learn(others, numbers_from(1, 9).data(), 1, kRateOfOne));
  CHECK(lookup(table, {1, 2, 3, 8}) == (std::vector<float>{-7, -8, -9, -5, -7, -9, 0, 0, 0, 1, 2, 3}));
  CHECK(table.with_map([](KeyMap& map) { return map.counters().filtered; }) == 2);
}

void the_last_of_equal_keys_is_assigned_and_rows_travel_whole() {
  Table table = sgd_table(), twin = sgd_table();
  const std::vector<std::uint64_t> keys{7, 8, 7};
  table.assign(keys, numbers_from(1, 9).data(), kRateOfOne);
  CHECK(lookup(table, {7, 8}) == (std::vector<float>{7, 8, 9, 4, 5, 6}));
  table.learn(keys, std::vector<float>(9, 0.0f).data(), 50, kRateOfOne);
  RowBuffers rows(10, Layout({plain_sgd(kDim)})), back(10, Layout({plain_sgd(kDim)}));
  const auto [n, next] = table.scan(0, 10, rows.keys.data(), rows.out());
  CHECK(n == 2 && next == 0);
  rows.keys.resize(n);
  twin.import_rows(rows.keys, rows.in(), kRateOfOne);
  CHECK(!twin.export_rows(rows.keys, back.out()) && lookup(twin, {7, 8}) == lookup(table, {7, 8}));
  CHECK(back.count == rows.count && back.last_seen_s == rows.last_seen_s && back.weights == rows.weights);
}

void gradients_that_are_no_numbers_are_refused_dropped_or_clipped() {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<std::uint64_t> keys{1, 2, 3, 3};
  const std::vector<float> gradients{1, 1, 1, NAN, kInfinity, -1, kMax, 1, 1, kMax, 1, 1};
  const auto dropped = [](Table& table) {
    return table.with_map([](KeyMap& map) { return map.counters().dropped_gradients; });
  };
  Table refuses = sgd_table(KeyRules(), Nonfinite::kRefuse);
  Table drops = sgd_table(KeyRules(), Nonfinite::kDrop);
  Table clips = sgd_table(KeyRules(), Nonfinite::kClip);
  CHECK(refuses.learn(keys, gradients.data(), 1, kRateOfOne) == 2 && refuses.size() == 0);
  CHECK(!refuses.with_map([](KeyMap& map) { return map.clock(); }));
  CHECK(!drops.learn(keys, gradients.data(), 1, kRateOfOne) && dropped(drops) == 2);
  CHECK(drops.keys() == std::vector<std::uint64_t>{1});
  CHECK(lookup(drops, {1}) == (std::vector<float>{-1, -1, -1}));
  CHECK(!clips.learn(keys, gradients.data(), 1, kRateOfOne) && dropped(clips) == 2);
  CHECK(lookup(clips, {2, 3}) == (std::vector<float>{0, -kMax, 1, -kMax, -2, -2}));
}

void a_batch_larger_than_the_table_keeps_what_fits_and_is_done_soon() {
  constexpr std::size_t kRoom = 50'000;
  Table table = sgd_table(rules_with(kRoom));
  const auto keys = keys_from(0, 4 * kRoom);
  table.learn(keys, std::vector<float>(keys.size() * kDim, 1.0f).data(), 1, kRateOfOne);
  CHECK(table.size() == kRoom && table.keys() == keys_from(0, kRoom));
  CHECK(table.with_map([](KeyMap& map) { return map.counters().filtered; }) == 3 * kRoom);
}

void followers_hear_of_all_that_changes_and_goes() {
  Table table = sgd_table(rules_with(100, 10));
  const auto follower = table.follow();
  const auto drained = [&] { return table.drain(follower).value(); };
  using Lists = std::pair<std::vector<std::uint64_t>, std::vector<std::uint64_t>>;
  table.learn(keys_from(0, 100), std::vector<float>(300, 1.0f).data(), 1, kRateOfOne);
  CHECK((drained() == Lists{keys_from(0, 100), {}}));
  table.assign(std::vector<std::uint64_t>{5}, numbers_from(0, 3).data(), kRateOfOne);
  CHECK(table.erase(std::vector<std::uint64_t>{7, 5, 7, 500}) == 2);
  CHECK((drained() == Lists{{}, {5, 7}}));
  table.learn(std::vector<std::uint64_t>{5}, numbers_from(0, 3).data(), 12, kRateOfOne);
  CHECK(table.sweep(1000) == 98);
  CHECK(drained().first == std::vector<std::uint64_t>{5} && drained() == Lists{});
  table.learn(keys_from(200, 100), std::vector<float>(300, 1.0f).data(), 12, kRateOfOne);
  const auto [touched, removed] = drained();
  CHECK(touched == keys_from(200, 100) && removed == std::vector<std::uint64_t>{5});
  CHECK(table.unfollow(follower) && !table.drain(follower) && !table.unfollow(follower));
}

// Batches far above the size from which work is shared.
void any_number_of_threads_gives_the_same_bits() {
  std::vector<Slice> slices{plain_sgd(5), plain_sgd(8, Codec::kFp16)};
  slices[0].rule = {Optimizer::kRowWiseAdagrad, {0.1f}};
  slices[1].codec.stochastic = true;
  for (Slice& slice : slices) slice.width = 1.0f;
  constexpr std::size_t kWide = 13;
  Table one(slices, KeyRules(), false, Nonfinite::kRefuse, 1);
  Table three(slices, KeyRules(), false, Nonfinite::kRefuse, 3);
  std::mt19937_64 random(2);
  const float rates[] = {0.1f, 0.3f};
  for (std::uint32_t step = 1; step <= 3; ++step) {
    std::vector<std::uint64_t> keys(30'000);
    std::vector<std::int64_t> offsets(3001);
    for (std::uint64_t& key : keys) key = random() % 20'000;
    for (std::size_t bag = 0; bag < offsets.size(); ++bag) offsets[bag] = static_cast<std::int64_t>(10 * bag);
    std::vector<float> gradients(keys.size() * kWide), sums_1(3000 * kWide), sums_3(3000 * kWide);
    for (float& g : gradients) g = static_cast<float>(random() % 1000) * 0.001f - 0.3f;
    for (Table* table : {&one, &three}) {
      table->learn(keys, gradients.data(), step, rates);
      table->learn_bags(keys, {offsets, nullptr}, gradients.data(), step, rates);
      table->lookup_bags(keys, {offsets, nullptr}, (table == &one ? sums_1 : sums_3).data());
    }
    CHECK(sums_1 == sums_3 && lookup(one, keys, kWide) == lookup(three, keys, kWide));
  }
}

void writers_that_come_together_wait_for_each_other() {
  Table table = sgd_table();
  const auto keys = keys_from(0, 300);
  std::vector<std::thread> writers;
  for (int w = 0; w < 3; ++w)
    writers.emplace_back([&] {
      const std::vector<float> ones(keys.size() * kDim, 1.0f);
      for (int i = 0; i < 50; ++i) table.learn(keys, ones.data(), 1, kRateOfOne);
    });
  for (auto& writer : writers) writer.join();
  CHECK(lookup(table, {299}) == std::vector<float>(3, -150.0f));
}

}  // namespace

int main() {
  learning_steps_once_along_the_sum_of_a_keys_gradients();
  a_bag_hands_its_gradient_to_each_of_its_keys();
  the_rows_of_a_bag_are_added_in_the_order_of_its_keys();
  admitting_makes_rows_and_tells_their_numbers();
  keys_below_the_threshold_get_no_row_but_those_there_are_never_asked();
  the_last_of_equal_keys_is_assigned_and_rows_travel_whole();
  gradients_that_are_no_numbers_are_refused_dropped_or_clipped();
  a_batch_larger_than_the_table_keeps_what_fits_and_is_done_soon();
  followers_hear_of_all_that_changes_and_goes();
  any_number_of_threads_gives_the_same_bits();
  writers_that_come_together_wait_for_each_other();
}
