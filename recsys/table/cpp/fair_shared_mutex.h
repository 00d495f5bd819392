// A shared mutex on which neither side can keep the other out.
#pragma once

#include <mutex>
#include <shared_mutex>

namespace recsys::table {

// Meets the standard's Lockable and SharedLockable as far as lock guards need them.
// glibc's shared mutex lets readers overtake a waiting writer for as long as they keep coming. Here
// all pass one turnstile, which a waiting writer holds: readers that come later queue behind it.
class FairSharedMutex {
 public:
  void lock() {
    const std::lock_guard turn(turnstile_);
    shared_.lock();
  }
  void unlock() { shared_.unlock(); }

  void lock_shared() {
    const std::lock_guard turn(turnstile_);
    shared_.lock_shared();
  }
  void unlock_shared() { shared_.unlock_shared(); }

 private:
  std::mutex turnstile_;
  std::shared_mutex shared_;
};

}  // namespace recsys::table
