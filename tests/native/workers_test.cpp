#include "workers.h"

#include <array>
#include <atomic>
#include <barrier>
#include <thread>
#include <vector>

#include "check.h"

using namespace recsys::table;

namespace {

void every_part_runs_exactly_once() {
  for (const std::size_t threads : {1, 2, 3}) {
    Workers workers(threads);
    CHECK(workers.parts() == threads);
    for (int round = 0; round < 300; ++round)
      for (const std::size_t parts : {0, 1, 2, 3, 17}) {
        std::array<std::atomic<int>, 17> runs{};
        workers.run(parts, [&](std::size_t part) { runs.at(part).fetch_add(1); });
        for (std::size_t part = 0; part < runs.size(); ++part) CHECK(runs[part] == (part < parts));
      }
  }
}

// What the parts wrote before is there when run returns: the sums are plain numbers.
void calls_that_come_together_all_get_done() {
  Workers workers(3);
  std::vector<std::thread> callers;
  for (long c = 1; c <= 3; ++c)
    callers.emplace_back([&workers, c] {
      for (long round = 0; round < 300; ++round) {
        std::array<long, 5> result{};
        workers.run(result.size(), [&](std::size_t part) { result[part] = c * round; });
        for (const long number : result) CHECK(number == c * round);
      }
    });
  for (auto& caller : callers) caller.join();
}

// Ends only if both parts are inside at once.
void parts_run_side_by_side() {
  Workers workers(2);
  std::barrier<> both(2);
  for (int round = 0; round < 50; ++round)
    workers.run(2, [&](std::size_t) { both.arrive_and_wait(); });
}

void workers_that_never_ran_or_sleep_stop_at_once() {
  for (int round = 0; round < 50; ++round) {
    const Workers idle(4);
    Workers used(2);
    used.run(2, [](std::size_t) {});
  }
}

}  // namespace

int main() {
  every_part_runs_exactly_once();
  calls_that_come_together_all_get_done();
  parts_run_side_by_side();
  workers_that_never_ran_or_sleep_stop_at_once();
}
