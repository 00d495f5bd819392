#include "index.h"

#include <random>
#include <unordered_map>

#include "check.h"

using namespace recsys::table;

namespace {

// The key whose hash is `hash`: mix64 undone step by step.
std::uint64_t key_with_hash(std::uint64_t hash) {
  const auto unshift = [](std::uint64_t x, int by) {
    std::uint64_t result = x;
    for (int done = by; done < 64; done += by) result = x ^ (result >> by);
    return result;
  };
  const auto inverse_of = [](std::uint64_t odd) {
    std::uint64_t inverse = odd;
    for (int i = 0; i < 6; ++i) inverse *= 2 - odd * inverse;
    return inverse;
  };
  std::uint64_t x = unshift(hash, 31) * inverse_of(0x94d049bb133111ebULL);
  x = unshift(x, 27) * inverse_of(0xbf58476d1ce4e5b9ULL);
  return unshift(x, 30) - 0x9e3779b97f4a7c15ULL;
}

void equals_a_standard_map_under_inserts_and_erases() {
  std::mt19937_64 random(1);
  std::unordered_map<std::uint64_t, std::uint32_t> expected;
  CuckooIndex index;
  for (std::uint32_t step = 0; step < 200'000; ++step) {
    const std::uint64_t key = random() % 30'000;
    if (random() % 3 == 0) {
      const auto row = index.erase(key);
      CHECK(row.has_value() == (expected.erase(key) == 1));
    } else if (expected.emplace(key, step).second) {
      CHECK(index.insert(key, step, step + 1).row == step);
    }
  }
  CHECK(index.size() == expected.size());
  for (std::uint64_t key = 0; key < 30'000; ++key) {
    const Slot* slot = index.find(key);
    const auto found = expected.find(key);
    CHECK((slot != nullptr) == (found != expected.end()));
    CHECK(slot == nullptr || (slot->row == found->second && slot->last_seen_s == slot->row + 1));
  }
  std::size_t visited = 0;
  index.for_each([&](const Slot& slot) {
    ++visited;
    CHECK(expected.at(slot.key) == slot.row);
  });
  CHECK(visited == expected.size());
}

void first_growth_comes_at_a_load_of_95_percent_or_more() {
  std::mt19937_64 random(2);
  CuckooIndex index;
  for (std::size_t capacity = index.capacity(); capacity <= 1u << 18; capacity = index.capacity()) {
    const std::size_t before = index.size();
    index.insert(random(), 0, 0);
    if (index.capacity() != capacity) CHECK(before >= capacity * 95 / 100);
  }
}

void keys_with_equal_low_bits_keep_their_own_slots() {
  CuckooIndex index;
  for (std::uint32_t i = 0; i < 10'000; ++i) index.insert(std::uint64_t{i} << 44, i, 0);
  for (std::uint32_t i = 0; i < 10'000; ++i) CHECK(index.find(std::uint64_t{i} << 44)->row == i);
  CHECK(index.find(1) == nullptr);
}

void every_64_bit_key_is_legal() {
  CuckooIndex index;
  CHECK(index.find(0) == nullptr && index.find(~0ULL) == nullptr);
  index.insert(0, 7, 0);
  index.insert(~0ULL, 8, 0);
  CHECK(index.find(0)->row == 7 && index.find(~0ULL)->row == 8);
}

// The low 32 bits choose both buckets up to 2^32 of them; equal bytes above keep the tags equal.
void keys_that_all_share_both_buckets_are_refused_instead_of_growing_for_ever() {
  CuckooIndex index;
  bool refused = false;
  for (std::uint32_t i = 0; i < 9 && !refused; ++i) {
    const std::uint64_t twice = (std::uint64_t{i} << 40) | (std::uint64_t{i} << 32);
    const std::uint64_t key = key_with_hash(twice | 5);
    CHECK(mix64(key) == (twice | 5));
    try {
      index.insert(key, i, 0);
    } catch (const std::length_error&) {
      refused = true;
      CHECK(i == 8 && index.find(key) == nullptr && index.size() == 8);
    }
  }
  CHECK(refused);
}

}  // namespace

int main() {
  equals_a_standard_map_under_inserts_and_erases();
  first_growth_comes_at_a_load_of_95_percent_or_more();
  keys_with_equal_low_bits_keep_their_own_slots();
  every_64_bit_key_is_legal();
  keys_that_all_share_both_buckets_are_refused_instead_of_growing_for_ever();
}
