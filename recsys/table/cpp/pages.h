// Memory that grows in place: an address range as large as the machine's memory is reserved once and
// made usable as it is needed, so that nothing ever moves and growth copies nothing.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include "page_maker.h"

namespace recsys::table {

// Not synchronised. Fresh bytes are zero.
class Pages {
 public:
  static constexpr std::size_t kStep = std::size_t{1} << 21;  // of growth; also one huge page
  static constexpr std::size_t kOpenStep = 32 * kStep;

  Pages() = default;
  Pages(Pages&& other) noexcept { swap(other); }
  Pages& operator=(Pages&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Pages() {
    if (reserved_ != nullptr) munmap(reserved_, reserved_bytes_);
  }

  std::byte* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return ready_; }

  // Makes at least this many bytes usable. Throws std::bad_alloc when the system has no more.
  void ensure(std::size_t bytes) {
    if (bytes <= bytes_) return;
    if (reserved_ == nullptr) reserve();
    const std::size_t wanted = (bytes + kStep - 1) / kStep * kStep;
    if (wanted > room_) throw std::bad_alloc();
    // A small table stays on small pages: its first step is mostly empty.
    const bool is_small = wanted == kStep || wanted + kStep > room_;
    const std::size_t ready = is_small ? wanted : wanted + kStep;
    open(ready);
    bytes_ = wanted;
    ready_ = ready;
    if (!is_small) PageMaker::of_process().ask(data_ + wanted, kStep);
  }

  // Gives the whole pages inside [begin, end) back to the system; they read as zeros afterwards.
  void release(std::size_t begin, std::size_t end) noexcept {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
    if (begin < end) madvise(data_ + begin, end - begin, MADV_DONTNEED);
  }

 private:
  void open(std::size_t wanted) {
    if (wanted <= open_) return;
    // Seldom, since it waits for pages that are being made.
    if (wanted > kStep) wanted = std::min(room_, (wanted + kOpenStep - 1) / kOpenStep * kOpenStep);
    if (mprotect(data_ + open_, wanted - open_, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    const std::size_t from = open_ < kStep ? kStep : open_;
    if (from < wanted) madvise(data_ + from, wanted - from, MADV_HUGEPAGE);
#endif
    open_ = wanted;
  }

  void reserve() {
    std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    bytes = (bytes + kStep - 1) / kStep * kStep;
    // Where the address space is limited, less of it must do.
    for (; bytes >= kStep; bytes = bytes / 2 / kStep * kStep) {
      void* at = mmap(nullptr, bytes + kStep, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (at == MAP_FAILED) continue;
      reserved_ = static_cast<std::byte*>(at);
      reserved_bytes_ = bytes + kStep;
      room_ = bytes;
      data_ = reserved_ + (kStep - reinterpret_cast<std::size_t>(at) % kStep) % kStep;
      return;
    }
    throw std::bad_alloc();
  }

  void swap(Pages& other) noexcept {
    std::swap(reserved_, other.reserved_);
    std::swap(reserved_bytes_, other.reserved_bytes_);
    std::swap(room_, other.room_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(ready_, other.ready_);
    std::swap(open_, other.open_);
  }

  std::byte* reserved_ = nullptr;
  std::size_t reserved_bytes_ = 0;
  std::size_t room_ = 0;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t ready_ = 0;  // and the step after bytes_, whose page is being made
  std::size_t open_ = 0;   // of the reserved bytes, how many may be touched
};

}  // namespace recsys::table
