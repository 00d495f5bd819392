// What memory allows: random gathers that touch the cache lines an operation must touch, and do no more.
//
// Built for the machine it runs on and called through ctypes by limit.py.

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = std::size_t{1} << 21;

}  // namespace

extern "C" {

// One batch. Null `index` or `rows`: that array is left alone.
struct Job {
  const std::byte* index;      // cache lines
  const std::uint32_t* lines;  // of each key, `lines_per_key` of them
  std::size_t lines_per_key;
  const std::byte* rows;
  const std::uint32_t* places;  // of each key's row
  std::size_t lines_per_row;
  std::byte* out;  // the rows, copied in the order of the keys
  std::size_t n;  // keys
  std::uint32_t distance;  // keys between a prefetch and its use; 0: no prefetch
  std::uint32_t into_l2;   // whether the prefetch goes to the second-level cache only
};
}

namespace {

inline std::uint64_t first_word(const std::byte* line) {
  std::uint64_t word;
  std::memcpy(&word, line, sizeof word);
  return word;
}

// kLines and kRow are lines of the index and of the row for each key. kLocality is 3 for every cache, 2 for
// the second-level cache only, as __builtin_prefetch has it.
template <std::size_t kLines, std::size_t kRow, int kLocality>
std::uint64_t gather(const Job& given, std::size_t begin, std::size_t end) {
  const Job job = given;  // a copy, which the writes to `out` cannot change
  std::uint64_t sum = 0;
  const auto use = [&](std::size_t i) {
    for (std::size_t l = 0; l < kLines; ++l) sum += first_word(job.index + job.lines[i * kLines + l] * kLine);
    if constexpr (kRow != 0)
      std::memcpy(job.out + i * kRow * kLine, job.rows + job.places[i] * kRow * kLine, kRow * kLine);
  };
  std::size_t i = begin;
  if (job.distance != 0) {
    const std::size_t distance = job.distance;
    // Always inlined: GCC takes a function that only prefetches for one without effect, and drops its calls.
    const auto send_for = [&](std::size_t ahead) __attribute__((always_inline)) {
      for (std::size_t l = 0; l < kLines; ++l)
        __builtin_prefetch(job.index + job.lines[ahead * kLines + l] * kLine, 0, kLocality);
      for (std::size_t l = 0; l < kRow; ++l)
        __builtin_prefetch(job.rows + (job.places[ahead] * kRow + l) * kLine, 0, kLocality);
    };
    for (std::size_t ahead = begin; ahead < end && ahead < begin + distance; ++ahead) send_for(ahead);
    for (; i + distance < end; ++i) {
      send_for(i + distance);
      use(i);
    }
  }
  for (; i < end; ++i) use(i);
  return sum;
}

template <std::size_t kLines, std::size_t kRow>
std::uint64_t with_hint(const Job& job, std::size_t begin, std::size_t end) {
  if (job.into_l2 != 0) return gather<kLines, kRow, 2>(job, begin, end);
  return gather<kLines, kRow, 3>(job, begin, end);
}

template <std::size_t kLines>
std::uint64_t with_rows(const Job& job, std::size_t begin, std::size_t end) {
  switch (job.rows == nullptr ? 0 : job.lines_per_row) {
    case 0:
      return with_hint<kLines, 0>(job, begin, end);
    case 1:
      return with_hint<kLines, 1>(job, begin, end);
    case 2:
      return with_hint<kLines, 2>(job, begin, end);
    case 4:
      return with_hint<kLines, 4>(job, begin, end);
    default:
      return with_hint<kLines, 8>(job, begin, end);
  }
}

std::uint64_t part(const Job& job, std::size_t begin, std::size_t end) {
  switch (job.index == nullptr ? 0 : job.lines_per_key) {
    case 0:
      return with_rows<0>(job, begin, end);
    case 1:
      return with_rows<1>(job, begin, end);
    default:
      return with_rows<2>(job, begin, end);
  }
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// A second thread for the second half of a batch. It spins between calls, and sleeps when they stop.
class Second {
 public:
  Second() : thread_([this] { serve(); }) {}
  ~Second() {
    job_.store(nullptr, std::memory_order_relaxed);
    wake();
    thread_.join();
  }

  std::uint64_t run(const Job& job) {
    const std::size_t half = job.n / 2;
    job_.store(&job, std::memory_order_relaxed);
    wake();
    const std::uint64_t sum = part(job, 0, half);
    while (done_.load(std::memory_order_acquire) != asked_.load(std::memory_order_relaxed)) pause();
    return sum + sum_;
  }

 private:
  static constexpr int kSpins = 1 << 16;

  void wake() {
    asked_.fetch_add(1, std::memory_order_release);
    asked_.notify_one();
  }

  void serve() {
    for (std::uint32_t seen = 0;; ++seen) {
      for (int spin = 0; spin < kSpins && asked_.load(std::memory_order_acquire) == seen; ++spin) pause();
      asked_.wait(seen, std::memory_order_acquire);
      const Job* job = job_.load(std::memory_order_relaxed);
      if (job == nullptr) return;
      sum_ = part(*job, job->n / 2, job->n);
      done_.store(seen + 1, std::memory_order_release);
    }
  }

  std::atomic<const Job*> job_{nullptr};
  std::atomic<std::uint32_t> asked_{0};
  std::atomic<std::uint32_t> done_{0};
  std::uint64_t sum_ = 0;
  std::thread thread_;
};

}  // namespace

extern "C" {

// Written memory on huge pages; null when the system has no more. `bytes` is a multiple of 2 MB.
void* limit_map(std::size_t bytes) {
  // One page more than asked for, so that the first whole huge page can be the beginning.
  void* mapped = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto from = reinterpret_cast<std::uintptr_t>(mapped);
  const std::uintptr_t begin = (from + kHugePage - 1) / kHugePage * kHugePage;
  if (begin > from) munmap(mapped, begin - from);
  if (from + kHugePage > begin) munmap(reinterpret_cast<void*>(begin + bytes), from + kHugePage - begin);
  void* usable = reinterpret_cast<void*>(begin);
  madvise(usable, bytes, MADV_HUGEPAGE);
  std::memset(usable, 1, bytes);
  return usable;
}

void limit_unmap(void* at, std::size_t bytes) { munmap(at, bytes); }

std::uint64_t limit_run(const Job* job) { return part(*job, 0, job->n); }

// By two threads, half each. One caller at a time.
std::uint64_t limit_run_by_two(const Job* job) {
  static Second second;
  return second.run(*job);
}
}
