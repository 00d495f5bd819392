// Threads that stay between calls: starting one for every batch would cost more than the batch.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace recsys::table {

// Any thread may call run; while one call has the workers, others do their parts alone.
class Workers {
 public:
  explicit Workers(std::size_t parts) : parts_(parts) {}
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::size_t parts() const noexcept { return parts_; }

  // work(0) to work(parts - 1), side by side where that is possible. `work` must not throw.
  void run(std::size_t parts, const std::function<void(std::size_t)>& work) {
    const std::unique_lock mine(calls_, std::try_to_lock);
    if (parts <= 1 || parts_ <= 1 || !mine.owns_lock()) {
      for (std::size_t part = 0; part < parts; ++part) work(part);
      return;
    }
    start_threads();
    work_ = &work;
    parts_now_ = parts;
    next_part_.store(1, std::memory_order_relaxed);
    busy_.store(threads_.size(), std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work(0);
    take_parts();
    for (int spin = 1; busy_.load(std::memory_order_acquire) != 0; ++spin)
      spin % kSpins == 0 ? std::this_thread::yield() : pause();
  }

 private:
  static constexpr int kSpins = 4000;  // some tens of microseconds: the gap between two calls of one step

  static void pause() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  void start_threads() {
    while (threads_.size() + 1 < parts_) threads_.emplace_back([this] { serve(); });
  }

  void take_parts() {
    for (;;) {
      const std::size_t part = next_part_.fetch_add(1, std::memory_order_relaxed);
      if (part >= parts_now_) return;
      (*work_)(part);
    }
  }

  void serve() {
    std::uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin) pause();
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        if (stopping_) return;
        seen = generation_.load(std::memory_order_acquire);
      }
      take_parts();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  const std::size_t parts_;
  std::mutex calls_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<std::size_t> next_part_{0};
  std::atomic<std::size_t> busy_{0};
  const std::function<void(std::size_t)>* work_ = nullptr;
  std::size_t parts_now_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace recsys::table
