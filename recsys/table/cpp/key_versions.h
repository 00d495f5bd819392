// How a reader knows that what it read of a key was whole: a version for each stripe of keys, odd while
// the one writer changes where such a key lives or what its row holds.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "racy_reads.h"

namespace recsys::table {

// One thread may write a stripe at a time; any number may read. A stripe is chosen by the key's hash.
class KeyVersions {
 public:
  static constexpr std::size_t kStripes = 4096;

  static constexpr std::size_t stripe(std::uint64_t hash) noexcept {
    return (hash >> 20) % kStripes;
  }

  // Brackets every change of a key's slot or row.
  class Change {
   public:
    Change(KeyVersions& versions, std::uint64_t hash) noexcept
        : version_(versions.versions_[stripe(hash)]) {
      version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_release);
    }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;
    ~Change() {
      version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }

   private:
    std::atomic<std::uint32_t>& version_;
  };

  // Repeats `read` until no change of the key's stripe fell into it.
  template <typename Read>
  void read_whole(std::uint64_t hash, Read&& read) const noexcept {
    const std::atomic<std::uint32_t>& version = versions_[stripe(hash)];
    for (std::uint32_t spins = 0;;) {
      const std::uint32_t before = version.load(std::memory_order_acquire);
      if (before % 2 == 0) {
        {
          const RacyReads racy;
          read();
        }
        std::atomic_thread_fence(std::memory_order_acquire);
        if (version.load(std::memory_order_relaxed) == before) return;
      }
      // The writer may have lost its core in the middle of a change.
      if (++spins % 256 == 0) std::this_thread::yield();
    }
  }

 private:
  std::array<std::atomic<std::uint32_t>, kStripes> versions_{};
};

}  // namespace recsys::table
