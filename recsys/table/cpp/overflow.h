// The few keys that find no place in the index because their hashes clash.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "bucket.h"

namespace recsys::table {

// One writer beside any number of readers; they share a lock, but only once there is such a key.
class Overflow {
 public:
  static constexpr std::size_t kBytesPerKey = 64;

  bool is_empty() const noexcept { return size_.load(std::memory_order_acquire) == 0; }
  std::size_t bytes() const noexcept { return size_.load(std::memory_order_acquire) * kBytesPerKey; }

  // The row of a key; kNoRow where there is none.
  std::uint32_t find(std::uint64_t key) const noexcept {
    if (is_empty()) return kNoRow;
    const std::lock_guard alone(lock_);
    const auto at = rows_.find(key);
    return at == rows_.end() ? kNoRow : at->second;
  }

  void set(std::uint64_t key, std::uint32_t row) {
    const std::lock_guard alone(lock_);
    rows_[key] = row;
    size_.store(rows_.size(), std::memory_order_release);
  }

  void erase(std::uint64_t key) {
    const std::lock_guard alone(lock_);
    rows_.erase(key);
    size_.store(rows_.size(), std::memory_order_release);
  }

  void clear() {
    const std::lock_guard alone(lock_);
    rows_.clear();
    size_.store(0, std::memory_order_release);
  }

 private:
  std::unordered_map<std::uint64_t, std::uint32_t> rows_;
  std::atomic<std::size_t> size_{0};
  mutable std::mutex lock_;
};

}  // namespace recsys::table
