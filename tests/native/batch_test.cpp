#include "batch.h"

#include <map>
#include <random>
#include <vector>

#include "check.h"
#include "made_keys.h"

using namespace recsys::table;

namespace {

constexpr auto kPinsNothing = [](std::uint32_t) { return false; };
constexpr auto kFillsNothing = [](std::uint32_t) {};

// What a batch says of one key, by a standard map: where it first occurs, and all its sources.
struct Expected {
  std::size_t first = 0;
  std::vector<std::uint32_t> sources;
};

void tells_what_a_standard_map_tells(const Batch& batch, const KeyMap& map, Keys keys,
                                     const std::uint32_t* source) {
  std::map<std::uint64_t, Expected> expected;
  for (std::uint32_t at = 0; at < keys.size(); ++at) {
    Expected& key = expected.try_emplace(keys[at], Expected{at, {}}).first->second;
    key.sources.push_back(source == nullptr ? at : source[at]);
    CHECK(batch.key(batch.slot_of(at)) == keys[at]);
  }
  CHECK(batch.size() == expected.size());
  std::size_t last_first = 0;
  for (std::size_t slot = 0; slot < batch.size(); ++slot) {
    const Expected& key = expected.at(batch.key(slot));
    const auto sources = batch.sources(slot);
    CHECK(std::vector(sources.begin(), sources.end()) == key.sources);
    CHECK(batch.occurrences(slot) == key.sources.size());
    CHECK(batch.row(slot) == map.find_one(batch.key(slot)));
    CHECK((batch.row(slot) != kNoRow) == (slot < batch.first_missing()));
    CHECK(slot == 0 || slot == batch.first_missing() || key.first > last_first);
    last_first = key.first;
  }
}

void equals_a_standard_map_over_many_batches() {
  std::mt19937_64 random(1);
  KeyMap map(KeyRules(), 0);
  Batch batch;
  for (int round = 0; round < 300; ++round) {
    const std::size_t n = random() % 8 == 0 ? random() % 3000 : random() % 40;
    const std::uint64_t n_distinct = 1 + random() % 4000;
    std::vector<std::uint64_t> keys(n);
    std::vector<std::uint32_t> source(n);
    for (std::size_t i = 0; i < n; ++i) {
      keys[i] = random() % 50 == 0 ? clashing_key(random() % 30) : 0 - random() % n_distinct;
      source[i] = static_cast<std::uint32_t>(random() % 100);
    }
    const std::uint32_t* const sources = round % 2 == 0 ? nullptr : source.data();
    batch.collect(map, keys, sources);
    tells_what_a_standard_map_tells(batch, map, keys, sources);
    for (std::size_t slot = batch.first_missing(); slot < batch.size(); ++slot)
      if (random() % 2 == 0) batch.set_row(map, slot, map.add(batch.key(slot), kPinsNothing, kFillsNothing));
    if (round % 10 == 0)
      for (const std::uint64_t key : keys_from(0 - std::uint64_t{2000}, 2000))
        if (map.find_one(key) != kNoRow && random() % 2 == 0) map.drop(map.find_one(key));
  }
}

void holds_the_rows_of_its_keys_and_no_others() {
  KeyMap map(KeyRules(), 0);
  for (std::uint64_t key = 0; key < 100; ++key) map.add(key, kPinsNothing, kFillsNothing);
  Batch batch;
  batch.collect(map, keys_from(0, 100), nullptr);
  batch.collect(map, keys_from(90, 20), nullptr);
  for (std::uint32_t row = 0; row < 100; ++row) CHECK(batch.holds(map, row) == (row >= 90));
  const std::uint32_t added = map.add(109, kPinsNothing, kFillsNothing);
  batch.set_row(map, 19, added);
  CHECK(batch.holds(map, added) && batch.row(19) == added);
}

}  // namespace

int main() {
  equals_a_standard_map_over_many_batches();
  holds_the_rows_of_its_keys_and_no_others();
}
