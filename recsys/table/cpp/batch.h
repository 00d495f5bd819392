// The distinct keys of one call: their rows, and where in the call each of them occurs.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "hashing.h"
#include "key_map.h"

namespace recsys::table {

// Belongs to the writer. Built once and refilled, so that a small batch allocates nothing.
class Batch {
 public:
  // Keys with a row come first, then those without; each part in order of first occurrence. `source`
  // says for each occurrence which gradient it brings; null: its own.
  enum class Order : std::uint8_t { kSorted, kCountsOnly };  // whether `sources` will be asked for
  void collect(KeyMap& map, Keys keys, const std::uint32_t* source, Order order = Order::kSorted) {
    slot_of_.resize(keys.size());
    keys_.resize(keys.size() + 1);
    rows_.resize(keys.size() + 1);
    missing_.clear();
    std::uint32_t n = 0;
    map.find(
        keys,
        [&](std::size_t, const Probe& found) {
          for (std::size_t i = 0; i < found.n; ++i)
            if (found.row[i] != kNoRow) map.prefetch(found.row[i]);
        },
        [&](std::size_t begin, const Probe& found) {
          for (std::size_t i = 0; i < found.n; ++i) {
            const auto at = static_cast<std::uint32_t>(begin + i);
            const std::uint32_t row = found.row[i];
            if (row == kNoRow) {
              missing_.push_back(at);
              continue;
            }
            // The row remembers its slot; whether that is of this batch, the slot itself says. Whether a key
            // was met before is a coin toss, so the next slot is written in any case and kept or not.
            std::uint32_t& remembered = map.meta(row).batch_slot;
            const std::uint32_t likely = remembered < n ? remembered : n;
            rows_[n] = row;
            keys_[n] = keys[at];
            const std::uint32_t slot = rows_[likely] == row ? likely : n;
            remembered = slot;
            slot_of_[at] = slot;
            n += slot == n;
          }
        });
    keys_.resize(n);
    rows_.resize(n);
    n_found_ = keys_.size();
    collect_missing(keys);
    count_occurrences();
    if (order == Order::kSorted) sort_occurrences(source);
  }

  std::size_t size() const noexcept { return keys_.size(); }
  std::size_t first_missing() const noexcept { return n_found_; }
  std::uint64_t key(std::size_t slot) const noexcept { return keys_[slot]; }
  std::uint32_t row(std::size_t slot) const noexcept { return rows_[slot]; }
  std::uint32_t slot_of(std::size_t occurrence) const noexcept { return slot_of_[occurrence]; }
  void set_row(KeyMap& map, std::size_t slot, std::uint32_t row) noexcept {
    rows_[slot] = row;
    map.meta(row).batch_slot = static_cast<std::uint32_t>(slot);
  }
  bool holds(const KeyMap& map, std::uint32_t row) const noexcept {
    const std::uint32_t slot = map.meta(row).batch_slot;
    return slot < rows_.size() && rows_[slot] == row;
  }

  std::uint32_t occurrences(std::size_t slot) const noexcept { return counts_[slot]; }
  // The sources of a slot's occurrences, in order.
  std::span<const std::uint32_t> sources(std::size_t slot) const noexcept {
    return {order_.data() + ends_[slot] - counts_[slot], counts_[slot]};
  }

 private:
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFFu;

  void collect_missing(Keys keys) {
    if (missing_.empty()) return;
    heads_.assign(std::bit_ceil(2 * missing_.size()), kEmpty);
    const std::size_t mask = heads_.size() - 1;
    for (const std::uint32_t at : missing_) {
      std::size_t head = mix64(keys[at]) & mask;
      while (heads_[head] != kEmpty && keys_[heads_[head]] != keys[at]) head = (head + 1) & mask;
      if (heads_[head] == kEmpty) {
        heads_[head] = static_cast<std::uint32_t>(keys_.size());
        keys_.push_back(keys[at]);
        rows_.push_back(kNoRow);
      }
      slot_of_[at] = heads_[head];
    }
  }

  void count_occurrences() {
    counts_.assign(keys_.size(), 0);
    for (const std::uint32_t slot : slot_of_) ++counts_[slot];
  }

  void sort_occurrences(const std::uint32_t* source) {
    // Filled from each slot's begin, which ends up as its end.
    ends_.resize(keys_.size());
    std::uint32_t begin = 0;
    for (std::size_t slot = 0; slot < keys_.size(); ++slot) {
      ends_[slot] = begin;
      begin += counts_[slot];
    }
    order_.resize(slot_of_.size());
    for (std::uint32_t at = 0; at < slot_of_.size(); ++at)
      order_[ends_[slot_of_[at]]++] = source == nullptr ? at : source[at];
  }

  std::size_t n_found_ = 0;
  std::vector<std::uint32_t> slot_of_;
  std::vector<std::uint64_t> keys_;
  std::vector<std::uint32_t> rows_;
  std::vector<std::uint32_t> missing_;
  std::vector<std::uint32_t> heads_;
  std::vector<std::uint32_t> counts_;
  std::vector<std::uint32_t> ends_;
  std::vector<std::uint32_t> order_;
};

}  // namespace recsys::table
