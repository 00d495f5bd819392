// The embedding table: index, rows, learning rule and locks put together.
//
// Two locks. `writing_` lets one writer in at a time and guards what only writers use (sums, the
// touched list). `rows_lock_` guards index and rows: readers share it for a few hundred keys at a
// time, the writer takes it alone for a few rows, and sums gradients before taking it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <future>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <utility>
#include <vector>

#include "fair_shared_mutex.h"
#include "gradient_sums.h"
#include "index.h"
#include "rows.h"
#include "slices.h"

namespace recsys::table {

using Keys = std::span<const std::uint64_t>;

struct Memory {
  std::size_t live;
  std::size_t reserved;
  std::size_t index;
};

// Any number of readers beside one writer; more writers wait for each other. A reader sees whole
// rows. Callers guarantee that arrays are as long as keys and dims say.
class Table {
 public:
  Table(std::vector<Slice> slices, bool missing_reads_initial, std::size_t threads)
      : layout_(std::move(slices)),
        missing_reads_initial_(missing_reads_initial),
        rows_(layout_.dim() + layout_.state_dim()),
        sums_(threads) {}

  void lookup(Keys keys, float* weights) const {
    const std::size_t dim = layout_.dim();
    split_among_threads(keys.size(), [&](std::size_t begin, std::size_t end) {
      const Keys part = keys.subspan(begin, end - begin);
      read_in_groups(part, dim, [&](std::size_t i, const Slot* slot) {
        float* out = weights + (begin + i) * dim;
        if (slot != nullptr) {
          std::memcpy(out, rows_.values(slot->row), dim * sizeof(float));
        } else if (missing_reads_initial_) {
          layout_.initial_weights(part[i], out);
        } else {
          std::fill_n(out, dim, 0.0f);
        }
      });
    });
  }

  void contains(Keys keys, bool* mask) const {
    read_in_groups(keys, 0, [&](std::size_t i, const Slot* slot) { mask[i] = slot != nullptr; });
  }

  // Copies whole rows. Returns the first missing key, in which case the arrays are half filled.
  std::optional<std::uint64_t> export_rows(Keys keys, float* weights, float* state,
                                           std::uint32_t* last_seen_s) const {
    std::optional<std::uint64_t> missing;
    const std::size_t dim = layout_.dim(), state_dim = layout_.state_dim();
    read_in_groups(keys, dim + state_dim, [&](std::size_t i, const Slot* slot) {
      if (slot == nullptr) {
        if (!missing) missing = keys[i];
        return;
      }
      const float* row = rows_.values(slot->row);
      std::copy_n(row, dim, weights + i * dim);
      std::copy_n(row + dim, state_dim, state + i * state_dim);
      last_seen_s[i] = slot->last_seen_s;
    });
    return missing;
  }

  // One step of every distinct key along the sum of its gradients. Returns a key whose sum is not
  // finite, in which case nothing has changed.
  std::optional<std::uint64_t> learn(Keys keys, const float* gradients, std::uint32_t event_time_s) {
    const std::lock_guard writing(writing_);
    const std::size_t parts = keys.size() < kManyKeys ? 1 : sums_.size();
    in_parallel(parts, [&](std::size_t part) {
      sums_[part].collect(keys, gradients, layout_.dim(), part, parts);
    });
    for (std::size_t part = 0; part < parts; ++part)
      if (const auto key = sums_[part].key_not_finite(layout_.dim())) return key;
    for (std::size_t part = 0; part < parts; ++part) apply(sums_[part], event_time_s);
    return std::nullopt;
  }

  void assign(Keys keys, const float* weights) {
    write_in_chunks(keys.size(), [&](std::size_t i) {
      const Slot& slot = slot_for(keys[i]);
      std::copy_n(weights + i * layout_.dim(), layout_.dim(), rows_.values(slot.row));
      mark_touched(keys[i], slot.row);
    });
  }

  void import_rows(Keys keys, const float* weights, const float* state,
                   const std::uint32_t* last_seen_s) {
    const std::size_t dim = layout_.dim(), state_dim = layout_.state_dim();
    write_in_chunks(keys.size(), [&](std::size_t i) {
      Slot& slot = slot_for(keys[i]);
      float* row = rows_.values(slot.row);
      std::copy_n(weights + i * dim, dim, row);
      std::copy_n(state + i * state_dim, state_dim, row + dim);
      slot.last_seen_s = last_seen_s[i];
    });
  }

  std::size_t erase(Keys keys) {
    std::size_t erased = 0;
    write_in_chunks(keys.size(), [&](std::size_t i) {
      const auto row = index_.erase(keys[i]);
      if (!row) return;
      mark_touched(keys[i], *row);
      rows_.release(*row);
      ++erased;
    });
    return erased;
  }

  // Keeps writers out while it copies; readers go on.
  std::vector<std::uint64_t> keys() const {
    std::vector<std::uint64_t> keys;
    {
      const std::lock_guard writing(writing_);
      keys.reserve(index_.size());
      index_.for_each([&](const Slot& slot) { keys.push_back(slot.key); });
    }
    std::sort(keys.begin(), keys.end());
    return keys;
  }

  std::vector<std::uint64_t> drain_touched() {
    std::vector<std::uint64_t> touched;
    {
      const std::lock_guard writing(writing_);
      touched.swap(touched_);
      ++drain_period_;
    }
    keep_distinct(touched);
    return touched;
  }

  std::size_t size() const {
    const std::shared_lock reading(rows_lock_);
    return index_.size();
  }

  Memory memory() const {
    const std::shared_lock reading(rows_lock_);
    return {index_.size() * rows_.bytes_per_row(), rows_.bytes_reserved(), index_.bytes()};
  }

