#include "fair_shared_mutex.h"

#include <atomic>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "check.h"

using namespace recsys::table;

namespace {

// Ends only when the writer got in 200 times although readers never stop coming.
void a_writer_gets_in_while_readers_keep_coming() {
  FairSharedMutex mutex;
  std::atomic<bool> done = false;
  long first = 0, second = 0;
  std::vector<std::thread> readers;
  for (int r = 0; r < 3; ++r)
    readers.emplace_back([&] {
      while (!done) {
        const std::shared_lock reading(mutex);
        CHECK(first == second);
      }
    });
  for (int i = 0; i < 200; ++i) {
    const std::lock_guard alone(mutex);
    ++first;
    ++second;
  }
  done = true;
  for (auto& reader : readers) reader.join();
  CHECK(first == 200);
}

}  // namespace

int main() { a_writer_gets_in_while_readers_keep_coming(); }
