#include "index.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "check.h"
#include "made_keys.h"

using namespace recsys::table;

namespace {

using Model = std::unordered_map<std::uint64_t, std::uint32_t>;

std::uint32_t find(const CuckooIndex& index, std::uint64_t key) { return index.find(key, mix64(key)); }

// Ordinary keys, the two extreme ones, and two families of which few find room in their buckets.
std::vector<std::uint64_t> keys_of_all_kinds() {
  std::vector<std::uint64_t> keys = keys_from(0, 6000);
  keys.push_back(~std::uint64_t{0});
  for (std::uint64_t family : {0, 1})
    for (std::uint64_t i = 0; i < 40; ++i) keys.push_back(clashing_key(i, family));
  return keys;
}

void holds_what_the_model_holds(const CuckooIndex& index, const Model& model,
                                const std::vector<std::uint64_t>& keys) {
  CHECK(index.size() == model.size());
  for (const std::uint64_t key : keys) {
    const auto found = model.find(key);
    CHECK(find(index, key) == (found == model.end() ? kNoRow : found->second));
  }
}

void equals_a_standard_map_over_long_programs() {
  const std::vector<std::uint64_t> keys = keys_of_all_kinds();
  KeyVersions versions;
  CuckooIndex index(versions);
  Model model;
  bool had_overflow = false;
  std::mt19937_64 random(1);
  for (std::uint32_t step = 0; step < 200'000; ++step) {
    const bool clashes = random() % 8 == 0;
    const std::uint64_t key = keys[clashes ? keys.size() - 1 - random() % 81 : random() % keys.size()];
    const auto found = model.find(key);
    // Erasures prevail in every other stretch of 16'384 steps, so that the index fills and empties.
    if (found == model.end()) {
      if (random() % 4 < 3 - 2 * (step >> 14 & 1)) index.insert(key, model[key] = step);
    } else if (random() % 4 < 1 + 2 * (step >> 14 & 1)) {
      CHECK(index.erase(key) == found->second && index.erase(key) == kNoRow);
      model.erase(found);
    } else if (random() % 2 == 0) {
      index.move_row(key, found->second = step);
    }
    had_overflow = had_overflow || !index.overflow().is_empty();
    if (step % 40'000 == 39'999) index.shrink();
    if (step % 20'000 == 0 || step % 40'000 == 39'999) holds_what_the_model_holds(index, model, keys);
    if (step == 150'000) {
      index.clear();
      model.clear();
      index.reserve(5000);
    }
  }
  CHECK(had_overflow);
}

void growth_begins_at_a_load_of_95_percent_or_more() {
  std::mt19937_64 random(2);
  KeyVersions versions;
  CuckooIndex index(versions);
  for (std::size_t full = index.capacity(); full <= 1u << 16; full *= 2) {
    while (index.capacity() == full) index.insert(random(), 0);
    CHECK(index.size() > full * 95 / 100);
    while (index.capacity() < 2 * full) index.insert(random(), 0);
  }
}

void no_insertion_splits_more_than_a_few_buckets() {
  KeyVersions versions;
  CuckooIndex index(versions);
  const auto grown_by = [&](std::uint64_t key) {
    const std::size_t before = index.capacity();
    index.insert(key, 0);
    return index.capacity() - before;
  };
  for (std::uint64_t key = 0; key < 100'000; ++key) CHECK(grown_by(key) <= 2 * kSlotsPerBucket);
  for (std::uint64_t i = 0; i < kClashingKeys; ++i)
    CHECK(grown_by(clashing_key(i)) <= 66 * kSlotsPerBucket);
  CHECK(!index.overflow().is_empty());
}

// 10 of them fit; were the index to grow for the others, it would grow for ever.
void keys_that_all_share_both_buckets_are_kept_and_grow_the_index_little() {
  KeyVersions versions;
  CuckooIndex index(versions);
  const std::size_t before = index.capacity();
  for (std::uint32_t i = 0; i < 150; ++i) index.insert(clashing_key(i), i);
  CHECK(index.capacity() == before && index.size() == 150);
  for (std::uint32_t i = 0; i < 150; ++i) CHECK(find(index, clashing_key(i)) == i);
  for (std::uint32_t i = 0; i < 150; ++i) CHECK(index.erase(clashing_key(i)) == i);
  CHECK(index.overflow().is_empty() && index.size() == 0);
}

void room_reserved_for_some_keys_is_enough_for_them_and_no_more_than_asked() {
  for (const std::size_t keys : {1000, 61'111}) {
    KeyVersions versions;
    CuckooIndex index(versions);
    index.reserve(keys);
    const std::size_t reserved = index.capacity();
    CHECK(reserved <= keys * 100 / 95 + 2 * kSlotsPerBucket);
    for (std::uint64_t key = 0; key < keys; ++key) index.insert(key, static_cast<std::uint32_t>(key));
    // Full, and then for long one key for another.
    for (std::uint64_t key = keys; key < 4 * keys; ++key) {
      CHECK(index.erase(key - keys) == key - keys);
      index.insert(key, static_cast<std::uint32_t>(key));
    }
    CHECK(index.capacity() == reserved && index.size() == keys);
  }
}

void an_index_that_was_shrunk_is_smaller_and_grows_again() {
  KeyVersions versions;
  CuckooIndex index(versions);
  for (std::uint32_t key = 0; key < 60'000; ++key) index.insert(key, key);
  const std::size_t full = index.bytes();
  for (std::uint32_t key = 6000; key < 60'000; ++key) CHECK(index.erase(key) == key);
  index.shrink();
  CHECK(index.bytes() < full / 5 && index.load() > 0.6);
  for (std::uint32_t key = 0; key < 6000; ++key) CHECK(find(index, key) == key);
  for (std::uint32_t key = 6000; key < 60'000; ++key) index.insert(key, key + 1);
  for (std::uint32_t key = 0; key < 60'000; ++key) CHECK(find(index, key) == key + (key >= 6000));
}

void all_instruction_sets_find_the_same_rows() {
  KeyVersions versions;
  CuckooIndex index(versions);
  for (std::uint32_t i = 0; i < 50'000; ++i) index.insert(std::uint64_t{i} << 40, i);
  const IndexView view = index.view();
  std::mt19937_64 random(3);
  for (std::size_t n = 0; n <= kKeysPerBlock; ++n) {
    std::array<std::uint64_t, kKeysPerBlock> keys;
    for (std::uint64_t& key : keys) key = random() % 100'000 << 40;
    for (int level = 0; level <= static_cast<int>(isa()); ++level) {
      const ProbeKernels kernels = probe_kernels(static_cast<Isa>(level));
      Probe probe;
      probe.n = n;
      kernels.place(view, keys.data(), probe);
      kernels.first(view, keys.data(), probe, probe);
      kernels.second(view, keys.data(), probe);
      for (std::size_t i = 0; i < n; ++i) CHECK(probe.row[i] == find(index, keys[i]));
    }
  }
}

// A reader must not take a slot's old key together with the row of the key that has it now.
void a_slot_that_goes_from_key_to_key_never_shows_one_the_row_of_the_other() {
  KeyVersions versions;
  CuckooIndex index(versions);
  // The same first bucket, but not the same stripe of versions.
  const std::uint64_t key = key_with_hash(9), other = key_with_hash(9 | 1u << 22);
  CHECK(KeyVersions::stripe(mix64(key)) != KeyVersions::stripe(mix64(other)));
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done) {
      std::uint32_t row = kNoRow;
      versions.read_whole(mix64(key), [&] { row = index.find(key, mix64(key)); });
      CHECK(row == 1 || row == kNoRow);
    }
  });
  for (int i = 0; i < 200'000; ++i) {
    index.insert(key, 1);
    index.erase(key);
    index.insert(other, 2);
    index.erase(other);
  }
  done = true;
  reader.join();
}

void readers_never_miss_a_key_while_the_index_grows_and_its_keys_move() {
  KeyVersions versions;
  CuckooIndex index(versions);
  for (std::uint32_t key = 0; key < 300; ++key) index.insert(key, key);
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (int r = 0; r < 2; ++r)
    readers.emplace_back([&] {
      for (std::uint64_t key = 0; !done; key = (key + 1) % 300) {
        std::uint32_t row = kNoRow;
        versions.read_whole(mix64(key), [&] { row = index.find(key, mix64(key)); });
        CHECK(row == key);
      }
    });
  for (std::uint32_t key = 300; key < 60'000; ++key) {
    index.insert(key, key);
    if (key % 3 == 0) index.erase(key);
  }
  done = true;
  for (auto& reader : readers) reader.join();
}

}  // namespace

int main() {
  equals_a_standard_map_over_long_programs();
  growth_begins_at_a_load_of_95_percent_or_more();
  no_insertion_splits_more_than_a_few_buckets();
  keys_that_all_share_both_buckets_are_kept_and_grow_the_index_little();
  room_reserved_for_some_keys_is_enough_for_them_and_no_more_than_asked();
  an_index_that_was_shrunk_is_smaller_and_grows_again();
  all_instruction_sets_find_the_same_rows();
  readers_never_miss_a_key_while_the_index_grows_and_its_keys_move();
  a_slot_that_goes_from_key_to_key_never_shows_one_the_row_of_the_other();
}
