#include "key_versions.h"

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "hashing.h"

using namespace recsys::table;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

void a_reader_never_keeps_half_a_change() {
  KeyVersions versions;
  std::array<std::atomic<std::uint64_t>, 16> words{};
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (int r = 0; r < 2; ++r)
    readers.emplace_back([&] {
      std::uint64_t last = 0;
      while (!done) {
        std::array<std::uint64_t, 16> seen{};
        versions.read_whole(5, [&] {
          for (std::size_t i = 0; i < words.size(); ++i) seen[i] = words[i].load(kRelaxed);
        });
        for (const std::uint64_t word : seen) CHECK(word == seen[0]);
        CHECK(seen[0] >= last);
        last = seen[0];
      }
    });
  for (std::uint64_t value = 1; value <= 100'000; ++value) {
    const KeyVersions::Change change(versions, 5);
    for (auto& word : words) word.store(value, kRelaxed);
  }
  done = true;
  for (auto& reader : readers) reader.join();
}

void a_reader_waits_for_no_other_stripe() {
  KeyVersions versions;
  const KeyVersions::Change change(versions, 0);
  int reads = 0;
  versions.read_whole(std::uint64_t{1} << 20, [&] { ++reads; });
  CHECK(reads == 1);
}

void hashes_spread_evenly_over_the_stripes() {
  std::vector<int> keys_of(KeyVersions::kStripes);
  for (std::uint64_t key = 0; key < 100 * KeyVersions::kStripes; ++key)
    ++keys_of[KeyVersions::stripe(mix64(key))];
  for (const int n : keys_of) CHECK(n > 50 && n < 150);  // mean 100, deviation 10
}

}  // namespace

int main() {
  a_reader_never_keeps_half_a_change();
  a_reader_waits_for_no_other_stripe();
  hashes_spread_evenly_over_the_stripes();
}