  void clear() {
    const std::lock_guard writing(writing_);
    const std::lock_guard alone(rows_lock_);
    index_ = CuckooIndex();
    rows_ = RowStore(layout_.dim() + layout_.state_dim());
    touched_.clear();
  }

 private:
  static constexpr std::size_t kManyKeys = 16'384;  // below this, starting a thread costs more
  static constexpr std::size_t kKeysPerRead = 512;
  static constexpr std::size_t kKeysPerGroup = 64;  // whose cache lines are fetched side by side
  static constexpr std::size_t kRowsPerWrite = 128;

  template <typename Work>
  static void in_parallel(std::size_t parts, Work&& work) {
    std::vector<std::future<void>> others;
    for (std::size_t part = 1; part < parts; ++part)
      others.push_back(std::async(std::launch::async, [&work, part] { work(part); }));
    work(0);
    for (auto& other : others) other.get();
  }

  template <typename Work>
  void split_among_threads(std::size_t size, Work&& work) const {
    const std::size_t parts = size < kManyKeys ? 1 : sums_.size();
    in_parallel(parts, [&](std::size_t p) { work(size * p / parts, size * (p + 1) / parts); });
  }

  // Visits every key's slot, null where there is none, with the first `floats` of its row on the way.
  template <typename Visit>
  void read_in_groups(Keys keys, std::size_t floats, Visit&& visit) const {
    std::array<const Slot*, kKeysPerGroup> slots;
    for (std::size_t chunk = 0; chunk < keys.size(); chunk += kKeysPerRead) {
      const std::size_t chunk_end = std::min(keys.size(), chunk + kKeysPerRead);
      const std::shared_lock reading(rows_lock_);
      for (std::size_t begin = chunk; begin < chunk_end; begin += kKeysPerGroup) {
        const std::size_t n = std::min(kKeysPerGroup, chunk_end - begin);
        for (std::size_t i = 0; i < n; ++i) index_.prefetch(keys[begin + i]);
        for (std::size_t i = 0; i < n; ++i) {
          slots[i] = index_.find(keys[begin + i]);
          if (slots[i] != nullptr) prefetch(rows_.values(slots[i]->row), floats);
        }
        for (std::size_t i = 0; i < n; ++i) visit(begin + i, slots[i]);
      }
    }
  }

  template <typename Write>
  void write_in_chunks(std::size_t size, Write&& write) {
    const std::lock_guard writing(writing_);
    for (std::size_t begin = 0; begin < size; begin += kRowsPerWrite) {
      const std::lock_guard alone(rows_lock_);
      for (std::size_t i = begin; i < std::min(size, begin + kRowsPerWrite); ++i) write(i);
    }
  }

  void apply(const GradientSums& sums, std::uint32_t event_time_s) {
    const Keys keys = sums.keys();
    std::array<std::uint32_t, kRowsPerWrite> rows;
    for (std::size_t begin = 0; begin < keys.size(); begin += kRowsPerWrite) {
      const std::size_t n = std::min(kRowsPerWrite, keys.size() - begin);
      const std::lock_guard alone(rows_lock_);
      for (std::size_t i = 0; i < n; ++i) index_.prefetch(keys[begin + i]);
      for (std::size_t i = 0; i < n; ++i) {
        Slot& slot = slot_for(keys[begin + i]);
        slot.last_seen_s = std::max(slot.last_seen_s, event_time_s);
        rows[i] = slot.row;
        prefetch(rows_.values(slot.row), layout_.dim() + layout_.state_dim());
      }
      for (std::size_t i = 0; i < n; ++i) {
        float* row = rows_.values(rows[i]);
        layout_.update(row, row + layout_.dim(), sums.sums() + (begin + i) * layout_.dim());
        mark_touched(keys[begin + i], rows[i]);
      }
    }
  }

  // The key's slot; a missing key gets a row at its initial values first.
  Slot& slot_for(std::uint64_t key) {
    if (Slot* slot = index_.find(key)) return *slot;
    const std::uint32_t row = rows_.acquire();
    layout_.initial_weights(key, rows_.values(row));
    layout_.initial_state(rows_.values(row) + layout_.dim());
    rows_.touched_in(row) = 0;
    try {
      return index_.insert(key, row, 0);
    } catch (...) {
      rows_.release(row);
      throw;
    }
  }

  void mark_touched(std::uint64_t key, std::uint32_t row) {
    std::uint32_t& touched_in = rows_.touched_in(row);
    if (touched_in == drain_period_) return;
    touched_in = drain_period_;
    // A key that is erased and learned again is listed twice; without this the list could outgrow
    // the number of distinct keys.
    if (touched_.size() == touched_.capacity()) {
      keep_distinct(touched_);
      touched_.reserve(std::max<std::size_t>(1024, 2 * touched_.size()));
    }
    touched_.push_back(key);
  }

  static void keep_distinct(std::vector<std::uint64_t>& keys) {
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  }

  static void prefetch(const float* row, std::size_t floats) noexcept {
    const char* bytes = reinterpret_cast<const char*>(row);
    for (std::size_t at = 0; at < floats * sizeof(float); at += 64) __builtin_prefetch(bytes + at);
  }

  const Layout layout_;
  const bool missing_reads_initial_;
  mutable std::mutex writing_;
  mutable FairSharedMutex rows_lock_;
  CuckooIndex index_;
  RowStore rows_;
  std::vector<GradientSums> sums_;  // one for each thread
  std::vector<std::uint64_t> touched_;
  std::uint32_t drain_period_ = 1;
};

}  // namespace recsys::table
