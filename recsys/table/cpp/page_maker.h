// A thread that has pages made ready before they are needed: the first touch of a huge page costs the one who
// touches it milliseconds.
#pragma once

#include <sys/mman.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

namespace recsys::table {

// Any thread may ask. What is not made in time is made at its first touch, as without this.
class PageMaker {
 public:
  // One for the process. It never ends: a table may outlive every static object.
  static PageMaker& of_process() {
    static PageMaker* const maker = new PageMaker;
    return *maker;
  }

  void ask(std::byte* begin, std::size_t bytes) {
#ifdef MADV_POPULATE_WRITE
    {
      const std::lock_guard lock(mutex_);
      if (!is_started_) std::thread([this] { serve(); }).detach();
      is_started_ = true;
      asked_.emplace_back(begin, bytes);
    }
    wake_.notify_one();
#else
    (void)begin, (void)bytes;
#endif
  }

 private:
  PageMaker() = default;

  void serve() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return !asked_.empty(); });
      const auto [begin, bytes] = asked_.front();
      asked_.pop_front();
      lock.unlock();
      // Where the table is gone by now this fails, and nothing is lost.
#ifdef MADV_POPULATE_WRITE
      madvise(begin, bytes, MADV_POPULATE_WRITE);
#endif
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<std::byte*, std::size_t>> asked_;
  bool is_started_ = false;
};

}  // namespace recsys::table
