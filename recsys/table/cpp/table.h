// The embedding table: rows under keys, many readers beside one writer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "lookups.h"
#include "row_store.h"
#include "workers.h"
#include "writer.h"

namespace recsys::table {

struct Memory {
  std::size_t live, reserved, index, filter, changes;
};

// Any number of readers beside one writer at a time; more writers wait for each other.
class Table {
 public:
  Table(std::vector<Slice> slices, KeyRules rules, bool missing_reads_initial, Nonfinite nonfinite,
        std::size_t threads)
      : store_(std::move(slices), std::move(rules), missing_reads_initial),
        workers_(threads),
        lookups_(store_, workers_),
        writer_(store_, workers_, nonfinite) {}
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  // --- reading ---

  void lookup(Keys keys, float* out) const { lookups_.lookup(keys, out); }
  void lookup_bags(Keys keys, Bags bags, float* out) const { lookups_.lookup_bags(keys, bags, out); }
  void contains(Keys keys, bool* mask) const { lookups_.contains(keys, mask); }
  void row_numbers(Keys keys, std::int64_t* rows) const { lookups_.row_numbers(keys, rows); }
  std::optional<std::uint64_t> export_rows(Keys keys, RowsOut out) const {
    return lookups_.export_rows(keys, out);
  }
  std::pair<std::size_t, std::uint32_t> scan(std::uint32_t cursor, std::size_t max_rows, std::uint64_t* keys,
                                             RowsOut out) const {
    return store_.scan(cursor, max_rows, keys, out);
  }
  std::size_t size() const noexcept { return map().size(); }

  // --- writing ---

  std::optional<std::uint64_t> learn(Keys keys, const float* gradients, std::uint32_t event_time_s,
                                     const float* rates) {
    const std::lock_guard writing(writing_);
    return writer_.learn(keys, gradients, keys.size(), nullptr, event_time_s, rates);
  }

  std::optional<std::uint64_t> learn_bags(Keys keys, Bags bags, const float* gradients,
                                          std::uint32_t event_time_s, const float* rates) {
    const std::lock_guard writing(writing_);
    return writer_.learn_bags(keys, bags, gradients, event_time_s, rates);
  }

  void admit(Keys keys, std::uint32_t event_time_s, const float* rates, std::int64_t* rows) {
    const std::lock_guard writing(writing_);
    writer_.admit(keys, event_time_s, rates, rows);
  }

  void assign(Keys keys, const float* weights, const float* rates) {
    const std::lock_guard writing(writing_);
    writer_.assign(keys, weights, rates);
  }

  void import_rows(Keys keys, RowsIn in, const float* rates) {
    const std::lock_guard writing(writing_);
    writer_.import_rows(keys, in, rates);
  }

  std::size_t erase(Keys keys) {
    const std::lock_guard writing(writing_);
    const RowStore::Writing mark(store_);
    std::size_t erased = 0;
    for (const std::uint64_t key : keys) {
      const std::uint32_t row = map().find_one(key);
      if (row == kNoRow) continue;
      map().drop(row);
      ++erased;
    }
    return erased;
  }

  std::size_t sweep(std::size_t max_rows) {
    const std::lock_guard writing(writing_);
    const RowStore::Writing mark(store_);
    return map().sweep(max_rows);
  }

  void compact() {
    const std::lock_guard writing(writing_);
    const auto alone = store_.alone();
    store_.compact();
  }

  void clear() {
    const std::lock_guard writing(writing_);
    const auto alone = store_.alone();
    store_.clear();
  }

  // --- what a snapshot, a follower or an operator asks ---

  std::vector<std::uint64_t> keys() const {
    std::vector<std::uint64_t> keys;
    {
      const std::lock_guard writing(writing_);
      keys.reserve(map().size());
      for (std::uint32_t row = 0; row < map().issued(); ++row)
        if (map().is_live(row)) keys.push_back(map().meta(row).key);
    }
    std::sort(keys.begin(), keys.end());
    return keys;
  }

  ChangeLog::Follower follow() {
    const std::lock_guard writing(writing_);
    return map().changes().follow();
  }
  bool unfollow(ChangeLog::Follower follower) {
    const std::lock_guard writing(writing_);
    return map().changes().unfollow(follower);
  }
  // Keys that changed since the last drain: those there now, and those not; nothing for a stranger.
  std::optional<std::pair<std::vector<std::uint64_t>, std::vector<std::uint64_t>>> drain(
      ChangeLog::Follower follower) {
    const std::lock_guard writing(writing_);
    auto changed = map().changes().drain(follower);
    if (!changed) return std::nullopt;
    std::vector<std::uint64_t> touched, removed;
    map().find(*changed, [](std::size_t, const Probe&) {},
              [&](std::size_t begin, const Probe& found) {
                for (std::size_t i = 0; i < found.n; ++i)
                  (found.row[i] != kNoRow ? touched : removed).push_back((*changed)[begin + i]);
              });
    return std::pair{std::move(touched), std::move(removed)};
  }

  // Excludes writers while `use` looks at or changes what is known of the keys.
  template <typename Use>
  auto with_map(Use&& use) {
    const std::lock_guard writing(writing_);
    return use(map());
  }

  Memory memory() const {
    const std::lock_guard writing(writing_);
    const std::size_t row_bytes = store_.layout().bytes() + map().stride();
    return {map().size() * row_bytes, map().issued() * row_bytes, map().index_bytes(),
            map().filter().bytes(), map().changes().bytes()};
  }

 private:
  KeyMap& map() noexcept { return store_.map(); }
  const KeyMap& map() const noexcept { return store_.map(); }

  RowStore store_;
  mutable Workers workers_;
  Lookups lookups_;
  Writer writer_;
  mutable std::mutex writing_;
};

}  // namespace recsys::table
